//! What comes of a run, for people and for machines.

use std::{fmt::Write, time::Duration};

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{
    Load, What,
    fleet::Fleet,
    tally::{Latencies, Tally, Traffic},
};

/// The result of a run.
pub(super) struct Report<'a> {
    load: &'a Load,
    version: String,
    tally: Tally,
    /// How many clients were connected before anything was measured.
    connected: usize,
    measured: Duration,
    interrupted: bool,
    /// How many were due and never begun; nobody knows if it was interrupted.
    unbegun: Option<u64>,
}

/// What latencies count from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Since {
    Due,
    Begun,
    Cut,
}

impl Since {
    fn name(self) -> &'static str {
        match self {
            Since::Due => "due",
            Since::Begun => "begun",
            Since::Cut => "cut",
        }
    }
}

/// What is counted while it goes on.
pub(super) fn unit_of_progress(what: What) -> &'static str {
    match what {
        What::Reads => "messages",
        What::Storm => "back",
        What::Idle => "done",
        what => unit(what),
    }
}

/// What is counted in the end.
fn unit(what: What) -> &'static str {
    match what {
        What::Handshakes => "handshakes",
        What::Idle | What::Storm | What::Reads => "connections",
        What::Calls => "calls",
        What::Writes => "transactions",
    }
}

