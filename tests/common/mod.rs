//! What several test files share: messages, and a session at the table with its peer.

#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod net;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;
use electric_satellite::{
    session::{
        AuthRequest, AuthenticatedClient, AuthenticatedServer, CallError, CallId, Cause, ClientId,
        Close, End, Identity, Input, Output, Question, Session, Token, Verified, Violation,
    },
    wire::{Message, Method, Reply, Request, proto::*, refusal},
};
use proptest::{collection::vec, prelude::*, sample::select};
use sat_error_resp::ErrorCode;

/// The time that authentication may take in these tests.
pub(crate) const AUTH_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) const METHODS: [Method; 5] = [
    Method::Authenticate,
    Method::StartReplication,
    Method::StopReplication,
    Method::Subscribe,
    Method::Unsubscribe,
];

pub(crate) fn id(text: &str) -> ClientId {
    ClientId::new(text).unwrap()
}

pub(crate) fn token(text: &str) -> Token {
    Token::new(text).unwrap()
}

/// An auth request as it travels.
pub(crate) fn auth(id: &str, token: &str) -> SatAuthReq {
    SatAuthReq { id: id.into(), token: token.into(), headers: vec![] }
}

pub(crate) fn verified(user_id: &str) -> Verified {
    let user_id = user_id.to_owned();
    Verified::vouched_for_by_authenticator(Identity::new(user_id))
}

/// A call of the peer with this number.
pub(crate) fn call(request_id: u32, request: impl Into<Request>) -> Message {
    request.into().encode(request_id)
}

/// The positive answer to the call with this number.
pub(crate) fn reply(request_id: u32, reply: impl Into<Reply>) -> Message {
    reply.into().encode(request_id)
}

/// The negative answer to the call with this number.
pub(crate) fn refused(method: Method, request_id: u32, code: ErrorCode) -> Message {
    refusal(method.as_str(), request_id, error(code))
}

pub(crate) fn error(code: ErrorCode) -> SatErrorResp {
    SatErrorResp::of(code)
}

pub(crate) fn start() -> SatInStartReplicationReq {
    SatInStartReplicationReq::default()
}

pub(crate) fn started() -> SatInStartReplicationResp {
    SatInStartReplicationResp::default()
}

pub(crate) fn stop() -> SatInStopReplicationReq {
    SatInStopReplicationReq {}
}

pub(crate) fn stopped() -> SatInStopReplicationResp {
    SatInStopReplicationResp {}
}

pub(crate) fn subscribe(id: &str) -> SatSubsReq {
    SatSubsReq { subscription_id: id.into(), shape_requests: vec![] }
}

pub(crate) fn subscribed(id: &str) -> SatSubsResp {
    SatSubsResp { subscription_id: id.into(), err: None }
}

/// A message of the stream that can be told from others.
pub(crate) fn relation(relation_id: u32) -> SatRelation {
    SatRelation { relation_id, ..Default::default() }
}

/// One of each message that travels alone, as empty as can be.
pub(crate) fn one_of_each() -> Vec<Message> {
    let frames = Message::TYPES.iter().map(|(byte, _)| Bytes::from(vec![*byte]));
    frames.map(|frame| Message::decode(frame).unwrap()).collect()
}

/// What a server sends in its stream.
pub(crate) fn stream_of_a_server() -> Vec<Message> {
    let not_stream = |message: &Message| {
        matches!(
            message,
            Message::Error(_) | Message::Request(_) | Message::Response(_) | Message::OpLogAck(_)
        )
    };
    one_of_each().into_iter().filter(|message| !not_stream(message)).collect()
}

/// What a session wanted done, in a form that can be compared.
#[derive(Debug, PartialEq)]
pub(crate) enum Seen {
    Sent(Message),
    Asked { client_id: String, token: String },
    Authenticated(String),
    Got(Message),
    Called(Request),
    Answered(CallId, Result<Reply, CallError>),
    Stray(String, u32),
    End(End),
}

pub(crate) fn sent(message: impl Into<Message>) -> Seen {
    Seen::Sent(message.into())
}

pub(crate) fn got(message: impl Into<Message>) -> Seen {
    Seen::Got(message.into())
}

pub(crate) fn called(request: impl Into<Request>) -> Seen {
    Seen::Called(request.into())
}

pub(crate) fn end(close: impl Into<Option<Close>>, cause: Cause) -> Seen {
    Seen::End(End { close: close.into(), cause })
}

/// The end that a violation brings.
pub(crate) fn broken(violation: Violation) -> Seen {
    end(violation.close(), Cause::Violation(violation))
}

/// Who is at the other end, in words.
pub(crate) trait Named {
    fn name(&self) -> String;
}

impl Named for AuthenticatedClient {
    fn name(&self) -> String {
        format!("{} as {}", self.client_id, self.verified.identity().user_id)
    }
}

impl Named for AuthenticatedServer {
    fn name(&self) -> String {
        self.server_id.clone()
    }
}

