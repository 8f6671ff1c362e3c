//! The processor's time that a handshake takes of its server.
//!
//! A handshake is the TCP connection, the upgrade, one message of about 320 bytes and its answer:
//! an auth request and its reply, each client under an id of its own, or the same message and its
//! echo. Then all clients close as RFC 6455 wants it, which is counted apart.
//!
//! `TCP` sends back every byte and `WebSocket` every message, the latter with tokio-tungstenite
//! alone and tuned: with our read buffer, `TCP_NODELAY`, and the subprotocol agreed to. `WebSocket and
//! bare ES256` verifies a signature before it sends a message back, with the cryptographic library
//! alone: where a handshake is, and not a thousand times in a row, which is cheaper. The others are
//! `Server::serve` with the token of one algorithm (`none` is insecure mode) and a handler that
//! waits. A cached one has a cache of verified tokens, and has seen the token before.
//!
//! Times are those of the server's thread on a processor, system calls included
//! (`/proc/PID/task/TID/schedstat`). The servers take turns, round by round, so that what else the
//! machine does concerns all of them, and are started anew after every ten rounds, for one process is
//! luckier with its memory than another. Each figure is the 10th percentile of the turns.

use super::{
    Measured, block_on,
    clients::Clients,
    processes::ServerProcess,
    report::Row,
    scale::Scale,
    servers::{Kind, Manner, Subject},
    statistics::undisturbed,
    tokens::Signed,
};

/// What HS256 may cost in the place of a bare WebSocket: the times of it.
const RATIO_BUDGET: f64 = 1.10;

/// What ES256 may cost beyond a bare WebSocket and a bare verification, in microseconds.
const EXTRA_BUDGET: f64 = 15.0;

/// How many rounds a process lives.
const LIFE: usize = 10;

/// What one connection cost, in microseconds.
#[derive(Clone, Copy)]
pub(crate) struct Cost {
    /// From the first packet to the answer to the first message.
    pub(crate) handshake: f64,
    /// From the close frame to the end of everything.
    close: f64,
}

/// A server, and what its connections cost, round by round.
pub(crate) struct Measurement {
    pub(crate) subject: Subject,
    pub(crate) process: ServerProcess,
    pub(crate) costs: Vec<Cost>,
}

impl Measurement {
    pub(crate) fn new(subject: Subject) -> Measurement {
        Measurement { process: ServerProcess::start(&subject), subject, costs: vec![] }
    }

    /// Another process takes the place of the one that there was.
    fn restart(&mut self) {
        self.process = ServerProcess::start(&self.subject);
    }

    /// A turn that is not counted: the first of a process is different.
    async fn warm_up(&mut self, connections: usize) {
        self.turn(0, connections).await;
        self.costs.pop();
    }

    /// A turn of so many connections, which is counted; their numbers begin here.
    pub(crate) async fn turn(&mut self, first: usize, connections: usize) {
        let Measurement { subject, process, costs } = self;
        let start = process.cpu_time();
        let clients = Clients::served(subject, process.address, first..first + connections).await;
        let served = process.cpu_time();
        clients.close().await;
        let closed = process.cpu_time();
        let each = |time: std::time::Duration| time.as_secs_f64() * 1e6 / connections as f64;
        costs.push(Cost { handshake: each(served - start), close: each(closed - served) });
    }

    pub(crate) fn handshake(&self) -> f64 {
        undisturbed(self.costs.iter().map(|cost| cost.handshake))
    }

    fn close(&self) -> f64 {
        undisturbed(self.costs.iter().map(|cost| cost.close))
    }
}

/// The floor first, and then what stands on it.
fn subjects() -> Vec<Subject> {
    let ours =
        |manner| Signed::all().into_iter().map(move |signed| (Kind::Satellite(manner), signed));
    let cached = ours(Manner::Cached).filter(|(_, signed)| signed.algorithm != "none");
    let bare = [(Kind::Tcp, "HS256"), (Kind::WebSocket, "HS256"), (Kind::Verifying, "ES256")];
    bare.into_iter()
        .map(|(kind, algorithm)| (kind, Signed::with(algorithm)))
        .chain(ours(Manner::Plain))
        .chain(cached)
        .map(|(kind, signed)| Subject::new(kind, signed))
        .collect()
}

pub(crate) fn measure(scale: &Scale) -> Measured {
    let mut servers: Vec<_> = subjects().into_iter().map(Measurement::new).collect();
    block_on(async {
        for round in 0..scale.rounds {
            for server in &mut servers {
                if round.is_multiple_of(LIFE) {
                    if round > 0 {
                        server.restart();
                    }
                    server.warm_up(scale.turn).await;
                }
                server.turn(0, scale.turn).await;
            }
        }
    });
    Ok(rows(&servers))
}

fn rows(servers: &[Measurement]) -> Vec<Row> {
    let handshake = |name: &str| {
        servers.iter().find(|server| server.subject.name() == name).expect(name).handshake()
    };
    let bare = handshake("WebSocket");
    let extra = handshake("ES256") - handshake("WebSocket and bare ES256");
    let mut rows = vec![
        Row::new("ES256 handshake − WebSocket and bare ES256", extra, "µs")
            .at_most(EXTRA_BUDGET)
            .key("handshake_es256_extra_us"),
    ];
    for server in servers {
        let name = server.subject.name();
        let ratio = Row::ratio(format!("{name} handshake / WebSocket"), server.handshake() / bare);
        match name.as_str() {
            "WebSocket" => {}
            "HS256" => rows.push(ratio.at_most(RATIO_BUDGET).key("handshake_hs256_ratio")),
            _ => rows.push(ratio),
        }
        rows.push(Row::new(format!("{name} handshake"), server.handshake(), "µs"));
        rows.push(Row::new(format!("{name} close"), server.close(), "µs"));
    }
    rows
}
