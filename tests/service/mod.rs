//! The `satellite` binary as a running service. Shared by the tests that look at it from outside.
#![allow(dead_code, reason = "each test uses a part of it")]

pub(crate) mod prometheus;

use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpSocket, TcpStream},
    process::{Child, Command},
    sync::watch,
};

use crate::raw::{Answer, SECRET, guarded, read_answer};
use prometheus::Metrics;

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

    /// Asks it to stop (SIGTERM), and waits until it has.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        let mut kill = Command::new("kill");
        let told = kill.args(["-TERM", &self.pid().to_string()]).status().await;
        assert!(told.expect("kill runs").success());
        guarded("the end", self.child.wait()).await.expect("it can be waited for")
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
