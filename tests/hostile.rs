//! `satellite serve` under attack, from many addresses at once, while honest clients come and go:
//! all of these are served, and afterwards nothing is left of the others.
//!
//! It prints a table. The verdicts do not depend on chance: what an attack may see is what the
//! service's limits say, whatever the order in which things happen.
#![cfg(all(feature = "cli", target_os = "linux"))]

mod random;
mod raw;
mod service;

use std::{
    collections::BTreeMap,
    fs,
    future::{Future, pending},
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use electric_satellite::{
    auth::JwtAuthenticator,
    client::{ConnectError, Connector},
    server::{Server, empty_database},
    session::{ClientId, Close, Token},
    transport::Limits,
    wire::proto::{
        SatInStartReplicationReq, SatInStopReplicationReq, SatShapeDef, SatShapeReq, SatSubsReq,
        sat_shape_def::Select,
    },
};
use tokio::{
    io::{AsyncWriteExt, BufReader},
    net::{TcpSocket, TcpStream, tcp::OwnedWriteHalf},
    select,
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};

use random::Random;
use raw::{
    BINARY, WebSocket, authenticate, bad_token, call, frame, frame_head, good_token, guarded,
    read_answer, read_close, unsigned_token, upgrade_request,
};
use service::{Service, connect_from, eventually, loopback, secure};

/// Where the randomness comes from.
const SEED: u64 = 0x5a7e_1117_e000_0042;

/// How many unauthenticated connections one address may have.
const PER_ADDRESS: usize = 20;

/// After how long any attack must be over: the longest deadline is that of the upgrade, 10 s.
const LONGEST: Duration = Duration::from_secs(25);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_peers_hurt_nobody_and_leave_nothing_behind() {
    let mut command = secure();
    command
        .env("MAX_UNAUTHENTICATED", "2000")
        .env("MAX_UNAUTHENTICATED_PER_IP", PER_ADDRESS.to_string())
        .env("AUTH_TIMEOUT", "8")
        .env("LOG_LEVEL", "warning");
    let mut service = Service::start(command).await;
    let to = service.address;

    // What there is when nothing happens, after everything has happened once.
    let once = Honest::start(to, 250, 8);
    eventually("honest clients", async || once.served.load(Ordering::SeqCst) >= 50).await;
    once.stop().await;
    all_gone(&service).await;
    let before = Usage::of(service.pid());

    let honest = Honest::start(to, 200, 4);
    let rows = attack_from_all_sides(to).await;
    let (served, failures, slowest) = honest.stop().await;
    all_gone(&service).await;
    eventually("descriptors", async || Usage::of(service.pid()).files <= before.files).await;
    let after = Usage::of(service.pid());

    println!("{:<44}{:>12}  {:<64}verdict", "attack", "connections", "seen");
    for row in &rows {
        println!("{row}");
    }
    println!("honest clients: {served} served, {} not, the slowest in {slowest:?}", failures.len());
    println!("before: {before:?}\nafter:  {after:?}");

    let wrong: Vec<&Row> = rows.iter().filter(|row| !row.wrong.is_empty()).collect();
    assert!(wrong.is_empty(), "{} attacks saw what they should not", wrong.len());
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(served >= 100, "only {served} honest clients were served");
    assert_eq!(service.has_ended(), None);
    assert!(!service.log().contains("panicked"), "{}", service.log());
    assert!(after.threads <= before.threads, "threads are left");
    assert!(after.memory <= before.memory + 64 * 1024, "memory is left");
    assert!(after.peak <= before.memory + 128 * 1024, "it needed too much memory meanwhile");
    let unsent = service.metrics().await.value("satellite_unsent_bytes", &[]);
    assert_eq!(unsent.unwrap_or_default(), 0.0);
}

/// Waits until the service counts nobody any more.
async fn all_gone(service: &Service) {
    service.counts("satellite_handshakes", 0.0).await;
    service.counts("satellite_connections", 0.0).await;
}

/// What a process uses.
#[derive(Debug)]
struct Usage {
    files: usize,
    threads: u64,
    /// In KiB.
    memory: u64,
    peak: u64,
}

impl Usage {
    fn of(pid: u32) -> Usage {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
            line.split_whitespace().next().and_then(|it| it.parse().ok()).expect("a number")
        };
        Usage {
            files: fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count(),
            threads: number("Threads:"),
            memory: number("VmRSS:"),
            peak: number("VmHWM:"),
        }
    }
}