impl Report<'_> {
    pub(super) fn of<'a>(load: &'a Load, fleet: &Fleet, interrupted: bool) -> Report<'a> {
        let mut tally = fleet.tallies.sum();
        if interrupted && matches!(load.what, What::Idle | What::Reads) {
            // They have lived until now.
            tally.succeeded = fleet.alive() as u64;
        }
        let measured = match (fleet.course(), tally.last) {
            (None, _) => Duration::ZERO,
            (Some(course), Some(last)) => last.saturating_duration_since(course.counts_from()),
            (Some(course), None) => course.measured(Instant::now()),
        };
        let unbegun = fleet.course().map_or(0, |course| course.unbegun());
        Report {
            load,
            version: load.service.version().map(|it| it.to_string()).unwrap_or_default(),
            connected: fleet.joined(),
            measured,
            interrupted,
            unbegun: (!interrupted).then_some(unbegun),
            tally,
        }
    }

    /// Something succeeded, nothing failed, and nothing was left to begin.
    pub(super) fn is_ok(&self) -> bool {
        let all_begun = self.unbegun.is_none_or(|unbegun| unbegun == 0);
        self.tally.succeeded > 0 && self.tally.failed() == 0 && all_begun
    }

    fn latency_from(&self) -> Option<Since> {
        match (self.load.what, self.load.rate) {
            (What::Reads, _) => None,
            (What::Storm, _) => Some(Since::Cut),
            (_, Some(_)) => Some(Since::Due),
            (_, None) => Some(Since::Begun),
        }
    }

    /// Open or closed, where there is a loop.
    fn kind_of_loop(&self) -> Option<&'static str> {
        match (self.load.what, self.load.rate) {
            (What::Reads | What::Storm, _) | (What::Idle, None) => None,
            (_, Some(_)) => Some("open"),
            (_, None) => Some("closed"),
        }
    }

    fn per_second(&self, number: u64) -> Option<f64> {
        let seconds = self.measured.as_secs_f64();
        (seconds > 0.0).then(|| number as f64 / seconds)
    }

    /// How many were done in a second, where that says something.
    fn pace(&self) -> Option<f64> {
        match self.load.what {
            What::Idle | What::Reads => None,
            _ => self.per_second(self.tally.succeeded),
        }
    }

    fn traffic(&self) -> Option<Traffic> {
        matches!(self.load.what, What::Writes | What::Reads).then_some(self.tally.traffic)
    }

    // ---- For machines ----

    pub(super) fn json(&self) -> Value {
        let Load { what, service, connections, rate, .. } = self.load;
        let failure = |(what, failed): (&str, &super::tally::Failed)| json!({ "what": what, "count": failed.count, "example": failed.example });
        let latencies: Map<String, Value> = self
            .tally
            .phases()
            .map(|(phase, latencies)| (phase.name().to_owned(), micros(latencies)))
            .collect();
        json!({
            "what": what.name(),
            "url": service.url,
            "version": self.version,
            "connections": connections,
            "users": self.load.users(),
            "connected": (*what != What::Handshakes).then_some(self.connected),
            "loop": self.kind_of_loop(),
            "rate": rate,
            "latency_from": self.latency_from().map(Since::name),
            "seconds": self.measured.as_secs_f64(),
            "interrupted": self.interrupted,
            "unit": unit(*what),
            "succeeded": self.tally.succeeded,
            "failed": self.tally.failed(),
            "unbegun": self.unbegun,
            "per_second": self.pace(),
            "traffic": self.traffic().map(|traffic| self.traffic_json(traffic)),
            "latencies_us": latencies,
            "failures": self.tally.failures().into_iter().map(failure).collect::<Vec<_>>(),
            "ok": self.is_ok(),
        })
    }

    fn traffic_json(&self, traffic: Traffic) -> Value {
        let Traffic { messages, transactions, bytes } = traffic;
        json!({
            "messages": messages,
            "transactions": transactions,
            "bytes": bytes,
            "messages_per_second": self.per_second(messages),
            "transactions_per_second": self.per_second(transactions),
            "bytes_per_second": self.per_second(bytes),
        })
    }

    // ---- For people ----

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, to: &mut String) -> std::fmt::Result {
        let Load { what, service, connections, .. } = self.load;
        let (url, users) = (&service.url, self.load.users());
        writeln!(to, "{} at {url} ({})", what.name(), self.version)?;
        writeln!(to, "{connections} connections of {users} users; {}", self.course())?;
        let early = if self.interrupted { "; interrupted" } else { "" };
        writeln!(to, "{:.2} s measured{early}", self.measured.as_secs_f64())?;
        writeln!(to)?;
        self.write_outcome(to)?;
        self.write_latencies(to)?;
        self.write_failures(to)
    }

    /// What the pace was.
    fn course(&self) -> String {
        let rate = self.load.rate.unwrap_or_default();
        match (self.load.what, self.kind_of_loop()) {
            (What::Reads, _) => "all read what comes".to_owned(),
            (What::Storm, _) => {
                let most = self.load.concurrency.unwrap_or(super::CONCURRENCY);
                format!("all cut at once, and at most {most} dialling at a time")
            }
            (What::Idle, None) => "built up as fast as the service takes them".to_owned(),
            (What::Idle, Some(_)) => format!("open loop: {rate} built up in a second"),
            (_, Some("open")) => {
                format!("open loop: {rate} due in a second, whatever the service does")
            }
            _ => "closed loop: each begins the next when the last is over".to_owned(),
        }
    }

    fn write_outcome(&self, to: &mut String) -> std::fmt::Result {
        let Tally { succeeded, .. } = self.tally;
        let failed = self.tally.failed();
        let pace = self.pace().map(|pace| format!(", {pace:.1}/s")).unwrap_or_default();
        match self.load.what {
            What::Handshakes | What::Calls => {
                writeln!(to, "{succeeded} {}{pace}; {failed} failed", unit(self.load.what))?;
            }
            What::Idle => {
                let connected = self.connected;
                writeln!(to, "{connected} connected, {succeeded} lived; {failed} failed")?;
            }
            What::Storm => writeln!(
                to,
                "{succeeded} of {} back after {:.3} s{pace}; {failed} failed",
                self.connected,
                self.measured.as_secs_f64()
            )?,
            What::Writes => {
                writeln!(to, "{} connected; {failed} failed", self.connected)?;
            }
            What::Reads => {
                writeln!(to, "{} connected, {succeeded} lived; {failed} failed", self.connected)?;
            }
        }
        if let Some(traffic) = self.traffic() {
            self.write_traffic(to, traffic)?;
        }
        match self.unbegun {
            Some(unbegun) if unbegun > 0 => writeln!(
                to,
                "{unbegun} were due and never begun: too many for the service, or for {} connections",
                self.load.connections
            ),
            _ => Ok(()),
        }
    }

    fn write_traffic(&self, to: &mut String, traffic: Traffic) -> std::fmt::Result {
        let Traffic { messages, transactions, bytes } = traffic;
        for (number, what) in
            [(messages, "messages"), (transactions, "transactions"), (bytes, "bytes")]
        {
            let pace = self.per_second(number).unwrap_or_default();
            writeln!(to, "{number:>12} {what:<14}{pace:>14.1}/s")?;
        }
        Ok(())
    }

    fn write_latencies(&self, to: &mut String) -> std::fmt::Result {
        let from = match self.latency_from() {
            Some(Since::Due) => "from when it was due",
            Some(Since::Begun) => "from when it began",
            Some(Since::Cut) => "from the cut",
            None => return Ok(()),
        };
        if self.tally.phases().next().is_none() {
            return Ok(());
        }
        writeln!(to, "\nlatency in ms; the whole counts {from}")?;
        let columns = ["count", "mean", "p50", "p90", "p99", "p99.9", "max"];
        write!(to, "{:<13}", "")?;
        columns.iter().try_for_each(|column| write!(to, "{column:>11}"))?;
        writeln!(to)?;
        for (phase, latencies) in self.tally.phases() {
            write!(to, "{:<13}{:>11}", phase.name(), latencies.len())?;
            let times = [latencies.mean()].into_iter().chain(marks(latencies).map(|it| it as f64));
            for micros in times {
                write!(to, "{:>11.3}", micros / 1000.0)?;
            }
            writeln!(to)?;
        }
        Ok(())
    }

    fn write_failures(&self, to: &mut String) -> std::fmt::Result {
        let failures = self.tally.failures();
        if !failures.is_empty() {
            writeln!(to, "\nfailed")?;
        }
        for (what, failed) in failures {
            writeln!(to, "{:>12}  {what}", failed.count)?;
            writeln!(to, "{:>12}  {}", "", failed.example)?;
        }
        Ok(())
    }
}

/// The 50th, 90th, 99th and 99.9th percentile and the maximum.
fn marks(latencies: &Latencies) -> [u64; 5] {
    let [p50, p90, p99, p99_9] =
        [0.5, 0.9, 0.99, 0.999].map(|part| latencies.value_at_quantile(part));
    [p50, p90, p99, p99_9, latencies.max()]
}

fn micros(latencies: &Latencies) -> Value {
    let [p50, p90, p99, p99_9, max] = marks(latencies);
    json!({
        "count": latencies.len(),
        "mean": latencies.mean(),
        "p50": p50,
        "p90": p90,
        "p99": p99,
        "p99_9": p99_9,
        "max": max,
    })
}
