//! What arrives, and what must come next.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    session::Close,
    wire::{
        Call, Message, Method, Reply, Request,
        proto::{
            SatInStartReplicationResp, SatRpcResponse, sat_error_resp::ErrorCode,
            sat_in_start_replication_resp::replication_error::Code,
            sat_rpc_response::Result as Outcome,
        },
    },
};

use super::*;

/// What arrives, as far as a case looks at it.
#[derive(Clone, Debug, PartialEq)]
pub enum Incoming {
    /// A binary message that is one of this protocol.
    Message(Message),
    /// A binary message that is not.
    Undecodable(Bytes),
    /// A text message.
    Text(Bytes),
    /// A ping.
    Ping(Bytes),
    /// A pong.
    Pong(Bytes),
    /// A close frame.
    Close(Option<Close>),
    /// A breach of RFC 6455, in words.
    Breach(String),
    /// The end of the stream.
    End,
}

impl fmt::Display for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Incoming::Message(message) => Beginning(InWords(message), MOST_WORDS).fmt(f),
            Incoming::Undecodable(bytes) => write!(f, "a message that is none: {}", hex(bytes)),
            Incoming::Text(text) => write!(f, "a text message of {} bytes", text.len()),
            Incoming::Ping(payload) => write!(f, "a ping of {} bytes", payload.len()),
            Incoming::Pong(payload) => write!(f, "a pong of {} bytes", payload.len()),
            Incoming::Close(None) => f.write_str("a close frame without a code"),
            Incoming::Close(Some(close)) => write!(f, "a close frame of {close}"),
            Incoming::Breach(words) => write!(f, "a breach of RFC 6455: {words}"),
            Incoming::End => f.write_str("the end of the connection"),
        }
    }
}

/// A message in words, with the body of its envelope.
struct InWords<'a>(&'a Message);

impl fmt::Display for InWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Message::Request(envelope) => match Request::decode(envelope.clone()) {
                Ok(request) => {
                    write!(f, "call {} ({}) {request:?}", request.method(), envelope.request_id)
                }
                Err(error) => error.fmt(f),
            },
            Message::Response(envelope) => {
                write!(f, "response to {:?} ({}): ", envelope.method, envelope.request_id)?;
                match (envelope.method.parse(), &envelope.result) {
                    (_, None) => f.write_str("without a result"),
                    (_, Some(Outcome::Error(error))) => write!(f, "refused: {error}"),
                    (Err(_), Some(Outcome::Message(body))) => f.write_str(&hex(body)),
                    (Ok(method), Some(_)) => match Reply::decode(method, envelope.clone()) {
                        Ok(reply) => write!(f, "{reply:?}"),
                        Err(error) => error.fmt(f),
                    },
                }
            }
            message => write!(f, "{message:?}"),
        }
    }
}

/// How many characters of a message in words are shown.
pub(in crate::conformance) const MOST_WORDS: usize = 1000;

/// The beginning of a text, if it has more than so many characters.
pub(in crate::conformance) struct Beginning<T>(
    pub(in crate::conformance) T,
    pub(in crate::conformance) usize,
);

impl<T: fmt::Display> fmt::Display for Beginning<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut until = Until { f, left: self.1, is_cut: false };
        // What stops writing is no error of what is written to.
        match fmt::write(&mut until, format_args!("{}", self.0)) {
            Err(_) if until.is_cut => f.write_str("…"),
            outcome => outcome,
        }
    }
}

/// Takes so many characters, and then no more: the rest is not even made.
struct Until<'a, 'b> {
    f: &'a mut fmt::Formatter<'b>,
    left: usize,
    is_cut: bool,
}

impl fmt::Write for Until<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        match text.char_indices().nth(self.left) {
            None => {
                self.left -= text.chars().count();
                self.f.write_str(text)
            }
            Some((end, _)) => {
                self.f.write_str(&text[..end])?;
                self.is_cut = true;
                Err(fmt::Error)
            }
        }
    }
}

/// How many bytes are shown in hex.
pub(in crate::conformance) const MOST_HEX: usize = 512;

/// Bytes in hex; only the beginning of many.
pub(in crate::conformance) fn hex(bytes: &[u8]) -> String {
    hex_of(bytes, bytes.len())
}

/// The beginning, in hex, of so many bytes.
pub(in crate::conformance) fn hex_of(beginning: &[u8], length: usize) -> String {
    let shown = beginning.iter().take(MOST_HEX);
    let mut text: String = shown.map(|byte| format!("{byte:02x}")).collect();
    if length > MOST_HEX {
        text += &format!("… ({length} bytes)");
    }
    text
}

/// What must come next.
#[derive(Clone)]
pub struct Expectation {
    words: String,
    test: Arc<dyn Fn(&Incoming) -> bool + Send + Sync>,
    pub(in crate::conformance) like: Option<Like>,
}

/// What a message is compared with beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::conformance) enum Like {
    /// The client id and the token that the client was told.
    Invitation,
    /// The numbers of the calls on this connection, which a new call does not repeat.
    OtherNumbers,
    /// The id of the subscription that was asked for last.
    Subscription,
}

impl Expectation {
    pub(in crate::conformance) fn is_met_by(&self, incoming: &Incoming) -> bool {
        (self.test)(incoming)
    }

    /// As a step, with a deadline of its own.
    pub fn within(self, time: Duration) -> Step {
        Step::Expect(self, Some(time))
    }

