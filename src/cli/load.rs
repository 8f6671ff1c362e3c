//! `satellite load`: many clients at once, and how long each waits for the service.
//!
//! What the clients do has a file each; all of them share who they are (`fleet`), what begins when
//! (`course`), and what has been counted (`tally`).

mod calls;
mod course;
mod failure;
mod files;
mod fleet;
mod handshakes;
mod idle;
mod incoming;
mod line;
mod reads;
mod report;
mod storm;
mod tally;
mod writes;

use std::{
    convert::Infallible,
    io::{self, Write},
    net::IpAddr,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    thread,
    time::Duration,
};

use clap::{Args, ValueEnum, value_parser};
use electric_satellite::{session::Token, transport::Limits};
use tokio::{runtime, select, time::interval};

use super::{Auth, destination::Destination, fail, shapes::Shapes, signals::Signals, token_from};
use fleet::{Crew, Fleet, Times};
use report::Report;
use tally::Tallies;

/// What `--help` tells of the output.
pub(super) const OUTPUT: &str = "\
Without --rate, handshakes, calls and writes are a closed loop: each client begins the next one when \
the last is over, and latency counts from when it began. A service that stalls is then asked less, \
and the stall shows in a few latencies only. With --rate they are an open loop: so many are due in \
each second, whatever the service does; latency counts from when each was due, and the time until it \
began is told as `wait`. What is due while all clients are busy begins late; what has not begun by \
the end is told as never begun, and was too much for the service or for --connections.

Latencies are told for each phase, of all that came through it: wait, connect (TCP), tls, upgrade \
(HTTP), authenticate, call, send (until there is room in the client's own buffer), confirm (until all \
that was sent before is taken in) and whole. The clock of timers ticks every millisecond, so what is \
due in an open loop may begin 1 ms late. A client that fails in a closed loop waits for 100 ms. \
What begins in the warm-up does not count, and what has begun at the end is waited for.

Tokens are made before anything is timed, from the AUTH_* variables as `satellite token` does, or \
given by --token. Each connection has a client id of its own, which it keeps when it comes back.

With --json, the result is one object on standard output: what, url, version, connections, users, \
connected (before anything was measured), loop (open, closed or null), rate, latency_from (due, \
begun, cut or null), seconds, interrupted, unit, succeeded, failed, unbegun (null unless it came to \
its end), per_second, traffic (messages, transactions, bytes, and each per second, or null), \
latencies_us (by phase: count, mean, p50, p90, p99, p99_9, max, in microseconds), failures (what, \
count, example) and ok.

SIGINT and SIGTERM end the run early, at once: what is under way is not counted, and writes are not \
confirmed. The result is printed all the same.

Exits 0 if something succeeded, nothing failed and nothing was left to begin; 1 otherwise; and 2 \
for wrong usage, where nothing was run.";

#[derive(Args)]
#[command(mut_arg("subscribe", |arg| arg.help(
    "With reads: subscribe to this table. May be given more than once",
)))]
pub(super) struct Load {
    #[command(flatten)]
    service: Destination,
    /// What the clients do.
    #[arg(value_enum, default_value_t = What::Handshakes)]
    what: What,
    /// How many connections there are, or handshakes at a time.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = value_parser!(u32).range(1..))]
    connections: u32,
    /// How many are due in a second: handshakes, connections to build up, calls or transactions, of
    /// all clients together. As many as the service takes unless set.
    #[arg(long, value_name = "R", value_parser = rate)]
    rate: Option<f64>,
    /// How long it is measured, in seconds; with storm, how long clients try to come back.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = value_parser!(u32).range(1..=604_800))]
    duration: u32,
    /// How long it runs before it is measured, in seconds; with storm, how long all are connected
    /// before they are cut. Idle connections have no warm-up.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = value_parser!(u32).range(..=604_800))]
    warmup: u32,
    /// How many clients may connect at a time; 256 unless set.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    concurrency: Option<u32>,
    /// Dial from this address of the machine. May be given more than once, for addresses to be used
    /// in turn: each has its own ports.
    #[arg(long, value_name = "IP")]
    source: Vec<IpAddr>,
    /// How many threads drive the clients; one for each processor unless set.
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// With writes: how long the text of each row is, in bytes; 100 unless set.
    #[arg(long, value_name = "BYTES", value_parser = value_parser!(u32).range(..=8_388_608))]
    size: Option<u32>,
    /// With writes: the table, which has the columns `id` and `content`, both TEXT; `items` unless
    /// set.
    #[arg(long, value_name = "TABLE")]
    table: Option<String>,
    #[command(flatten)]
    shapes: Shapes,
    /// Print one JSON object instead of lines for people.
    #[arg(long)]
    json: bool,
    /// Do not tell on standard error how far it is.
    #[arg(long)]
    quiet: bool,
    /// The token that all clients present, in place of one for each user; - reads it from standard
    /// input.
    #[arg(
        long,
        env = "SATELLITE_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true,
        help_heading = "Authentication"
    )]
    token: Option<String>,
    /// How many users the clients are of, called user-0 and so on; each is another one unless set.
    #[arg(long, value_name = "N", conflicts_with = "token", help_heading = "Authentication",
        value_parser = value_parser!(u32).range(1..))]
    users: Option<u32>,
    #[command(flatten)]
    auth: Auth,
    /// A file with the private key in PEM, for the algorithms with a public key.
    #[arg(long, value_name = "FILE", help_heading = "Authentication")]
    private_key: Option<PathBuf>,
}

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Connect, authenticate and close, again and again
    Handshakes,
    /// Connect and stay, and do nothing
    Idle,
    /// Connect, be cut off all at once without a close frame, and come back all at once
    Storm,
    /// Start and stop replication in turn
    Calls,
    /// Send transactions, each with the insert of one row
    Writes,
    /// Start replication, subscribe to what --subscribe says, and count what comes
    Reads,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            What::Handshakes => "handshakes",
            What::Idle => "idle",
            What::Storm => "storm",
            What::Calls => "calls",
            What::Writes => "writes",
            What::Reads => "reads",
        }
    }
}

