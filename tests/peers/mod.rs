//! A client that sends any frame and hears every frame, and when; tokens; a server in memory.
//!
//! Most tests run in paused time: it stands still while anything has something to do, and then
//! leaps to the next timer. So what is heard is heard at an exact time, whatever the machine does.
#![allow(dead_code, reason = "each test binary uses its part")]

#[path = "../octets/mod.rs"]
mod octets;
#[path = "../conversations/words.rs"]
pub(crate) mod words;

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use electric_satellite::{
    auth::{Algorithm, Authenticator, ClaimRules, JwtAuthenticator, Key, Minter},
    registry::Registry,
    server::{AcceptError, Server},
    session::{AuthenticatedClient, Close, UnixTime},
    transport::Connection,
    wire::{Message, Reply, Request, proto::SatAuthReq},
};
pub(crate) use octets::*;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split},
    net::TcpListener,
    sync::{Mutex, mpsc},
    task::JoinHandle,
    time::Instant,
};

/// When the tests begin, in seconds since 1970.
pub(crate) const NOW: i64 = 1_700_000_000;

/// More than a peer in memory has under way unless a test wants it so.
pub(crate) const WIDE: usize = 1 << 20;

pub(crate) const SECOND: Duration = Duration::from_secs(1);

const SECRET: &[u8] = b"thirty-two bytes that nobody knows";

/// Longer than any test lasts.
const PATIENCE: Duration = Duration::from_secs(1_000_000);

/// Fails a test of paused time that would hang: the clock leaps here when nothing else happens.
pub(crate) async fn ends<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(PATIENCE, what).await.expect("it hangs")
}

/// Fails a test of real time that would hang: no step of one takes so long.
pub(crate) async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(120 * SECOND, what).await.expect("it hangs")
}

/// Signed, with these claims and those that every token must have.
pub(crate) fn token_with(claims: &Value) -> String {
    let mut all = json!({ "iat": NOW, "exp": NOW + 1_000_000_000 });
    for (name, value) in claims.as_object().expect("claims are an object") {
        all[name] = value.clone();
    }
    let minter = Minter::from_secret(Algorithm::HS256, SECRET).expect("a secret");
    minter.mint(&all).expect("a token").expose().to_owned()
}

/// Good for ages.
pub(crate) fn token_of(user: &str) -> String {
    token_with(&json!({ "sub": user }))
}

pub(crate) fn authenticator() -> JwtAuthenticator {
    let key = Key::from_secret(Algorithm::HS256, SECRET).expect("a key");
    JwtAuthenticator::secure(key, ClaimRules::default())
}

/// A wall clock that shows [`NOW`] at first and goes with the time of the runtime.
pub(crate) fn wall_clock() -> impl Fn() -> UnixTime + Send + Sync + 'static {
    let start = Instant::now();
    move || UnixTime::from_secs(NOW + i64::try_from(start.elapsed().as_secs()).expect("years"))
}

/// A server that lets in whoever has one of the tokens above.
pub(crate) fn server() -> Server<JwtAuthenticator> {
    server_with(authenticator())
}

pub(crate) fn server_with<A: Authenticator>(authenticator: A) -> Server<A> {
    Server::new(authenticator).with_clock(wall_clock()).with_server_id("server")
}

/// What became of a connection: done when the handler is, or when the client was not let in.
pub(crate) type Served = JoinHandle<Result<(), AcceptError>>;

/// A stream of `width` bytes each way to a server that hands it to the handler.
pub(crate) fn dial<A, R, H, F>(
    server: &Server<A, R>,
    width: usize,
    handler: H,
) -> (DuplexStream, Served)
where
    A: Authenticator,
    R: Registry,
    H: FnOnce(Connection<AuthenticatedClient>) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let (near, far) = duplex(width);
    let server = server.clone();
    let served = tokio::spawn(async move {
        handler(server.accept(far).await?).await;
        Ok(())
    });
    (near, served)
}

/// A server that listens on this machine, and its end.
pub(crate) async fn serve<A, R, H, F>(
    server: &Server<A, R>,
    handler: H,
) -> (SocketAddr, JoinHandle<()>)
where
    A: Authenticator,
    R: Registry,
    H: Fn(Connection<AuthenticatedClient>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let server = server.clone();
    (address, tokio::spawn(async move { server.serve(listener, handler).await }))
}

