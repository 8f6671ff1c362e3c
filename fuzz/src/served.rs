//! A whole server in memory, a client that sends bytes, and what it hears, well-formed or not at
//! all. Time is paused: it leaps to the next timer when nothing else happens.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use electric_satellite::{
    auth::{AuthError, Authenticator},
    server::Server,
    session::{AuthRequest, AuthenticatedClient, Identity, UnixTime, Verified},
    transport::{Connection, Event},
    wire::{
        Message, Request,
        proto::{SatAuthReq, SatSubsResp},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex, split},
    task::yield_now,
    time::{Instant, timeout},
};

/// The token that lets its bearer in.
pub(crate) const TOKEN: &str = "let me in";

/// A good request for an upgrade.
pub(crate) const UPGRADE: &[u8] = b"GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: electric.0.12\r\n\r\n";

/// The frame of a good call of `authenticate`.
pub(crate) fn authenticate() -> Vec<u8> {
    let (id, token) = ("client".into(), TOKEN.into());
    let call = Request::from(SatAuthReq { id, token, headers: vec![] }).encode(1).encode();
    // Masked with zeros, as frames of the corpus are, so that they can be read.
    [&[0x82, 0x80 | u8::try_from(call.len()).expect("it is short"), 0, 0, 0, 0], &call[..]].concat()
}

/// What a client heard, from the beginning to the end of its stream.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) answers: Vec<Answer>,
    /// Opcodes and payloads, after an answer of 101.
    pub(crate) frames: Vec<(u8, Bytes)>,
    /// Whether the handler had the connection.
    pub(crate) was_let_in: bool,
    pub(crate) took: Duration,
}

/// Sends these pieces, one after the other, and hears the server out. A client that hangs up ends
/// its stream behind the last piece; one that does not waits for the server to end it.
pub(crate) fn hear(pieces: &[&[u8]], hangs_up: bool) -> Heard {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(conversation(pieces, hangs_up))
}

/// Beyond every deadline there is, one after the other.
const PATIENCE: Duration = Duration::from_secs(300);

async fn conversation(pieces: &[&[u8]], hangs_up: bool) -> Heard {
    let vouched = Arc::new(AtomicUsize::new(0));
    let server = Server::new(Doorkeeper(Arc::clone(&vouched)))
        .with_server_id("server")
        .with_clock(|| UnixTime::from_secs(0));
    // All that is sent fits, so that writing never waits.
    let (near, far) = duplex(1 << 20);
    let (mut reader, mut writer) = split(near);
    let write = async {
        for piece in pieces {
            // That the server has gone shows when reading.
            let _ = writer.write_all(piece).await;
            yield_now().await;
        }
        if hangs_up {
            let _ = writer.shutdown().await;
        }
    };
    let mut said = vec![];
    let serve = async {
        match server.accept(far).await {
            Ok(connection) => {
                handle(connection).await;
                true
            }
            Err(_) => false,
        }
    };
    let start = Instant::now();
    let all = async { tokio::join!(write, reader.read_to_end(&mut said), serve) };
    let (_, read, was_let_in) = timeout(PATIENCE, all).await.expect("it ends");
    read.expect("reading from memory");
    let mut connections = server.connections();
    timeout(PATIENCE, connections.wait_for(|count| *count == 0))
        .await
        .expect("it ends")
        .expect("it counts");
    let took = start.elapsed();
    assert!(!was_let_in || vouched.load(Ordering::Relaxed) > 0, "nobody vouched for this client");
    let (answers, frames) = understand(&said);
    Heard { answers, frames, was_let_in, took }
}

/// Lets in who has the token, and counts them.
struct Doorkeeper(Arc<AtomicUsize>);

impl Authenticator for Doorkeeper {
    async fn authenticate(
        &self,
        request: &AuthRequest,
        _: UnixTime,
    ) -> Result<Verified, AuthError> {
        if request.token().expose() != TOKEN {
            return Err(AuthError::InvalidSignature);
        }
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(Verified::vouched_for_by_authenticator(Identity::new("user")))
    }
}

