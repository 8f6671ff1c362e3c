//! Every case of the conformance suite against this crate's own server and client, in simulated
//! time: one test for each case and each way to set up the peer.

mod client;
mod mutants;
mod replay;
mod server;

use electric_satellite::conformance::Outcome;
use libtest_mimic::{Arguments, Failed, Trial};

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = server::trials();
    trials.extend(client::trials());
    trials.extend(mutants::trials());
    trials.extend(replay::trials());
    let conclusion = libtest_mimic::run(&arguments, trials);
    mutants::print_table();
    replay::print_counts();
    conclusion.exit();
}

/// A test that passes if the case does, or does not apply.
fn trial(name: String, run: impl FnOnce() -> Outcome + Send + 'static) -> Trial {
    Trial::test(name, move || {
        let outcome = run();
        match outcome.failure() {
            None => Ok(()),
            Some(reason) => Err(Failed::from(explained(&outcome, reason))),
        }
    })
}

/// What went wrong, with the script and the conversation.
fn explained(outcome: &Outcome, reason: &str) -> String {
    let mut text = format!("{}\n{}\n\n", outcome.rule, reason);
    for (nth, step) in outcome.script.iter().enumerate() {
        let mark = if outcome.departed == Some(nth) { ">" } else { " " };
        text += &format!("{mark} {step}\n");
    }
    for line in &outcome.record {
        text += &format!(
            "\n{:>6} ms  [{}] {:<5}  {}",
            line.at_ms, line.connection, line.from, line.what
        );
    }
    text
}

/// Runs in simulated time.
fn simulated<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(future)
}
