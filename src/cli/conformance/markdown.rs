//! A report in Markdown, to be kept beside the documentation.

use std::collections::BTreeMap;

use electric_satellite::conformance::{Outcome, Report};

use super::selection::Known;

/// The whole of it.
pub(super) fn report(report: &Report, known: &Known, note: &str) -> String {
    let mut text = format!(
        "# {}\n\n{note}\n\n{} client cases of the conformance suite, profile `{}`.\n\n## By group\n\n\
         | group | pass | fail | skipped |\n|---|---:|---:|---:|\n",
        report.target,
        report.outcomes.len(),
        report.profile
    );
    for (group, outcomes) in groups(report) {
        let fails = outcomes.iter().filter(|outcome| outcome.is_fail()).count();
        let skipped = outcomes.iter().filter(|outcome| outcome.is_skipped()).count();
        let passes = outcomes.len() - fails - skipped;
        text += &format!("| {group} | {passes} | {fails} | {skipped} |\n");
    }
    text += "\n## What fails\n\n| case | level | rule | what came | why |\n|---|---|---|---|---|\n";
    for outcome in report.failures() {
        let why = known.get(outcome.id).map_or("", String::as_str);
        let reason = outcome.failure().unwrap_or_default();
        let cells = [outcome.id, &outcome.level.to_string(), outcome.rule, reason, why].map(cell);
        text += &format!("| {} |\n", cells.join(" | "));
    }
    text += "\n## All cases\n\n| case | level | verdict | rule |\n|---|---|---|---|\n";
    for outcome in &report.outcomes {
        let verdict = match (outcome.is_fail(), outcome.is_skipped()) {
            (true, _) => "fail",
            (_, true) => "skipped",
            _ => "pass",
        };
        let cells = [outcome.id, &outcome.level.to_string(), verdict, outcome.rule].map(cell);
        text += &format!("| {} |\n", cells.join(" | "));
    }
    text
}

fn groups(report: &Report) -> BTreeMap<&str, Vec<&Outcome>> {
    let mut groups = BTreeMap::<&str, Vec<&Outcome>>::new();
    for outcome in &report.outcomes {
        groups.entry(outcome.group).or_default().push(outcome);
    }
    groups
}

/// Text that stays in its cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ").replace('<', "&lt;")
}
