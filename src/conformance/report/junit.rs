//! A report as JUnit XML.

use std::fmt::Write;

use super::{Outcome, Report, Standing, Totals, text};

pub(super) fn report(report: &Report) -> String {
    let name = format!("satellite conformance: {}, {}", report.target, report.profile);
    let mut xml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned();
    let attributes = suite(&name, &report.totals(), report.took.as_secs_f64());
    let _ = writeln!(xml, "<testsuites {attributes}>");
    for (group, outcomes) in report.groups() {
        let took = outcomes.iter().map(|outcome| outcome.took.as_secs_f64()).sum();
        let attributes = suite(group, &Totals::of(outcomes.iter().copied()), took);
        let _ = writeln!(xml, "  <testsuite {attributes}>");
        outcomes.into_iter().for_each(|outcome| case(&mut xml, outcome));
        xml += "  </testsuite>\n";
    }
    xml + "</testsuites>\n"
}

fn suite(name: &str, totals: &Totals, seconds: f64) -> String {
    format!(
        "name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"0\" skipped=\"{}\" time=\"{seconds:.3}\"",
        escaped(name),
        totals.all(),
        totals.unexpected(),
        totals.get(Standing::Skipped) + totals.get(Standing::KnownFailure),
    )
}

fn case(xml: &mut String, outcome: &Outcome) {
    let _ = writeln!(
        xml,
        "    <testcase classname=\"{}\" name=\"{}: {}\" time=\"{:.3}\">",
        escaped(outcome.group),
        escaped(outcome.id),
        escaped(outcome.rule),
        outcome.took.as_secs_f64()
    );
    let standing = outcome.standing();
    let reason = escaped(&outcome.reason().unwrap_or_default());
    let _ = match standing {
        Standing::Passed => Ok(()),
        Standing::Skipped => writeln!(xml, "      <skipped message=\"{reason}\"/>"),
        Standing::KnownFailure => {
            writeln!(xml, "      <skipped message=\"known failure: {reason}\"/>")
        }
        Standing::Failed | Standing::Flaky | Standing::PassesNow => writeln!(
            xml,
            "      <failure type=\"{}\" message=\"{reason}\">{}</failure>",
            kind(outcome),
            escaped(&text::explained(outcome))
        ),
    };
    let close = outcome.close.as_ref().map_or("not judged".to_owned(), ToString::to_string);
    let facts = format!(
        "{}; {}\nbehaviour: {}\nclose: {close}\n",
        outcome.level, outcome.source, outcome.behaviour
    );
    let _ = writeln!(xml, "      <system-out>{}</system-out>", escaped(&facts));
    xml.push_str("    </testcase>\n");
}

/// What kind of failure it is: of behaviour and of the close are told apart.
fn kind(outcome: &Outcome) -> &'static str {
    match outcome.standing() {
        Standing::Failed if outcome.behaviour.is_fail() => "behaviour",
        Standing::Failed => "close",
        standing => standing.name(),
    }
}

/// Text in XML 1.0, which has no place for most control characters, not even escaped.
fn escaped(text: &str) -> String {
    let mut xml = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => xml += "&amp;",
            '<' => xml += "&lt;",
            '>' => xml += "&gt;",
            '"' => xml += "&quot;",
            '\n' => xml += "&#10;",
            '\t' => xml += "&#9;",
            '\0'..'\u{20}' | '\u{fffe}' | '\u{ffff}' => xml.push('\u{fffd}'),
            _ => xml.push(character),
        }
    }
    xml
}
