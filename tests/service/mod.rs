//! The `satellite` binary as a running service, and clients without manners: HTTP and WebSocket by
//! the byte. Shared by the tests that look at the service from outside.
#![allow(dead_code, reason = "each test uses a part of it")]

pub(crate) mod prometheus;

use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use bytes::Bytes;
use electric_satellite::{
    auth::{Algorithm, Minter},
    session::{Token, UnixTime},
    wire::{Request, proto::SatAuthReq},
};
use serde_json::json;
use tokio::{
    io::{
        AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter,
    },
    net::{TcpSocket, TcpStream},
    process::{Child, Command},
    sync::watch,
    time::timeout,
};

use prometheus::Metrics;

/// A secret for HS256.
pub(crate) const SECRET: &str = "a secret that is known to tests only";

/// How long anything may take. Nothing waits for it to pass: it is only so that a service that
/// falls silent fails a test instead of hanging it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Fails when it takes too long.
pub(crate) async fn guarded<F: Future>(what: &str, future: F) -> F::Output {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: takes too long"))
}

/// Looks again and again until it is so.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut look: impl FnMut() -> F) {
    let looking = async {
        while !look().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    guarded(what, looking).await;
}

/// The binary, with nothing of this process's environment.
pub(crate) fn satellite(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_satellite"));
    command.args(arguments).env_clear().kill_on_drop(true);
    command
}

/// `satellite serve` in insecure mode on a free port, with an admin address.
pub(crate) fn insecure() -> Command {
    let mut command = serve();
    command.env("AUTH_MODE", "insecure");
    command
}

/// The same in secure mode, with [`SECRET`].
pub(crate) fn secure() -> Command {
    let mut command = serve();
    command.env("AUTH_JWT_ALG", "HS256").env("AUTH_JWT_KEY", SECRET);
    command
}

fn serve() -> Command {
    let mut command = satellite(&["serve"]);
    command
        .env("HTTP_PORT", "0")
        .env("LISTEN_ADDRESS", "127.0.0.1")
        .env("ADMIN_ADDR", "127.0.0.1:0");
    command
}

/// A token for the user `u` that the service with [`SECRET`] accepts.
pub(crate) fn good_token() -> Token {
    signed_with(SECRET)
}

/// A token that it does not accept.
pub(crate) fn bad_token() -> Token {
    signed_with("another secret, that is not the one it is")
}

fn signed_with(secret: &str) -> Token {
    let now = UnixTime::now().as_secs();
    let claims = json!({ "sub": "u", "iat": now, "exp": now + 3600 });
    let minter = Minter::from_secret(Algorithm::HS256, secret.as_bytes()).expect("a long secret");
    minter.mint(&claims).expect("an object")
}

/// What a command that comes to an end has to say.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command to its end.
pub(crate) async fn run(mut command: Command) -> Said {
    let output = guarded("a command", command.stdin(Stdio::null()).output()).await;
    let output = output.expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("a text");
    Said { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// A running service.
pub(crate) struct Service {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    log: watch::Receiver<String>,
}

impl Service {
    /// Starts it, and waits until it says where it is.
    pub(crate) async fn start(mut command: Command) -> Service {
        let streams = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = streams.spawn().expect("the binary runs");
        let stderr = child.stderr.take().expect("it is piped");
        let (growing, log) = watch::channel(String::new());
        tokio::spawn(async move {
            let mut lines = BufReader::new(stderr).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                growing.send_modify(|log| {
                    log.push_str(&line);
                    log.push('\n');
                });
            }
        });
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let mut line = async |prefix: &str, suffix: &str| -> SocketAddr {
            let line = guarded("the start", lines.next_line()).await.expect("a text");
            let line = line.unwrap_or_else(|| panic!("it does not start: {}", *log.borrow()));
            let address = line.strip_prefix(prefix).and_then(|line| line.strip_suffix(suffix));
            address.unwrap_or_else(|| panic!("{line}")).parse().expect("an address")
        };
        let tls = command.as_std().get_envs().any(|(name, _)| name == "TLS_CERT");
        let scheme = if tls { "listening on wss://" } else { "listening on ws://" };
        let address = line(scheme, "/ws").await;
        let admin = line("admin on http://", "").await;
        Service { child, address, admin, log }
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it can be waited for")
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.borrow().clone()
    }

    /// Waits for a line of the log that holds all of these.
    pub(crate) async fn logged(&self, parts: &[&str]) -> String {
        let mut log = self.log.clone();
        let find = |log: &str| {
            let has_all = |line: &&str| parts.iter().all(|part| line.contains(part));
            log.lines().find(has_all).map(str::to_owned)
        };
        let what = format!("{parts:?} in the log");
        let found = guarded(&what, log.wait_for(|log| find(log).is_some())).await;
        found.ok().and_then(|log| find(&log)).unwrap_or_else(|| panic!("it has ended: {what}"))
    }

    pub(crate) async fn metrics(&self) -> Metrics {
        let answer = get(self.admin, "/metrics").await;
        assert_eq!(answer.status, 200);
        Metrics::parse(&answer.body).unwrap_or_else(|error| panic!("{error}\n{}", answer.body))
    }

    /// Waits until a metric has this value.
    pub(crate) async fn counts(&self, name: &str, value: f64) {
        eventually(&format!("{name} {value}"), async || {
            self.metrics().await.value(name, &[]) == Some(value)
        })
        .await;
    }
}

/// An answer to an HTTP request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// After how many seconds to come back.
    pub(crate) fn retry_after(&self) -> Option<u32> {
        self.header("retry-after").map(|seconds| seconds.parse().expect("whole seconds"))
    }
}

