//! `satellite conformance client`: a client as a process, case by case.

use std::{
    collections::BTreeMap, ffi::OsString, fs, path::PathBuf, process::ExitCode, time::Duration,
};

use clap::{Args, value_parser};
use electric_satellite::{
    auth::{Minter, VARIABLES},
    conformance::{self, Case, Outcome, Report, SigningKey, Tokens, client_cases},
};

use super::{
    super::{Auth, fail, signals::Signals},
    launch::Launcher,
    markdown,
};

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

The token is unsigned unless the AUTH_* variables say how to sign it.";

#[derive(Args)]
pub(in crate::cli) struct Client {
    #[command(flatten)]
    auth: Auth,
    /// Run these only: ids, groups, or what they begin with.
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    only: Vec<String>,
    /// How long each step of the client may take, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = value_parser!(u32).range(1..))]
    timeout: u32,
    /// How many clients run at a time.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = value_parser!(u8).range(1..))]
    jobs: u8,
    /// Failures that are known: an id on each line, and behind a # why. They are run, but do not
    /// count; one that passes does.
    #[arg(long, value_name = "FILE")]
    known: Option<PathBuf>,
    /// Write a report in Markdown, with the reasons of the known failures.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// A line for the head of that report: how it was made, for example.
    #[arg(long, value_name = "TEXT", requires = "markdown")]
    note: Option<String>,
    /// What the client is called in the report; the command unless given.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Tell the conversation of each case that fails.
    #[arg(long)]
    verbose: bool,
    /// The command that is the client, and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Known failures, and why they fail.
pub(super) type Known = BTreeMap<String, String>;

impl Client {
    pub(super) fn run(self) -> ExitCode {
        match self.report() {
            Ok((report, known)) if is_as_expected(&report, &known) => ExitCode::SUCCESS,
            Ok(_) => ExitCode::FAILURE,
            Err(reason) => fail(reason),
        }
    }

    fn report(&self) -> Result<(Report, Known), String> {
        let known = match &self.known {
            Some(file) => known(file)?,
            None => Known::new(),
        };
        let cases = self.cases()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("Cannot start: {error}"))?;
        let client = self.client()?;
        let report = runtime.block_on(async {
            let mut signals = Signals::new()?;
            tokio::select! {
                report = client.run(&cases, |outcome| self.tell(outcome, &known)) => Ok(report),
                // The clients are killed with the runtime.
                () = signals.next() => Err("interrupted".to_owned()),
            }
        })?;
        summarize(&report, &known);
        if let Some(file) = &self.markdown {
            let note = self.note.as_deref().unwrap_or_default();
            fs::write(file, markdown::report(&report, &known, note))
                .map_err(|error| format!("{}: {error}", file.display()))?;
        }
        Ok((report, known))
    }

    fn cases(&self) -> Result<Vec<Case>, String> {
        let is_wanted = |case: &Case| {
            self.only.is_empty() || self.only.iter().any(|only| case.id.starts_with(only.as_str()))
        };
        let cases: Vec<Case> = client_cases().into_iter().filter(is_wanted).collect();
        match cases.is_empty() {
            true => Err("there is no such case".into()),
            false => Ok(cases),
        }
    }

    fn client(&self) -> Result<conformance::Client, String> {
        let command = self.command.clone();
        let name = self.name.clone().unwrap_or_else(|| {
            let words: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
            words.join(" ")
        });
        let tokens = Tokens::made_with(SigningKey::new(self.minter()?));
        Ok(conformance::Client::new(&name, tokens, Launcher { command })
            .with_timeout(Duration::from_secs(self.timeout.into()))
            .with_cases_at_once(self.jobs.into()))
    }

    /// As the variables say, if they say something.
    fn minter(&self) -> Result<Minter, String> {
        match VARIABLES.iter().any(|variable| self.auth.lookup(variable.name).is_some()) {
            true => {
                Minter::from_vars(|name| self.auth.lookup(name)).map_err(|error| error.to_string())
            }
            false => Ok(Minter::unsigned()),
        }
    }

    fn tell(&self, outcome: &Outcome, known: &Known) {
        let id = outcome.id;
        match (verdict(outcome, known), outcome.failure()) {
            (verdict @ ("FAIL" | "known"), Some(reason)) => {
                println!("{verdict:<8} {id}  {}\n{:10}{reason}", outcome.rule, "");
                if self.verbose {
                    for line in &outcome.record {
                        let (at, from, what) = (line.at_ms, line.from, &line.what);
                        println!("{at:>10} ms [{}] {from:<5} {what}", line.connection);
                    }
                }
            }
            (verdict, _) => println!("{verdict:<8} {id}"),
        }
    }
}

/// How a case went, in a word.
pub(super) fn verdict(outcome: &Outcome, known: &Known) -> &'static str {
    match (outcome.is_fail(), known.contains_key(outcome.id)) {
        (true, true) => "known",
        (true, false) => "FAIL",
        _ if outcome.is_skipped() => "skipped",
        (false, true) => "PASSES",
        (false, false) => "pass",
    }
}

fn summarize(report: &Report, known: &Known) {
    let count =
        |word| report.outcomes.iter().filter(|outcome| verdict(outcome, known) == word).count();
    println!(
        "{} passed, {} failed, {} known failures, {} known failures that pass, {} skipped",
        count("pass"),
        count("FAIL"),
        count("known"),
        count("PASSES"),
        count("skipped")
    );
}

fn is_as_expected(report: &Report, known: &Known) -> bool {
    report.outcomes.iter().all(|outcome| !matches!(verdict(outcome, known), "FAIL" | "PASSES"))
}

fn known(file: &PathBuf) -> Result<Known, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let entry = |line: &str| {
        let (id, why) = line.split_once('#').unwrap_or((line, ""));
        (id.trim().to_owned(), why.trim().to_owned())
    };
    Ok(text.lines().map(entry).filter(|(id, _)| !id.is_empty()).collect())
}
