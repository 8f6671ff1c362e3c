//! How fast a stream is sent, taken and delivered, one way, beside bare ones that do the same.
//!
//! A stream of `SatOpLog` messages, each a transaction that inserts one row, is sent over loopback
//! from one thread to another, after the handshake. Whoever receives has the read buffer of a
//! client (`Limits::client`).
//!
//! | figure | sender | receiver |
//! |---|---|---|
//! | TCP | the same bytes, written one message at a time | reads them |
//! | WebSocket | tokio-tungstenite: feed and flush for each message | tokio-tungstenite |
//! | ours | `Server`: `Connection::send` encodes and sends each message | `Connector`: each is decoded, checked against the rules of the stream, and delivered through `Connection::recv` |
//! | our client | as WebSocket | as ours |
//! | WebSocket, saturated | encoded frames as fast as the socket takes them, 256 KiB at a time | as WebSocket |
//! | our client, saturated | the same | as ours |
//!
//! Ours is judged against the bare WebSocket: a service sends a transaction when it is committed.
//! `Connection::send` does not wait for the flush, so when messages come faster than they leave,
//! several leave in one write. The saturated ones are not judged: their sender costs next to
//! nothing, so that they say how much of a processor a message costs the receiver.
//!
//! All have their turns, round by round. Each figure is the 10th percentile of the turns.

mod receivers;
mod senders;

use std::error::Error;

use electric_satellite::wire::{Message, proto::*};
use sat_trans_op::Op;

use super::{Measured, report::Row, scale::Scale, statistics::undisturbed};

use receivers::{receive_bytes, receive_frames, receive_typed};
use senders::{Beginning, Sending, send_bytes, send_frames, send_typed};

struct Size {
    bytes: usize,
    name: &'static str,
    /// The share of a bare WebSocket's rate that is asked for, and what it is known by.
    judged: Option<(&'static str, f64)>,
}

const SIZES: &[Size] = &[
    Size { bytes: 64, name: "64 B", judged: Some(("throughput_64b_ratio", 0.65)) },
    Size { bytes: 1024, name: "1 KiB", judged: Some(("throughput_1k_ratio", 0.85)) },
    Size { bytes: 64 * 1024, name: "64 KiB", judged: Some(("throughput_64k_ratio", 0.95)) },
    Size { bytes: 1024 * 1024, name: "1 MiB", judged: None },
];

pub(crate) fn measure(scale: &Scale) -> Measured {
    let mut rows = vec![];
    for Size { bytes, name, judged } in SIZES {
        let messages = scale.messages.min(scale.bytes / bytes);
        let message = transaction(*bytes);
        let rates = Rates::measure(&message, messages, scale.streams)?;
        rows.extend(rates.rows(name, message.encode().len(), *judged));
    }
    Ok(rows)
}

/// Messages a second.
struct Rates {
    tcp: f64,
    websocket: f64,
    ours: f64,
    client: f64,
    saturated_websocket: f64,
    saturated_client: f64,
}

impl Rates {
    fn measure(message: &Message, messages: usize, rounds: usize) -> Result<Rates, Box<dyn Error>> {
        let frame = message.encode();
        let frames = |sending, beginning| send_frames(&frame, messages, sending, beginning);
        let mut turns: [Vec<f64>; 6] = Default::default();
        for _ in 0..rounds {
            let took = [
                receive_bytes(send_bytes(&frame, messages)?)?,
                receive_frames(frames(Sending::Fed, Beginning::AtOnce)?, messages)?,
                receive_typed(send_typed(message, messages)?, messages)?,
                receive_typed(frames(Sending::Fed, Beginning::WhenAsked)?, messages)?,
                receive_frames(frames(Sending::Saturated, Beginning::AtOnce)?, messages)?,
                receive_typed(frames(Sending::Saturated, Beginning::WhenAsked)?, messages)?,
            ];
            for (turns, took) in turns.iter_mut().zip(took) {
                turns.push(took.as_secs_f64());
            }
        }
        let [tcp, websocket, ours, client, saturated_websocket, saturated_client] =
            turns.map(|turns| messages as f64 / undisturbed(turns));
        Ok(Rates { tcp, websocket, ours, client, saturated_websocket, saturated_client })
    }

    fn rows(&self, size: &str, bytes: usize, judged: Option<(&'static str, f64)>) -> Vec<Row> {
        let Rates { tcp, websocket, ours, client, saturated_websocket, saturated_client } = *self;
        let ratio = |what, value| Row::ratio(format!("{size}, {what}"), value);
        let judge = |row: Row| match judged {
            Some((key, budget)) => row.at_least(budget).key(key),
            None => row,
        };
        let mut rows = vec![
            judge(ratio("ours / WebSocket", ours / websocket)),
            ratio("ours / TCP", ours / tcp),
            ratio("WebSocket / TCP", websocket / tcp),
            ratio("our client / WebSocket", client / websocket),
            ratio("our client / WebSocket, saturated", saturated_client / saturated_websocket),
        ];
        let rates = [
            ("TCP", tcp),
            ("WebSocket", websocket),
            ("ours", ours),
            ("our client", client),
            ("WebSocket, saturated", saturated_websocket),
            ("our client, saturated", saturated_client),
        ];
        for (what, rate) in rates {
            let figure = format!("{size}, {what}");
            rows.push(Row::new(figure.clone(), rate, "messages/s"));
            rows.push(Row::new(figure, rate * bytes as f64 / 1e6, "MB/s"));
        }
        rows
    }
}

/// A `SatOpLog` of about this size: a transaction that inserts one row of two columns.
fn transaction(size: usize) -> Message {
    let of = |text: usize| {
        let op = |op| SatTransOp { op: Some(op) };
        let row = ["1".to_owned(), "x".repeat(text)].map(Some).into_iter().collect();
        let insert = SatOpInsert { relation_id: 1, row_data: Some(row), tags: vec![] };
        let ops = vec![
            op(Op::Begin(SatOpBegin { lsn: "28203208".into(), ..Default::default() })),
            op(Op::Insert(insert)),
            op(Op::Commit(SatOpCommit { lsn: "28203208".into(), ..Default::default() })),
        ];
        Message::OpLog(SatOpLog { ops })
    };
    of(size.saturating_sub(of(0).encoded_len()))
}

/// The table of its row.
fn relation() -> SatRelation {
    let columns = vec![SatRelationColumn::default(); 2];
    SatRelation { relation_id: 1, columns, ..Default::default() }
}