/// Something that a server said.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Heard {
    Message(Message),
    Ping,
    Pong,
    Close(Close),
    /// The stream has ended.
    Gone,
}

impl Heard {
    pub(crate) const fn closed(code: u16, reason: &'static str) -> Heard {
        Heard::Close(Close::new(code, reason))
    }

    fn of(opcode: u8, payload: Bytes) -> Heard {
        match opcode {
            2 => Heard::Message(Message::decode(payload).expect("a message of the protocol")),
            8 => Heard::Close(close(&payload)),
            9 => Heard::Ping,
            10 => Heard::Pong,
            opcode => panic!("frame of opcode {opcode}: {payload:?}"),
        }
    }

    /// What a call is answered with.
    pub(crate) fn reply(&self) -> Result<Reply, String> {
        let Heard::Message(Message::Response(response)) = self else {
            return Err(format!("no response: {self:?}"));
        };
        let method = response.method.parse().map_err(|()| "a method".to_owned())?;
        Reply::decode(method, response.clone()).map_err(|error| error.to_string())
    }
}

fn close(payload: &[u8]) -> Close {
    match payload.split_at_checked(2) {
        None => Close::new(1005, ""),
        Some((code, reason)) => {
            let reason = String::from_utf8(reason.to_vec()).expect("UTF-8");
            Close { code: u16::from_be_bytes([code[0], code[1]]), reason: reason.into() }
        }
    }
}

/// How a peer behaves when it is not told otherwise.
#[derive(Clone, Copy)]
pub(crate) struct Manners {
    /// After how long it answers a ping, if at all.
    pub(crate) pongs: Option<Duration>,
    /// It answers a close, and goes when it is closed.
    pub(crate) leaves: bool,
}

pub(crate) const POLITE: Manners = Manners { pongs: Some(Duration::ZERO), leaves: true };
pub(crate) const DEAF_TO_PINGS: Manners = Manners { pongs: None, leaves: true };

type Stream = Box<dyn Duplex>;

pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// A client's end of an upgraded connection. A task of its own reads all the time.
pub(crate) struct Peer {
    writer: Arc<Mutex<WriteHalf<Stream>>>,
    heard: mpsc::UnboundedReceiver<(Instant, u8, Bytes)>,
    reader: JoinHandle<()>,
}

impl Peer {
    pub(crate) async fn upgrade(stream: impl Duplex + 'static) -> Peer {
        Peer::upgrade_with(POLITE, stream).await
    }

    pub(crate) async fn upgrade_with(manners: Manners, mut stream: impl Duplex + 'static) -> Peer {
        let answer = http(&mut stream, &upgrade_request()).await;
        assert_eq!(answer.status, 101, "{answer:?}");
        Peer::on(manners, stream)
    }

    /// On a stream that is upgraded already.
    pub(crate) fn on(manners: Manners, stream: impl Duplex + 'static) -> Peer {
        let (reading, writing) = split(Box::new(stream) as Stream);
        let writer = Arc::new(Mutex::new(writing));
        let (tell, heard) = mpsc::unbounded_channel();
        let reader = tokio::spawn(read(reading, Arc::clone(&writer), manners, tell));
        Peer { writer, heard, reader }
    }

    /// Sends a whole frame. That the server has gone shows when hearing.
    pub(crate) async fn send(&self, opcode: u8, payload: &[u8]) {
        self.send_bytes(&frame(0x80 | opcode, payload)).await;
    }

    pub(crate) async fn send_bytes(&self, bytes: &[u8]) {
        let _ = self.writer.lock().await.write_all(bytes).await;
    }

    pub(crate) async fn ping(&self) {
        self.send(9, b"").await;
    }

    pub(crate) async fn send_message(&self, message: &Message) {
        self.send(2, &message.encode()).await;
    }

    /// Calls, without waiting for the answer.
    pub(crate) async fn call(&self, request_id: u32, request: impl Into<Request>) {
        self.send_message(&request.into().encode(request_id)).await;
    }

    /// Asks to be let in, without waiting for the answer.
    pub(crate) async fn present(&self, client_id: &str, token: &str) {
        self.call(1, auth_request(client_id, token)).await;
    }

    /// Is let in.
    pub(crate) async fn authenticate(&mut self, client_id: &str, token: &str) {
        self.present(client_id, token).await;
        let answer = self.hear().await;
        assert!(matches!(answer.reply(), Ok(Reply::Authenticate(_))), "{answer:?}");
    }