/// A number above 0, and no more than timers can keep up with.
fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate: &f64| *rate >= 0.001 && *rate <= 10_000_000.0);
    rate.ok_or_else(|| "a number from 0.001 to 10000000".to_owned())
}

/// How many clients connect at a time unless it is said.
const CONCURRENCY: u32 = 256;

/// How long the text of a row is unless it is said.
const SIZE: u32 = 100;

/// How much a client keeps of what it sends before it waits for the service.
const UNSENT: usize = 64 * 1024;

/// How long tokens are valid beside the time of the run, in seconds.
const SPARE: i64 = 3600;

impl Load {
    pub(super) fn run(self) -> ExitCode {
        match self.prepared() {
            Ok((runtime, fleet)) => self.carry_out(&runtime, &fleet),
            Err(reason) => {
                eprintln!("{}", reason.trim_end());
                ExitCode::from(2)
            }
        }
    }

    /// Everything that can be wrong with the command line, before anything is dialled.
    fn prepared(&self) -> Result<(runtime::Runtime, Arc<Fleet>), String> {
        self.check()?;
        files::make_room(self.connections.into())?;
        let connector = self.service.connector()?.with_limits(self.limits());
        let crew = Crew {
            clients: self.connections as usize,
            concurrency: self.concurrency.unwrap_or(CONCURRENCY) as usize,
            sources: self.source.clone(),
            tokens: self.tokens()?,
        };
        let threads = self.threads();
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build()
            .map_err(|error| format!("Cannot start: {error}"))?;
        let tallies = Tallies::new(threads);
        let service = self.service.clone();
        let fleet = Fleet::new(service, connector, crew, self.times(), tallies);
        let fleet = runtime.block_on(fleet)?;
        Ok((runtime, Arc::new(fleet)))
    }

    /// Whether every option means something here.
    fn check(&self) -> Result<(), String> {
        use What::{Handshakes, Reads, Storm, Writes};
        let what = self.what;
        let options = [
            ("rate", self.rate.is_some(), !matches!(what, Storm | Reads)),
            ("concurrency", self.concurrency.is_some(), what != Handshakes),
            ("size", self.size.is_some(), what == Writes),
            ("table", self.table.is_some(), what == Writes),
            ("subscribe", !self.shapes.0.is_empty(), what == Reads),
        ];
        match options.into_iter().find(|(_, given, means)| *given && !means) {
            None => Ok(()),
            Some((option @ ("size" | "table"), ..)) => Err(format!("--{option} is for writes")),
            Some(("subscribe", ..)) => Err("--subscribe is for reads".to_owned()),
            Some(("concurrency", ..)) => Err("--concurrency is not for handshakes: as many are \
                 made at a time as there are --connections"
                .to_owned()),
            Some((option, ..)) => Err(format!(
                "--{option} is not for {}: use it with handshakes, idle, calls or writes",
                what.name()
            )),
        }
    }

