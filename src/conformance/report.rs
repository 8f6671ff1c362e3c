//! What a run finds.

mod html;
mod json;
mod junit;
mod text;

use std::{fmt, ops::RangeInclusive, time::Duration};

use crate::wire::Version;

use super::{Case, Level, Line, Need};

pub use text::Text;

/// How a part of a case went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As the rule wants it.
    Pass,
    /// Otherwise, in words.
    Fail(String),
    /// The case does not apply, for this reason.
    Skipped(String),
}

impl Verdict {
    /// Whether the rule was broken.
    pub fn is_fail(&self) -> bool {
        matches!(self, Verdict::Fail(_))
    }

    /// `pass`, `fail` or `skipped`.
    pub fn name(&self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Fail(_) => "fail",
            Verdict::Skipped(_) => "skipped",
        }
    }

    /// What went wrong, or why the case does not apply.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Verdict::Pass => None,
            Verdict::Fail(reason) | Verdict::Skipped(reason) => Some(reason),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        self.reason().map_or(Ok(()), |reason| write!(f, ": {reason}"))
    }
}

/// What the outcome of a case means for a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Standing {
    /// It fails.
    Failed,
    /// Its runs differ.
    Flaky,
    /// It is listed as a case that fails, and passes: the list is out of date.
    PassesNow,
    /// It fails, or is flaky, and is listed as such.
    KnownFailure,
    /// It was not run, or does not apply.
    Skipped,
    /// It passes.
    Passed,
}

impl Standing {
    /// Every standing, the most urgent first.
    pub const ALL: [Standing; 6] = [
        Standing::Failed,
        Standing::Flaky,
        Standing::PassesNow,
        Standing::KnownFailure,
        Standing::Skipped,
        Standing::Passed,
    ];

    /// Whether somebody should look at it.
    pub fn is_unexpected(self) -> bool {
        matches!(self, Standing::Failed | Standing::Flaky | Standing::PassesNow)
    }

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Standing::Failed => "failed",
            Standing::Flaky => "flaky",
            Standing::PassesNow => "passes now",
            Standing::KnownFailure => "known failure",
            Standing::Skipped => "skipped",
            Standing::Passed => "passed",
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How often a case went which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Runs {
    /// The runs that passed.
    pub passed: usize,
    /// The runs that failed.
    pub failed: usize,
    /// The runs in which it did not apply.
    pub skipped: usize,
}

impl Runs {
    /// Whether they differ.
    pub fn differ(self) -> bool {
        [self.passed, self.failed, self.skipped].into_iter().filter(|runs| *runs > 0).count() > 1
    }
}

impl fmt::Display for Runs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = self.passed + self.failed + self.skipped;
        write!(f, "of {runs} runs {} passed, {} failed", self.passed, self.failed)?;
        match self.skipped {
            0 => Ok(()),
            skipped => write!(f, ", {skipped} did not apply"),
        }
    }
}

/// How a case went.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// The id of the case.
    pub id: &'static str,
    /// The group that it belongs to.
    pub group: &'static str,
    /// Its rule.
    pub rule: &'static str,
    /// Its level.
    pub level: Level,
    /// Its source.
    pub source: &'static str,
    /// The versions that it holds for.
    pub versions: RangeInclusive<Version>,
    /// What the peer must be set up with.
    pub needs: Vec<Need>,
    /// What breaks without it.
    pub otherwise: &'static str,
    /// What the profile says of it, if it expects something else.
    pub differs: Option<&'static str>,
    /// The script, in words.
    pub script: Vec<String>,
    /// What was sent and received.
    pub behaviour: Verdict,
    /// How the connection ended, if that was judged.
    pub close: Option<Verdict>,
    /// The step at which the peer departed from the script, counted from 0.
    pub departed: Option<usize>,
    /// The conversation. Of a long one, the middle is left out.
    pub record: Vec<Line>,
    /// How long it took.
    pub took: Duration,
    /// Whether it is listed as a case that fails.
    pub known: bool,
    /// How often it went which way. The rest is of the worst of these runs.
    pub runs: Runs,
}

impl Outcome {
    pub(super) fn skipped(case: &Case, reason: String) -> Outcome {
        Outcome::new(case, Verdict::Skipped(reason))
    }

    pub(super) fn new(case: &Case, behaviour: Verdict) -> Outcome {
        Outcome {
            id: case.id,
            group: case.group(),
            rule: case.rule,
            level: case.level,
            source: case.source,
            versions: case.versions.clone(),
            needs: case.needs.clone(),
            otherwise: case.otherwise,
            differs: None,
            script: case.script.iter().map(ToString::to_string).collect(),
            behaviour,
            close: None,
            departed: None,
            record: vec![],
            took: Duration::ZERO,
            known: false,
            runs: Runs { passed: 0, failed: 0, skipped: 0 },
        }
    }

    /// Whether a part of it failed.
    pub fn is_fail(&self) -> bool {
        self.behaviour.is_fail() || self.close.as_ref().is_some_and(Verdict::is_fail)
    }

    /// Whether it was not run, or does not apply.
    pub fn is_skipped(&self) -> bool {
        matches!(self.behaviour, Verdict::Skipped(_))
    }

    /// What went wrong, in words.
    pub fn failure(&self) -> Option<&str> {
        let verdicts = [Some(&self.behaviour), self.close.as_ref()].into_iter().flatten();
        verdicts.filter(|verdict| verdict.is_fail()).find_map(Verdict::reason)
    }

