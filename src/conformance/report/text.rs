//! A report for people.

use std::fmt;

use super::{Outcome, Report, Standing, Totals};

/// A report in lines: what went wrong with each case that somebody should look at, then a line for
/// each case that is not a pass, a line for each group, and the totals.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    report: &'a Report,
    verbose: bool,
    coloured: bool,
}

impl<'a> Text<'a> {
    pub(super) fn of(report: &'a Report) -> Text<'a> {
        Text { report, verbose: false, coloured: false }
    }

    /// With a line for every case.
    pub fn verbose(self, verbose: bool) -> Text<'a> {
        Text { verbose, ..self }
    }

    /// In colours, for a terminal.
    pub fn coloured(self, coloured: bool) -> Text<'a> {
        Text { coloured, ..self }
    }

    /// In the colour of this standing.
    fn paint(&self, standing: Standing, text: &str) -> String {
        let colour = match standing {
            Standing::Failed => "31;1",
            Standing::Flaky | Standing::PassesNow => "33;1",
            Standing::KnownFailure => "33",
            Standing::Skipped => "2",
            Standing::Passed => "32",
        };
        match self.coloured {
            true => format!("\x1b[{colour}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    fn counts(&self, totals: &Totals) -> String {
        let count = |(standing, count)| self.paint(standing, &format!("{count} {standing}"));
        totals.each().map(count).collect::<Vec<_>>().join(", ")
    }

    fn cases(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |outcome: &&Outcome| self.verbose || outcome.standing() != Standing::Passed;
        let outcomes: Vec<&Outcome> = self.report.outcomes.iter().filter(shown).collect();
        let widest = outcomes.iter().map(|outcome| outcome.id.len()).max().unwrap_or(0);
        for outcome in &outcomes {
            let standing = outcome.standing();
            let word = self.paint(standing, &format!("{standing:<13}"));
            let says = outcome.reason().unwrap_or_else(|| outcome.rule.to_owned());
            let (id, level, says) = (outcome.id, outcome.level.to_string(), one_line(&says));
            writeln!(f, "{word}  {id:<widest$}  {level:<6}  {says}")?;
        }
        if outcomes.is_empty() { Ok(()) } else { writeln!(f) }
    }

    fn groups(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups = self.report.groups();
        let widest = groups.iter().map(|(group, _)| group.len()).max().unwrap_or(0);
        for (group, outcomes) in &groups {
            let totals = Totals::of(outcomes.iter().copied());
            writeln!(f, "{group:<widest$}  {:>3}  {}", totals.all(), self.counts(&totals))?;
        }
        writeln!(f)
    }

    fn sum(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (report, totals) = (self.report, self.report.totals());
        writeln!(
            f,
            "{}, profile {}, {:.1} s: {} of {}",
            report.target,
            report.profile,
            report.took.as_secs_f64(),
            self.counts(&totals),
            counted(totals.all(), "case"),
        )?;
        match totals.unexpected() {
            0 => writeln!(f, "{}", self.paint(Standing::Passed, "nothing unexpected")),
            many => writeln!(f, "{}", self.paint(Standing::Failed, &format!("{many} unexpected"))),
        }
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for outcome in self.report.unexpected() {
            let standing = outcome.standing();
            let title = format!("{} {standing}", outcome.id);
            writeln!(f, "{}\n{}", self.paint(standing, &title), explained(outcome))?;
        }
        self.cases(f)?;
        self.groups(f)?;
        self.sum(f)
    }
}

/// How many lines of a conversation are shown, up to the departure.
const CONTEXT: usize = 12;

/// What went wrong with a case: its rule, the verdicts, the script, and the conversation around the
/// departure.
pub(super) fn explained(outcome: &Outcome) -> String {
    let mut text = format!("  {}\n", outcome.rule);
    let standing = match outcome.standing() {
        Standing::Failed => None,
        _ => outcome.reason(),
    };
    let facts = [
        ("source", Some(outcome.source.to_owned())),
        ("otherwise", Some(outcome.otherwise.to_owned())),
        ("profile", outcome.differs.map(str::to_owned)),
        ("standing", standing),
        ("behaviour", Some(outcome.behaviour.to_string())),
        ("close", outcome.close.as_ref().map(ToString::to_string)),
    ];
    for (name, value) in facts {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            text += &format!("  {name:<10} {}\n", one_line(&value));
        }
    }
    if outcome.is_fail() {
        text += "\n";
        for (nth, step) in outcome.script.iter().enumerate() {
            let mark = if outcome.departed == Some(nth) { '>' } else { ' ' };
            text += &format!("  {mark} {:>2}. {}\n", nth + 1, one_line(step));
        }
        text += &conversation(outcome);
    }
    text
}

fn conversation(outcome: &Outcome) -> String {
    let hidden = outcome.record.len().saturating_sub(CONTEXT);
    let mut text = String::new();
    if !outcome.record.is_empty() {
        text += "\n";
    }
    if hidden > 0 {
        text += &format!("    after {}\n", counted(hidden, "line"));
    }
    for line in &outcome.record[hidden..] {
        let arrow = match line.from {
            "suite" => "->",
            "peer" => "<-",
            _ => "  ",
        };
        let what = one_line(&line.what);
        text += &format!("  {:>8} ms  [{}] {arrow} {what}\n", line.at_ms, line.connection);
    }
    text
}

/// What a peer sends may hold what moves the cursor of a terminal.
fn one_line(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}
