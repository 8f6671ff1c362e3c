//! The books: what the clients did, what the service counted, and what it uses.

use std::{
    collections::BTreeMap,
    fmt, fs,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{sleep, timeout};

use crate::{
    clients::{self, Kind},
    service::{Service, eventually, prometheus::Metrics},
    world::World,
};

/// How much more memory may be used than after the warm-up, in KiB: the allocator keeps some, and
/// tokens that were used are remembered for a minute.
const TOLERANCE: u64 = 24 * 1024;

/// How long it may take to come back.
const PATIENCE: Duration = Duration::from_secs(20);

/// Files are read on threads of their own, which stay for a while.
const FILE_THREADS: u64 = 2;

/// What the clients of one service did.
#[derive(Default)]
pub(crate) struct Ledger {
    connections: Mutex<BTreeMap<&'static str, (&'static Kind, u64)>>,
    limits_hit: AtomicU64,
}

impl Ledger {
    /// A connection was made.
    pub(crate) fn connected(&self, kind: &'static Kind) {
        self.connections.lock().expect("no panic").entry(kind.name).or_insert((kind, 0)).1 += 1;
    }

    /// A limit was in the way.
    pub(crate) fn limit_hit(&self) {
        self.limits_hit.fetch_add(1, Ordering::SeqCst);
    }

    fn total(&self) -> u64 {
        self.connections.lock().expect("no panic").values().map(|(_, count)| count).sum()
    }

    /// How often something must have been counted at least and may have been at most, if each
    /// connection was counted as one of what `allowed` says of its kind.
    fn bounds(
        &self,
        counted_as: &str,
        allowed: impl Fn(&Kind) -> &'static [&'static str],
    ) -> (u64, u64) {
        let (mut least, mut most) = (0, 0);
        for (kind, count) in self.connections.lock().expect("no panic").values() {
            if allowed(kind).contains(&counted_as) {
                most += count;
                // One that may not be authenticated may not be closed either.
                let certain = kind.fates.len() == 1 && allowed(kind).len() == 1;
                least += if certain { *count } else { 0 };
            }
        }
        (least, most)
    }
}

/// What a process uses.
#[derive(Debug)]
pub(crate) struct Usage {
    files: usize,
    threads: u64,
    tasks: f64,
    /// In KiB.
    memory: u64,
}

impl Usage {
    async fn of(service: &Service) -> Usage {
        let pid = service.pid();
        let tasks = service.metrics().await.sum("satellite_tasks");
        let mut files = usize::MAX;
        // The connection that asked for the metrics goes, too.
        for _ in 0..10 {
            sleep(Duration::from_millis(10)).await;
            files = files.min(fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count());
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
            line.split_whitespace().next().and_then(|it| it.parse().ok()).expect("a number")
        };
        Usage { files, tasks, threads: number("Threads:"), memory: number("VmRSS:") }
    }

    /// Whether this is no more than before, but for what is said above.
    fn is_back_to(&self, before: &Usage) -> bool {
        self.files <= before.files
            && self.tasks <= before.tasks
            && self.threads <= before.threads + FILE_THREADS
            && self.memory <= before.memory + TOLERANCE
    }
}

/// How a service counts those whom it does not authenticate; see the documentation of `server`.
fn is_refused(reason: &str) -> bool {
    ["overloaded", "auth refused", "not registered"].contains(&reason)
}

fn has_failed(reason: &str) -> bool {
    let failed = ["not opened", "upgrade timed out", "http failed", "auth unavailable", "panicked"];
    failed.contains(&reason)
}

fn is_abandoned(reason: &str) -> bool {
    ["not upgraded", "ended before authentication", "dropped"].contains(&reason)
}

/// The audits so far.
#[derive(Default)]
pub(crate) struct Books {
    audits: usize,
    connections: BTreeMap<&'static str, u64>,
}

