//! Both ends of one recorded connection, a frame at a time: a client that does what the recorded
//! one did, and the server that said what it said. Neither goes on before the other has heard.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use electric_satellite::{
    client::{Client, Resume, StartError, Subscription},
    session::{AuthenticatedServer, End, SendError},
    transport::{Connection, Event, Sender},
    wire::{
        Message, Request,
        proto::{SatInStartReplicationReq, SatOpLogAck, SatRpcResponse},
    },
};
use tokio::task::JoinHandle;

use crate::{
    recorded::{Frame, Side},
    recorded_server::RecordedServer,
};

/// Nothing takes so long.
const WITHIN: Duration = Duration::from_secs(3600);

pub(crate) struct Lockstep<'a> {
    client: &'a Client,
    server: RecordedServer,
    connection: Option<Connection<AuthenticatedServer>>,
    /// Away while a start is asked for.
    resume: Option<Resume>,
    /// The client's calls by the recorded numbers, with their own.
    calls: HashMap<u32, (u32, Calling)>,
    /// How the server's calls are answered, by method and number.
    answers: HashMap<(String, u32), Box<dyn FnOnce() + Send>>,
    /// By transaction.
    acknowledged: BTreeSet<u64>,
    /// What the client does not send.
    pub(crate) refused: Vec<SendError>,
    is_over: bool,
}

/// A call of the client that waits for its answer.
enum Calling {
    Authenticate,
    Start(JoinHandle<(Resume, Result<Option<u32>, StartError>)>),
    Other(JoinHandle<Result<(), String>>),
}

