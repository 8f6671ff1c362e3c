//! `satellite conformance client`: the cases of a client, against a command.

use std::{ffi::OsString, fs, path::PathBuf, process::ExitCode};

use clap::Args;
use electric_satellite::{
    auth::{Minter, VARIABLES},
    conformance::{Client, SigningKey, Tokens, client_cases},
};

use super::{
    Usage, carry_out,
    launch::Launcher,
    markdown,
    output::OutputArgs,
    selection::{RunArgs, SelectionArgs},
};
use crate::cli::Auth;

/// What `--help` tells of the command.
pub(super) const COMMAND: &str = "\
The command is run once for each case, and told in its environment what to do:

  SATELLITE_URL        where the server is, such as ws://127.0.0.1:40123
  SATELLITE_TOKEN      the token to present
  SATELLITE_CLIENT_ID  the client id to present
  SATELLITE_TASK       start, stop, subscribe, unsubscribe or write

It connects, starts replication and stays, connecting again where it would. Then, by the task, it \
stops replication; subscribes to the table items; does that and gives the subscription up once the \
data is there; or writes a row into items. A client that does not do what the task says exits \
with code 77, and the case is skipped. One that gives up exits as a failure. SIGTERM asks it to \
end; what is left after some seconds is killed. The table items has the columns id and content, \
both text; id is its primary key. What the command prints goes into the record of the case.

The token is unsigned unless the AUTH_* variables say how to sign it.\n\n\
Exits 0 if nothing unexpected happened, 1 if something did, and 2 for wrong usage.";

#[derive(Args)]
pub(in crate::cli) struct ClientArgs {
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    output: OutputArgs,
    /// Write a report in Markdown into this file, with what the file of --known says of each
    /// failure behind its #.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    markdown: Option<PathBuf>,
    /// A line for the head of that report: how it was made, for example.
    #[arg(long, value_name = "TEXT", requires = "markdown", help_heading = "Output")]
    note: Option<String>,
    /// What the client is called in reports; the command unless given.
    #[arg(long, value_name = "NAME", help_heading = "Output")]
    name: Option<String>,
    #[command(flatten)]
    auth: Auth,
    /// A file with the private key in PEM, for the algorithms with a public key.
    #[arg(long, value_name = "FILE", help_heading = "Authentication")]
    private_key: Option<PathBuf>,
    /// The command that is the client, and its arguments.
    #[arg(last = true, required_unless_present_any = ["list", "explain"], value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// How many clients run at a time unless it is said.
const JOBS: usize = 8;

impl ClientArgs {
    pub(super) fn run(self) -> Result<ExitCode, Usage> {
        let cases = client_cases();
        if self.selection.list || self.selection.explain.is_some() {
            let nobody = async |_: &[_], _| unreachable!("nothing is run");
            return carry_out(&self.selection, &self.output, cases, nobody);
        }
        let known = self.run.known(&cases)?;
        let ids: Vec<&str> = known.keys().copied().collect();
        let client = self.client()?.with_known_failures(ids);
        let mut written = Ok(());
        let exit = carry_out(&self.selection, &self.output, cases, async |cases, mut progress| {
            let report = client.run(cases, |outcome| progress.done(outcome)).await;
            if let Some(file) = &self.markdown {
                let note = self.note.as_deref().unwrap_or_default();
                written = fs::write(file, markdown::report(&report, &known, note))
                    .map_err(|error| format!("{}: {error}", file.display()));
            }
            report
        })?;
        match written {
            Ok(()) => Ok(exit),
            Err(reason) => Ok(crate::cli::fail(reason)),
        }
    }

    fn client(&self) -> Result<Client, Usage> {
        let command = self.command.clone();
        let name = self.name.clone().unwrap_or_else(|| {
            let words: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
            words.join(" ")
        });
        let tokens = Tokens::made_with(SigningKey::configured(self.minter()?, |variable| {
            self.auth.lookup(variable)
        }));
        let client = Client::new(&name, tokens, Launcher { command })
            .with_profile(self.selection.profile())
            .with_repeats(self.run.repeat())
            .with_cases_at_once(self.run.jobs().unwrap_or(JOBS))
            .with_deadline(self.run.deadline());
        Ok(match self.run.timeout() {
            Some(timeout) => client.with_timeout(timeout),
            None => client,
        })
    }

    /// As the variables say, if they say something.
    fn minter(&self) -> Result<Minter, String> {
        let says = VARIABLES.iter().any(|variable| self.auth.lookup(variable.name).is_some());
        match says || self.private_key.is_some() {
            true => self.auth.minter(self.private_key.as_deref()),
            false => Ok(Minter::unsigned()),
        }
    }
}