    /// As small as they may be: there are many clients.
    fn limits(&self) -> Limits {
        let limits = Limits { max_unsent_bytes: UNSENT, ..self.service.limits() };
        match self.what {
            What::Reads => limits,
            _ => Limits { read_buffer: Limits::default().read_buffer, ..limits },
        }
    }

    fn times(&self) -> Times {
        Times {
            warmup: Duration::from_secs(self.warmup.into()),
            duration: Duration::from_secs(self.duration.into()),
            rate: self.rate,
        }
    }

    fn threads(&self) -> usize {
        let all = || thread::available_parallelism().map_or(1, usize::from);
        self.threads.map_or_else(all, usize::from)
    }

    fn users(&self) -> u32 {
        match self.token {
            Some(_) => 1,
            None => self.users.unwrap_or(self.connections).min(self.connections),
        }
    }

    /// One for each user.
    fn tokens(&self) -> Result<Vec<Token>, String> {
        if let Some(token) = &self.token {
            return Ok(vec![token_from(token)?]);
        }
        let minter = self.auth.minter(self.private_key.as_deref());
        let minter = minter
            .map_err(|reason| format!("{reason}\nand a token for all clients by --token TOKEN"))?;
        let building = f64::from(self.connections) / self.rate.unwrap_or(f64::INFINITY);
        let run = i64::from(self.warmup) + i64::from(self.duration) + building as i64;
        let mint = |user| {
            let claims = self.auth.claims(&format!("user-{user}"), run.saturating_add(SPARE));
            minter.mint(&claims).map_err(|error| error.to_string())
        };
        (0..self.users()).map(mint).collect()
    }

    fn carry_out(&self, runtime: &runtime::Runtime, fleet: &Arc<Fleet>) -> ExitCode {
        let interrupted: Result<bool, String> = runtime.block_on(async {
            let mut signals = Signals::new()?;
            select! {
                () = self.drive(fleet) => Ok(false),
                () = signals.next() => Ok(true),
                never = self.tell_progress(fleet) => match never {},
            }
        });
        let report = match interrupted {
            Ok(interrupted) => Report::of(self, fleet, interrupted),
            Err(reason) => return fail(reason),
        };
        let text = match self.json {
            true => format!("{}\n", report.json()),
            false => report.text(),
        };
        // Whoever does not read on has read enough.
        let _ = io::stdout().write_all(text.as_bytes());
        if report.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    async fn drive(&self, fleet: &Arc<Fleet>) {
        match self.what {
            What::Handshakes => handshakes::run(fleet).await,
            What::Idle => idle::run(fleet).await,
            What::Storm => storm::run(fleet).await,
            What::Calls => calls::run(fleet).await,
            What::Writes => {
                let table = self.table.as_deref().unwrap_or("items");
                writes::run(fleet, table, self.size.unwrap_or(SIZE) as usize).await;
            }
            What::Reads => reads::run(fleet, &self.shapes.0).await,
        }
    }

    /// Says on standard error how far it is, once a second.
    async fn tell_progress(&self, fleet: &Fleet) -> Infallible {
        let mut ticks = interval(Duration::from_secs(1));
        let mut before = 0;
        for second in 0.. {
            ticks.tick().await;
            let (done, failed) = fleet.tallies.so_far();
            if second > 0 && !self.quiet {
                let connected = match self.what {
                    What::Handshakes => String::new(),
                    _ => format!("{} connected, ", fleet.joined()),
                };
                let unit = report::unit_of_progress(self.what);
                let line = format!(
                    "{second:>4} s  {connected}{done} {unit}, {}/s, {failed} failed",
                    done - before
                );
                // There is nobody else to tell that it cannot be told.
                let _ = writeln!(io::stderr(), "{line}");
            }
            before = done;
        }
        unreachable!("it has seconds without end")
    }
}