    /// What the server says next, pings aside.
    pub(crate) async fn hear(&mut self) -> Heard {
        self.hear_at().await.1
    }

    /// The same, and when it came.
    pub(crate) async fn hear_at(&mut self) -> (Instant, Heard) {
        loop {
            match self.hear_all_at().await {
                (_, Heard::Ping) => {}
                other => return other,
            }
        }
    }

    /// What the server says next, and when it came.
    pub(crate) async fn hear_all_at(&mut self) -> (Instant, Heard) {
        match ends(self.heard.recv()).await {
            Some((at, opcode, payload)) => (at, Heard::of(opcode, payload)),
            None => (Instant::now(), Heard::Gone),
        }
    }

    /// What has come and was not heard yet.
    pub(crate) fn heard_already(&mut self) -> Option<Heard> {
        self.heard.try_recv().ok().map(|(_, opcode, payload)| Heard::of(opcode, payload))
    }

    /// Waits for the next frame, raw; nothing at the end of the stream. Cancel-safe.
    pub(crate) async fn next_frame(&mut self) -> Option<(Instant, u8, Bytes)> {
        ends(self.heard.recv()).await
    }

    /// Whether nothing came, but for pings, and a ping is answered.
    pub(crate) async fn is_undisturbed(&mut self) -> bool {
        self.ping().await;
        self.hear().await == Heard::Pong
    }

    /// All that the server says to the end of the stream, pings aside, in words.
    pub(crate) async fn last_words(&mut self) -> String {
        self.said_until_pong(vec![]).await
    }

    /// All that the server has said, pings aside, and whether it still answers, in words.
    pub(crate) async fn in_words(&mut self) -> String {
        self.in_words_after(vec![]).await
    }

    /// The same, after what has been heard already.
    pub(crate) async fn in_words_after(&mut self, said: Vec<(u8, Bytes)>) -> String {
        self.ping().await;
        self.said_until_pong(said).await
    }

    async fn said_until_pong(&mut self, mut said: Vec<(u8, Bytes)>) -> String {
        while let Some((_, opcode, payload)) = self.next_frame().await {
            match opcode {
                9 => {}
                10 => return words::conversation(said, true),
                _ => said.push((opcode, payload)),
            }
        }
        words::conversation(said, false)
    }

    /// Is cut off, without a close frame.
    pub(crate) async fn vanish(self) {
        self.reader.abort();
        let _ = self.reader.await;
    }

    /// Closes, and goes without waiting for the answer.
    pub(crate) async fn close_and_vanish(self) {
        self.send(8, &[0x03, 0xe8]).await;
        self.vanish().await;
    }
}

/// Reads to the end, and answers what manners want answered.
async fn read(
    mut stream: ReadHalf<Stream>,
    writer: Arc<Mutex<WriteHalf<Stream>>>,
    manners: Manners,
    tell: mpsc::UnboundedSender<(Instant, u8, Bytes)>,
) {
    while let Some((opcode, payload)) = read_frame(&mut stream).await {
        let _ = tell.send((Instant::now(), opcode, payload.clone()));
        let (after, answer) = match (opcode, manners.pongs) {
            (8, _) if manners.leaves => (Duration::ZERO, frame(0x88, &payload)),
            (9, Some(after)) => (after, frame(0x8a, &payload)),
            _ => continue,
        };
        if !after.is_zero() {
            tokio::time::sleep(after).await;
        }
        let _ = writer.lock().await.write_all(&answer).await;
    }
    if manners.leaves {
        let _ = writer.lock().await.shutdown().await;
    }
}

pub(crate) fn auth_request(client_id: &str, token: &str) -> SatAuthReq {
    SatAuthReq { id: client_id.into(), token: token.into(), ..Default::default() }
}

pub(crate) fn upgrade_request() -> String {
    upgrade_request_to("electric.0.12")
}

pub(crate) fn upgrade_request_to(subprotocol: &str) -> String {
    format!(
        "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
    )
}

/// Asks and reads the answer.
pub(crate) async fn http<S>(stream: &mut S, request: &str) -> Answer
where
    S: AsyncRead + AsyncWrite + Unpin + ?Sized,
{
    stream.write_all(request.as_bytes()).await.expect("the request is sent");
    read_answer(stream).await.expect("an answer")
}
