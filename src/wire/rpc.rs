//! Calls and replies: `SatRpcRequest` and `SatRpcResponse`, typed by method.
//!
//! Calls go both ways over one connection, each side counting its own request ids. A reply
//! repeats the method and the request id of its call, and the two together are what correlates
//! them: neither alone is unique.

use std::{fmt, str::FromStr};

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;

use super::{BodyError, Message, proto::*};
use sat_rpc_response::Result as Outcome;

/// Declares the methods: variant, name on the wire, request type, reply type.
macro_rules! methods {
    ($($(#[$doc:meta])* $variant:ident $name:literal $request:ident => $reply:ident,)*) => {
        /// The name of a call.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Method {
            $($(#[$doc])* $variant,)*
        }

        impl Method {
            /// The name as it travels.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Method::$variant => $name,)*
                }
            }
        }

        impl FromStr for Method {
            type Err = ();

            /// Names are case-sensitive.
            fn from_str(name: &str) -> Result<Method, ()> {
                match name {
                    $($name => Ok(Method::$variant),)*
                    _ => Err(()),
                }
            }
        }

        /// A call, typed by its method.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Request {
            $($(#[$doc])* $variant($request),)*
        }

        /// The positive answer to a call, typed by its method.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Reply {
            $($(#[$doc])* $variant($reply),)*
        }

        impl Request {
            /// The method called.
            pub fn method(&self) -> Method {
                match self {
                    $(Request::$variant(_) => Method::$variant,)*
                }
            }

            /// How many bytes its body has.
            pub fn encoded_len(&self) -> usize {
                match self {
                    $(Request::$variant(body) => body.encoded_len(),)*
                }
            }

            fn decode_body(method: Method, body: Bytes) -> Result<Request, prost::DecodeError> {
                match method {
                    $(Method::$variant => $request::decode(body).map(Request::$variant),)*
                }
            }

            fn encode_body(&self) -> Bytes {
                match self {
                    $(Request::$variant(body) => body.encode_to_vec().into(),)*
                }
            }

            /// The binary frame of the call: the same as by [`Request::encode`], in one step.
            pub fn frame(&self, request_id: u32) -> Bytes {
                match self {
                    $(Request::$variant(body) => {
                        let empty = body.encoded_len() == 0;
                        envelope(21, $name, request_id, (!empty).then_some(body))
                    })*
                }
            }
        }

        impl Reply {
            /// The method answered.
            pub fn method(&self) -> Method {
                match self {
                    $(Reply::$variant(_) => Method::$variant,)*
                }
            }

            fn decode_body(method: Method, body: Bytes) -> Result<Reply, prost::DecodeError> {
                match method {
                    $(Method::$variant => $reply::decode(body).map(Reply::$variant),)*
                }
            }

            fn encode_body(&self) -> Bytes {
                match self {
                    $(Reply::$variant(body) => body.encode_to_vec().into(),)*
                }
            }

            /// The binary frame of the answer: the same as by [`Reply::encode`], in one step.
            pub fn frame(&self, request_id: u32) -> Bytes {
                match self {
                    $(Reply::$variant(body) => envelope(22, $name, request_id, Some(body)),)*
                }
            }
        }

        $(impl From<$request> for Request {
            fn from(body: $request) -> Request {
                Request::$variant(body)
            }
        }

        impl From<$reply> for Reply {
            fn from(body: $reply) -> Reply {
                Reply::$variant(body)
            }
        })*
    };
}

methods! {
    /// A client presents its id and its token.
    Authenticate "authenticate" SatAuthReq => SatAuthResp,
    /// One side asks the other to start sending its changes.
    StartReplication "startReplication" SatInStartReplicationReq => SatInStartReplicationResp,
    /// One side asks the other to stop sending its changes.
    StopReplication "stopReplication" SatInStopReplicationReq => SatInStopReplicationResp,
    /// A client asks for the rows of some shapes.
    Subscribe "subscribe" SatSubsReq => SatSubsResp,
    /// A client gives subscriptions up.
    Unsubscribe "unsubscribe" SatUnsubsReq => SatUnsubsResp,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A request type that may be called on an authenticated connection, with its reply type.
///
/// `authenticate` is not among them: who is connected is settled before there is a connection.
pub trait Call: Into<Request> + sealed::Sealed {
    /// The method's name.
    const METHOD: Method;
    /// What a positive answer holds.
    type Reply: Into<Reply>;

    /// The answer to this call, if it is one.
    fn reply(reply: Reply) -> Option<Self::Reply>;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! calls {
    ($($variant:ident $request:ident => $reply:ident,)*) => {$(
        impl sealed::Sealed for $request {}

        impl Call for $request {
            const METHOD: Method = Method::$variant;
            type Reply = $reply;

            fn reply(reply: Reply) -> Option<$reply> {
                match reply {
                    Reply::$variant(reply) => Some(reply),
                    _ => None,
                }
            }
        }
    )*};
}

calls! {
    StartReplication SatInStartReplicationReq => SatInStartReplicationResp,
    StopReplication SatInStopReplicationReq => SatInStopReplicationResp,
    Subscribe SatSubsReq => SatSubsResp,
    Unsubscribe SatUnsubsReq => SatUnsubsResp,
}

/// The name of a method as a peer wrote it. What does not look like a name may be a part of
/// something else, a token even, so it is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct MethodName(pub String);

impl From<&str> for MethodName {
    fn from(name: &str) -> MethodName {
        MethodName(name.to_owned())
    }
}

impl fmt::Debug for MethodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.0;
        match name.len() <= 32 && name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            true => write!(f, "{name:?}"),
            false => write!(f, "[{} bytes]", name.len()),
        }
    }
}

/// Why a `SatRpcRequest` is no call of this protocol. It keeps what a refusal must echo.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// There is no such method; names are case-sensitive.
    #[error("unknown method {method:?} (request {request_id})")]
    UnknownMethod {
        /// The name, as it came.
        method: MethodName,
        /// The caller's number for the call.
        request_id: u32,
    },
    /// The body is not the method's request message.
    #[error("undecodable body of {method} (request {request_id}): {source}")]
    Body {
        /// The method called.
        method: Method,
        /// The caller's number for the call.
        request_id: u32,
        /// What the decoder says.
        source: BodyError,
    },
}

/// Why a `SatRpcResponse` holds no positive answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ReplyError {
    /// The peer refused the call.
    #[error("refused: {0}")]
    Refused(SatErrorResp),
    /// Neither an answer nor an error is present.
    #[error("the response holds neither a message nor an error")]
    Missing,
    /// The body is not the method's reply message.
    #[error("undecodable body of the response: {0}")]
    Body(BodyError),
}

