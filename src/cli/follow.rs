//! `satellite connect --follow`: stays connected, and prints what arrives.

mod arrivals;
mod kept;

use std::{
    convert::Infallible,
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use clap::Args;
use electric_satellite::{
    client::{
        Advice, Client, ClientBuilder, Connectivity, Connector, Failure, StartError, Stopped,
        SubscribeError,
    },
    session::{AuthenticatedServer, ClientId},
    transport::{CallFailure, Connection, Event},
    wire::proto::{SatInStartReplicationResp, SatInStopReplicationResp},
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{io::AsyncWriteExt, select, sync::watch};

use super::{
    connect::Connect,
    shapes::{Shape, Shapes},
    signals::Signals,
};
use arrivals::{Arrivals, Field, Line};
use kept::Kept;

/// What `--help` tells of the output.
pub(super) const OUTPUT: &str = "\
With --follow, what arrives is printed line by line: relations, transactions from begin to commit \
with their operations and migrations, and the data of subscriptions from subscription_begin to \
subscription_end. What is printed is acknowledged. Each connection begins with its steps again; \
why one was lost, and when the next attempt is, goes to standard error. SIGINT and SIGTERM end it \
with exit code 0, as does a reader of the output that goes away. If there is no use in trying \
again, the exit code is 1.

With --follow and --json, each line is an object with a \"type\":

  connected             client_id, server_id, version
  replicating           window: how many transactions may be unacknowledged, or null
  subscribed            table, where (null for all rows), subscription
  refused               the same, and message: why there is no such subscription
  relation              table, schema, columns: name, type, primary_key, nullable
  begin                 position, transaction, origin, time_ms, is_migration
  insert                table, row
  update                table, row, old_row (null if it did not come)
  delete                table, old_row
  compensation, gone    table, key: the columns of the primary key
  migration             version, statements
  commit
  additional_begin, additional_commit                ref
  subscription_begin    subscription, position
  shape_begin           shape
  shape_end, subscription_end
  subscription_error    subscription, message
  unsubscription_begin  subscriptions, position
  unsubscription_end
  error                 code, message

A row is an object by column. Its values are texts, as PostgreSQL prints them; null; or \
{\"base64\": \"...\"} where the bytes are no UTF-8.";

#[derive(Args)]
#[command(mut_arg("subscribe", |arg| arg.requires("follow").help(
    "Subscribe to this table, and print its rows as they arrive. May be given more than once",
)))]
pub(super) struct FollowArgs {
    /// Stay connected, and print what arrives.
    #[arg(long)]
    pub(super) follow: bool,
    #[command(flatten)]
    shapes: Shapes,
    /// Go on from where this file says, and keep there how far it came; it need not exist. It
    /// holds the client id and the subscriptions, too. Without, it begins anew when the service
    /// cannot go on.
    #[arg(long, value_name = "FILE", requires = "follow")]
    from: Option<PathBuf>,
}

/// Why it ends by itself.
pub(super) enum End {
    /// Nobody reads what is printed.
    Unread,
    Failed(String),
}

impl From<String> for End {
    fn from(reason: String) -> End {
        End::Failed(reason)
    }
}

/// The TCP connection of the last attempt.
#[derive(Clone, Default)]
struct Dialed(Arc<Mutex<Option<(SocketAddr, Duration)>>>);

/// Connects as the command line says, until it is asked to stop.
pub(super) async fn run(connect: &Connect) -> Result<(), End> {
    let mut kept = match &connect.follow.from {
        Some(file) => Kept::from_file(file)?,
        None => Kept::new(),
    };
    if let Some(client_id) = &connect.client_id {
        kept.client_id = ClientId::new(client_id.as_str()).map_err(|error| error.to_string())?;
    }
    if connect.schema_version.is_some() {
        kept.resume.schema_version.clone_from(&connect.schema_version);
    }
    kept.want(&connect.follow.shapes.0);
    let dialed = Dialed::default();
    let client = builder(connect, &dialed)?.client_id(kept.client_id.clone()).build();
    let mut signals = Signals::new()?;
    let mut follower = Follower { connect, kept, dialed };
    client.connect();
    let outcome = select! {
        () = signals.next() => Ok(()),
        outcome = follower.follow(&client) => outcome,
        never = tell_troubles(connect, client.connectivity()) => match never {},
    };
    // Normally, and until the last words are through.
    client.disconnect();
    client.closed().await;
    outcome
}

