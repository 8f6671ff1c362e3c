//! The suite's end of a connection: it reads and writes by the byte, and keeps a record.

use std::{io, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout},
};

use crate::{session::Close, wire::Message};

use super::{
    octets::{self, Http},
    script::{Framing, Incoming, hex},
};

/// Anything that leads to a peer.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// One line of the record of a conversation.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Line {
    /// Milliseconds since the case began.
    pub at_ms: u64,
    /// Which of the connections of the case, counted from 1.
    pub connection: usize,
    /// Who: `suite`, `peer`, or nobody for a remark.
    pub from: &'static str,
    /// What, in words.
    pub what: String,
    /// The payload in hex, or the text of HTTP. Signatures of tokens are blotted out.
    pub bytes: String,
}

/// What the connections of a case have in common.
pub(super) struct Record {
    started: Instant,
    pub(super) lines: Vec<Line>,
    /// What must not be shown.
    secrets: Vec<String>,
}

/// How many lines of a record are kept.
const MOST_LINES: usize = 2000;

impl Record {
    pub(super) fn new() -> Record {
        Record { started: Instant::now(), lines: vec![], secrets: vec![] }
    }

    /// The signature of this token is not to be shown.
    pub(super) fn hide(&mut self, token: &str) {
        if let Some((_, signature)) = token.rsplit_once('.')
            && signature.len() >= 8
            && !self.secrets.iter().any(|secret| secret == signature)
        {
            self.secrets.push(signature.to_owned());
        }
    }

    pub(super) fn note(
        &mut self,
        connection: usize,
        from: &'static str,
        what: impl Into<String>,
        bytes: String,
    ) {
        if self.lines.len() < MOST_LINES {
            let at_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.lines.push(Line { at_ms, connection, from, what: what.into(), bytes });
        }
    }

    /// These bytes in hex, with signatures blotted out.
    fn shown(&self, bytes: &[u8]) -> String {
        let mut shown = bytes.to_vec();
        for secret in &self.secrets {
            while let Some(at) =
                shown.windows(secret.len()).position(|window| window == secret.as_bytes())
            {
                shown[at..at + secret.len()].fill(b'*');
            }
        }
        hex(&shown)
    }
}

/// One connection.
pub(super) struct Wire {
    stream: Box<dyn Stream>,
    nth: usize,
    /// Whether this end is the client, which masks what it sends.
    is_client: bool,
    buffer: BytesMut,
    /// The opcode and what has arrived of a message in fragments.
    fragments: Option<(u8, BytesMut)>,
    ended: bool,
    pub(super) pongs: bool,
    /// What is to be sent, while it is held back to be sent at once.
    pub(super) held_back: Option<Vec<u8>>,
    /// A close frame was sent.
    pub(super) has_closed: bool,
    pub(super) version: Option<crate::wire::Version>,
}

/// The largest message that is taken.
const LARGEST: usize = 64 * 1024 * 1024;

impl Wire {
    pub(super) fn new(stream: Box<dyn Stream>, nth: usize, is_client: bool) -> Wire {
        Wire {
            stream,
            nth,
            is_client,
            buffer: BytesMut::new(),
            fragments: None,
            ended: false,
            pongs: true,
            held_back: None,
            has_closed: false,
            version: None,
        }
    }

    /// Sends text as it is.
    pub(super) async fn write_text(&mut self, record: &mut Record, text: &str, within: Duration) {
        let words = text.lines().next().unwrap_or_default().to_owned();
        record.note(self.nth, "suite", words, text.to_owned());
        self.write(record, text.as_bytes(), within).await;
    }