/// Clients that connect, authenticate, start replication and leave, again and again.
struct Honest {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<(Vec<String>, Duration)>>,
}

impl Honest {
    fn start(to: SocketAddr, network: u8, clients: u8) -> Honest {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let tasks = (1..=clients).map(|n| {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            tokio::spawn(async move {
                let (mut failures, mut slowest) = (vec![], Duration::ZERO);
                while !stop.load(Ordering::SeqCst) {
                    let began = Instant::now();
                    match visit(loopback(network, 0, n), to).await {
                        Ok(()) => drop(served.fetch_add(1, Ordering::SeqCst)),
                        Err(error) => failures.push(format!("{error:?}")),
                    }
                    slowest = slowest.max(began.elapsed());
                    sleep(Duration::from_millis(20)).await;
                }
                (failures, slowest)
            })
        });
        let tasks = tasks.collect();
        Honest { stop, served, tasks }
    }

    async fn stop(self) -> (usize, Vec<String>, Duration) {
        self.stop.store(true, Ordering::SeqCst);
        let (mut all, mut slowest) = (vec![], Duration::ZERO);
        for task in self.tasks {
            let (failures, time) = task.await.expect("no panic");
            all.extend(failures);
            slowest = slowest.max(time);
        }
        (self.served.load(Ordering::SeqCst), all, slowest)
    }
}

/// One visit of an honest client.
async fn visit(from: IpAddr, to: SocketAddr) -> Result<(), ConnectError> {
    let client = Connector::new(&format!("ws://{to}")).expect("a URL");
    let stream = connect_from(from, to).await.map_err(ConnectError::Unreachable)?;
    let upgraded = client.upgrade(stream).await?;
    let connection = upgraded.authenticate(&ClientId::random(), good_token()).await?;
    let start = SatInStartReplicationReq::default();
    let started = connection.call(start, Duration::from_secs(20)).await.expect("an answer");
    assert!(started.err.is_none(), "{started:?}");
    connection.close(Close::NORMAL);
    connection.closed().await;
    Ok(())
}

/// What an attack saw.
#[derive(Debug)]
struct Row {
    name: &'static str,
    connections: usize,
    seen: BTreeMap<String, usize>,
    wrong: Vec<String>,
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seen: Vec<String> = self.seen.iter().map(|(what, n)| format!("{n} {what}")).collect();
        let seen = seen.join(", ");
        let verdict = if self.wrong.is_empty() { "held" } else { "NOT HELD" };
        write!(f, "{:<44}{:>12}  {seen:<64}{verdict}", self.name, self.connections)
    }
}

/// One of an attack's connections.
#[derive(Clone, Copy)]
struct Peer {
    n: usize,
    from: IpAddr,
    to: SocketAddr,
    random: Random,
}

impl Peer {
    async fn connect(&self) -> io::Result<TcpStream> {
        connect_from(self.from, self.to).await
    }

    /// Opens a WebSocket, and presents a token.
    async fn enter(&self, token: &Token) -> Option<WebSocket<TcpStream>> {
        let mut socket = WebSocket::open(self.connect().await.ok()?, "").await.ok()?;
        socket.send(&authenticate(&format!("peer {} {}", self.from, self.n), token)).await;
        socket.next().await.filter(|(opcode, _)| *opcode == 2).map(|_| socket)
    }
}

/// Attacks that run side by side, each with its own addresses.
struct Attacks {
    to: SocketAddr,
    count: u8,
    running: JoinSet<Row>,
}