    /// This, or another.
    pub fn or(self, other: Expectation) -> Expectation {
        let words = format!("{}, or {}", self.words, other.words);
        such(words, move |incoming| self.is_met_by(incoming) || other.is_met_by(incoming))
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl fmt::Debug for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

/// This must come next, in the time of the run.
pub fn expect(expectation: Expectation) -> Step {
    Step::Expect(expectation, None)
}

/// All of these must come, in any order.
pub fn expect_all(expected: impl IntoIterator<Item = Expectation>) -> Step {
    Step::ExpectAll(expected.into_iter().collect())
}

/// Anything that passes this test, in words.
pub fn such(
    words: impl Into<String>,
    test: impl Fn(&Incoming) -> bool + Send + Sync + 'static,
) -> Expectation {
    Expectation { words: words.into(), test: Arc::new(test), like: None }
}

/// A message that passes this test.
pub fn a_message(
    words: impl Into<String>,
    test: impl Fn(&Message) -> bool + Send + Sync + 'static,
) -> Expectation {
    such(words, move |incoming| matches!(incoming, Incoming::Message(message) if test(message)))
}

/// The positive answer to the call with this number that passes this test.
pub fn reply_such(
    words: impl Into<String>,
    method: Method,
    request_id: u32,
    test: impl Fn(&Reply) -> bool + Send + Sync + 'static,
) -> Expectation {
    a_message(words, move |message| {
        let Message::Response(envelope) = message else { return false };
        envelope.request_id == request_id
            && envelope.method == method.as_str()
            && Reply::decode(method, envelope.clone()).is_ok_and(|reply| test(&reply))
    })
}

/// Any positive answer to the call of this kind with this number.
pub fn reply<C: Call>(request_id: u32) -> Expectation {
    let words = format!("the positive answer to {} ({request_id})", C::METHOD);
    reply_such(words, C::METHOD, request_id, |_| true)
}

/// The positive answer to `authenticate`, with the id of the server.
pub fn welcome(request_id: u32) -> Expectation {
    let words = format!("SatAuthResp to {request_id} with an id");
    reply_such(
        words,
        Method::Authenticate,
        request_id,
        |reply| matches!(reply, Reply::Authenticate(welcome) if !welcome.id.is_empty()),
    )
}

/// The positive answer to `startReplication`, without an error in it.
pub fn started(request_id: u32) -> Expectation {
    let words = format!("SatInStartReplicationResp to {request_id} without an error");
    reply_such(words, Method::StartReplication, request_id, |reply| {
        matches!(reply, Reply::StartReplication(SatInStartReplicationResp { err: None, .. }))
    })
}

/// The answer to `startReplication` with this error in it.
pub fn start_error(request_id: u32, code: Code) -> Expectation {
    let words = format!("SatInStartReplicationResp to {request_id} with {}", code.as_str_name());
    reply_such(words, Method::StartReplication, request_id, move |reply| {
        matches!(reply, Reply::StartReplication(SatInStartReplicationResp { err: Some(err), .. })
            if err.code() == code)
    })
}

/// The negative answer to the call with this number, of this error type.
pub fn refused(method: &str, request_id: u32, code: ErrorCode) -> Expectation {
    let words = format!("the refusal {} of {method:?} ({request_id})", code.as_str_name());
    let method = method.to_owned();
    a_message(words, move |message| {
        matches!(message, Message::Response(SatRpcResponse {
            method: found,
            request_id: number,
            result: Some(Outcome::Error(error)),
        }) if *found == method && *number == request_id && error.error_type() == code)
    })
}

/// An error that is no answer, of this type.
pub fn error(code: ErrorCode) -> Expectation {
    let words = format!("a bare SatErrorResp {}", code.as_str_name());
    a_message(
        words,
        move |message| matches!(message, Message::Error(error) if error.error_type() == code),
    )
}

/// A call of the peer.
pub fn called(method: Method) -> Expectation {
    called_such(format!("a call of {method}"), method, |_| true)
}

/// A call of the peer that passes this test.
pub fn called_such(
    words: impl Into<String>,
    method: Method,
    test: impl Fn(&Request) -> bool + Send + Sync + 'static,
) -> Expectation {
    a_message(words, move |message| {
        let Message::Request(envelope) = message else { return false };
        envelope.method == method.as_str()
            && Request::decode(envelope.clone()).is_ok_and(|request| test(&request))
    })
}

/// A call of `authenticate` with the client id and the token that the client was told.
pub fn authenticates() -> Expectation {
    let words = "authenticate with the client id and the token that the client was told";
    Expectation {
        like: Some(Like::Invitation),
        ..called_such(words, Method::Authenticate, |_| true)
    }
}

/// A call of the peer whose number no other call on the connection has had.
pub fn called_anew(method: Method) -> Expectation {
    let words = format!("a call of {method} with a request id of its own");
    Expectation { like: Some(Like::OtherNumbers), ..called_such(words, method, |_| true) }
}

/// A call of the peer that passes this test, and names the subscription that it has asked for
/// last.
pub fn called_about(
    words: impl Into<String>,
    method: Method,
    test: impl Fn(&Request) -> bool + Send + Sync + 'static,
) -> Expectation {
    Expectation { like: Some(Like::Subscription), ..called_such(words, method, test) }
}

/// A pong with this payload.
pub fn ponged(payload: &'static [u8]) -> Expectation {
    such(
        "a pong with the payload of the ping",
        move |incoming| matches!(incoming, Incoming::Pong(found) if found == payload),
    )
}

/// A ping.
pub fn pinged() -> Expectation {
    such("a ping", |incoming| matches!(incoming, Incoming::Ping(_)))
}
