//! What has been counted: latencies by phase, and failures by what they were.

use std::{
    collections::BTreeMap,
    ops::AddAssign,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hdrhistogram::Histogram;
use tokio::time::Instant;

use super::failure::Failure;

/// What takes time, in the order in which it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Wait,
    Connect,
    Tls,
    Upgrade,
    Authenticate,
    Call,
    Send,
    Confirm,
    Whole,
}

impl Phase {
    pub(super) const ALL: [Phase; 9] = [
        Phase::Wait,
        Phase::Connect,
        Phase::Tls,
        Phase::Upgrade,
        Phase::Authenticate,
        Phase::Call,
        Phase::Send,
        Phase::Confirm,
        Phase::Whole,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Phase::Wait => "wait",
            Phase::Connect => "connect",
            Phase::Tls => "tls",
            Phase::Upgrade => "upgrade",
            Phase::Authenticate => "authenticate",
            Phase::Call => "call",
            Phase::Send => "send",
            Phase::Confirm => "confirm",
            Phase::Whole => "whole",
        }
    }
}

/// How long each phase took that one client came through.
#[derive(Default)]
pub(super) struct Laps([Option<Duration>; Phase::ALL.len()]);

impl Laps {
    pub(super) fn set(&mut self, phase: Phase, took: Duration) {
        self.0[phase as usize] = Some(took);
    }
}

/// Microseconds, to three digits.
pub(super) type Latencies = Histogram<u64>;

/// What was counted by one worker, or in all.
#[derive(Default)]
pub(super) struct Tally {
    latencies: [Option<Latencies>; Phase::ALL.len()],
    pub(super) succeeded: u64,
    failures: BTreeMap<String, Failed>,
    pub(super) traffic: Traffic,
    /// When the last of it was done, where that is not when the time is over.
    pub(super) last: Option<Instant>,
}

/// Failures of one kind.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Failed {
    pub(super) count: u64,
    /// The first of them, explained.
    pub(super) example: String,
}

/// What has gone over connections.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Traffic {
    pub(super) messages: u64,
    pub(super) transactions: u64,
    /// Of messages, without what WebSocket, TLS and TCP add.
    pub(super) bytes: u64,
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, more: Traffic) {
        self.messages += more.messages;
        self.transactions += more.transactions;
        self.bytes += more.bytes;
    }
}

impl Tally {
    pub(super) fn lap(&mut self, phase: Phase, took: Duration) {
        let latencies = self.latencies[phase as usize].get_or_insert_with(empty);
        let micros = took.min(LONGEST).as_micros() as u64;
        latencies.record(micros).expect("it grows");
    }

    pub(super) fn laps(&mut self, laps: &Laps) {
        for phase in Phase::ALL {
            if let Some(took) = laps.0[phase as usize] {
                self.lap(phase, took);
            }
        }
    }

    pub(super) fn fail(&mut self, Failure { kind, example }: Failure) {
        let failed = self.failures.entry(kind).or_insert(Failed { count: 0, example });
        failed.count += 1;
    }

    fn add(&mut self, other: &Tally) {
        for (all, more) in self.latencies.iter_mut().zip(&other.latencies) {
            if let Some(more) = more {
                all.get_or_insert_with(empty).add(more).expect("it grows");
            }
        }
        self.succeeded += other.succeeded;
        for (kind, more) in &other.failures {
            match self.failures.get_mut(kind) {
                Some(failed) => failed.count += more.count,
                None => drop(self.failures.insert(kind.clone(), more.clone())),
            }
        }
        self.traffic += other.traffic;
        self.last = self.last.max(other.last);
    }

    pub(super) fn failed(&self) -> u64 {
        self.failures.values().map(|failed| failed.count).sum()
    }

    /// The kinds of failures, the most frequent first.
    pub(super) fn failures(&self) -> Vec<(&str, &Failed)> {
        let mut failures: Vec<_> =
            self.failures.iter().map(|(kind, failed)| (kind.as_str(), failed)).collect();
        failures.sort_by_key(|(_, failed)| std::cmp::Reverse(failed.count));
        failures
    }

    /// The phases that somebody came through.
    pub(super) fn phases(&self) -> impl Iterator<Item = (Phase, &Latencies)> {
        let latencies = Phase::ALL.into_iter().zip(&self.latencies);
        latencies.filter_map(|(phase, latencies)| Some((phase, latencies.as_ref()?)))
    }
}