impl Attacks {
    /// So many connections, from addresses that have at most as many as they may have. What each
    /// sees must begin with one of `allowed`.
    fn add<F>(
        &mut self,
        name: &'static str,
        connections: usize,
        allowed: &'static [&'static str],
        attack: impl Fn(Peer) -> F + Send + 'static,
    ) where
        F: Future<Output = String> + Send + 'static,
    {
        self.add_from(name, connections, PER_ADDRESS / 2, allowed, attack);
    }

    /// The same with so many connections per address.
    fn add_from<F>(
        &mut self,
        name: &'static str,
        connections: usize,
        per_address: usize,
        allowed: &'static [&'static str],
        attack: impl Fn(Peer) -> F + Send + 'static,
    ) where
        F: Future<Output = String> + Send + 'static,
    {
        self.count += 1;
        let (network, to) = (self.count, self.to);
        self.running.spawn(async move {
            let mut peers = JoinSet::new();
            for n in 0..connections {
                let host = u8::try_from(1 + n / per_address).expect("so many addresses there are");
                let seed = SEED ^ (u64::from(network) << 32) ^ n as u64;
                let from = loopback(network, 1, host);
                let peer = Peer { n, from, to, random: Random::seeded(seed) };
                let fate = attack(peer);
                peers.spawn(async move {
                    timeout(LONGEST, fate).await.unwrap_or_else(|_| "still there".into())
                });
            }
            let mut row = Row { name, connections, seen: BTreeMap::new(), wrong: vec![] };
            for fate in peers.join_all().await {
                if !allowed.iter().any(|allowed| fate.starts_with(allowed)) {
                    row.wrong.push(fate.clone());
                }
                *row.seen.entry(fate).or_default() += 1;
            }
            row
        });
    }

    async fn rows(self) -> Vec<Row> {
        let mut rows = self.running.join_all().await;
        rows.sort_by_key(|row| row.name);
        rows
    }
}

/// What becomes of a connection on which somebody writes, if its answers are read.
async fn fate(
    stream: io::Result<TcpStream>,
    write: impl AsyncFnOnce(&mut OwnedWriteHalf) -> io::Result<()>,
) -> String {
    let Ok(stream) = stream else { return "not connected".into() };
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let writing = async {
        // That the server has gone shows when reading.
        let _ = write(&mut writer).await;
        pending().await
    };
    let reading = async {
        match read_answer(&mut reader).await {
            None => "cut off".into(),
            Some(answer) if answer.status != 101 => {
                while read_answer(&mut reader).await.is_some() {}
                format!("HTTP {}", answer.status)
            }
            Some(_) => match read_close(&mut reader).await {
                Some((code, _)) => format!("close {code}"),
                None => "cut off after the upgrade".into(),
            },
        }
    };
    select! {
        fate = reading => fate,
        never = writing => never,
    }
}

/// What becomes of a WebSocket on which these bytes are sent.
async fn fate_of(peer: Peer, bytes: Vec<u8>) -> String {
    fate(peer.connect().await, async |writer| {
        writer.write_all(upgrade_request("").as_bytes()).await?;
        writer.write_all(&bytes).await
    })
    .await
}

/// Writes one byte after the other, with a pause behind each.
async fn trickle(writer: &mut OwnedWriteHalf, bytes: &[u8], pause: Duration) -> io::Result<()> {
    for byte in bytes {
        writer.write_all(&[*byte]).await?;
        sleep(pause).await;
    }
    Ok(())
}

async fn attack_from_all_sides(to: SocketAddr) -> Vec<Row> {
    let mut attacks = Attacks { to, count: 0, running: JoinSet::new() };
    before_the_upgrade(&mut attacks);
    slowly_after_the_upgrade(&mut attacks);
    with_frames(&mut attacks);
    in_masses(&mut attacks);
    after_authentication(&mut attacks);
    attacks.rows().await
}