/// Reads one answer. Nothing if the stream ends before it has.
pub(crate) async fn read_answer<S: AsyncRead + Unpin>(stream: &mut S) -> Option<Answer> {
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).expect("a text");
    let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
    let mut answer = Answer { status, head, body: String::new() };
    let length = answer.header("content-length").map_or(0, |length| length.parse().expect("one"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    answer.body = String::from_utf8(body).expect("a text");
    Some(answer)
}

/// Sends a request and reads the answer.
pub(crate) async fn ask(address: SocketAddr, request: &str) -> Answer {
    let asking = async {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(request.as_bytes()).await.expect("it takes a request");
        read_answer(&mut stream).await.expect("it answers")
    };
    guarded(request, asking).await
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> Answer {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await
}

/// An upgrade request, with more header lines, each with its end.
pub(crate) fn upgrade_request(lines: &str) -> String {
    format!(
        "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: electric.0.12\r\n{lines}\r\n"
    )
}

/// A loopback address, one of many.
pub(crate) fn loopback(a: u8, b: u8, c: u8) -> IpAddr {
    Ipv4Addr::new(127, a, b, c).into()
}

/// Connects from this address.
pub(crate) async fn connect_from(from: IpAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    socket.connect(to).await
}

/// A frame of a client: masked, with this first byte and as long as it is.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = head(first, payload.len() as u64);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// The head of a frame, which may lie about the length.
pub(crate) fn head(first: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![first];
    match length {
        0..126 => bytes.push(0x80 | length as u8),
        126..0x1_0000 => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes
}

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A whole binary message.
pub(crate) const BINARY: u8 = 0x82;

/// The frame of a call.
pub(crate) fn call(request: impl Into<Request>, request_id: u32) -> Vec<u8> {
    frame(BINARY, &request.into().encode(request_id).encode())
}

/// The frame that presents a token.
pub(crate) fn authenticate(client_id: &str, token: &Token) -> Vec<u8> {
    let (id, token) = (client_id.into(), token.expose().into());
    call(SatAuthReq { id, token, ..Default::default() }, 1)
}

/// A WebSocket after the upgrade.
pub(crate) struct WebSocket<S> {
    pub(crate) stream: BufReader<BufWriter<S>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Asks for an upgrade. The answer instead if it is refused, or nothing if there is none.
    pub(crate) async fn open(stream: S, lines: &str) -> Result<WebSocket<S>, Option<Answer>> {
        let mut stream = BufReader::new(BufWriter::new(stream));
        let sent = async {
            stream.write_all(upgrade_request(lines).as_bytes()).await?;
            stream.flush().await
        };
        if sent.await.is_err() {
            return Err(None);
        }
        match read_answer(&mut stream).await {
            Some(answer) if answer.status == 101 => Ok(WebSocket { stream }),
            answer => Err(answer),
        }
    }

    /// Sends these bytes. That the server has gone shows when reading.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }

    /// The opcode and the payload of the server's next frame; nothing at the end.
    pub(crate) async fn next(&mut self) -> Option<(u8, Bytes)> {
        let first = self.stream.read_u8().await.ok()?;
        let length = match self.stream.read_u8().await.ok()? {
            126 => self.stream.read_u16().await.ok()?.into(),
            127 => self.stream.read_u64().await.ok()?,
            length => length.into(),
        };
        let mut payload = vec![0; usize::try_from(length).expect("a length that fits")];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some((first & 0x0f, payload.into()))
    }

    /// Reads to the end. The code and the reason of the close, if there was one.
    pub(crate) async fn close(&mut self) -> Option<(u16, String)> {
        let mut close = None;
        while let Some((opcode, payload)) = self.next().await {
            if opcode == 8 && payload.len() >= 2 {
                let code = u16::from_be_bytes([payload[0], payload[1]]);
                close = Some((code, String::from_utf8_lossy(&payload[2..]).into_owned()));
            }
        }
        close
    }
}
