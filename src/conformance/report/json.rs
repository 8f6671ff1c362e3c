//! A report for programs.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use super::{Outcome, Report, Standing, Verdict};

pub(super) fn report(report: &Report) -> Value {
    let totals = report.totals();
    let counts = Standing::ALL.map(|standing| (standing.name(), totals.get(standing)));
    json!({
        "format": 1,
        "suite": env!("CARGO_PKG_VERSION"),
        "target": report.target,
        "profile": report.profile,
        "as_expected": report.is_as_expected(),
        "took_ms": millis(report.took),
        "totals": BTreeMap::from(counts),
        "cases": report.outcomes.iter().map(outcome).collect::<Vec<_>>(),
    })
}

fn outcome(outcome: &Outcome) -> Value {
    let runs = outcome.runs;
    json!({
        "id": outcome.id,
        "group": outcome.group,
        "rule": outcome.rule,
        "level": outcome.level.to_string(),
        "source": outcome.source,
        "versions": [outcome.versions.start().to_string(), outcome.versions.end().to_string()],
        "needs": outcome.needs.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "otherwise": outcome.otherwise,
        "differs": outcome.differs,
        "standing": outcome.standing().name(),
        "behaviour": verdict(&outcome.behaviour),
        "close": outcome.close.as_ref().map(verdict),
        "known": outcome.known,
        "runs": { "passed": runs.passed, "failed": runs.failed, "skipped": runs.skipped },
        "script": outcome.script,
        "departed": outcome.departed,
        "took_ms": millis(outcome.took),
        "conversation": outcome.record,
    })
}

fn verdict(verdict: &Verdict) -> Value {
    json!({ "verdict": verdict.name(), "reason": verdict.reason() })
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