/// A session in a conversation: everything that happens to it is followed by a complete drain,
/// and what can only be moved is kept here until a test uses it.
pub(crate) struct Table<S> {
    pub(crate) session: S,
    /// The time of the first input.
    pub(crate) now: Instant,
    /// The question that is out, on a server.
    pub(crate) asked: Option<AuthRequest>,
    /// The peer's calls that are not answered, oldest first.
    pub(crate) questions: VecDeque<Question>,
}

impl<S: Session<Peer: Named>> Table<S> {
    pub(crate) fn new(now: Instant, session: S) -> Table<S> {
        Table { session, now, asked: None, questions: VecDeque::new() }
    }

    /// Drains the session.
    pub(crate) fn drain(&mut self) -> Vec<Seen> {
        let mut seen = vec![];
        while let Some(output) = self.session.poll_output() {
            seen.push(match output {
                Output::Send(frame) => Seen::Sent(Message::decode(frame.0).unwrap()),
                Output::Authenticate(request) => {
                    let client_id = request.client_id().as_str().to_owned();
                    let token = request.token().expose().to_owned();
                    self.asked = Some(request);
                    Seen::Asked { client_id, token }
                }
                Output::Authenticated(peer) => Seen::Authenticated(peer.name()),
                Output::Message(message) => Seen::Got(message),
                Output::Call(request, question) => {
                    assert_eq!(question.method(), request.method());
                    self.questions.push_back(question);
                    Seen::Called(request)
                }
                Output::Reply(call, result) => Seen::Answered(call, result),
                Output::Stray { method, request_id } => Seen::Stray(method, request_id),
                Output::End(end) => Seen::End(end),
            });
        }
        seen
    }

    /// Something happens, which the session takes.
    pub(crate) fn input(&mut self, input: Input) -> Vec<Seen> {
        assert!(self.session.handle_input(self.now, input).is_ok(), "the session takes this");
        self.drain()
    }

    /// A frame arrives.
    pub(crate) fn frame(&mut self, bytes: impl Into<Bytes>) -> Vec<Seen> {
        self.input(Input::Binary(bytes.into().into()))
    }

    /// A message arrives.
    pub(crate) fn hears(&mut self, message: impl Into<Message>) -> Vec<Seen> {
        self.frame(message.into().encode())
    }

    /// The peer calls.
    pub(crate) fn hears_call(&mut self, id: u32, request: impl Into<Request>) -> Vec<Seen> {
        self.hears(call(id, request))
    }

    /// The oldest question is answered.
    pub(crate) fn answers(&mut self, answer: impl Into<Reply>) -> Vec<Seen> {
        let question = self.questions.pop_front().expect("a call waits");
        self.session.answer(question, Ok(answer.into())).unwrap();
        self.drain()
    }

    /// The oldest question is answered with an error.
    pub(crate) fn refuses(&mut self, error: SatErrorResp) -> Vec<Seen> {
        let question = self.questions.pop_front().expect("a call waits");
        self.session.answer(question, Err(error)).unwrap();
        self.drain()
    }

    /// This end calls.
    pub(crate) fn calls(&mut self, request: impl Into<Request>) -> CallId {
        let request = request.into();
        let call = self.session.call(request.clone()).unwrap();
        assert_eq!(self.drain(), [Seen::Sent(request.encode(call.request_id))]);
        call
    }

    /// Nothing changes an ended session, and nothing comes out of it.
    pub(crate) fn is_silent_for_ever(&mut self) {
        assert_eq!(self.session.deadline(), None);
        assert!(!self.session.wants_input());
        let frame = call(1, start()).encode();
        let returned = self.session.handle_input(self.now, Input::Binary(frame.clone().into()));
        assert!(matches!(returned, Err(Input::Binary(back)) if back.0 == frame));
        for input in [Input::Timeout, Input::Closed(None), Input::Closed(Some(Close::NORMAL))] {
            assert_eq!(self.input(input), []);
        }
        self.session.close(Some(error(ErrorCode::Internal)), Close::INTERNAL);
        assert_eq!(self.drain(), []);
    }
}

/// An envelope of a call that may be anything.
fn any_call() -> impl Strategy<Value = Message> {
    let method = prop_oneof![
        8 => select(METHODS.map(|method| method.as_str().to_owned()).to_vec()),
        1 => select(vec![String::new(), "Authenticate".into(), "replicate".into()]),
    ];
    (method, 0..4_u32, any_body()).prop_map(|(method, request_id, message)| {
        Message::Request(SatRpcRequest { method, request_id, message })
    })
}

/// A body: often empty or an auth request's, sometimes anything.
fn any_body() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        3 => Just(Bytes::new()),
        1 => vec(any::<u8>(), 0..32).prop_map(Bytes::from),
    ]
}

/// Any binary frame, weighted towards those that mean something.
pub(crate) fn any_frame() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        2 => any_call().prop_map(|message| message.encode()),
        2 => select(one_of_each()).prop_map(|message| message.encode()),
        1 => vec(any::<u8>(), 0..32).prop_map(Bytes::from),
        1 => (select(Message::TYPES.to_vec()), vec(any::<u8>(), 0..32))
            .prop_map(|((byte, _), body)| std::iter::once(byte).chain(body).collect()),
    ]
}
