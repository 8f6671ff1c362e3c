//! What travels: frames, messages, calls, versions and positions.
//!
//! One binary WebSocket message is one byte that names the type and a protobuf body
//! ([`Message`]). Two of the thirteen types are the envelopes of calls and replies ([`rpc`]).
//! The generated protobuf types are in [`proto`]; rows of values are read and built with [`Row`].

pub mod lsn;
mod row;
pub mod rpc;
mod version;

use std::{borrow::Cow, fmt};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message as _;

pub use lsn::{MalformedLsn, ServerLsn};
pub use row::{Row, RowError};
pub use rpc::{Call, Method, MethodName, Reply, ReplyError, Request, RequestError, refusal};
pub use version::{Version, VersionError};

use proto::*;

/// The protobuf types generated from `proto/satellite.proto`.
///
/// Fields of type `Bytes` share the memory of the frame they were decoded from: copy what is kept
/// for long, or the whole frame stays in memory with it.
#[allow(missing_docs, clippy::doc_markdown)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/electric.satellite.rs"));
}

/// Why a binary frame is no message of this protocol.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FrameError {
    /// Not even a type byte.
    #[error("empty frame")]
    Empty,
    /// The type byte names no message of this protocol.
    #[error("unknown message type {0}")]
    UnknownType(u8),
    /// The body is not the protobuf message that the type byte promises.
    #[error("undecodable {message}: {source}")]
    Body {
        /// The protobuf name of the promised message.
        message: &'static str,
        /// What the decoder says.
        source: BodyError,
    },
}