/// Longer than any run, and what a histogram can grow to.
pub(super) const LONGEST: Duration = Duration::from_secs(1 << 31);

fn empty() -> Latencies {
    Histogram::new(3).expect("three digits are possible")
}

/// A tally for each worker, so that none waits for another.
pub(super) struct Tallies {
    workers: Vec<Mutex<Tally>>,
    /// For who looks on: what was done and has failed, the warm-up included.
    done: AtomicU64,
    failed: AtomicU64,
}

impl Tallies {
    pub(super) fn new(workers: usize) -> Tallies {
        let workers = (0..workers).map(|_| Mutex::default()).collect();
        Tallies { workers, done: AtomicU64::new(0), failed: AtomicU64::new(0) }
    }

    /// That to which this client adds.
    pub(super) fn of(&self, client: usize) -> MutexGuard<'_, Tally> {
        let tally = &self.workers[client % self.workers.len()];
        tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells who looks on that so much more is done.
    pub(super) fn done(&self, number: u64) {
        self.done.fetch_add(number, Ordering::Relaxed);
    }

    /// Something has come to its end.
    pub(super) fn end(
        &self,
        client: usize,
        laps: &Laps,
        outcome: Result<(), Failure>,
        counts: bool,
    ) {
        if counts {
            let mut tally = self.of(client);
            tally.laps(laps);
            tally.succeeded += u64::from(outcome.is_ok());
        }
        match outcome {
            Ok(()) => self.done(1),
            Err(failure) => self.fail(client, failure, counts),
        }
    }

    /// Counts a failure, if it counts.
    pub(super) fn fail(&self, client: usize, failure: Failure, counts: bool) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        if counts {
            self.of(client).fail(failure);
        }
    }

    /// What was done and has failed so far.
    pub(super) fn so_far(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }

    /// All of them together.
    pub(super) fn sum(&self) -> Tally {
        let mut sum = Tally::default();
        for worker in 0..self.workers.len() {
            sum.add(&self.of(worker));
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(kind: &str, example: &str) -> Failure {
        Failure { kind: kind.into(), example: example.into() }
    }

    #[test]
    fn phases_are_listed_in_the_order_of_their_numbers() {
        let numbers = Phase::ALL.map(|phase| phase as usize);
        assert!(numbers.into_iter().eq(0..Phase::ALL.len()));
    }

    #[test]
    fn what_several_workers_have_counted_adds_up() {
        let tallies = Tallies::new(3);
        for client in 0..10 {
            let mut laps = Laps::default();
            laps.set(Phase::Connect, Duration::from_millis(client as u64));
            let mut tally = tallies.of(client);
            tally.laps(&laps);
            tally.succeeded += 1;
            tally.traffic.bytes += 5;
        }
        let sum = tallies.sum();
        assert_eq!((sum.succeeded, sum.traffic.bytes, sum.failed()), (10, 50, 0));
        let phases: Vec<_> = sum.phases().collect();
        let [(Phase::Connect, latencies)] = phases[..] else { panic!("one phase") };
        assert_eq!((latencies.len(), latencies.min()), (10, 0));
        assert!(latencies.equivalent(latencies.max(), 9000), "{}", latencies.max());
    }

    #[test]
    fn failures_are_told_apart_and_the_first_explains_its_kind() {
        let tallies = Tallies::new(2);
        tallies.fail(0, failure("a", "first"), true);
        tallies.fail(2, failure("a", "second"), true);
        tallies.fail(1, failure("b", "third"), true);
        tallies.fail(1, failure("b", "in the warm-up"), false);
        assert_eq!(tallies.so_far(), (0, 4));
        let sum = tallies.sum();
        let failures: Vec<_> = sum.failures();
        let kinds: Vec<_> =
            failures.iter().map(|(kind, failed)| (*kind, failed.count, &*failed.example)).collect();
        assert_eq!(kinds, [("a", 2, "first"), ("b", 1, "third")]);
    }

    #[test]
    fn the_longest_time_is_no_error() {
        let mut tally = Tally::default();
        tally.lap(Phase::Whole, Duration::MAX);
        let (_, latencies) = tally.phases().next().unwrap();
        let longest = LONGEST.as_micros() as u64;
        assert!(latencies.equivalent(latencies.max(), longest), "{}", latencies.max());
    }
}