impl Request {
    /// Reads a call from its envelope.
    ///
    /// # Errors
    ///
    /// See [`RequestError`].
    pub fn decode(envelope: SatRpcRequest) -> Result<Request, RequestError> {
        let SatRpcRequest { method, request_id, message } = envelope;
        let Ok(method) = method.parse() else {
            return Err(RequestError::UnknownMethod { method: MethodName(method), request_id });
        };
        Request::decode_body(method, message).map_err(|error| RequestError::Body {
            method,
            request_id,
            source: error.into(),
        })
    }

    /// Puts the call into its envelope.
    pub fn encode(&self, request_id: u32) -> Message {
        Message::Request(SatRpcRequest {
            method: self.method().as_str().into(),
            request_id,
            message: self.encode_body(),
        })
    }
}

impl Reply {
    /// Reads the answer to a call of `method` from its envelope.
    ///
    /// # Errors
    ///
    /// See [`ReplyError`].
    pub fn decode(method: Method, envelope: SatRpcResponse) -> Result<Reply, ReplyError> {
        match envelope.result {
            Some(Outcome::Message(body)) => {
                Reply::decode_body(method, body).map_err(|error| ReplyError::Body(error.into()))
            }
            Some(Outcome::Error(error)) => Err(ReplyError::Refused(error)),
            None => Err(ReplyError::Missing),
        }
    }

    /// Puts the answer into its envelope. An empty body is still present, with length 0: clients
    /// take a response without it for a failure.
    pub fn encode(&self, request_id: u32) -> Message {
        Message::Response(SatRpcResponse {
            method: self.method().as_str().into(),
            request_id,
            result: Some(Outcome::Message(self.encode_body())),
        })
    }
}

impl RequestError {
    /// The refusal that echoes the method and the request id of the failed call.
    pub fn refusal(&self, error: SatErrorResp) -> Message {
        match self {
            RequestError::UnknownMethod { method: MethodName(method), request_id } => {
                refusal(method, *request_id, error)
            }
            RequestError::Body { method, request_id, .. } => {
                refusal(method.as_str(), *request_id, error)
            }
        }
    }
}

/// The frame of a `SatRpcRequest` or a `SatRpcResponse`, which have the same fields for what is
/// written here. Its protobuf types own their fields, and would cost three copies of the body.
fn envelope<B: prost::Message>(
    type_byte: u8,
    method: &str,
    request_id: u32,
    body: Option<&B>,
) -> Bytes {
    // Field 1, a string; field 2, an integer, absent if it is 0; field 3, bytes.
    const METHOD: u8 = 1 << 3 | 2;
    const REQUEST_ID: u8 = 2 << 3;
    const BODY: u8 = 3 << 3 | 2;
    let body = body.map(|body| (body, body.encoded_len()));
    let most = 1 + 2 * (1 + MAX_VARINT) + method.len();
    let mut frame =
        BytesMut::with_capacity(most + body.map_or(0, |(_, length)| 1 + MAX_VARINT + length));
    frame.put_u8(type_byte);
    frame.put_u8(METHOD);
    put_varint(&mut frame, method.len());
    frame.put_slice(method.as_bytes());
    if request_id != 0 {
        frame.put_u8(REQUEST_ID);
        put_varint(&mut frame, request_id as usize);
    }
    if let Some((body, length)) = body {
        frame.put_u8(BODY);
        put_varint(&mut frame, length);
        body.encode_raw(&mut frame);
    }
    frame.freeze()
}

