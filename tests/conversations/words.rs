//! What a server says, in words.

use bytes::Bytes;
use electric_satellite::{
    session::Close,
    wire::{
        Message, Reply, Request,
        proto::{
            SatAuthResp, SatErrorResp, SatInStartReplicationResp, SatInStopReplicationResp,
            SatRpcResponse, SatUnsubsResp, sat_in_start_replication_resp::ReplicationError,
            sat_rpc_response::Result as Outcome,
        },
    },
};

/// The frames that a server sent, by opcode, and whether the connection is open after them.
pub(crate) fn conversation(frames: impl IntoIterator<Item = (u8, Bytes)>, is_open: bool) -> String {
    let mut closed = false;
    let mut said: Vec<String> = vec![];
    for (opcode, payload) in frames {
        assert!(!closed, "nothing follows a close frame");
        closed = opcode == 8;
        said.push(frame(opcode, payload));
    }
    match (closed, is_open) {
        // The close frame is followed by the end of the stream, as it should be.
        (true, false) => {}
        (true, true) => said.push("but still open".into()),
        (false, true) => said.push("open".into()),
        (false, false) => said.push("gone without a close".into()),
    }
    said.join("; ")
}

fn frame(opcode: u8, payload: Bytes) -> String {
    match opcode {
        2 => match Message::decode(payload) {
            Ok(decoded) => message(decoded),
            Err(error) => format!("undecodable frame ({error})"),
        },
        8 => close(&payload),
        10 => format!("pong {payload:?}"),
        _ => format!("frame of opcode {opcode}: {payload:?}"),
    }
}

fn close(payload: &[u8]) -> String {
    let Some((code, reason)) = payload.split_at_checked(2) else { return "close".into() };
    let code = u16::from_be_bytes([code[0], code[1]]);
    let reason = String::from_utf8_lossy(reason).into_owned().into();
    format!("close {}", Close { code, reason })
}

fn message(message: Message) -> String {
    match message {
        Message::Error(error) => format!("error {}", error_resp(&error)),
        Message::Response(envelope) => response(envelope),
        Message::Request(envelope) => {
            let request_id = envelope.request_id;
            format!("calls {:?} {request_id}", Request::decode(envelope))
        }
        other => format!("{other:?}"),
    }
}

fn response(envelope: SatRpcResponse) -> String {
    let (method, request_id) = (envelope.method.clone(), envelope.request_id);
    let outcome = match (&envelope.result, method.parse()) {
        (Some(Outcome::Error(error)), _) => format!("refused, {}", error_resp(error)),
        (_, Err(())) => "answered, though there is no such method".into(),
        (_, Ok(known)) => match Reply::decode(known, envelope) {
            Ok(positive) => reply(positive),
            Err(error) => error.to_string(),
        },
    };
    format!("{method} {request_id}: {outcome}")
}

/// A positive answer. Every field is accounted for, but the instance id of a welcome.
fn reply(reply: Reply) -> String {
    match reply {
        Reply::Authenticate(SatAuthResp { id: _, headers }) if headers.is_empty() => {
            "welcome".into()
        }
        Reply::StartReplication(SatInStartReplicationResp { err, unacked_window_size }) => {
            start(err, unacked_window_size)
        }
        Reply::StopReplication(SatInStopReplicationResp {}) => "stopped".into(),
        Reply::Unsubscribe(SatUnsubsResp {}) => "unsubscribed".into(),
        other => format!("{other:?}"),
    }
}

fn start(err: Option<ReplicationError>, window: Option<u32>) -> String {
    let mut words = match err {
        None => "started".into(),
        Some(err) => {
            let ReplicationError { code: _, message } = &err;
            format!("not started, {}: {message}", err.code().as_str_name())
        }
    };
    if let Some(size) = window {
        words.push_str(&format!(", window {size}"));
    }
    words
}

fn error_resp(error: &SatErrorResp) -> String {
    // `Display` tells the type and the message.
    let SatErrorResp { error_type: _, message: _, lsn } = error;
    match lsn {
        None => error.to_string(),
        Some(lsn) => format!("{error} at {lsn:?}"),
    }
}
