//! What a connection costs a server, beside what it costs bare ones in the same run.
//!
//! The servers are this program again, each a process of its own, so that what the operating
//! system writes down of it is the server's alone. The clients of all of them are here.

#[path = "../common/mod.rs"]
mod common;

mod clients;
mod cpu;
mod memory;
mod processes;
mod servers;

use std::{alloc::System, env, error::Error, fs, time::Duration};

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::runtime;

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// How much is measured.
struct Scale {
    /// How often each server has its turn, beside a first one that is not counted.
    rounds: usize,
    /// How many connections a turn has.
    turn: usize,
    /// How many connections live at the same time.
    connections: usize,
    /// How long they are watched doing nothing.
    idle: Duration,
    /// Whether it is enough to fail if a budget is exceeded.
    is_judged: bool,
}

const FULL: Scale = Scale {
    rounds: 40,
    turn: 500,
    connections: 10_000,
    idle: Duration::from_secs(5),
    is_judged: true,
};

const QUICK: Scale = Scale {
    rounds: 3,
    turn: 100,
    connections: 500,
    idle: Duration::from_millis(500),
    is_judged: false,
};

/// All that `cargo test` does.
const TRIVIAL: Scale =
    Scale { rounds: 1, turn: 1, connections: 1, idle: Duration::ZERO, is_judged: false };

fn main() -> Result<(), Box<dyn Error>> {
    processes::become_server();
    let asked = |argument| env::args().any(|given| given == argument);
    let mut scale = match (asked("--bench"), asked("--quick")) {
        (false, _) => TRIVIAL,
        (true, true) => QUICK,
        (true, false) => FULL,
    };
    let possible = open_files()?.saturating_sub(100);
    if possible < scale.connections {
        println!("no more than {possible} connections: the limit of open files is in the way");
        scale.connections = possible;
    }
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let costs = runtime.block_on(cpu::measure(scale.rounds, scale.turn));
    let shares = runtime.block_on(memory::measure(scale.connections, scale.idle));
    if !asked("--bench") {
        return Ok(());
    }
    let exceeded = [
        ("CPU per handshake", cpu::report(&costs)),
        ("memory per connection", memory::report(&shares, scale.connections, scale.idle)),
    ];
    match exceeded.iter().find(|(_, exceeded)| *exceeded && scale.is_judged) {
        Some((what, _)) => Err(format!("over budget: {what}").into()),
        None => Ok(()),
    }
}

/// How many files, and so connections, a process may have open.
fn open_files() -> Result<usize, Box<dyn Error>> {
    let limits = fs::read_to_string("/proc/self/limits")?;
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = limit.and_then(|limit| limit.split_whitespace().next()).ok_or("no such limit")?;
    Ok(soft.parse().unwrap_or(usize::MAX)) // "unlimited"
}
