//! Replays the recorded replication sessions (`tests/vectors/replication`).
//!
//! A `ClientSession` makes the calls of the recorded client, takes every frame of the server and
//! sends what the client sent; it refuses nothing but what the table says. A `ServerSession` hears
//! the client's frames; it refuses the streams that the original refused for their order.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use bytes::Bytes;
use electric_satellite::{
    session::{
        Cause, ClientId, ClientSession, Close, End, Identity, Input, Output, Question, SendError,
        ServerSession, Session as _, StreamError, Token, Verified, Violation,
    },
    wire::{
        Message, Method, Reply, Request, RowError, Version,
        proto::{
            SatErrorResp, SatInStartReplicationResp, SatInStopReplicationResp, SatSubsResp,
            SatUnsubsResp, sat_error_resp::ErrorCode,
        },
    },
};

use crate::recorded::{self, Frame, Session, Side};

/// What a recorded client sent and ours does not, in order.
pub(crate) struct Refused {
    /// With both servers, these are `raw_s071_…` and `raw_s0121_…`.
    case: &'static str,
    why: &'static str,
    pub(crate) errors: &'static [SendError],
    /// Both ends hold to it: the original answers INVALID_REQUEST and closes 1007, and so do we.
    by_servers_too: bool,
}

const REFUSED: &[Refused] = &[
    Refused {
        case: "g_arity",
        why: "made to have fewer values than columns",
        errors: &[SendError::Stream(StreamError::Row {
            relation_id: 1,
            error: RowError::Arity { columns: 7, values: 5 },
        })],
        by_servers_too: true,
    },
    Refused {
        case: "g_commit_without_begin",
        why: "made so",
        errors: &[SendError::Stream(StreamError::NothingToEnd { what: "commit" })],
        by_servers_too: true,
    },
    Refused {
        case: "g_migrate_op",
        why: "made to hold a migration",
        errors: &[SendError::Stream(StreamError::NotForClients { what: "migrate" })],
        by_servers_too: true,
    },
    Refused {
        case: "g_op_before_begin",
        why: "made so",
        errors: &[SendError::Stream(StreamError::Outside { what: "insert" })],
        by_servers_too: true,
    },
    Refused {
        case: "g_oplog_before_start_answer",
        why: "made to send before it has answered startReplication. The original keeps such a \
              relation and drops such changes; ours sends neither, so the relation is unknown later",
        errors: &[
            SendError::NotStarted { message: "SatRelation" },
            SendError::NotStarted { message: "SatOpLog" },
            SendError::Stream(StreamError::UnknownRelation { relation_id: 1 }),
        ],
        by_servers_too: false,
    },
    Refused {
        case: "g_second_begin",
        why: "made so",
        errors: &[SendError::Stream(StreamError::InsideTransaction { what: "begin" })],
        by_servers_too: true,
    },
];

impl Refused {
    pub(crate) fn of(case: &str) -> Option<&'static Refused> {
        let made = ["raw_s071_", "raw_s0121_"].iter().find_map(|raw| case.strip_prefix(raw))?;
        REFUSED.iter().find(|refused| refused.case == made)
    }
}

#[test]
fn a_client_takes_every_frame_and_refuses_to_send_what_the_table_lists() {
    let mut wrong = vec![];
    for server in recorded::SERVERS {
        let mut met = BTreeSet::new();
        for session in recorded::sessions(server) {
            let name = format!("{} with {server}, connection {}", session.case, session.connection);
            let expected = Refused::of(&session.case);
            let mut client = Client::of(&session);
            let heard = session.frames.iter().try_for_each(|frame| client.follow(frame));
            match expected {
                None => println!("{name}: {} frames", session.frames.len()),
                Some(Refused { why, .. }) => println!("{name}: refused: {why}"),
            }
            wrong.extend(heard.err().map(|error| format!("{name}: {error}")));
            if client.refused != expected.map_or(&[][..], |refused| refused.errors) {
                wrong.push(format!("{name}: refused {:?}", client.refused));
            }
            met.extend(expected.map(|refused| refused.case));
        }
        let stale = REFUSED.iter().filter(|refused| !met.contains(refused.case));
        wrong.extend(stale.map(|refused| format!("{}: no such case with {server}", refused.case)));
    }
    super::report(wrong);
}

#[test]
fn a_server_refuses_the_streams_that_the_original_refused_for_their_order() {
    let mut wrong = vec![];
    for session in recorded::SERVERS.into_iter().flat_map(recorded::sessions) {
        let expected = Refused::of(&session.case).filter(|refused| refused.by_servers_too);
        let expected = expected.map(|refused| match refused.errors {
            [SendError::Stream(error)] => Violation::Stream(*error),
            other => panic!("{other:?}"),
        });
        let found = broken_by_client(&session);
        if found != expected {
            wrong.push(format!("{}: {found:?}", session.case));
        }
        if found.is_some() && !session.ends_in_invalid_request() {
            wrong.push(format!("{}: the original did not refuse it so", session.case));
        }
    }
    super::report(wrong);
}

impl Session {
    fn version(&self) -> Version {
        self.subprotocol.parse().expect("a version")
    }