impl<'a> Lockstep<'a> {
    pub(crate) fn new(client: &'a Client, server: RecordedServer, resume: Resume) -> Lockstep<'a> {
        Lockstep {
            client,
            server,
            connection: None,
            resume: Some(resume),
            calls: HashMap::new(),
            answers: HashMap::new(),
            acknowledged: BTreeSet::new(),
            refused: vec![],
            is_over: false,
        }
    }

    pub(crate) async fn follow(&mut self, frame: &Frame) -> Result<(), String> {
        // What either sends on after the end goes nowhere.
        if self.is_over {
            return Ok(());
        }
        match (frame.from, frame.message()) {
            (Side::Client, Some(message)) => self.say(message).await,
            (Side::Server, Some(message)) => self.hear(message).await,
            (Side::Client, None) => {
                self.is_over = true;
                self.client.disconnect();
                match self.server.hears().await {
                    None => Ok(()),
                    Some(message) => Err(format!("{} instead of a close", message.name())),
                }
            }
            (Side::Server, None) => {
                self.is_over = true;
                self.server.closes(frame).await;
                Ok(())
            }
        }
    }

    /// How the connection ended, and what the client keeps. A server that has not closed breaks
    /// it off.
    pub(crate) async fn end(self) -> Result<(End, Resume), String> {
        drop(self.server);
        let mut connection = self.connection.expect("the client was let in");
        if let Some(event) = connection.recv().await {
            return Err(format!("{event:?} after the end"));
        }
        for (_, calling) in self.calls.into_values() {
            if let Calling::Other(call) = calling {
                call.abort();
            }
        }
        let resume = self.resume.ok_or("a start is not answered")?;
        Ok((connection.closed().await.clone(), resume))
    }

    fn connection(&mut self) -> &mut Connection<AuthenticatedServer> {
        self.connection.as_mut().expect("the client was let in")
    }

    // ---- The client ----

    async fn say(&mut self, message: Message) -> Result<(), String> {
        match message.clone() {
            Message::Request(envelope) => {
                let recorded = envelope.request_id;
                let request = Request::decode(envelope).expect("a call");
                let calling = match request.clone() {
                    Request::Authenticate(_) => Calling::Authenticate,
                    Request::StartReplication(_) => self.start(),
                    other => self.call(other),
                };
                let (number, heard) = self.hears_call().await?;
                self.calls.insert(recorded, (number, calling));
                is_the_same_call(&heard, &request)
            }
            Message::Response(SatRpcResponse { method, request_id, .. }) => {
                let answer = self.answers.remove(&(method, request_id));
                answer.expect("the server has called")();
                self.hears(&message).await
            }
            // It acknowledges by itself, and not later than the recorded client.
            Message::OpLogAck(SatOpLogAck { transaction_id, .. }) => {
                match transaction_id == 0 || self.acknowledged.contains(&transaction_id) {
                    true => Ok(()),
                    false => Err(format!("{transaction_id} is not acknowledged")),
                }
            }
            changes => match self.connection().send(changes).await {
                Ok(()) => self.hears(&message).await,
                Err(error) => {
                    self.refused.push(error);
                    Ok(())
                }
            },
        }
    }

    fn start(&mut self) -> Calling {
        let sender = self.connection().sender().clone();
        let mut resume = self.resume.take().expect("one start at a time");
        Calling::Start(tokio::spawn(async move {
            let started = sender.start_replication(&mut resume, WITHIN).await;
            (resume, started)
        }))
    }

    fn call(&mut self, request: Request) -> Calling {
        let sender = self.connection().sender().clone();
        Calling::Other(tokio::spawn(async move { call(sender, request).await }))
    }

    // ---- The server ----

    async fn hears(&mut self, expected: &Message) -> Result<(), String> {
        match self.server.hears().await {
            Some(heard) if heard == *expected => Ok(()),
            Some(heard) => Err(format!("{} instead of {}", heard.name(), expected.name())),
            None => Err(format!("nothing instead of {}", expected.name())),
        }
    }

    async fn hears_call(&mut self) -> Result<(u32, Request), String> {
        match self.server.hears().await {
            Some(Message::Request(envelope)) => {
                Ok((envelope.request_id, Request::decode(envelope).expect("a call")))
            }
            other => Err(format!("{:?} instead of a call", other.map(|message| message.name()))),
        }
    }

    async fn hear(&mut self, message: Message) -> Result<(), String> {
        match message {
            Message::Response(response) => self.hear_answer(response).await,
            Message::Request(ref envelope) => {
                let key = (envelope.method.clone(), envelope.request_id);
                self.server.says(&message).await;
                let answer: Box<dyn FnOnce() + Send> = match self.connection().recv().await {
                    Some(Event::StartReplication(_, responder)) => {
                        Box::new(|| responder.reply(Default::default()))
                    }
                    Some(Event::StopReplication(_, responder)) => {
                        Box::new(|| responder.reply(Default::default()))
                    }
                    other => return Err(format!("{other:?} instead of a call")),
                };
                self.answers.insert(key, answer);
                Ok(())
            }
            message => {
                self.server.says(&message).await;
                match self.connection().recv().await {
                    Some(Event::Message(heard)) if heard == message => self.store(&message).await,
                    Some(other) => Err(format!("{other:?} instead of {}", message.name())),
                    None => Err(format!("at {}: {:?}", message.name(), self.connection().end())),
                }
            }
        }
    }

    async fn hear_answer(&mut self, mut response: SatRpcResponse) -> Result<(), String> {
        let call = self.calls.remove(&response.request_id);
        let (number, calling) = call.expect("the client has called");
        response.request_id = number;
        self.server.says(&response.into()).await;
        match calling {
            Calling::Authenticate => {
                let connection = self.client.connection().await;
                self.connection = Some(connection.map_err(|error| error.to_string())?);
            }
            Calling::Start(task) => {
                let (resume, started) = task.await.expect("no panic");
                self.resume = Some(resume);
                // The session has ended itself.
                self.is_over = matches!(started, Err(StartError::Refused { .. }));
                if let (Err(error), false) = (started, self.is_over) {
                    return Err(error.to_string());
                }
            }
            Calling::Other(task) => task.await.expect("no panic")?,
        }
        Ok(())
    }

    async fn store(&mut self, message: &Message) -> Result<(), String> {
        let resume = self.resume.as_mut().expect("the stream is started");
        resume.stored(message);
        let connection = self.connection.as_ref().expect("the client was let in");
        if connection.acknowledge(resume).await.map_err(|error| error.to_string())? {
            match self.server.hears().await {
                Some(Message::OpLogAck(ack)) => _ = self.acknowledged.insert(ack.transaction_id),
                other => return Err(format!("{other:?} instead of an acknowledgement")),
            }
        }
        Ok(())
    }
}

async fn call(sender: Sender<AuthenticatedServer>, request: Request) -> Result<(), String> {
    match request {
        Request::Subscribe(request) => {
            let subscribed = sender.subscribe(Subscription::from(request), WITHIN).await;
            subscribed.map_err(|error| error.to_string())
        }
        Request::Unsubscribe(request) => {
            let left = sender.unsubscribe(request.subscription_ids, WITHIN).await;
            left.map_err(|error| error.to_string())
        }
        Request::StopReplication(_) => {
            sender.stop_replication(WITHIN).await.map_err(|error| error.to_string())
        }
        Request::StartReplication(_) | Request::Authenticate(_) => unreachable!("made elsewhere"),
    }
}

/// The token is another. The order of ids does not matter, nor a schema version beside a position,
/// and SQLite is meant where no dialect is named.
fn is_the_same_call(ours: &Request, recorded: &Request) -> Result<(), String> {
    match (ours, recorded) {
        (Request::Authenticate(_), Request::Authenticate(_)) => Ok(()),
        (Request::StartReplication(ours), Request::StartReplication(recorded)) => {
            match in_order(ours) == in_order(recorded) {
                true => Ok(()),
                false => Err(format!("starts by {ours:?} instead of {recorded:?}")),
            }
        }
        (ours, recorded) if ours == recorded => Ok(()),
        (ours, recorded) => Err(format!("{ours:?} instead of {recorded:?}")),
    }
}

fn in_order(start: &SatInStartReplicationReq) -> SatInStartReplicationReq {
    let mut start = start.clone();
    start.subscription_ids.sort();
    start.observed_transaction_data.sort();
    start.observed_gone_batch.sort();
    start.schema_version = start.schema_version.filter(|_| start.lsn.is_empty());
    start.sql_dialect = start.sql_dialect.filter(|dialect| *dialect != 0);
    start
}
