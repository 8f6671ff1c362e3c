//! The suite's end of a connection: it reads and writes by the byte, and keeps a record.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::{Instant, timeout},
};

use crate::{session::Close, wire::Message};

use super::{
    octets::{self, Http},
    script::{Beginning, Framing, Incoming, MOST_HEX, MOST_WORDS, hex_of},
};

/// Anything that leads to a peer.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// One line of the record of a conversation.
#[derive(Clone, Debug, serde::Serialize)]
#[non_exhaustive]
pub struct Line {
    /// Milliseconds since the case began.
    pub at_ms: u64,
    /// Which of the connections of the case, counted from 1.
    pub connection: usize,
    /// Who: `suite`, `peer`, or nobody for a remark.
    pub from: &'static str,
    /// The step of the script that was being played, counted from 0.
    pub step: usize,
    /// What, in words; only the beginning of many.
    pub what: String,
    /// The payload in hex, or text if it is `http`; only the beginning of many. Signatures of
    /// tokens are blotted out.
    pub bytes: String,
    /// Whether `bytes` is the text of an HTTP message.
    pub http: bool,
}

/// What the connections of a case have in common.
pub(super) struct Record {
    started: Instant,
    lines: Vec<Line>,
    /// How many lines in the middle were left out.
    left_out: usize,
    /// The step that is being played.
    pub(super) step: usize,
    /// What must not be shown.
    secrets: Vec<String>,
}

/// How many lines of a record are kept: half of them from its beginning, half from its end, where
/// a peer departs.
const MOST_LINES: usize = 400;

/// How much is kept of the text of an HTTP message, in bytes.
const MOST_TEXT: usize = 8 * 1024;

impl Record {
    pub(super) fn new() -> Record {
        Record { started: Instant::now(), lines: vec![], left_out: 0, step: 0, secrets: vec![] }
    }

    /// The lines, with a remark in place of those that were left out.
    pub(super) fn into_lines(mut self) -> Vec<Line> {
        if self.left_out > 0 {
            let before = &self.lines[MOST_LINES / 2 - 1];
            let what = format!("{} lines are left out here", self.left_out);
            let remark =
                Line { from: "", what, bytes: String::new(), http: false, ..before.clone() };
            self.lines.insert(MOST_LINES / 2, remark);
        }
        self.lines
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
        self.push(connection, from, what.into(), bytes, false);
    }

    /// An HTTP message.
    fn note_http(&mut self, connection: usize, from: &'static str, what: &str, text: &str) {
        let text = format!("{}", Beginning(text, MOST_TEXT));
        self.push(connection, from, what.to_owned(), text, true);
    }

    fn push(
        &mut self,
        connection: usize,
        from: &'static str,
        what: String,
        bytes: String,
        http: bool,
    ) {
        if self.lines.len() == MOST_LINES {
            self.lines.remove(MOST_LINES / 2);
            self.left_out += 1;
        }
        let at_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let what = format!("{}", Beginning(&what, MOST_WORDS));
        self.lines.push(Line { at_ms, connection, from, step: self.step, what, bytes, http });
    }

    /// These bytes in hex, with signatures blotted out.
    fn shown(&self, bytes: &[u8]) -> String {
        // What is not shown is not looked at, but for a signature that is cut in two.
        let longest = self.secrets.iter().map(String::len).max().unwrap_or(0);
        let mut shown = bytes[..bytes.len().min(MOST_HEX + longest)].to_vec();
        for secret in &self.secrets {
            while let Some(at) =
                shown.windows(secret.len()).position(|window| window == secret.as_bytes())
            {
                shown[at..at + secret.len()].fill(b'*');
            }
        }
        hex_of(&shown, bytes.len())
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
    /// In how many fragments.
    parts: usize,
    ended: bool,
    /// The peer takes no more; what is written after that would be the middle of something.
    stuck: bool,
    /// What has arrived while the script was elsewhere.
    waiting: VecDeque<Incoming>,
    pub(super) pongs: bool,
    /// What is to be sent, while it is held back to be sent at once.
    pub(super) held_back: Option<Vec<u8>>,
    /// A close frame was sent.
    pub(super) has_closed: bool,
    pub(super) version: Option<crate::wire::Version>,
}

/// The largest message that is taken, and the largest frame with its head.
const LARGEST: usize = 16 * 1024 * 1024;

/// How much is read ahead while the script is elsewhere.
const MOST_WAITING: usize = 16;

/// The most fragments that a message may come in.
const MOST_FRAGMENTS: usize = 100_000;

impl Wire {
    pub(super) fn new(stream: Box<dyn Stream>, nth: usize, is_client: bool) -> Wire {
        Wire {
            stream,
            nth,
            is_client,
            buffer: BytesMut::new(),
            fragments: None,
            parts: 0,
            ended: false,
            stuck: false,
            waiting: VecDeque::new(),
            pongs: true,
            held_back: None,
            has_closed: false,
            version: None,
        }
    }

