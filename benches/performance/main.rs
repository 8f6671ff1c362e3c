//! What this crate costs and how fast it is, beside bare ones in the same run.
//!
//! ```sh
//! cargo bench --features tls --bench performance                      # everything, judged
//! cargo bench --features tls --bench performance -- --quick           # some seconds, not judged
//! cargo bench --features tls --bench performance -- --only cpu,stream
//! ```
//!
//! It prints one table at its end, writes the same to `bench/summary.json` in the target
//! directory, and fails if a budget is exceeded. Each section is a module, whose documentation says
//! what is measured and how. Servers are this program again, each a process of its own, so that
//! what the operating system writes down of it is the server's alone.

mod allocations;
mod clients;
mod cpu;
mod flood;
mod growth;
mod instructions;
mod machine;
mod memory;
mod processes;
mod report;
mod scale;
mod servers;
mod statistics;
mod storm;
mod stream;
mod tokens;
mod without_io;

use std::{
    env,
    error::Error,
    io::{self, Write},
    time::Instant,
};

use alloc_counter::AllocCounterSystem;
use tokio::runtime;

use report::{Report, Row};
use scale::Scale;

#[global_allocator]
static HEAP: AllocCounterSystem = AllocCounterSystem;

/// What a section has found out.
type Measured = Result<Vec<Row>, Box<dyn Error>>;

/// Measures as much as it is told to.
type Section = fn(&Scale) -> Measured;

/// The sections, in the order in which they run.
const SECTIONS: &[(&str, Section)] = &[
    ("cpu", cpu::measure),
    ("storm", storm::measure),
    ("instructions", instructions::measure),
    ("allocations", allocations::measure),
    ("memory", memory::measure),
    ("stream", stream::measure),
    ("flood", flood::measure),
    ("growth", growth::measure),
];

fn main() -> Result<(), Box<dyn Error>> {
    processes::play_role();
    machine::open_as_many_files_as_possible();
    let arguments: Vec<String> = env::args().skip(1).collect();
    let scale = Scale::asked_for(&arguments);
    let mut report = Report::default();
    for (name, measure) in sections(&arguments)? {
        let start = Instant::now();
        eprint!("{name} … ");
        io::stderr().flush()?;
        report.add(name, measure(&scale)?);
        eprintln!("{:.0} s", start.elapsed().as_secs_f64());
    }
    if !scale.is_asked_for {
        return Ok(());
    }
    print!("{}", report.table(scale.is_judged));
    let summary = report.write_summary()?;
    println!("\nwritten to {}", summary.display());
    match report.exceeded()[..] {
        [] => Ok(()),
        _ if !scale.is_judged => Ok(()),
        ref exceeded => Err(format!("over budget: {}", exceeded.join(", ")).into()),
    }
}

/// Those that are asked for; all, if none is.
fn sections(
    arguments: &[String],
) -> Result<impl Iterator<Item = &'static (&'static str, Section)>, String> {
    let only = arguments.iter().skip_while(|argument| *argument != "--only").nth(1);
    let only: Option<Vec<String>> = only.map(|names| names.split(',').map(str::to_owned).collect());
    let known: Vec<&str> = SECTIONS.iter().map(|(name, _)| *name).collect();
    if let Some(unknown) = only.iter().flatten().find(|name| !known.contains(&name.as_str())) {
        return Err(format!("there is no section {unknown:?}, but {}", known.join(", ")));
    }
    let is_asked_for =
        move |name: &str| only.as_ref().is_none_or(|only| only.iter().any(|asked| asked == name));
    Ok(SECTIONS.iter().filter(move |(name, _)| is_asked_for(name)))
}

/// On one thread.
fn block_on<F: Future>(future: F) -> F::Output {
    runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
