//! `satellite conformance`: what its subcommands share, from the options to the exit code.

mod client;
mod explain;
mod launch;
mod markdown;
mod output;
mod selection;
mod server;

use std::process::ExitCode;

use clap::Subcommand;
use electric_satellite::conformance::{Case, Report};

use output::{OutputArgs, Progress};
use selection::SelectionArgs;

/// Exit codes: 0 if nothing unexpected happened, 1 if something did, 2 for wrong usage.
#[derive(Subcommand)]
pub(super) enum Conformance {
    /// Play the client's part against a server.
    #[command(after_help = EXIT_CODES)]
    Server(Box<server::ServerArgs>),
    /// Play the server's part against a client: a command that is started for each case.
    #[command(after_long_help = client::COMMAND)]
    Client(Box<client::ClientArgs>),
}

const EXIT_CODES: &str = "Exits 0 if nothing unexpected happened, 1 if something did: a case that \
    fails, is flaky, or passes although it is listed as a known failure; and 2 for wrong usage.";

impl Conformance {
    pub(super) fn run(self) -> ExitCode {
        let outcome = match self {
            Conformance::Server(server) => server.run(),
            Conformance::Client(client) => client.run(),
        };
        outcome.unwrap_or_else(|Usage(reason)| {
            eprintln!("{}", reason.trim_end());
            ExitCode::from(2)
        })
    }
}

/// What is wrong with how the command was called. Nothing was run.
struct Usage(String);

impl From<String> for Usage {
    fn from(reason: String) -> Usage {
        Usage(reason)
    }
}

/// Lists or explains cases if that is what is asked for, else runs those that are selected with
/// `run` and reports.
fn carry_out(
    selection: &SelectionArgs,
    output: &OutputArgs,
    cases: Vec<Case>,
    run: impl AsyncFnOnce(&[Case], Progress) -> Report,
) -> Result<ExitCode, Usage> {
    if let Some(id) = &selection.explain {
        output.print(&explain::explained(selection::find(&cases, id)?, &selection.profile()));
        return Ok(ExitCode::SUCCESS);
    }
    let cases = selection.of(cases)?;
    if selection.list {
        output.list(&cases);
        return Ok(ExitCode::SUCCESS);
    }
    let files = output.files()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("Cannot start: {error}"))?;
    let report = runtime.block_on(run(&cases, Progress::of(cases.len())));
    // What a peer has left hanging is not waited for.
    runtime.shutdown_background();
    if let Err(reason) = output.report(&report, files) {
        return Ok(super::fail(reason));
    }
    Ok(if report.is_as_expected() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
