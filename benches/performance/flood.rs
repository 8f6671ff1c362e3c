//! Honest clients of a server under a flood of bad tokens.
//!
//! The server has one thread, ES512, and the limits that every server has unless it is told
//! otherwise: none is changed. Its capacity is the number of handshakes that a second of its thread
//! pays for. ES512 is the most expensive algorithm, so that one other thread can offer several
//! times as many.
//!
//! Honest clients come a hundred times a second, whatever becomes of those before, and each
//! measures from when it is due to when it is answered; they are in this process. The flood comes
//! from another ([`attackers`]), at five times the capacity: well-formed tokens of the right
//! algorithm with a wrong signature, each on a connection of its own, from forty other addresses.
//!
//! Honest handshakes without a flood and with one take turns. Each address may fail sixty times
//! before it is turned away, and all of that comes in the first second or two: the onset, which is
//! measured apart. What is judged is what comes after it, as long as the flood lasts. Then an address
//! is told sixty times a second that it is turned away, and may fail once a second; its other
//! connections are closed without a word.

mod attackers;

use std::{
    thread,
    time::{Duration, Instant},
};

use futures_util::{
    StreamExt,
    stream::{iter, poll_fn},
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{
    Measured, block_on,
    clients::{close, served},
    cpu::Measurement,
    processes::{Process, Role},
    report::Row,
    scale::Scale,
    servers::{Manner, Subject},
    statistics::percentile,
};

use attackers::Tally;
pub(crate) use attackers::{Target, run};

/// How many times as late an honest client may be answered.
const BUDGET: f64 = 3.0;

/// How much is offered: the times of what the server can verify.
const FLOOD: f64 = 5.0;

/// After which time an honest handshake is due again.
const PERIOD: Duration = Duration::from_millis(10);

/// How many honest handshakes an onset has.
const ONSET: u32 = 200;

/// In how many turns the capacity is measured.
const TURNS: usize = 5;

/// How late honest clients are answered, in milliseconds.
#[derive(Default)]
struct Latencies {
    quiet: Vec<f64>,
    onset: Vec<f64>,
    flooded: Vec<f64>,
}

pub(crate) fn measure(scale: &Scale) -> Measured {
    let mut server = Measurement::new(Subject::satellite(Manner::Guarded, "ES512"));
    let capacity = block_on(capacity(&mut server, scale.turn));
    let mut honest = Honest { server: &server, next: scale.turn };
    let target = Target::new(server.process.address, &server.subject.signed.forged());
    let mut attackers = Process::start(&Role::Attackers(target));
    let mut latencies = Latencies::default();
    let mut tally = Tally::default();
    let mut busy = Duration::ZERO;
    for _ in 0..scale.floods {
        latencies.quiet.extend(block_on(honest.handshakes(scale.honest)));
        attackers.ask(&(capacity * FLOOD).to_string());
        latencies.onset.extend(block_on(honest.handshakes(scale.honest.min(ONSET))));
        // What came of the onset is not counted.
        attackers.ask("");
        let before = server.process.cpu_time_now();
        latencies.flooded.extend(block_on(honest.handshakes(scale.honest)));
        busy += server.process.cpu_time_now() - before;
        tally.add(&attackers.ask(""));
        attackers.ask("stop");
        server.process.settle();
    }
    let mut rows = rows(capacity, &latencies, &tally);
    rows.push(Row::new("server's thread, flood", 100.0 * tally.share(busy), "% of a processor"));
    Ok(rows)
}

/// How many handshakes a second of the server's thread pays for.
async fn capacity(server: &mut Measurement, turn: usize) -> f64 {
    for _ in 0..TURNS {
        server.turn(0, turn).await;
    }
    1e6 / server.handshake()
}

/// Clients that have the right token.
struct Honest<'a> {
    server: &'a Measurement,
    /// Under which number the next one comes.
    next: usize,
}

impl Honest<'_> {
    /// So many handshakes, each as soon as it is due, whatever becomes of those before it.
    async fn handshakes(&mut self, count: u32) -> Vec<f64> {
        let Measurement { subject, process, .. } = self.server;
        let handshake = async |(client, due): (usize, Instant)| {
            let stream = served(subject, process.address, client).await;
            let latency = due.elapsed().as_secs_f64() * 1e3;
            close(subject, stream).await;
            latency
        };
        let mut due = due(count);
        let due = poll_fn(|context| due.poll_recv(context));
        let handshakes = iter(self.next..).zip(due).map(handshake);
        self.next += count as usize;
        handshakes.buffer_unordered(count as usize).collect().await
    }
}

/// When each is due. A thread says so, because the runtime only wakes in whole milliseconds.
fn due(count: u32) -> UnboundedReceiver<Instant> {
    let (tell, told) = unbounded_channel();
    thread::spawn(move || {
        let start = Instant::now();
        for due in (0..count).map(|nth| start + PERIOD * nth) {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let _ = tell.send(due);
        }
    });
    told
}

fn rows(capacity: f64, latencies: &Latencies, tally: &Tally) -> Vec<Row> {
    let Latencies { quiet, onset, flooded } = latencies;
    let share = |latencies: &[f64], share| percentile(latencies.iter().copied(), share);
    let ratio = |at| share(flooded, at) / share(quiet, at);
    let offered = tally.offered_per_second();
    let mut rows = vec![
        Row::ratio("p99 of honest handshakes, flood / none", ratio(0.99))
            .at_most(BUDGET)
            .key("flood_p99_ratio"),
        Row::ratio("median of honest handshakes, flood / none", ratio(0.5)),
        Row::ratio("flood / capacity", offered / capacity),
        Row::new("capacity", capacity, "handshakes/s"),
        Row::new("flood", offered, "attempts/s"),
        Row::new("of these, turned away", tally.turned_away_per_second(), "attempts/s"),
        Row::new("of these, verified", tally.verified_per_second(), "attempts/s"),
    ];
    for (when, latencies) in [("no flood", quiet), ("flood", flooded), ("onset of a flood", onset)]
    {
        for (what, at) in [("median", 0.5), ("p99", 0.99), ("longest", 1.0)] {
            rows.push(Row::new(format!("honest, {when}: {what}"), share(latencies, at), "ms"));
        }
    }
    rows
}
