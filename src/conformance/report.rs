//! What a run finds.

use std::{fmt, time::Duration};

use super::{Case, Level, Line};

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
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Pass => f.write_str("pass"),
            Verdict::Fail(reason) => write!(f, "fail: {reason}"),
            Verdict::Skipped(reason) => write!(f, "skipped: {reason}"),
        }
    }
}

/// How a case went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The id of the case.
    pub id: &'static str,
    /// Its rule.
    pub rule: &'static str,
    /// Its level.
    pub level: Level,
    /// Its source.
    pub source: &'static str,
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
    /// The conversation.
    pub record: Vec<Line>,
    /// How long it took.
    pub took: Duration,
}

impl Outcome {
    pub(super) fn skipped(case: &Case, reason: String) -> Outcome {
        Outcome::new(case, Verdict::Skipped(reason))
    }

    pub(super) fn new(case: &Case, behaviour: Verdict) -> Outcome {
        Outcome {
            id: case.id,
            rule: case.rule,
            level: case.level,
            source: case.source,
            otherwise: case.otherwise,
            differs: None,
            script: case.script.iter().map(ToString::to_string).collect(),
            behaviour,
            close: None,
            departed: None,
            record: vec![],
            took: Duration::ZERO,
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
        [Some(&self.behaviour), self.close.as_ref()].into_iter().flatten().find_map(|verdict| {
            match verdict {
                Verdict::Fail(reason) => Some(reason.as_str()),
                _ => None,
            }
        })
    }
}

/// What a run found.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was judged, in words.
    pub target: String,
    /// The name of the profile.
    pub profile: &'static str,
    /// Every case that was asked for, by id.
    pub outcomes: Vec<Outcome>,
}

impl Report {
    /// The cases that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter().filter(|outcome| outcome.is_fail())
    }
}