impl Books {
    pub(crate) const HEAD: &str = "life and round   accepted = refused + authenticated + failed \
                                   + abandoned   files threads tasks     KiB";

    /// Waits for the silence, and looks whether everything adds up and is back to what it was.
    pub(crate) async fn audit(
        &mut self,
        when: &str,
        service: &Service,
        world: &World,
        before: Option<&Usage>,
    ) -> Usage {
        clients::all_places_are_free(world).await;
        for gauge in ["handshakes", "connections", "unsent_bytes", "registered_clients"] {
            service.counts(&format!("satellite_{gauge}"), 0.0).await;
        }
        if let Some(before) = before {
            let is_back = async || Usage::of(service).await.is_back_to(before);
            let back = timeout(PATIENCE, eventually("", is_back)).await;
            assert!(back.is_ok(), "before: {before:?}, now: {:?}", Usage::of(service).await);
        }
        let usage = Usage::of(service).await;
        self.audits += 1;
        let counts = add_up(&service.metrics().await, world.ledger());
        let Usage { files, threads, tasks, memory } = usage;
        println!("{when:<14}{counts}{files:>11}{threads:>8}{tasks:>6}{memory:>8}");
        world.no_failures();
        usage
    }

    /// A service has gone; the next has books of its own.
    pub(crate) fn close(&mut self, world: &World) {
        for (kind, count) in std::mem::take(&mut *world.ledger().connections.lock().expect("one")) {
            *self.connections.entry(kind).or_default() += count.1;
        }
        world.ledger().limits_hit.store(0, Ordering::SeqCst);
    }
}

/// Every connection of the clients is counted once, as what it is.
fn add_up(metrics: &Metrics, ledger: &Ledger) -> String {
    let count = |name: &str| metrics.sum(&format!("satellite_{name}")) as u64;
    let of_kind = |is: fn(&str) -> bool| -> u64 {
        let reasons = metrics.by("satellite_connections_refused_total", "reason");
        reasons.into_iter().filter(|(reason, _)| is(reason)).map(|(_, count)| count as u64).sum()
    };
    let (accepted, authenticated) =
        (count("connections_accepted_total"), count("authenticated_total"));
    let [refused, failed, abandoned] = [is_refused, has_failed, is_abandoned].map(of_kind);
    assert_eq!(accepted, ledger.total(), "accepted, and connected by the clients");
    assert_eq!(accepted, refused + authenticated + failed + abandoned, "they add up");
    assert_eq!(authenticated, count("closes_total"), "who was authenticated was closed");
    assert_eq!(count("limits_hit_total"), ledger.limits_hit.load(Ordering::SeqCst));
    assert_eq!(count("accept_errors_total"), 0);

    let mut fates = metrics.by("satellite_connections_refused_total", "reason");
    fates.insert("authenticated", authenticated as f64);
    explained("fate", &fates, ledger, |kind| kind.fates);
    let closes = metrics.by("satellite_closes_total", "code");
    explained("close", &closes, ledger, |kind| kind.closes);
    format!("{accepted:>11}{refused:>10}{authenticated:>16}{failed:>9}{abandoned:>12}")
}

/// Nothing was counted that the clients did not do, and nothing they did was counted otherwise.
fn explained(
    what: &str,
    counted: &BTreeMap<&str, f64>,
    ledger: &Ledger,
    allowed: fn(&Kind) -> &'static [&'static str],
) {
    for (&name, &count) in counted {
        let (least, most) = ledger.bounds(name, allowed);
        let count = count as u64;
        assert!((least..=most).contains(&count), "{what} {name}: {least} to {most}, not {count}");
    }
}

impl fmt::Display for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} audits; connections by kind:", self.audits)?;
        for (kind, count) in &self.connections {
            writeln!(f, "  {kind:<40}{count:>8}")?;
        }
        write!(f, "  {:<40}{:>8}", "all", self.connections.values().sum::<u64>())
    }
}