/// What the protobuf decoder says of an undecodable body. It never quotes the input.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error(transparent)]
pub struct BodyError(#[from] prost::DecodeError);

/// Declares the messages that travel alone: type byte, variant, protobuf type, first version.
macro_rules! messages {
    ($($(#[$doc:meta])* $byte:literal $variant:ident($body:ident) since $since:ident,)*) => {
        /// A message that travels alone, as one binary WebSocket message.
        ///
        /// ```
        /// use electric_satellite::wire::{Message, proto::SatErrorResp};
        ///
        /// // An empty SatErrorResp, which means INTERNAL, is the one-byte frame 00.
        /// let message = Message::Error(SatErrorResp::default());
        /// assert_eq!(message.encode().as_ref(), [0]);
        /// assert_eq!(Message::decode(message.encode())?, message);
        /// # Ok::<_, electric_satellite::wire::FrameError>(())
        /// ```
        #[derive(Clone, Debug, PartialEq)]
        pub enum Message {
            $($(#[$doc])* $variant($body),)*
        }

        impl Message {
            /// Every type byte of the protocol, with the name of its message.
            pub const TYPES: &'static [(u8, &'static str)] =
                &[$(($byte, stringify!($body)),)*];

            /// Reads a binary frame. Byte fields of the result share the frame's memory.
            ///
            /// # Errors
            ///
            /// See [`FrameError`].
            pub fn decode(mut frame: Bytes) -> Result<Message, FrameError> {
                if frame.is_empty() {
                    return Err(FrameError::Empty);
                }
                // What is left of it is the body.
                match frame.get_u8() {
                    $($byte => $body::decode(frame).map(Message::$variant).map_err(|error| {
                        FrameError::Body { message: stringify!($body), source: error.into() }
                    }),)*
                    unknown => Err(FrameError::UnknownType(unknown)),
                }
            }

            /// Writes the binary frame.
            pub fn encode(&self) -> Bytes {
                match self {
                    $(Message::$variant(body) => frame($byte, body),)*
                }
            }

            /// How many bytes the binary frame has.
            pub fn encoded_len(&self) -> usize {
                match self {
                    $(Message::$variant(body) => 1 + body.encoded_len(),)*
                }
            }

            /// The protobuf name of the message, for logs.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Message::$variant(_) => stringify!($body),)*
                }
            }

            /// The first version whose decoders know this message.
            pub fn since(&self) -> Version {
                match self {
                    $(Message::$variant(_) => Version::$since,)*
                }
            }
        }

        $(impl From<$body> for Message {
            fn from(body: $body) -> Message {
                Message::$variant(body)
            }
        })*
    };
}

messages! {
    /// Trouble that is not the answer to a call; type byte 0.
    0 Error(SatErrorResp) since V0_6,
    /// Changes, in transactions or in a shape's data; type byte 9.
    9 OpLog(SatOpLog) since V0_6,
    /// The columns of a table, before its id is first used; type byte 10.
    10 Relation(SatRelation) since V0_6,
    /// A subscription's data cannot be delivered; type byte 14.
    14 SubsDataError(SatSubsDataError) since V0_6,
    /// A subscription's data begins; type byte 15.
    15 SubsDataBegin(SatSubsDataBegin) since V0_6,
    /// A subscription's data ends; type byte 16.
    16 SubsDataEnd(SatSubsDataEnd) since V0_6,
    /// The data of one shape begins; type byte 17.
    17 ShapeDataBegin(SatShapeDataBegin) since V0_6,
    /// The data of one shape ends; type byte 18.
    18 ShapeDataEnd(SatShapeDataEnd) since V0_6,
    /// A call, see [`Request`]; type byte 21.
    21 Request(SatRpcRequest) since V0_6,
    /// The answer to a call, see [`Reply`]; type byte 22.
    22 Response(SatRpcResponse) since V0_6,
    /// A client has stored everything up to a transaction; type byte 23, from 0.10 on.
    23 OpLogAck(SatOpLogAck) since V0_10,
    /// The rows that leave with a subscription begin; type byte 24, from 0.12 on.
    24 UnsubsDataBegin(SatUnsubsDataBegin) since V0_12,
    /// The rows that leave with a subscription end; type byte 25, from 0.12 on.
    25 UnsubsDataEnd(SatUnsubsDataEnd) since V0_12,
}

/// The type byte and the body in one buffer of the right size.
fn frame(type_byte: u8, body: &impl prost::Message) -> Bytes {
    let mut frame = BytesMut::with_capacity(1 + body.encoded_len());
    frame.put_u8(type_byte);
    body.encode_raw(&mut frame);
    frame.freeze()
}

impl SatErrorResp {
    /// An error of this type, without words.
    pub fn of(code: sat_error_resp::ErrorCode) -> SatErrorResp {
        SatErrorResp { error_type: code.into(), ..Default::default() }
    }

    /// The same error with words for a person.
    pub fn with_message(self, text: impl Into<String>) -> SatErrorResp {
        SatErrorResp { message: Some(text.into().into()), ..self }
    }

    /// The words, if there are any. Old servers can put invalid UTF-8 there; it is replaced.
    pub fn text(&self) -> Option<Cow<'_, str>> {
        self.message.as_deref().map(String::from_utf8_lossy)
    }
}

impl fmt::Display for SatErrorResp {
    /// The name of the error type and the words, for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match sat_error_resp::ErrorCode::try_from(self.error_type) {
            Ok(code) => f.write_str(code.as_str_name())?,
            Err(_) => write!(f, "error type {}", self.error_type)?,
        }
        match self.text() {
            Some(text) => write!(f, ": {}", text.escape_debug()),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for SatAuthReq {
    /// Everything but the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SatAuthReq")
            .field("id", &self.id)
            .field("token", &format_args!("[{} bytes]", self.token.len()))
            .field("headers", &self.headers.len())
            .finish()
    }
}

impl fmt::Debug for SatRpcRequest {
    /// Everything but the body, which may hold a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SatRpcRequest")
            .field("method", &MethodName(self.method.clone()))
            .field("request_id", &self.request_id)
            .field("message", &format_args!("[{} bytes]", self.message.len()))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{sat_error_resp::ErrorCode, *};