fn before_the_upgrade(attacks: &mut Attacks) {
    const PAUSE: Duration = Duration::from_millis(250);
    attacks.add("http: silence", 20, &["cut off"], async |peer: Peer| {
        fate(peer.connect().await, async |_| Ok(())).await
    });
    attacks.add("http: a byte at a time", 20, &["cut off"], async |peer: Peer| {
        let request = upgrade_request("");
        fate(peer.connect().await, async |it| trickle(it, request.as_bytes(), PAUSE).await).await
    });
    attacks.add("http: a header at a time", 20, &["cut off"], async |peer: Peer| {
        fate(peer.connect().await, async |writer| {
            writer.write_all(b"GET /ws HTTP/1.1\r\nHost: localhost\r\n").await?;
            loop {
                sleep(PAUSE).await;
                writer.write_all(b"X-More: x\r\n").await?;
            }
        })
        .await
    });
    attacks.add("http: questions without end", 20, &["HTTP 200"], async |peer: Peer| {
        fate(peer.connect().await, async |writer| {
            loop {
                writer.write_all(b"GET /api/status HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
                sleep(PAUSE).await;
            }
        })
        .await
    });
    attacks.add("http: answers never read", 10, &["cut off"], async |peer: Peer| {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(2048).expect("a small buffer");
        socket.bind((peer.from, 0).into()).expect("an address");
        let Ok(mut stream) = socket.connect(peer.to).await else { return "not connected".into() };
        let questions = "GET /api/status HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1000);
        // Until the server has had enough, which shows as a connection that is not one any more.
        while stream.write_all(questions.as_bytes()).await.is_ok() {}
        "cut off".into()
    });
    attacks.add("http: a body that does not come", 10, &["HTTP 404"], async |peer: Peer| {
        fate(peer.connect().await, async |writer| {
            let post = "POST /api/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n";
            writer.write_all(post.as_bytes()).await?;
            trickle(writer, &[b'x'; 1000], PAUSE).await
        })
        .await
    });
    attacks.add("http: half a request, then the end", 20, &["cut off"], async |mut peer: Peer| {
        let request = upgrade_request("");
        let half = peer.random.below(request.len());
        fate(peer.connect().await, async |writer| {
            writer.write_all(&request.as_bytes()[..half]).await?;
            writer.shutdown().await
        })
        .await
    });
    const TOO_LARGE: &[&str] = &["HTTP 431", "HTTP 414", "HTTP 400", "cut off"];
    attacks.add("http: a huge header", 20, TOO_LARGE, async |peer: Peer| {
        let huge = upgrade_request(&format!("X-Huge: {}\r\n", "x".repeat(1_000_000)));
        fate(peer.connect().await, async |it| it.write_all(huge.as_bytes()).await).await
    });
    attacks.add("http: many headers", 20, TOO_LARGE, async |peer: Peer| {
        let many = upgrade_request(&"X: y\r\n".repeat(1_500));
        fate(peer.connect().await, async |it| it.write_all(many.as_bytes()).await).await
    });
    attacks.add("http: a line without end", 10, TOO_LARGE, async |peer: Peer| {
        fate(peer.connect().await, async |writer| {
            writer.write_all(b"GET /").await?;
            loop {
                writer.write_all(&[b'x'; 4096]).await?;
            }
        })
        .await
    });
    attacks.add("http: random bytes", 50, TOO_LARGE, async |mut peer: Peer| {
        let bytes = peer.random.bytes(2000);
        fate(peer.connect().await, async |writer| {
            writer.write_all(&bytes).await?;
            writer.shutdown().await
        })
        .await
    });
}

fn slowly_after_the_upgrade(attacks: &mut Attacks) {
    const IN_TIME: &[&str] = &["close 4408"];
    attacks.add("websocket: silence", 20, IN_TIME, async |peer: Peer| fate_of(peer, vec![]).await);
    attacks.add("websocket: a byte at a time", 20, IN_TIME, async |peer: Peer| {
        fate(peer.connect().await, async |writer| {
            writer.write_all(upgrade_request("").as_bytes()).await?;
            let bytes = authenticate("slow", &good_token());
            trickle(writer, &bytes, Duration::from_millis(100)).await
        })
        .await
    });
    attacks.add("websocket: a fragment at a time", 20, IN_TIME, async |peer: Peer| {
        fate(peer.connect().await, async |writer| {
            writer.write_all(upgrade_request("").as_bytes()).await?;
            writer.write_all(&frame(0x02, b"x")).await?;
            loop {
                sleep(Duration::from_millis(100)).await;
                writer.write_all(&frame(0x00, b"x")).await?;
            }
        })
        .await
    });
    attacks.add("websocket: a ping at a time", 20, IN_TIME, async |peer: Peer| {
        fate(peer.connect().await, async |writer| {
            writer.write_all(upgrade_request("").as_bytes()).await?;
            loop {
                writer.write_all(&frame(0x89, b"x")).await?;
                sleep(Duration::from_millis(100)).await;
            }
        })
        .await
    });
    attacks.add("websocket: a large message announced", 20, IN_TIME, async |peer: Peer| {
        // Within what an authenticated client may send, and never sent.
        fate_of(peer, frame_head(BINARY, 16 * 1024 * 1024)).await
    });
    attacks.add(
        "websocket: the end, half-way",
        20,
        &["cut off", "close"],
        async |mut peer: Peer| {
            let bytes = authenticate("half", &good_token());
            let half = peer.random.below(bytes.len());
            fate(peer.connect().await, async |writer| {
                writer.write_all(upgrade_request("").as_bytes()).await?;
                writer.write_all(&bytes[..half]).await?;
                writer.shutdown().await
            })
            .await
        },
    );
}

fn with_frames(attacks: &mut Attacks) {
    const BREACH: &[&str] = &["close 1002"];
    // What takes long to read may take too long.
    const TOO_LARGE: &[&str] = &["close 1009", "close 4408"];
    attacks.add("websocket: lengths that cannot be", 20, &["close 1009", "close 1002"], {
        async |peer: Peer| {
            let lengths = [17 << 20, 1 << 31, 1 << 32, i64::MAX as u64, 1 << 63, u64::MAX];
            fate_of(peer, frame_head(BINARY, lengths[peer.n % lengths.len()])).await
        }
    });
    attacks.add("websocket: reserved bits", 21, BREACH, async |peer: Peer| {
        fate_of(peer, frame(BINARY | [0x10, 0x20, 0x40][peer.n % 3], b"x")).await
    });
    attacks.add("websocket: reserved opcodes", 20, BREACH, async |peer: Peer| {
        let opcodes = [3, 4, 5, 6, 7, 11, 12, 13, 14, 15];
        fate_of(peer, frame(0x80 | opcodes[peer.n % opcodes.len()], b"x")).await
    });
    attacks.add("websocket: long control frames", 21, BREACH, async |peer: Peer| {
        fate_of(peer, frame([0x88, 0x89, 0x8a][peer.n % 3], &[b'x'; 126])).await
    });
    attacks.add("websocket: control frames in fragments", 21, BREACH, async |peer: Peer| {
        fate_of(peer, frame([0x08, 0x09, 0x0a][peer.n % 3], b"x")).await
    });
    attacks.add("websocket: the rest of no message", 10, BREACH, async |peer: Peer| {
        fate_of(peer, frame(0x80, b"x")).await
    });
    attacks.add("websocket: unmasked", 10, BREACH, async |peer: Peer| {
        fate_of(peer, vec![BINARY, 1, b'x']).await
    });
    attacks.add("websocket: a message of its own size", 10, TOO_LARGE, async |peer: Peer| {
        fate_of(peer, frame(BINARY, &vec![0; 200_000])).await
    });
    attacks.add("websocket: 1-byte fragments without end", 10, TOO_LARGE, async |peer: Peer| {
        let mut bytes = frame(0x02, b"x");
        bytes.extend(frame(0x00, b"x").repeat(50_000));
        fate_of(peer, bytes).await
    });
    attacks.add("websocket: empty fragments without end", 10, TOO_LARGE, async |peer: Peer| {
        let mut bytes = frame(0x02, b"");
        bytes.extend(frame(0x00, b"").repeat(50_000));
        fate_of(peer, bytes).await
    });
    attacks.add("websocket: a flood of texts", 10, &["close 1003"], async |peer: Peer| {
        fate_of(peer, frame(0x81, b"some text").repeat(50_000)).await
    });
    attacks.add("websocket: a flood of pings", 10, TOO_LARGE, async |peer: Peer| {
        fate_of(peer, frame(0x89, b"are you there?").repeat(50_000)).await
    });
    attacks.add("websocket: random bytes", 50, &["close", "cut off"], async |mut peer: Peer| {
        let bytes = peer.random.bytes(4000);
        fate(peer.connect().await, async |writer| {
            writer.write_all(upgrade_request("").as_bytes()).await?;
            writer.write_all(&bytes).await?;
            writer.shutdown().await
        })
        .await
    });
    attacks.add("websocket: random messages", 50, &["close 1007"], async |mut peer: Peer| {
        let length = 1 + peer.random.below(300);
        fate_of(peer, frame(BINARY, &peer.random.bytes(length))).await
    });
}

fn in_masses(attacks: &mut Attacks) {
    // As many as one address may have are there until their time is over. Of the others, each is
    // told so, or cut off if too many are.
    const FLOOD: &[&str] = &["close 4408", "HTTP 429", "cut off"];
    attacks.add_from("flood from one address", 200, 200, FLOOD, async |peer: Peer| {
        fate_of(peer, vec![]).await
    });
    attacks.add_from("flood from many addresses", 200, 2, FLOOD, async |peer: Peer| {
        fate_of(peer, vec![]).await
    });
    const FAILED: &[&str] = &["close 1007, then HTTP 429"];
    // Each from an address of its own: those of one address share what may fail, and the first of
    // them can have used it up before the last has begun.
    attacks.add_from("bad tokens without end", 5, 1, FAILED, async |peer: Peer| {
        let mut before = "nothing".into();
        loop {
            let bytes = authenticate("stranger", &bad_token());
            let fate = fate_of(peer, bytes).await;
            if fate != "close 1007" {
                return format!("{before}, then {fate}");
            }
            before = fate;
        }
    });
    attacks.add("resets at random points", 200, &["reset"], async |mut peer: Peer| {
        let mut bytes = upgrade_request("").into_bytes();
        bytes.extend(authenticate(&format!("reset {}", peer.n), &good_token()));
        bytes.extend(call(SatInStartReplicationReq::default(), 2));
        bytes.extend(frame(0x89, b"x"));
        let point = peer.random.below(bytes.len());
        let wait = peer.random.below(30);
        let Ok(mut stream) = peer.connect().await else { return "not connected".into() };
        let _ = stream.write_all(&bytes[..point]).await;
        sleep(Duration::from_millis(wait as u64)).await;
        stream.set_zero_linger().expect("an option");
        "reset".into()
    });
}

fn after_authentication(attacks: &mut Attacks) {
    const SERVED: &[&str] = &["served"];
    attacks.add("authenticating by 1-byte fragments", 10, SERVED, async |peer: Peer| {
        let Ok(stream) = peer.connect().await else { return "not connected".into() };
        let Ok(mut socket) = WebSocket::open(stream, "").await else { return "refused".into() };
        let message =
            electric_satellite::wire::Request::from(electric_satellite::wire::proto::SatAuthReq {
                id: format!("fragments {}", peer.n),
                token: good_token().expose().into(),
                ..Default::default()
            });
        let message = message.encode(1).encode();
        let last = message.len() - 1;
        for (n, byte) in message.iter().enumerate() {
            let (opcode, fin) = (if n == 0 { 2 } else { 0 }, if n == last { 0x80 } else { 0 });
            socket.send(&frame(opcode | fin, &[*byte])).await;
        }
        match socket.next().await {
            Some((2, _)) => "served".into(),
            other => format!("{other:?}"),
        }
    });
    attacks.add("authenticated: a flood of pings", 5, SERVED, async |peer: Peer| {
        let Some(mut socket) = peer.enter(&good_token()).await else { return "refused".into() };
        let pings = frame(0x89, b"are you there?").repeat(1_000);
        for _ in 0..20 {
            socket.send(&pings).await;
        }
        socket.send(&call(SatInStopReplicationReq {}, 7)).await;
        loop {
            match socket.next().await {
                Some((10, _)) => {}
                Some((2, _)) => return "served".into(),
                other => return format!("{other:?}"),
            }
        }
    });
    attacks.add("authenticated: a flood behind the token", 5, SERVED, async |peer: Peer| {
        const CALLS: u32 = 2_000;
        let Ok(stream) = peer.connect().await else { return "not connected".into() };
        let (reader, mut writer) = stream.into_split();
        let mut reader = BufReader::new(reader);
        let write = async {
            let mut bytes = upgrade_request("").into_bytes();
            bytes.extend(authenticate(&format!("flood {}", peer.n), &good_token()));
            (2..2 + CALLS).for_each(|id| bytes.extend(call(SatInStopReplicationReq {}, id)));
            writer.write_all(&bytes).await.expect("it is taken");
        };
        let read = async {
            let upgraded = read_answer(&mut reader).await.is_some_and(|it| it.status == 101);
            for n in 0..=CALLS {
                match raw::read_frame(&mut reader).await {
                    Some((2, _)) if upgraded => {}
                    other => return format!("answer {n}: {other:?}"),
                }
            }
            "served".into()
        };
        tokio::join!(write, read).1
    });
    attacks.add("authenticated: an oversized message", 10, &["close 1009"], async |peer: Peer| {
        let Some(mut socket) = peer.enter(&good_token()).await else { return "refused".into() };
        socket.send(&frame_head(BINARY, 17 << 20)).await;
        socket.close().await.map_or("cut off".into(), |(code, _)| format!("close {code}"))
    });
    const SUBSCRIBING: &[&str] = &["not read, not listened to"];
    attacks.add("authenticated: answers never read", 4, SUBSCRIBING, async |peer: Peer| {
        let bytes = call(greedy_subscription(), 9);
        let Some(mut socket) = peer.enter(&good_token()).await else { return "refused".into() };
        // A server that waits for its answers to leave does not take questions for ever.
        let sending = async {
            for _ in 0..4_000 {
                socket.send(&bytes).await;
            }
        };
        match timeout(Duration::from_secs(8), sending).await {
            Ok(()) => format!("{} bytes taken", 4_000 * bytes.len()),
            Err(_) => "not read, not listened to".into(),
        }
    });
}

/// It asks for many tables, and each of them is named in the answer.
fn greedy_subscription() -> SatSubsReq {
    let select = Select { tablename: "t".repeat(20), ..Default::default() };
    let shape = SatShapeDef { selects: vec![select; 1_000] };
    let request = SatShapeReq { request_id: "r".into(), shape_definition: Some(shape) };
    SatSubsReq {
        subscription_id: "00000000-0000-4000-8000-000000000000".into(),
        shape_requests: vec![request],
    }
}

/// The same as the last of the attacks, without a network that takes what nobody reads.
#[tokio::test(start_paused = true)]
async fn who_does_not_take_answers_is_not_asked_for_questions() {
    const TAKEN: usize = 4 * 1024 * 1024;
    let server = Server::new(JwtAuthenticator::insecure(None));
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let serving = tokio::spawn(async move {
        let connection = server.accept(theirs).await.expect("it is let in");
        empty_database(connection).await;
    });
    let mut socket = WebSocket::open(ours, "").await.expect("it is upgraded");
    socket.send(&authenticate("client", &unsigned_token())).await;
    socket.next().await.expect("it is let in");
    let question = call(greedy_subscription(), 9);
    let began = tokio::time::Instant::now();
    let mut taken = 0;
    while timeout(Duration::from_secs(1), socket.send(&question)).await.is_ok() {
        taken += question.len();
        assert!(taken < TAKEN, "{taken} bytes of questions, and no answer was taken");
    }
    // It is given up when it takes nothing for long enough.
    serving.await.expect("no panic");
    let limits = Limits::default();
    assert!(began.elapsed() <= limits.write_timeout + limits.close_timeout, "{began:?}");
}

#[tokio::test]
async fn when_all_places_are_taken_everybody_is_told_to_come_back() {
    let mut command = secure();
    command.env("MAX_UNAUTHENTICATED", "30").env("AUTH_TIMEOUT", "30");
    let service = Service::start(command).await;
    let to = service.address;
    let mut held = vec![];
    for n in 1..=30 {
        let stream = connect_from(loopback(1, 2, n), to).await.expect("it listens");
        held.push(guarded("an upgrade", WebSocket::open(stream, "")).await.expect("room"));
    }
    for n in 1..=10 {
        match guarded("a visit", visit(loopback(201, 0, n), to)).await {
            Err(ConnectError::UpgradeRefused { status: 503, .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    drop(held);
    let comes_in = async || guarded("a visit", visit(loopback(201, 0, 1), to)).await.is_ok();
    eventually("room", comes_in).await;
}

#[tokio::test]
async fn too_many_open_files_are_survived() {
    let serve = secure();
    let mut command = tokio::process::Command::new("sh");
    command
        .args(["-c", "ulimit -n 64 && exec \"$0\" serve", env!("CARGO_BIN_EXE_satellite")])
        .env_clear()
        .envs(serve.as_std().get_envs().filter_map(|(name, value)| Some((name, value?))))
        .kill_on_drop(true);
    let mut service = Service::start(command).await;
    let to = service.address;
    guarded("a visit", visit(loopback(202, 0, 1), to)).await.expect("it is served");
    let mut held = vec![];
    for n in 1..=100 {
        held.push(connect_from(loopback(1, 3, n), to).await.expect("the system accepts"));
    }
    service.logged(&["ERROR", "cannot accept connections"]).await;
    drop(held);
    for n in 1..=5 {
        guarded("a visit", visit(loopback(202, 0, n), to)).await.expect("it is served again");
    }
    let failures = service.metrics().await.value("satellite_accept_errors_total", &[]);
    assert!(failures.is_some_and(|failures| failures > 0.0));
    all_gone(&service).await;
    assert_eq!(service.has_ended(), None);
    assert!(!service.log().contains("panicked"), "{}", service.log());
}
