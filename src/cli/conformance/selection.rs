//! Which cases are run, and how.

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum, builder::PossibleValuesParser, value_parser};
use electric_satellite::conformance::{Case, Level, Need, Profile};

use super::Usage;

/// Which cases are run.
#[derive(Args)]
#[command(next_help_heading = "Cases")]
pub(super) struct SelectionArgs {
    /// Only these cases: ids, groups, or how ids begin, such as SAT-AUTH; several with commas.
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    only: Vec<String>,
    /// All but these cases.
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    skip: Vec<String>,
    /// Only rules that are asked for this much at least.
    #[arg(long, value_name = "LEVEL", default_value = "may")]
    level: AtLeast,
    /// Without the cases that wait for what takes longer than some seconds.
    #[arg(long)]
    no_wait: bool,
    /// What is expected: what a new implementation should do, or what a certain one does.
    #[arg(long, value_name = "PROFILE", default_value = "strict", value_parser = profiles())]
    profile: String,
    /// List the cases, and run none.
    #[arg(long)]
    pub(super) list: bool,
    /// Explain a case: its rule, what breaks without it, and its script, step by step.
    #[arg(long, value_name = "ID")]
    pub(super) explain: Option<String>,
}

/// How much a rule is asked for.
#[derive(Clone, Copy, ValueEnum)]
enum AtLeast {
    Must,
    Should,
    May,
}

impl AtLeast {
    fn level(self) -> Level {
        match self {
            AtLeast::Must => Level::Must,
            AtLeast::Should => Level::Should,
            AtLeast::May => Level::May,
        }
    }
}

fn profiles() -> PossibleValuesParser {
    PossibleValuesParser::new(Profile::all().into_iter().map(|profile| profile.name))
}

impl SelectionArgs {
    pub(super) fn profile(&self) -> Profile {
        Profile::named(&self.profile).expect("one of those that the option takes")
    }

    /// Those of these cases that are selected.
    pub(super) fn of(&self, cases: Vec<Case>) -> Result<Vec<Case>, Usage> {
        for (option, words) in [("--only", &self.only), ("--skip", &self.skip)] {
            if let Some(word) =
                words.iter().find(|word| !cases.iter().any(|case| names(word, case)))
            {
                return Err(Usage(format!("{option}: no case is called {word}, or begins so")));
            }
        }
        let any = |words: &[String], case: &Case| words.iter().any(|word| names(word, case));
        let selected = |case: &Case| {
            (self.only.is_empty() || any(&self.only, case))
                && !any(&self.skip, case)
                && case.level <= self.level.level()
                && !(self.no_wait && case.needs.contains(&Need::Time))
        };
        let selected: Vec<Case> = cases.into_iter().filter(selected).collect();
        match selected.is_empty() {
            true => Err(Usage("no case is selected".into())),
            false => Ok(selected),
        }
    }
}

/// Whether a word is the id of a case or its beginning, in capitals or not.
fn names(word: &str, case: &Case) -> bool {
    let beginning = case.id.get(..word.len());
    !word.is_empty() && beginning.is_some_and(|beginning| beginning.eq_ignore_ascii_case(word))
}

/// The case of this id.
pub(super) fn find<'a>(cases: &'a [Case], id: &str) -> Result<&'a Case, Usage> {
    let found = cases.iter().find(|case| case.id.eq_ignore_ascii_case(id));
    found.ok_or_else(|| Usage(format!("no case is called {id}; --list lists them")))
}

/// How they are run.
#[derive(Args)]
#[command(next_help_heading = "The run")]
pub(super) struct RunArgs {
    /// How long each step may take, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = value_parser!(u32).range(1..=3600))]
    timeout: Option<u32>,
    /// How many cases are run at the same time.
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..=1000))]
    jobs: Option<u16>,
    /// Run every case so many times; it is flaky if the runs differ.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u16).range(1..))]
    repeat: u16,
    /// A file with the ids of cases that are known to fail, one a line, and behind a # why. They
    /// are run, and count only when they pass.
    #[arg(long, value_name = "FILE")]
    known: Option<PathBuf>,
    /// How long the whole run may take, in seconds; what is not done by then has failed.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = value_parser!(u32).range(1..))]
    deadline: u32,
}

impl RunArgs {
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.timeout.map(|seconds| Duration::from_secs(seconds.into()))
    }

    pub(super) fn jobs(&self) -> Option<usize> {
        self.jobs.map(usize::from)
    }

    pub(super) fn repeat(&self) -> usize {
        self.repeat.into()
    }

    pub(super) fn deadline(&self) -> Duration {
        Duration::from_secs(self.deadline.into())
    }

    /// The known failures in their file, which must be of `cases`.
    pub(super) fn known(&self, cases: &[Case]) -> Result<Known, Usage> {
        let Some(file) = &self.known else { return Ok(Known::new()) };
        let shown = file.display();
        let text = fs::read_to_string(file).map_err(|error| format!("{shown}: {error}"))?;
        let lines = text.lines().enumerate().map(|(nth, line)| {
            let (id, why) = line.split_once('#').unwrap_or((line, ""));
            (nth + 1, id.trim(), why.trim().to_owned())
        });
        let known = lines.filter(|(_, id, _)| !id.is_empty()).map(|(nth, id, why)| {
            let case = find(cases, id);
            case.map(|case| (case.id, why))
                .map_err(|Usage(reason)| Usage(format!("{shown}:{nth}: {reason}")))
        });
        known.collect()
    }
}

/// Known failures by their ids, and why they fail.
pub(super) type Known = BTreeMap<&'static str, String>;