fn builder(connect: &Connect, dialed: &Dialed) -> Result<ClientBuilder, String> {
    let source = connect.token.source()?;
    let connector = connect.service.connector()?;
    let mut builder = Client::builder(&connect.service.url, source)
        .map_err(|error| format!("{}: {error}", connect.service.url))?
        .versions([connect.service.version()?])
        .limits(connect.service.limits());
    if let Some(tls) = connect.service.tls()? {
        builder = builder.tls(tls);
    }
    let dialed = dialed.clone();
    Ok(builder.dialer(move |_, _| dial(connector.clone(), dialed.clone())))
}

async fn dial(connector: Connector, Dialed(dialed): Dialed) -> io::Result<tokio::net::TcpStream> {
    let started = Instant::now();
    let stream = connector.dial().await.map_err(io::Error::other)?;
    let peer = stream.peer_addr()?;
    *dialed.lock().unwrap_or_else(PoisonError::into_inner) = Some((peer, started.elapsed()));
    Ok(stream)
}

/// Says on standard error why there is no connection, and when there may be one again.
async fn tell_troubles(
    connect: &Connect,
    mut connectivity: watch::Receiver<Connectivity>,
) -> Infallible {
    loop {
        if let Connectivity::Disconnected { reason: Some(reason), next_attempt: Some(next) } =
            &*connectivity.borrow_and_update()
        {
            let pause = next.saturating_duration_since(tokio::time::Instant::now());
            let reason = explain(connect, reason);
            tell(&format!(
                "{:<14} {reason}; trying again in {:.1} s",
                "disconnected",
                pause.as_secs_f64()
            ));
        }
        if connectivity.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

fn tell(text: &str) {
    // There is nobody else to tell that it cannot be told.
    let _ = writeln!(io::stderr(), "{text}");
}

fn explain(connect: &Connect, failure: &Failure) -> String {
    match failure {
        Failure::Connect(error) => connect.service.explain(error),
        other => other.to_string(),
    }
}

struct Follower<'a> {
    connect: &'a Connect,
    kept: Kept,
    dialed: Dialed,
}

impl Follower<'_> {
    /// One connection after the other.
    async fn follow(&mut self, client: &Client) -> Result<(), End> {
        loop {
            match client.connection().await {
                Ok(connection) => self.session(connection).await?,
                Err(Stopped::GivenUp(failure)) => return Err(self.given_up(&failure).into()),
                Err(stopped) => return Err(stopped.to_string().into()),
            }
        }
    }

    fn given_up(&self, failure: &Failure) -> String {
        let reason = explain(self.connect, failure);
        let advice = match failure.advice() {
            Advice::FreshToken => "another token is needed",
            _ => "trying again is of no use until the token, the options or the service change",
        };
        format!("{reason}; {advice}")
    }

    /// One connection, to its end.
    async fn session(
        &mut self,
        mut connection: Connection<AuthenticatedServer>,
    ) -> Result<(), End> {
        self.print_steps(&connection).await?;
        let started = Instant::now();
        match connection
            .start_replication(&mut self.kept.resume, self.connect.service.timeout())
            .await
        {
            Ok(window) => self.print_start(window, started.elapsed()).await?,
            Err(error) => return self.not_started(error),
        }
        let timeout = self.connect.service.timeout();
        // Who the client is, if nothing else.
        self.kept.save()?;
        let mut subscribing = FuturesUnordered::new();
        for (shape, id) in self.kept.missing() {
            let (sender, shape) = (connection.sender().clone(), shape.clone());
            let subscription = shape.subscription();
            *id = Some(subscription.id().to_owned());
            subscribing.push(async move {
                let id = subscription.id().to_owned();
                (id, shape, sender.subscribe(subscription, timeout).await)
            });
        }
        let mut arrivals = Arrivals::default();
        loop {
            let event = select! {
                // What is answered comes before its data.
                biased;
                Some((id, shape, answer)) = subscribing.next() => {
                    self.print_subscribed(&id, &shape, answer).await?;
                    continue;
                }
                event = connection.recv() => event,
            };
            match event {
                None => return Ok(()),
                // There are no changes to send, and there never are.
                Some(Event::StartReplication(_, responder)) => {
                    responder.reply(SatInStartReplicationResp::default());
                }
                Some(Event::StopReplication(_, responder)) => {
                    responder.reply(SatInStopReplicationResp {});
                }
                Some(Event::Message(message)) => {
                    self.print(&arrivals.lines(&message)).await?;
                    self.kept.resume.stored(&message);
                    self.kept.save()?;
                    // If that fails, it has ended.
                    let _ = connection.acknowledge(&mut self.kept.resume).await;
                }
                // Not for servers to call.
                Some(_) => {}
            }
        }
    }

    /// Why there is no stream. Where it can only begin anew, it does if nothing is lost by it.
    fn not_started(&mut self, error: StartError) -> Result<(), End> {
        match (error.advice(), &self.kept.file) {
            (Advice::ResetState, Some(file)) => Err(End::Failed(format!(
                "{error}; it cannot go on from where {} says: remove that to begin anew",
                file.display()
            ))),
            (Advice::ResetState, None) => {
                tell(&format!("{:<14} {error}; beginning anew", "not started"));
                self.kept.resume.reset();
                Ok(())
            }
            (_, _) if matches!(error, StartError::Call(CallFailure::TimedOut)) => {
                tell(&format!("{:<14} {error}", "not started"));
                Ok(())
            }
            // The connection has ended by it, which is told.
            _ => Ok(()),
        }
    }

    // ---- Printing ----

    async fn print_steps(&self, connection: &Connection<AuthenticatedServer>) -> Result<(), End> {
        let (client_id, server_id) = (&self.kept.client_id, connection.server_id());
        let version = connection.version().to_string();
        if self.connect.json {
            let fields = [
                ("client_id", client_id.as_str().into()),
                ("server_id", server_id.into()),
                ("version", (&version).into()),
            ];
            return self.print(&[Line::new("connected", fields)]).await;
        }
        let dialed = *self.dialed.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        if let Some((peer, took)) = dialed {
            text += &step("connected", Some(took), &peer.to_string());
        }
        text += &step("upgraded", None, &version);
        let who = format!("client {client_id}, server {server_id:?}");
        text += &step("authenticated", None, &who);
        write(&text).await
    }

    async fn print_start(&self, window: Option<u32>, took: Duration) -> Result<(), End> {
        match self.connect.json {
            true => {
                let window = ("window", window.map(u64::from).into());
                self.print(&[Line::new("replicating", [window])]).await
            }
            false => write(&step("replicating", Some(took), &super::connect::window(window))).await,
        }
    }

    async fn print_subscribed(
        &self,
        id: &String,
        Shape { table, condition }: &Shape,
        answer: Result<(), SubscribeError>,
    ) -> Result<(), End> {
        let subscription = ("subscription", Field::from(id));
        let (table, condition) = (("table", table.into()), ("where", condition.as_ref().into()));
        let line = match answer {
            Ok(()) => Line::new("subscribed", [table, condition, subscription]),
            Err(error) => {
                let message = ("message", (&error.to_string()).into());
                Line::new("refused", [table, condition, subscription, message])
            }
        };
        self.print(&[line]).await
    }

    async fn print(&self, lines: &[Line]) -> Result<(), End> {
        let line = |line: &Line| match self.connect.json {
            true => line.json() + "\n",
            false => format!("{line}\n"),
        };
        write(&lines.iter().map(line).collect::<String>()).await
    }
}

fn step(name: &str, took: Option<Duration>, detail: &str) -> String {
    match took {
        Some(took) => format!("{name:<14}{:>8.1} ms  {detail}\n", took.as_secs_f64() * 1000.0),
        None => format!("{name:<14}{:>11}  {detail}\n", ""),
    }
}

/// Writes to standard output, and waits until it is there. Whoever reads it may be slow: meanwhile
/// pings are answered, and no more is read.
async fn write(text: &str) -> Result<(), End> {
    let mut stdout = tokio::io::stdout();
    let written = async {
        stdout.write_all(text.as_bytes()).await?;
        stdout.flush().await
    };
    written.await.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => End::Unread,
        _ => End::Failed(format!("cannot print: {error}")),
    })
}