    /// Sends text as it is.
    pub(super) async fn write_text(&mut self, record: &mut Record, text: &str, within: Duration) {
        record.note_http(self.nth, "suite", text.lines().next().unwrap_or_default(), text);
        self.write(record, text.as_bytes(), within).await;
    }

    /// Sends bytes. That the peer is gone shows when reading.
    async fn write(&mut self, record: &mut Record, bytes: &[u8], within: Duration) {
        if self.stuck {
            return;
        }
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
            Ok(Err(error)) => {
                self.stuck = true;
                record.note(self.nth, "", format!("cannot send: {error}"), "".into());
            }
            Err(_) => {
                self.stuck = true;
                record.note(self.nth, "", "the peer does not read on", String::new());
            }
        }
    }

    /// Sends a message so; without words it does not stand in the record.
    pub(super) async fn send(
        &mut self,
        record: &mut Record,
        words: &str,
        payload: &[u8],
        framing: &Framing,
        within: Duration,
    ) {
        if !words.is_empty() {
            let shown = record.shown(payload);
            record.note(self.nth, "suite", words, shown);
        }
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
                record.note_http(self.nth, "peer", http.line(), &text);
                return Some(http);
            }
            let what = match self.buffer.len() {
                octets::LARGEST_HTTP.. => "more than an HTTP message",
                _ if !poll_fn(|cx| self.poll_read(cx)).await => "the end, without an HTTP message",
                _ => continue,
            };
            let beginning = &self.buffer[..self.buffer.len().min(MOST_TEXT)];
            record.note_http(self.nth, "peer", what, &String::from_utf8_lossy(beginning));
            return None;
        }
    }

    /// What arrives next.
    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        record: &mut Record,
    ) -> Poll<Incoming> {
        match self.waiting.pop_front() {
            Some(incoming) => Poll::Ready(incoming),
            None => self.poll_arrival(cx, record),
        }
    }

    /// The payload of a ping that arrives while the script is elsewhere, which is to be answered
    /// all the same. Everything else waits.
    pub(super) fn poll_ping(&mut self, cx: &mut Context<'_>, record: &mut Record) -> Poll<Bytes> {
        while self.pongs && self.version.is_some() && self.waiting.len() < MOST_WAITING {
            match ready!(self.poll_arrival(cx, record)) {
                Incoming::Ping(payload) => return Poll::Ready(payload),
                incoming => {
                    let is_over = incoming == Incoming::End;
                    self.waiting.push_back(incoming);
                    if is_over {
                        break;
                    }
                }
            }
        }
        Poll::Pending
    }

    fn poll_arrival(&mut self, cx: &mut Context<'_>, record: &mut Record) -> Poll<Incoming> {
        loop {
            match octets::take_frame(&mut self.buffer) {
                Some(frame) => {
                    if let Some(incoming) = self.incoming(record, frame) {
                        if self.fragments.is_none() {
                            self.parts = 0;
                        }
                        return Poll::Ready(incoming);
                    }
                    self.parts += 1;
                    if self.parts == MOST_FRAGMENTS {
                        return Poll::Ready(self.breach(record, "a message without end"));
                    }
                }
                None if self.ended => return Poll::Ready(Incoming::End),
                None if self.buffer.len() > LARGEST => {
                    return Poll::Ready(self.breach(record, "a frame of more than 16 MiB"));
                }
                None => {
                    if !ready!(self.poll_read(cx)) {
                        record.note(self.nth, "peer", "the end of the connection", String::new());
                    }
                }
            }
        }
    }

    fn breach(&self, record: &mut Record, words: &str) -> Incoming {
        let breach = Incoming::Breach(words.to_owned());
        record.note(self.nth, "peer", breach.to_string(), String::new());
        breach
    }

    /// Reads more, if there is more.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut space = [0; 8192];
        let mut space = ReadBuf::new(&mut space);
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut space));
        self.buffer.extend_from_slice(space.filled());
        self.ended = match read {
            Ok(()) => space.filled().is_empty(),
            Err(error) => error.kind() != io::ErrorKind::Interrupted,
        };
        Poll::Ready(!self.ended)
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
                (0, Some((_, so_far))) if so_far.len() + frame.payload.len() > LARGEST => {
                    breach("a message of more than 16 MiB")
                }
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