/// The longest varint of a number of 64 bits, in bytes.
const MAX_VARINT: usize = 10;

fn put_varint(frame: &mut BytesMut, number: usize) {
    prost::encode_length_delimiter(number, frame).expect("the buffer grows");
}

/// The negative answer to a call.
pub fn refusal(method: &str, request_id: u32, error: SatErrorResp) -> Message {
    Message::Response(SatRpcResponse {
        method: method.into(),
        request_id,
        result: Some(Outcome::Error(error)),
    })
}

#[cfg(test)]
mod tests {
    use super::{sat_error_resp::ErrorCode, *};

    fn envelope(message: Message) -> SatRpcRequest {
        match message {
            Message::Request(envelope) => envelope,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_call_and_its_reply_survive_their_envelopes() {
        let call = Request::from(SatUnsubsReq { subscription_ids: vec!["a".into()] });
        let sent = envelope(call.encode(7));
        assert_eq!((sent.method.as_str(), sent.request_id), ("unsubscribe", 7));
        assert_eq!(Request::decode(sent), Ok(call));

        let reply = Reply::from(SatAuthResp { id: "server".into(), headers: vec![] });
        let Message::Response(sent) = reply.encode(7) else { panic!() };
        assert_eq!(Reply::decode(Method::Authenticate, sent), Ok(reply));
    }

    #[test]
    fn a_frame_in_one_step_is_the_frame_of_the_envelope() {
        let ids: Vec<String> = (0..200).map(|id| format!("subscription {id}")).collect();
        for request_id in [0, 1, 127, 128, u32::MAX] {
            for request in [
                Request::from(SatAuthReq { token: "t".repeat(200), ..Default::default() }),
                SatInStartReplicationReq::default().into(),
                SatUnsubsReq { subscription_ids: ids.clone() }.into(),
            ] {
                assert_eq!(request.frame(request_id), request.encode(request_id).encode());
            }
            for reply in [
                Reply::from(SatAuthResp { id: "server".into(), headers: vec![] }),
                SatInStopReplicationResp {}.into(),
                SatSubsResp { subscription_id: "s".repeat(20_000), err: None }.into(),
            ] {
                assert_eq!(reply.frame(request_id), reply.encode(request_id).encode());
            }
        }
    }

    #[test]
    fn an_empty_reply_is_still_on_the_wire() {
        let reply = Reply::from(SatInStopReplicationResp {});
        let frame = reply.encode(1).encode();
        assert!(frame.ends_with(b"\x1a\x00"), "{frame:?}");
    }

    #[test]
    fn failures_keep_what_the_refusal_echoes() {
        let unknown =
            SatRpcRequest { method: "Authenticate".into(), request_id: 7, ..Default::default() };
        let error = Request::decode(unknown).unwrap_err();
        let expected = refusal("Authenticate", 7, SatErrorResp::of(ErrorCode::InvalidRequest));
        assert_eq!(error.refusal(SatErrorResp::of(ErrorCode::InvalidRequest)), expected);

        let garbled = SatRpcRequest {
            method: "subscribe".into(),
            request_id: 9,
            message: Bytes::from_static(b"\xff"),
        };
        let error = Request::decode(garbled).unwrap_err();
        assert!(matches!(
            error,
            RequestError::Body { method: Method::Subscribe, request_id: 9, .. }
        ));
    }

    #[test]
    fn only_what_looks_like_the_name_of_a_method_is_shown() {
        let (longest, too_long) = ("a".repeat(32), "a".repeat(33));
        for (name, shown) in [
            ("startReplication", r#""startReplication""#),
            ("replicate2", r#""replicate2""#),
            ("", r#""""#),
            (&longest, &format!("{longest:?}")),
            (&too_long, "[33 bytes]"),
            ("a.b", "[3 bytes]"),
            ("a b", "[3 bytes]"),
            ("é", "[2 bytes]"),
        ] {
            assert_eq!(format!("{:?}", MethodName::from(name)), shown);
        }
    }

    #[test]
    fn a_method_is_shown_and_read_by_its_name_alone() {
        for (method, name) in [
            (Method::Authenticate, "authenticate"),
            (Method::StartReplication, "startReplication"),
            (Method::StopReplication, "stopReplication"),
            (Method::Subscribe, "subscribe"),
            (Method::Unsubscribe, "unsubscribe"),
        ] {
            assert_eq!((method.to_string().as_str(), name.parse()), (name, Ok(method)));
            assert_eq!(name.to_ascii_uppercase().parse::<Method>(), Err(()));
        }
    }

    #[test]
    fn a_response_without_an_outcome_is_no_answer() {
        let silent = SatRpcResponse::default();
        assert_eq!(Reply::decode(Method::Subscribe, silent), Err(ReplyError::Missing));
    }
}