    /// What it means for the run.
    pub fn standing(&self) -> Standing {
        let is_good = !self.is_fail() && !self.runs.differ();
        match (self.known, is_good) {
            (_, true) if self.is_skipped() => Standing::Skipped,
            (true, true) => Standing::PassesNow,
            (true, false) => Standing::KnownFailure,
            (false, true) => Standing::Passed,
            (false, false) if self.runs.differ() => Standing::Flaky,
            (false, false) => Standing::Failed,
        }
    }

    /// Why it stands as it does, in a few words; nothing if it passes.
    pub fn reason(&self) -> Option<String> {
        let reason = self.failure().or(self.behaviour.reason());
        match (self.standing(), reason) {
            (Standing::PassesNow, _) => Some("it is listed as a known failure".into()),
            (_, Some(reason)) if self.runs.differ() => Some(format!("{}; {reason}", self.runs)),
            (_, None) if self.runs.differ() => Some(self.runs.to_string()),
            (_, reason) => reason.map(str::to_owned),
        }
    }

    /// The worse of two runs of one case, with the counts of both.
    pub(super) fn or_worse(self, other: Outcome) -> Outcome {
        let (own, others) = (self.counts(), other.counts());
        let runs = Runs {
            passed: own.passed + others.passed,
            failed: own.failed + others.failed,
            skipped: own.skipped + others.skipped,
        };
        let badness = |outcome: &Outcome| (outcome.is_fail(), outcome.is_skipped());
        let worse = if badness(&other) > badness(&self) { other } else { self };
        Outcome { runs, ..worse }
    }

    /// The runs so far: one, unless they were counted.
    fn counts(&self) -> Runs {
        let none = Runs { passed: 0, failed: 0, skipped: 0 };
        match self.runs == none {
            false => self.runs,
            true if self.is_fail() => Runs { failed: 1, ..none },
            true if self.is_skipped() => Runs { skipped: 1, ..none },
            true => Runs { passed: 1, ..none },
        }
    }
}

/// What a run found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// What was judged, in words.
    pub target: String,
    /// The name of the profile.
    pub profile: &'static str,
    /// Every case that was asked for, by id.
    pub outcomes: Vec<Outcome>,
    /// How long the run took.
    pub took: Duration,
}

/// How many cases stand how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals([usize; Standing::ALL.len()]);

impl Totals {
    /// Counts these.
    pub fn of<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> Totals {
        let mut totals = Totals::default();
        for outcome in outcomes {
            totals.0[outcome.standing() as usize] += 1;
        }
        totals
    }

    /// How many stand so.
    pub fn get(&self, standing: Standing) -> usize {
        self.0[standing as usize]
    }

    /// How many there are.
    pub fn all(&self) -> usize {
        self.0.iter().sum()
    }

    /// How many should be looked at.
    pub fn unexpected(&self) -> usize {
        Standing::ALL.into_iter().filter(|is| is.is_unexpected()).map(|is| self.get(is)).sum()
    }

    /// The standings that there are, with how many stand so, the most urgent first.
    pub fn each(&self) -> impl Iterator<Item = (Standing, usize)> {
        let counts = Standing::ALL.into_iter().map(|standing| (standing, self.get(standing)));
        counts.filter(|(_, count)| *count > 0)
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.each().map(|(standing, count)| format!("{count} {standing}"));
        f.write_str(&counts.collect::<Vec<_>>().join(", "))
    }
}

impl Report {
    /// The cases that failed, known or not.
    pub fn failures(&self) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter().filter(|outcome| outcome.is_fail())
    }

    /// The cases that somebody should look at: they fail, are flaky, or pass although they are
    /// listed as failures.
    pub fn unexpected(&self) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter().filter(|outcome| outcome.standing().is_unexpected())
    }

    /// Whether nothing unexpected happened.
    pub fn is_as_expected(&self) -> bool {
        self.unexpected().next().is_none()
    }

    /// How many cases stand how.
    pub fn totals(&self) -> Totals {
        Totals::of(&self.outcomes)
    }

    /// The outcomes by group, in the order in which the groups first occur.
    pub fn groups(&self) -> Vec<(&'static str, Vec<&Outcome>)> {
        let mut groups: Vec<(&'static str, Vec<&Outcome>)> = vec![];
        for outcome in &self.outcomes {
            match groups.iter_mut().find(|(group, _)| *group == outcome.group) {
                Some((_, members)) => members.push(outcome),
                None => groups.push((outcome.group, vec![outcome])),
            }
        }
        groups
    }

    /// For people, on a terminal or in a log.
    pub fn text(&self) -> Text<'_> {
        Text::of(self)
    }

    /// For programs: one object, whose member `format` is 1 until its form changes in a way that
    /// is not an addition.
    pub fn json(&self) -> serde_json::Value {
        json::report(self)
    }

    /// JUnit XML, as build servers read it: a suite for each group. What is unexpected is a
    /// failure there; known failures are skipped.
    pub fn junit(&self) -> String {
        junit::report(self)
    }

    /// One page for a browser, with nothing outside it: each case with its rule, its script, and
    /// the conversation frame by frame.
    pub fn html(&self) -> String {
        html::report(self)
    }
}