/// Answers every call positively.
async fn handle(mut connection: Connection<AuthenticatedClient>) {
    assert_eq!(connection.identity().user_id, "user");
    while let Some(event) = connection.recv().await {
        match event {
            Event::StartReplication(_, responder) => responder.reply(Default::default()),
            Event::StopReplication(_, responder) => responder.reply(Default::default()),
            Event::Unsubscribe(_, responder) => responder.reply(Default::default()),
            Event::Subscribe(request, responder) => {
                responder.reply(SatSubsResp { subscription_id: request.subscription_id, err: None })
            }
            Event::Message(message) => assert!(
                matches!(message, Message::OpLog(_) | Message::Relation(_) | Message::OpLogAck(_)),
                "{} is not for a handler",
                message.name()
            ),
        }
    }
    assert!(connection.end().is_some());
}

/// An answer to an HTTP request.
#[derive(Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// Reads all that a server said, to the last byte, and fails on what is not well-formed.
fn understand(mut said: &[u8]) -> (Vec<Answer>, Vec<(u8, Bytes)>) {
    let mut answers = vec![];
    while !said.is_empty() {
        let answer = answer(&mut said);
        let upgraded = answer.status == 101;
        answers.push(answer);
        if upgraded {
            return (answers, frames(said));
        }
    }
    (answers, vec![])
}

fn answer(said: &mut &[u8]) -> Answer {
    let end = said.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a whole head");
    let head = std::str::from_utf8(&said[..end]).expect("ASCII");
    *said = &said[end + 4..];
    let mut lines = head.split("\r\n");
    let status_line = lines.next().expect("a line");
    let status = status_line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5));
    let status = status.expect(status_line).parse().expect("a number");
    let header = |line: &str| {
        let (name, value) = line.split_once(": ").expect("a header");
        assert!(!value.contains(|c: char| c.is_control()), "{line:?}");
        (name.to_ascii_lowercase(), value.to_owned())
    };
    let mut answer = Answer { status, headers: lines.map(header).collect(), body: String::new() };
    let length: usize = match answer.header("content-length") {
        // The answer to a HEAD says how long its body would be. No body begins like an answer.
        Some(length) if !said.starts_with(b"HTTP/1.") => length.parse().expect("a number"),
        _ => 0,
    };
    if !said.is_empty() {
        answer.body = std::str::from_utf8(&said[..length]).expect("a text").to_owned();
        *said = &said[length..];
    }
    answer
}

/// The frames of a server (RFC 6455 §5.2): whole, not masked, of the opcodes that it sends.
fn frames(mut said: &[u8]) -> Vec<(u8, Bytes)> {
    let mut frames = vec![];
    while let [first, second, rest @ ..] = said {
        assert!(!matches!(frames.last(), Some((8, _))), "a frame behind the close frame");
        let (length, rest) = match (second, rest) {
            (0..126, rest) => (usize::from(*second), rest),
            (126, [a, b, rest @ ..]) => (usize::from(u16::from_be_bytes([*a, *b])), rest),
            // What has more than 65,535 bytes is not said here.
            _ => panic!("a frame that is masked, huge or cut"),
        };
        let (payload, rest) = rest.split_at(length);
        said = rest;
        let payload = Bytes::copy_from_slice(payload);
        match first {
            0x82 => drop(Message::decode(payload.clone()).expect("a message of the protocol")),
            0x88 => is_close(&payload),
            0x89 | 0x8a => assert!(payload.len() <= 125),
            other => panic!("a frame that begins with {other:#x}"),
        }
        frames.push((first & 0xf, payload));
    }
    assert!(said.is_empty(), "a cut frame");
    frames
}

fn is_close(payload: &[u8]) {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return assert!(payload.is_empty(), "half a code");
    };
    let code = u16::from_be_bytes(*code);
    assert!(matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999), "{code} on the wire");
    assert!(reason.len() <= 123 && std::str::from_utf8(reason).is_ok());
}
