//! What is sent, and in which frames.

use std::fmt;

use bytes::Bytes;

use crate::wire::{
    Message, Reply, Request,
    proto::{
        SatAuthHeaderPair, SatErrorResp, SatInStartReplicationReq, SatInStopReplicationReq,
        SatRpcRequest, SatRpcResponse, SatSubsReq, SatUnsubsReq, sat_error_resp::ErrorCode,
        sat_rpc_response::Result as Outcome,
    },
};

use super::super::{
    octets::{self},
    token::TokenSpec,
};

use super::*;

/// What is sent, and in which frames.
#[derive(Clone, Debug)]
pub struct Sending {
    pub(in crate::conformance) payload: Payload,
    pub(in crate::conformance) framing: Framing,
    pub(in crate::conformance) times: usize,
    words: String,
}

/// The payload of a message. Some of it is known only when it is sent.
#[derive(Clone, Debug)]
pub(in crate::conformance) enum Payload {
    /// These bytes.
    Bytes(Bytes),
    /// A call of `authenticate`.
    Authenticate {
        request_id: u32,
        id: Id,
        token: TokenSpec,
        headers: Vec<SatAuthHeaderPair>,
        /// What follows the fields of the body and those of the envelope.
        more: [&'static [u8]; 2],
    },
    /// The answer to the call of the peer that was expected last; with another number if so.
    Answer { result: Option<Outcome>, method: Option<&'static str>, off_by: u32 },
    /// What belongs to the subscription that the peer has asked for last.
    Delivery(Part),
}

/// What a server sends about the subscription that its client has asked for last.
#[derive(Clone, Debug)]
pub enum Part {
    /// The answer to `subscribe`: there will be data.
    Granted,
    /// The answer to `subscribe`: there will be none, for this reason.
    Denied(&'static str),
    /// SatSubsDataBegin at this position.
    Begin(&'static [u8]),
    /// SatShapeDataBegin of the first shape that was asked for.
    Shape,
    /// SatSubsDataError for this reason.
    Failed(&'static str),
    /// SatUnsubsDataBegin at this position.
    Gone(&'static [u8]),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Granted => f.write_str("the positive answer to subscribe"),
            Part::Denied(reason) => write!(f, "SatSubsResp with the error {reason:?}"),
            Part::Begin(lsn) => write!(f, "SatSubsDataBegin at {}", hex(lsn)),
            Part::Shape => f.write_str("SatShapeDataBegin"),
            Part::Failed(reason) => write!(f, "SatSubsDataError {reason:?}"),
            Part::Gone(lsn) => write!(f, "SatUnsubsDataBegin at {}", hex(lsn)),
        }
    }
}

/// Which client id is presented.
#[derive(Clone, Debug)]
pub enum Id {
    /// The id of the case.
    Own,
    /// Another id of the case, by its number.
    Other(u32),
    /// This text.
    Text(&'static str),
}

/// How a message is put into frames.
#[derive(Clone, Debug)]
pub(in crate::conformance) enum Framing {
    /// One frame, with this first byte.
    One(u8),
    /// One frame without a mask.
    Unmasked(u8),
    /// One frame with a mask, which only a client may send.
    Masked(u8),
    /// Fragments of so many bytes, with control frames between them.
    Fragments { size: usize, between: Option<u8> },
    /// No frame at all: bytes as they are.
    Raw,
    /// One frame, of which so many bytes go out at a time.
    Dribble(usize),
    /// A message that is well formed but for its length, which is written in so many bytes.
    LongLength(usize),
}

impl fmt::Display for Sending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)?;
        match &self.framing {
            Framing::One(octets::BINARY) | Framing::Raw => {}
            Framing::One(first) => write!(f, " in a frame that begins with {first:#04x}")?,
            Framing::Unmasked(_) => f.write_str(" in a frame without a mask")?,
            Framing::Masked(_) => f.write_str(" in a frame with a mask")?,
            Framing::Fragments { size, between } => {
                write!(f, " in fragments of {size} bytes")?;
                if let Some(opcode) = between {
                    write!(f, " with a control frame of opcode {opcode} between them")?;
                }
            }
            Framing::Dribble(size) => write!(f, ", {size} bytes at a time")?,
            Framing::LongLength(size) => write!(f, ", its length written in {size} bytes")?,
        }
        match self.times {
            1 => Ok(()),
            times => write!(f, ", {times} times"),
        }
    }
}

impl Sending {
    pub(in crate::conformance) fn new(
        words: impl Into<String>,
        payload: Payload,
        framing: Framing,
    ) -> Sending {
        Sending { payload, framing, times: 1, words: words.into() }
    }

    fn framed(self, framing: Framing) -> Sending {
        Sending { framing, ..self }
    }

    /// Whether its first byte is this one.
    pub(in crate::conformance) fn begins_with(&self, byte: u8) -> bool {
        matches!(&self.payload, Payload::Bytes(bytes) if bytes.first() == Some(&byte))
    }

    /// In fragments of so many bytes.
    pub fn in_fragments_of(self, size: usize) -> Sending {
        self.framed(Framing::Fragments { size, between: None })
    }

    /// In fragments of so many bytes, with a control frame of this opcode between any two.
    pub fn in_fragments_with(self, size: usize, opcode: u8) -> Sending {
        self.framed(Framing::Fragments { size, between: Some(opcode) })
    }

    /// As a text message.
    pub fn as_text(self) -> Sending {
        self.framed(Framing::One(octets::TEXT))
    }

    /// In one frame that begins with this byte: FIN, reserved bits and opcode
    /// ([RFC 6455 §5.2](https://www.rfc-editor.org/rfc/rfc6455#section-5.2)).
    pub fn in_frame(self, first: u8) -> Sending {
        self.framed(Framing::One(first))
    }

    /// Without a mask, which a client must not do.
    pub fn unmasked(self) -> Sending {
        self.framed(Framing::Unmasked(octets::BINARY))
    }

    /// With a mask, which a server must not do.
    pub fn masked(self) -> Sending {
        self.framed(Framing::Masked(octets::BINARY))
    }

    /// So many bytes at a time.
    pub fn dribbled(self, size: usize) -> Sending {
        self.framed(Framing::Dribble(size))
    }

    /// With its length in more bytes than it needs: 2 or 8.
    pub fn with_length_in(self, bytes: usize) -> Sending {
        self.framed(Framing::LongLength(bytes))
    }

    /// So many times.
    pub fn times(self, times: usize) -> Sending {
        Sending { times, ..self }
    }

    /// With this client id, if it is a call of `authenticate`.
    pub fn as_client(mut self, other: Id) -> Sending {
        if let Payload::Authenticate { id, .. } = &mut self.payload {
            self.words += &match &other {
                Id::Own => String::new(),
                Id::Other(nth) => format!(" as another client ({nth})"),
                Id::Text(text) => format!(" as the client {}", shortened(&format!("{text:?}"))),
            };
            *id = other;
        }
        self
    }

    /// With this token, if it is a call of `authenticate`.
    pub fn with_token(mut self, other: TokenSpec) -> Sending {
        if let Payload::Authenticate { token, .. } = &mut self.payload {
            self.words += &format!(" with {other}");
            *token = other;
        }
        self
    }

    /// With these bytes, described in words, behind the fields of its body, if it is a call of
    /// `authenticate`.
    pub fn with_more_in_body(mut self, words: &str, bytes: &'static [u8]) -> Sending {
        if let Payload::Authenticate { more: [body, _], .. } = &mut self.payload {
            self.words += &format!(" with {words} in its body");
            *body = bytes;
        }
        self
    }

    /// The same behind the fields of its envelope.
    pub fn with_more_in_envelope(mut self, words: &str, bytes: &'static [u8]) -> Sending {
        if let Payload::Authenticate { more: [_, envelope], .. } = &mut self.payload {
            self.words += &format!(" with {words} in its envelope");
            *envelope = bytes;
        }
        self
    }

    /// With a header pair, if it is a call of `authenticate`.
    pub fn with_header(mut self, key: i32, value: &str) -> Sending {
        if let Payload::Authenticate { headers, .. } = &mut self.payload {
            self.words += &format!(" with the header {key}: {value:?}");
            headers.push(SatAuthHeaderPair { key, value: value.into() });
        }
        self
    }
}

/// Sends this.
pub fn send(sending: Sending) -> Step {
    Step::Send(sending)
}

/// A call of `authenticate` with this number, the id of the case and a good token.
pub fn authenticate(request_id: u32) -> Sending {
    let (id, token, headers, more) = (Id::Own, TokenSpec::good(), vec![], [&b""[..]; 2]);
    let payload = Payload::Authenticate { request_id, id, token, headers, more };
    Sending::new(format!("authenticate ({request_id})"), payload, Framing::One(octets::BINARY))
}

/// A call with this number.
pub fn call(request_id: u32, request: impl Into<Request>) -> Sending {
    let request = request.into();
    let words = format!("{} ({request_id}) {request:?}", request.method());
    message_in_words(words, &request.encode(request_id))
}

/// A call of any method, with any body.
pub fn call_of(method: &str, request_id: u32, body: &[u8]) -> Sending {
    let words = format!("a call of {method:?} ({request_id}) with the body {}", hex(body));
    let message = Bytes::copy_from_slice(body);
    let envelope = SatRpcRequest { method: method.into(), request_id, message };
    message_in_words(words, &envelope.into())
}

/// A message that travels alone.
pub fn message(message: impl Into<Message>) -> Sending {
    let message = message.into();
    message_in_words(format!("{message:?}"), &message)
}

/// A binary message of these bytes.
pub fn binary(words: &str, bytes: impl Into<Bytes>) -> Sending {
    Sending::new(words, Payload::Bytes(bytes.into()), Framing::One(octets::BINARY))
}

/// Bytes that are no frame, or several.
pub fn raw(words: &str, bytes: impl Into<Bytes>) -> Sending {
    Sending::new(words, Payload::Bytes(bytes.into()), Framing::Raw)
}

/// A control frame or any other, by the first byte of the frame.
pub fn frame(words: &str, first: u8, payload: impl Into<Bytes>) -> Sending {
    Sending::new(words, Payload::Bytes(payload.into()), Framing::One(first))
}

/// A WebSocket ping.
pub fn ping(payload: &'static [u8]) -> Sending {
    frame(&format!("a ping of {} bytes", payload.len()), octets::PING, payload)
}

/// A WebSocket pong that nobody has asked for.
pub fn pong(payload: &'static [u8]) -> Sending {
    frame("a pong", octets::PONG, payload)
}

/// A close frame with this code and reason.
pub fn close(code: u16, reason: &str) -> Sending {
    let payload = [&code.to_be_bytes()[..], reason.as_bytes()].concat();
    frame(&format!("a close frame of {code} {reason:?}"), octets::CLOSE, payload)
}

/// The positive answer to the peer's call that was expected last.
pub fn answer(reply: impl Into<Reply>) -> Sending {
    let reply = reply.into();
    let words = format!("the answer {reply:?}");
    let Message::Response(SatRpcResponse { result, .. }) = reply.encode(0) else {
        return binary(&words, Bytes::new());
    };
    answering(words, result)
}

/// The negative answer to the peer's call that was expected last.
pub fn refuse(code: ErrorCode) -> Sending {
    let words = format!("the refusal {}", code.as_str_name());
    answering(words, Some(Outcome::Error(SatErrorResp::of(code))))
}

/// The same with an error type of this number.
pub fn refuse_with(error_type: i32) -> Sending {
    let error = SatErrorResp { error_type, ..Default::default() };
    answering(format!("a refusal of error type {error_type}"), Some(Outcome::Error(error)))
}

/// The positive answer to the peer's call that was expected last, with this body.
pub fn answer_of(body: &'static [u8]) -> Sending {
    let words = format!("an answer with the body {}", hex(body));
    answering(words, Some(Outcome::Message(Bytes::from_static(body))))
}

/// What belongs to the subscription that the peer has asked for last.
pub fn deliver(part: Part) -> Sending {
    Sending::new(part.to_string(), Payload::Delivery(part), Framing::One(octets::BINARY))
}

/// A response to the peer's call that was expected last that holds neither answer nor error.
pub fn empty_response() -> Sending {
    answering("a response without a result".into(), None)
}

fn answering(words: String, result: Option<Outcome>) -> Sending {
    let payload = Payload::Answer { result, method: None, off_by: 0 };
    Sending::new(words, payload, Framing::One(octets::BINARY))
}

impl Sending {
    /// With a wrong request id, if it is an answer.
    pub fn with_wrong_number(mut self) -> Sending {
        if let Payload::Answer { off_by, .. } = &mut self.payload {
            *off_by = 1000;
            self.words += " with a wrong request id";
        }
        self
    }

    /// With another method, if it is an answer.
    pub fn with_method(mut self, other: &'static str) -> Sending {
        if let Payload::Answer { method, .. } = &mut self.payload {
            *method = Some(other);
            self.words += &format!(" with the method {other:?}");
        }
        self
    }
}

fn message_in_words(words: String, message: &Message) -> Sending {
    Sending::new(words, Payload::Bytes(message.encode()), Framing::One(octets::BINARY))
}

/// `startReplication` from the beginning.
pub fn start() -> SatInStartReplicationReq {
    SatInStartReplicationReq::default()
}

/// `startReplication` from this position.
pub fn start_at(lsn: &'static [u8]) -> SatInStartReplicationReq {
    SatInStartReplicationReq { lsn: Bytes::from_static(lsn), ..Default::default() }
}

/// `stopReplication`.
pub fn stop() -> SatInStopReplicationReq {
    SatInStopReplicationReq {}
}

/// `subscribe` without shapes.
pub fn subscribe(id: &str) -> SatSubsReq {
    SatSubsReq { subscription_id: id.into(), shape_requests: vec![] }
}

/// `unsubscribe`.
pub fn unsubscribe(id: &str) -> SatUnsubsReq {
    SatUnsubsReq { subscription_ids: vec![id.into()] }
}
