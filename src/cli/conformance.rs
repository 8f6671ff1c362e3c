//! `satellite conformance`: the suite, against others.

mod client;
mod launch;
mod markdown;

use std::process::ExitCode;

use clap::Subcommand;

#[derive(Subcommand)]
pub(super) enum Conformance {
    /// Hold a client to the rules: a scripted server for each case, and the command that is the
    /// client.
    #[command(after_long_help = client::COMMAND)]
    Client(Box<client::Client>),
}

impl Conformance {
    pub(super) fn run(self) -> ExitCode {
        match self {
            Conformance::Client(client) => client.run(),
        }
    }
}
