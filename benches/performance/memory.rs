//! What connections hold: memory, tasks, and the processor's attention.
//!
//! All connections of a server live at the same time. Memory is what the process has more of from
//! the operating system (`Anonymous` of `/proc/PID/smaps_rollup`), per connection: without what was
//! allocated and never touched, with what the allocator cannot use, and without the kernel's own.
//!
//! Connected ones are silent from the beginning, or since the TLS handshake; upgraded ones are silent since the upgrade; served
//! ones have had the answer to their message, so that ours are authenticated, and idle, with a
//! handler that waits. `WebSocket` is tokio-tungstenite with our read buffer.
//!
//! Wake-ups are how often the server goes to sleep again while its clients are silent. Pings, one
//! for each connection every 20 s of silence by default, are not among them.

use std::{thread::sleep, time::Duration};

use super::{
    Measured, block_on,
    clients::Clients,
    processes::{Holdings, ServerProcess},
    report::Row,
    scale::Scale,
    servers::{Manner, Subject},
};

/// How many bytes an idle, authenticated connection may take.
const BUDGET: f64 = 4_608.0;

/// How many connections may wait until they are accepted: no more than a listener lets.
const UNACCEPTED: usize = 100;

/// How many connections a server has had when it is first looked at.
const WARM_UP: usize = 100;

/// What one connection of many holds.
pub(crate) struct Share {
    pub(crate) memory: f64,
    tasks: f64,
}

/// What a server's connections hold, one by one, at each stage.
struct Shares {
    server: String,
    connected: Share,
    upgraded: Share,
    served: Share,
    /// How often the server woke while nobody did anything.
    wakes: u64,
}

pub(crate) fn measure(scale: &Scale) -> Measured {
    let subjects = [
        Subject::bare_websocket(),
        Subject::satellite(Manner::Plain, "HS256"),
        Subject::satellite(Manner::Tls, "HS256"),
    ];
    let mut rows = vec![Row::new("connections at a time", scale.connections as f64, "connections")];
    for subject in &subjects {
        let shares = block_on(hold(subject, scale.connections, scale.idle));
        rows.extend(shares.rows(scale.idle));
    }
    Ok(rows)
}

async fn hold(subject: &Subject, connections: usize, idle: Duration) -> Shares {
    let connected = connected(subject, connections).await;
    let (mut process, before) = start(subject, WARM_UP).await;
    let mut clients = Clients::upgraded(subject, process.address, connections).await;
    let upgraded = process.holdings().share(&before, connections);
    clients.exchange().await;
    let served = process.holdings().share(&before, connections);
    let sleeps = process.sleeps();
    sleep(idle);
    let wakes = process.sleeps() - sleeps;
    Shares { server: subject.name(), connected, upgraded, served, wakes }
}

/// In a process of its own, for what is freed later does not go back to the operating system.
async fn connected(subject: &Subject, connections: usize) -> Share {
    let (mut process, before) = start(subject, WARM_UP).await;
    let mut clients = vec![];
    for first in (0..connections).step_by(UNACCEPTED) {
        let count = UNACCEPTED.min(connections - first);
        clients.push(Clients::connected(subject, process.address, count).await);
        process.settle();
    }
    process.holdings().share(&before, connections)
}

/// A server that has what it only allocates once, after so many connections; and what it holds.
pub(crate) async fn start(subject: &Subject, warm_up: usize) -> (ServerProcess, Holdings) {
    let mut process = ServerProcess::start(subject);
    Clients::served(subject, process.address, 0..warm_up).await.close().await;
    let before = process.holdings();
    (process, before)
}

impl Holdings {
    /// What each of so many connections has added.
    pub(crate) fn share(&self, before: &Holdings, connections: usize) -> Share {
        let each = |now: u64, before| now.saturating_sub(before) as f64 / connections as f64;
        Share { memory: each(self.memory, before.memory), tasks: each(self.tasks, before.tasks) }
    }
}

impl Shares {
    fn rows(&self, idle: Duration) -> Vec<Row> {
        let Shares { server, connected, upgraded, served, wakes } = self;
        let mut memory = Row::new(format!("{server} served"), served.memory, "B/connection");
        if server == "HS256" {
            memory = memory.at_most(BUDGET).key("idle_bytes_per_connection");
        }
        let woken = format!("{server} wakes in {idle:?} of silence");
        vec![
            memory,
            Row::new(format!("{server} connected"), connected.memory, "B/connection"),
            Row::new(format!("{server} upgraded"), upgraded.memory, "B/connection"),
            Row::new(format!("{server} served"), served.tasks, "tasks/connection"),
            Row::new(woken, *wakes as f64, "wakes"),
        ]
    }
}