    /// Sends bytes. That the peer is gone shows when reading.
    async fn write(&mut self, record: &mut Record, bytes: &[u8], within: Duration) {
        if let Some(held_back) = &mut self.held_back {
            held_back.extend_from_slice(bytes);
            return;
        }
        let stream = &mut self.stream;
        let written = async {
            stream.write_all(bytes).await?;
            stream.flush().await
        };
        match timeout(within, written).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => record.note(self.nth, "", format!("cannot send: {error}"), "".into()),
            Err(_) => record.note(self.nth, "", "the peer does not read on", String::new()),
        }
    }

    /// Sends a message so.
    pub(super) async fn send(
        &mut self,
        record: &mut Record,
        words: &str,
        payload: &[u8],
        framing: &Framing,
        within: Duration,
    ) {
        let shown = record.shown(payload);
        record.note(self.nth, "suite", words, shown);
        self.has_closed |= matches!(framing, Framing::One(octets::CLOSE));
        let mask = self.is_client;
        let bytes = match framing {
            Framing::Raw => payload.to_vec(),
            Framing::One(first) => octets::frame(*first, payload, mask, None),
            Framing::Unmasked(first) => octets::frame(*first, payload, false, None),
            Framing::Masked(first) => octets::frame(*first, payload, true, None),
            Framing::LongLength(size) => octets::frame(octets::BINARY, payload, mask, Some(*size)),
            Framing::Fragments { size, between } => fragments(payload, *size, *between, mask),
            Framing::Dribble(size) => {
                let bytes = octets::frame(octets::BINARY, payload, mask, None);
                for part in bytes.chunks(*size) {
                    self.write(record, part, within).await;
                    tokio::task::yield_now().await;
                }
                return;
            }
        };
        self.write(record, &bytes, within).await;
    }

    /// Sends what was held back.
    pub(super) async fn let_go(&mut self, record: &mut Record, within: Duration) {
        if let Some(bytes) = self.held_back.take() {
            self.write(record, &bytes, within).await;
        }
    }

    pub(super) async fn half_close(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// The next HTTP message; nothing if the stream ends before, or what comes is none.
    pub(super) async fn http(&mut self, record: &mut Record) -> Option<Http> {
        loop {
            if let Some(http) = octets::take_http(&mut self.buffer) {
                let text = format!("{}{}", http.head, http.body);
                record.note(self.nth, "peer", http.line(), text);
                return Some(http);
            }
            if self.buffer.len() > LARGEST || !self.read().await {
                let rest = String::from_utf8_lossy(&self.buffer).into_owned();
                record.note(self.nth, "peer", "the end, without an HTTP message", rest);
                return None;
            }
        }
    }

    /// What arrives next. Dropped before it is done, it has lost nothing.
    pub(super) async fn next(&mut self, record: &mut Record) -> Incoming {
        loop {
            match octets::take_frame(&mut self.buffer) {
                Some(frame) => {
                    if let Some(incoming) = self.incoming(record, frame) {
                        return incoming;
                    }
                }
                None if self.ended || self.buffer.len() > LARGEST => return Incoming::End,
                None => {
                    if !self.read().await {
                        record.note(self.nth, "peer", "the end of the connection", String::new());
                    }
                }
            }
        }
    }

    async fn read(&mut self) -> bool {
        self.ended = match self.stream.read_buf(&mut self.buffer).await {
            Ok(length) => length == 0,
            Err(error) => error.kind() != io::ErrorKind::Interrupted,
        };
        !self.ended
    }

    /// What a frame means; nothing for a fragment that is not the last.
    fn incoming(&mut self, record: &mut Record, frame: octets::Frame) -> Option<Incoming> {
        let shown = record.shown(&frame.payload);
        let breach = |words: &str| Some(Incoming::Breach(words.to_owned()));
        let incoming = if frame.masked == self.is_client {
            breach(if frame.masked {
                "a masked frame of a server"
            } else {
                "a frame without a mask"
            })
        } else if frame.first & 0x70 != 0 {
            breach("reserved bits are set")
        } else {
            let (fin, opcode) = (frame.first & 0x80 != 0, frame.first & 0x0f);
            match (opcode, &mut self.fragments) {
                (8.., _) if !fin || frame.payload.len() > 125 => breach("a long control frame"),
                (8, _) => match close_of(&frame.payload) {
                    Ok(close) => Some(Incoming::Close(close)),
                    Err(words) => breach(words),
                },
                (9, _) => Some(Incoming::Ping(frame.payload)),
                (10, _) => Some(Incoming::Pong(frame.payload)),
                (0, None) => breach("a continuation of nothing"),
                (0, Some((opcode, so_far))) => {
                    so_far.extend_from_slice(&frame.payload);
                    let (opcode, message) = match fin {
                        true => (*opcode, so_far.split().freeze()),
                        false => return None,
                    };
                    self.fragments = None;
                    Some(message_of(opcode, message))
                }
                (1 | 2, Some(_)) => breach("a message inside another"),
                (1 | 2, None) if !fin => {
                    self.fragments = Some((opcode, BytesMut::from(&frame.payload[..])));
                    return None;
                }
                (1 | 2, None) => Some(message_of(opcode, frame.payload)),
                _ => breach("a reserved opcode"),
            }
        };
        if let Some(incoming) = &incoming {
            record.note(self.nth, "peer", incoming.to_string(), shown);
        }
        incoming
    }
}

fn message_of(opcode: u8, payload: Bytes) -> Incoming {
    match opcode {
        1 => Incoming::Text(payload),
        _ => Message::decode(payload.clone())
            .map_or(Incoming::Undecodable(payload), Incoming::Message),
    }
}

/// The content of a close frame ([RFC 6455 §5.5.1]).
///
/// [RFC 6455 §5.5.1]: https://www.rfc-editor.org/rfc/rfc6455#section-5.5.1
fn close_of(payload: &[u8]) -> Result<Option<Close>, &'static str> {
    match payload {
        [] => Ok(None),
        [_] => Err("a close frame of one byte"),
        [high, low, reason @ ..] => match std::str::from_utf8(reason) {
            Ok(reason) => {
                let code = u16::from_be_bytes([*high, *low]);
                Ok(Some(Close { code, reason: reason.to_owned().into() }))
            }
            Err(_) => Err("the reason of a close is not UTF-8"),
        },
    }
}

fn fragments(payload: &[u8], size: usize, between: Option<u8>, mask: bool) -> Vec<u8> {
    let mut bytes = vec![];
    let parts: Vec<&[u8]> = payload.chunks(size.max(1)).collect();
    for (nth, part) in parts.iter().enumerate() {
        let opcode = if nth == 0 { octets::BINARY & 0x0f } else { 0 };
        let fin = if nth + 1 == parts.len() { 0x80 } else { 0 };
        bytes.extend(octets::frame(fin | opcode, part, mask, None));
        if let Some(opcode) = between
            && fin == 0
        {
            bytes.extend(octets::frame(0x80 | opcode, b"between", mask, None));
        }
    }
    bytes
}