    #[test]
    fn thirteen_messages_travel_alone() {
        let bytes: Vec<u8> = Message::TYPES.iter().map(|(byte, _)| *byte).collect();
        assert_eq!(bytes, [0, 9, 10, 14, 15, 16, 17, 18, 21, 22, 23, 24, 25]);
        for byte in 0..=u8::MAX {
            let decoded = Message::decode(Bytes::from(vec![byte]));
            match bytes.contains(&byte) {
                // Every body may be empty in proto3.
                true => assert_eq!(decoded.unwrap().encode().as_ref(), [byte]),
                false => assert_eq!(decoded, Err(FrameError::UnknownType(byte))),
            }
        }
    }

    #[test]
    fn an_empty_frame_and_an_undecodable_body_are_told_apart() {
        assert_eq!(Message::decode(Bytes::new()), Err(FrameError::Empty));
        let error = Message::decode(Bytes::from_static(b"\x15\xff\xff\xff")).unwrap_err();
        assert!(matches!(error, FrameError::Body { message: "SatRpcRequest", .. }), "{error}");
    }

    #[test]
    fn an_error_message_of_invalid_utf8_survives() {
        let frame = Bytes::from_static(b"\x00\x08\x04\x1a\x03lsn\x12\x02\xff\xfe");
        let Message::Error(error) = Message::decode(frame).unwrap() else { panic!() };
        assert_eq!(error.error_type(), ErrorCode::InvalidRequest);
        let garbled = Bytes::from_static(b"\x00\x1a\x02\xff\xfe");
        let Message::Error(error) = Message::decode(garbled.clone()).unwrap() else { panic!() };
        assert_eq!(error.text().unwrap(), "\u{fffd}\u{fffd}");
        assert_eq!(Message::Error(error).encode(), garbled);
    }

    #[test]
    fn what_may_hold_a_token_is_shown_by_its_size() {
        let token = "eyJhbGciOiJub25lIn0.e30.".to_owned();
        let header = SatAuthHeaderPair { value: token.clone(), ..Default::default() };
        let auth = SatAuthReq { id: "client".into(), token: token.clone(), headers: vec![header] };
        assert_eq!(
            format!("{auth:?}"),
            r#"SatAuthReq { id: "client", token: [24 bytes], headers: 1 }"#
        );
        let call =
            SatRpcRequest { method: "authenticate".into(), request_id: 7, message: token.into() };
        assert_eq!(
            format!("{call:?}"),
            r#"SatRpcRequest { method: "authenticate", request_id: 7, message: [24 bytes] }"#
        );
    }

    #[test]
    fn payload_bytes_are_shared_not_copied() {
        let row = SatOpRow { nulls_bitmask: Bytes::from_static(b"\0"), values: vec!["v".into()] };
        let insert = SatOpInsert { relation_id: 1, row_data: Some(row), tags: vec![] };
        let op = SatTransOp { op: Some(sat_trans_op::Op::Insert(insert)) };
        let frame = Message::OpLog(SatOpLog { ops: vec![op] }).encode();
        let Message::OpLog(log) = Message::decode(frame.clone()).unwrap() else { panic!() };
        let Some(sat_trans_op::Op::Insert(insert)) = &log.ops[0].op else { panic!() };
        let value = &insert.row_data.as_ref().unwrap().values[0];
        assert!(frame.as_ptr_range().contains(&value.as_ptr()));
    }

    #[test]
    fn only_the_later_messages_need_a_later_version() {
        let later: Vec<(u8, Version)> = (0..=25)
            .filter_map(|byte| {
                Message::decode(Bytes::from(vec![byte])).ok().map(|m| (byte, m.since()))
            })
            .filter(|(_, since)| *since > Version::V0_6)
            .collect();
        assert_eq!(later, [(23, Version::V0_10), (24, Version::V0_12), (25, Version::V0_12)]);
    }

    proptest! {
        #[test]
        fn decoding_never_panics_and_what_decodes_encodes_to_an_equal_message(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            known in proptest::option::of(proptest::sample::select(
                Message::TYPES.iter().map(|(byte, _)| *byte).collect::<Vec<_>>(),
            )),
        ) {
            let frame: Bytes = known.into_iter().chain(bytes).collect();
            if let Ok(message) = Message::decode(frame) {
                prop_assert_eq!(Message::decode(message.encode()).unwrap(), message);
            }
        }
    }
}