    /// What follows every stream that a server refuses.
    fn ends_in_invalid_request(&self) -> bool {
        let said = self.frames.iter().filter(|frame| frame.from == Side::Server);
        let last: Vec<_> = said.rev().take(2).map(|frame| (frame.opcode, &frame.payload)).collect();
        let refusal = Message::from(SatErrorResp::of(ErrorCode::InvalidRequest)).encode();
        let close = Bytes::copy_from_slice(&Close::AFTER_ERROR.code.to_be_bytes());
        last == [(8, &close), (2, &refusal)]
    }
}

/// A client that does what a recorded one did.
struct Client {
    now: Instant,
    session: ClientSession,
    /// The recorded client's numbers of its calls, and ours.
    calls: HashMap<u32, u32>,
    /// The server's calls that are not answered, with their numbers.
    questions: Vec<(u32, Question)>,
    refused: Vec<SendError>,
    is_open: bool,
    /// The server has refused a call, which ends ours; the original closes then, and no more.
    was_refused: bool,
}

impl Client {
    fn of(session: &Session) -> Client {
        let (now, patience) = (Instant::now(), Duration::from_secs(3600));
        let (id, token) = (ClientId::random(), Token::new("token").unwrap());
        let session = ClientSession::new(now, patience, session.version(), &id, token);
        Client {
            now,
            session,
            calls: HashMap::new(),
            questions: vec![],
            refused: vec![],
            is_open: true,
            was_refused: false,
        }
    }

    fn follow(&mut self, Frame { from, opcode, payload, .. }: &Frame) -> Result<(), String> {
        // What a client sends on after the close goes nowhere.
        self.is_open &= *opcode == 2;
        if !self.is_open {
            return Ok(());
        }
        let message = Message::decode(payload.clone()).map_err(|error| error.to_string())?;
        if self.was_refused {
            return match from {
                Side::Client => Ok(()),
                Side::Server => Err(format!("{} after a refusal", message.name())),
            };
        }
        match from {
            Side::Client => self.say(message),
            Side::Server => self.hear(message),
        }
    }

    fn say(&mut self, message: Message) -> Result<(), String> {
        match message {
            Message::Request(envelope) => {
                let recorded = envelope.request_id;
                let request = Request::decode(envelope).expect("a call");
                let ours = match request.method() {
                    // It is out already.
                    Method::Authenticate => 1,
                    _ => self.session.call(request).expect("it can be called").request_id,
                };
                self.calls.insert(recorded, ours);
            }
            Message::Response(envelope) => {
                let is_it = |(id, question): &(u32, Question)| {
                    (*id, question.method().as_str()) == (envelope.request_id, &envelope.method)
                };
                let index = self.questions.iter().position(is_it).expect("the server has called");
                let (_, question) = self.questions.remove(index);
                let reply = Reply::decode(question.method(), envelope).expect("a positive answer");
                self.session.answer(question, Ok(reply)).expect("it can be answered");
            }
            other => self.refused.extend(self.session.send(other).err()),
        }
        self.drain(None)
    }

    fn hear(&mut self, mut message: Message) -> Result<(), String> {
        let mut called = None;
        match &mut message {
            Message::Response(reply) => reply.request_id = self.calls[&reply.request_id],
            Message::Request(call) => called = Some(call.request_id),
            _ => {}
        }
        let input = Input::Binary(message.encode().into());
        self.session.handle_input(self.now, input).expect("it takes what comes");
        self.drain(called)
    }

    fn drain(&mut self, called: Option<u32>) -> Result<(), String> {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Call(_, question) => {
                    self.questions.push((called.expect("a call came"), question));
                }
                Output::Stray { method, request_id } => {
                    return Err(format!("a stray reply to {method} {request_id}"));
                }
                Output::End(End {
                    cause: Cause::NotStarted { .. } | Cause::CallRefusedByServer { .. },
                    ..
                }) => self.was_refused = true,
                Output::End(end) => return Err(end.cause.to_string()),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The rule that the client's frames break at a server which grants everything.
fn broken_by_client(session: &Session) -> Option<Violation> {
    let (now, patience) = (Instant::now(), Duration::from_secs(3600));
    let mut server = ServerSession::new(now, patience, session.version(), "a server");
    let said = session.frames.iter().filter(|frame| frame.from == Side::Client);
    for frame in said.take_while(|frame| frame.opcode == 2) {
        let input = Input::Binary(frame.payload.clone().into());
        server.handle_input(now, input).expect("it takes what comes");
        while let Some(output) = server.poll_output() {
            match output {
                Output::Authenticate(request) => {
                    let identity = Identity::new("a user");
                    server.resolve(request, Ok(Verified::vouched_for_by_authenticator(identity)));
                }
                Output::Call(_, question) => {
                    let reply = granted(question.method());
                    server.answer(question, Ok(reply)).expect("it can be answered");
                }
                Output::End(end) => match end.cause {
                    Cause::Violation(violation) => return Some(violation),
                    other => panic!("{}: {other}", session.case),
                },
                _ => {}
            }
        }
    }
    None
}

fn granted(method: Method) -> Reply {
    match method {
        Method::StartReplication => SatInStartReplicationResp::default().into(),
        Method::StopReplication => SatInStopReplicationResp {}.into(),
        Method::Subscribe => SatSubsResp::default().into(),
        Method::Unsubscribe => SatUnsubsResp {}.into(),
        Method::Authenticate => unreachable!("this is not a call to answer"),
    }
}
