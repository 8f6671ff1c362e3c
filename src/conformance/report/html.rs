//! A report as one page for a browser.

use std::fmt::{self, Write};

use crate::conformance::{Level, Line};

use super::{Outcome, Report, Standing, Totals, Verdict};

/// How the page looks, in light and in dark.
const STYLE: &str = include_str!("page.css");

/// Filters cases. The page can be read without it.
const FILTERS: &str = include_str!("page.js");

/// How many bytes of a payload are shown at first.
const SHOWN_BYTES: usize = 64;

pub(super) fn report(report: &Report) -> String {
    let mut page = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut page, report);
    page
}

fn write(page: &mut String, report: &Report) -> fmt::Result {
    write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>Satellite conformance: {}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n",
        Text(&report.target)
    )?;
    head(page, report)?;
    summary(page, report)?;
    filters(page, &report.totals())?;
    page.push_str("<main>\n");
    for (group, outcomes) in report.groups() {
        let totals = Totals::of(outcomes.iter().copied());
        write!(
            page,
            "<section id=\"{group}\">\n<h2>{group} <small>{totals}</small></h2>\n",
            group = Text(group)
        )?;
        outcomes.into_iter().try_for_each(|outcome| case(page, outcome))?;
        page.push_str("</section>\n");
    }
    write!(
        page,
        "</main>\n<footer>satellite {}</footer>\n<script>\n{FILTERS}</script>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION")
    )
}

// ---- The summary ----

fn head(page: &mut String, report: &Report) -> fmt::Result {
    let totals = report.totals();
    let (class, words) = match totals.unexpected() {
        0 => ("passed", "Nothing unexpected".to_owned()),
        many => ("failed", format!("{many} unexpected")),
    };
    write!(
        page,
        "<header>\n<p class=\"kind\">Satellite conformance</p>\n<h1>{}</h1>\n\
         <p class=\"facts\"><strong class=\"verdict {class}\">{words}</strong> \
         <span>profile <b>{}</b></span> <span><b>{}</b> cases</span> \
         <span><b>{:.1} s</b></span></p>\n",
        Text(&report.target),
        Text(report.profile),
        totals.all(),
        report.took.as_secs_f64()
    )?;
    bar(page, &totals)?;
    page.push_str("<ul class=\"tiles\">\n");
    for (standing, count) in totals.each() {
        let class = self::class(standing);
        writeln!(page, "<li class=\"{class}\"><b>{count}</b> {standing}</li>")?;
    }
    page.push_str("</ul>\n</header>\n");
    unexpected(page, report)
}

/// Links to what somebody should look at.
fn unexpected(page: &mut String, report: &Report) -> fmt::Result {
    if report.is_as_expected() {
        return Ok(());
    }
    page.push_str("<ul class=\"unexpected\">\n");
    for outcome in report.unexpected() {
        let standing = outcome.standing();
        let reason = outcome.reason().unwrap_or_default();
        writeln!(
            page,
            "<li class=\"{class}\"><span class=\"pill\">{standing}</span> \
             <a href=\"#{id}\"><code>{id}</code></a> <span class=\"why\">{reason}</span></li>",
            class = class(standing),
            id = Text(outcome.id),
            reason = Text(&reason),
        )?;
    }
    page.push_str("</ul>\n");
    Ok(())
}

/// How the standings share the whole.
fn bar(page: &mut String, totals: &Totals) -> fmt::Result {
    page.push_str("<div class=\"bar\" aria-hidden=\"true\">");
    for (standing, count) in totals.each() {
        write!(page, "<i class=\"{}\" style=\"flex:{count}\"></i>", class(standing))?;
    }
    page.push_str("</div>\n");
    Ok(())
}

const LEVELS: [Level; 3] = [Level::Must, Level::Should, Level::May];

/// A table of groups by levels.
fn summary(page: &mut String, report: &Report) -> fmt::Result {
    page.push_str(
        "<div class=\"scroll\"><table class=\"summary\">\n<thead><tr><th scope=\"col\">Group</th>",
    );
    for level in LEVELS {
        write!(page, "<th scope=\"col\">{level}</th>")?;
    }
    page.push_str("<th scope=\"col\" class=\"all\">All</th></tr></thead>\n<tbody>\n");
    for (group, outcomes) in report.groups() {
        let group = Text(group);
        write!(page, "<tr><th scope=\"row\"><a href=\"#{group}\">{group}</a></th>")?;
        for level in LEVELS {
            let of_level = outcomes.iter().copied().filter(|outcome| outcome.level == level);
            write!(page, "<td>{}</td>", Share(Totals::of(of_level)))?;
        }
        page.push_str("<td class=\"all\">");
        bar(page, &Totals::of(outcomes))?;
        page.push_str("</td></tr>\n");
    }
    page.push_str("</tbody>\n</table></div>\n");
    Ok(())
}

/// How many of those that apply pass.
struct Share(Totals);

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (passed, skipped) = (self.0.get(Standing::Passed), self.0.get(Standing::Skipped));
        let apply = self.0.all() - skipped;
        let worst = self.0.each().map(|(standing, _)| standing).find(|it| *it != Standing::Skipped);
        match worst {
            Some(worst) => {
                let class = class(worst);
                write!(f, "<span class=\"{class}\">{passed} / {apply}</span>")
            }
            None if skipped > 0 => write!(f, "<span class=\"none\">{skipped} skipped</span>"),
            None => f.write_str("<span class=\"none\">–</span>"),
        }
    }
}

fn filters(page: &mut String, totals: &Totals) -> fmt::Result {
    page.push_str(
        "<nav id=\"filters\" hidden>\n<input type=\"search\" placeholder=\"Filter by id or words\" \
         aria-label=\"Filter by id or words\">\n<span class=\"buttons\">\
         <button type=\"button\" data-show=\"\" aria-pressed=\"true\">all</button>",
    );
    for (standing, count) in totals.each() {
        let class = class(standing);
        write!(
            page,
            "<button type=\"button\" data-show=\"{class}\" aria-pressed=\"false\">\
             {standing} <b>{count}</b></button>"
        )?;
    }
    page.push_str("</span>\n</nav>\n");
    Ok(())
}

// ---- A case ----

fn case(page: &mut String, outcome: &Outcome) -> fmt::Result {
    let standing = outcome.standing();
    let open = if standing.is_unexpected() { " open" } else { "" };
    write!(
        page,
        "<details class=\"case {class}\" id=\"{id}\" data-standing=\"{class}\"{open}>\n\
         <summary><span class=\"pill {class}\">{standing}</span> <code>{id}</code> \
         <span class=\"level\">{level}</span> <span class=\"rule\">{rule}</span></summary>\n\
         <div class=\"body\">\n",
        class = class(standing),
        id = Text(outcome.id),
        level = outcome.level,
        rule = Marked(outcome.rule),
    )?;
    verdicts(page, outcome)?;
    facts(page, outcome)?;
    page.push_str("<div class=\"parts\">\n");
    script(page, outcome)?;
    conversation(page, outcome)?;
    page.push_str("</div>\n</div>\n</details>\n");
    Ok(())
}

fn verdicts(page: &mut String, outcome: &Outcome) -> fmt::Result {
    if outcome.is_skipped() && !outcome.runs.differ() {
        let reason = outcome.behaviour.reason().unwrap_or_default();
        return writeln!(
            page,
            "<p class=\"verdict-line skipped\"><b>Skipped</b> {}</p>",
            Text(reason)
        );
    }
    if outcome.runs.differ() {
        writeln!(page, "<p class=\"verdict-line flaky\"><b>Flaky</b> {}</p>", outcome.runs)?;
    }
    match outcome.standing() {
        Standing::PassesNow => page.push_str(
            "<p class=\"verdict-line now\"><b>Passes now</b> It is listed as a known failure; \
             take it off the list.</p>\n",
        ),
        Standing::KnownFailure => page.push_str(
            "<p class=\"verdict-line known\"><b>Known</b> It is listed as a known failure.</p>\n",
        ),
        _ => {}
    }
    verdict(page, "Behaviour", Some(&outcome.behaviour))?;
    verdict(page, "Close", outcome.close.as_ref())
}

fn verdict(page: &mut String, part: &str, verdict: Option<&Verdict>) -> fmt::Result {
    let (class, words) = match verdict {
        None => ("none", "was not judged"),
        Some(Verdict::Pass) => ("passed", "as it must be"),
        Some(Verdict::Skipped(reason)) => ("skipped", reason.as_str()),
        Some(Verdict::Fail(reason)) => ("failed", reason.as_str()),
    };
    writeln!(page, "<p class=\"verdict-line {class}\"><b>{part}</b> {}</p>", Text(words))
}

fn facts(page: &mut String, outcome: &Outcome) -> fmt::Result {
    let (from, to) = (outcome.versions.start(), outcome.versions.end());
    let needs: Vec<String> = outcome.needs.iter().map(ToString::to_string).collect();
    let facts = [
        ("Otherwise", outcome.otherwise.to_owned()),
        ("Profile", outcome.differs.unwrap_or_default().to_owned()),
        ("Source", outcome.source.to_owned()),
        ("Versions", format!("{from} to {to}")),
        ("Needs", needs.join(", ")),
        ("Took", format!("{} ms", outcome.took.as_millis())),
    ];
    page.push_str("<dl>\n");
    for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
        writeln!(page, "<div><dt>{name}</dt><dd>{}</dd></div>", Text(value))?;
    }
    page.push_str("</dl>\n");
    Ok(())
}

fn script(page: &mut String, outcome: &Outcome) -> fmt::Result {
    page.push_str("<div class=\"script\">\n<h3>Script</h3>\n<ol>\n");
    let ran = !outcome.is_skipped();
    for (nth, step) in outcome.script.iter().enumerate() {
        let class = match outcome.departed {
            Some(departed) if nth == departed => "departed",
            Some(departed) if nth > departed => "undone",
            _ if ran && (outcome.departed.is_some() || !outcome.is_fail()) => "done",
            _ => "undone",
        };
        writeln!(page, "<li class=\"{class}\">{}</li>", Text(step))?;
    }
    page.push_str("</ol>\n</div>\n");
    Ok(())
}

fn conversation(page: &mut String, outcome: &Outcome) -> fmt::Result {
    if outcome.record.is_empty() {
        return Ok(());
    }
    page.push_str(
        "<div class=\"talk\">\n<h3>Conversation</h3>\n<table>\n<thead><tr>\
         <th scope=\"col\">ms</th><th scope=\"col\" title=\"Connection\">#</th>\
         <th scope=\"col\">Who</th><th scope=\"col\">What</th></tr></thead>\n<tbody>\n",
    );
    outcome.record.iter().try_for_each(|line| row(page, line, outcome.departed))?;
    // What did not come is in no line.
    if let (Some(_), Some(reason)) = (outcome.departed, outcome.failure()) {
        let reason = Text(reason);
        writeln!(
            page,
            "<tr class=\"departure\"><td></td><td></td><td>✗</td><td>{reason}</td></tr>"
        )?;
    }
    page.push_str("</tbody>\n</table>\n</div>\n");
    Ok(())
}

fn row(page: &mut String, line: &Line, departed: Option<usize>) -> fmt::Result {
    let (class, who) = match line.from {
        "suite" => ("suite", "suite →"),
        "peer" => ("peer", "← peer"),
        _ => ("remark", ""),
    };
    let departed = if departed == Some(line.step) { " departed" } else { "" };
    write!(
        page,
        "<tr class=\"{class}{departed}\"><td>{}</td><td>{}</td><td>{who}</td><td><p>{}</p>",
        line.at_ms,
        line.connection,
        Text(&line.what)
    )?;
    match (line.bytes.is_empty(), line.http) {
        (true, _) => {}
        (false, true) => write!(page, "<pre>{}</pre>", Text(line.bytes.trim_end()))?,
        (false, false) => hex(page, &line.bytes)?,
    }
    page.push_str("</td></tr>\n");
    Ok(())
}

/// Bytes, the rest of many out of sight.
fn hex(page: &mut String, hex: &str) -> fmt::Result {
    match hex.char_indices().nth(2 * SHOWN_BYTES) {
        None => write!(page, "<code class=\"hex\">{}</code>", Bytes(hex)),
        Some((cut, _)) => write!(
            page,
            "<details class=\"hex\"><summary><code>{}</code> …</summary><code>{}</code></details>",
            Bytes(&hex[..cut]),
            Bytes(&hex[cut..])
        ),
    }
}

/// Hex with a space between bytes, and whatever is said after it.
struct Bytes<'a>(&'a str);

impl fmt::Display for Bytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.0.find(|digit: char| !digit.is_ascii_hexdigit()).unwrap_or(self.0.len());
        let (hex, rest) = self.0.split_at(end);
        for (nth, digit) in hex.chars().enumerate() {
            if nth > 0 && nth % 2 == 0 {
                f.write_char(' ')?;
            }
            f.write_char(digit)?;
        }
        Text(rest).fmt(f)
    }
}

/// What a standing is called in the style.
fn class(standing: Standing) -> &'static str {
    match standing {
        Standing::Failed => "failed",
        Standing::Flaky => "flaky",
        Standing::PassesNow => "now",
        Standing::KnownFailure => "known",
        Standing::Skipped => "skipped",
        Standing::Passed => "passed",
    }
}

// ---- Text ----

/// Text as HTML. Control characters show as pictures of themselves.
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;"),
                '<' => f.write_str("&lt;"),
                '>' => f.write_str("&gt;"),
                '"' => f.write_str("&quot;"),
                '\'' => f.write_str("&#39;"),
                '\n' | '\t' => f.write_char(character),
                '\r' => Ok(()),
                '\0'..' ' => f.write_char(pictured(character)),
                // What turns the direction of text, or ends lines elsewhere.
                '\u{7f}'..='\u{9f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
                | '\u{feff}' => f.write_char('\u{fffd}'),
                _ => f.write_char(character),
            }?;
        }
        Ok(())
    }
}

/// Its symbol in the block of Unicode that is for this.
fn pictured(control: char) -> char {
    char::from_u32(0x2400 + u32::from(control)).unwrap_or('\u{fffd}')
}

/// Text in which backquotes stand around code.
struct Marked<'a>(&'a str);

impl fmt::Display for Marked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, part) in self.0.split('`').enumerate() {
            match nth % 2 {
                0 => Text(part).fmt(f)?,
                _ => write!(f, "<code>{}</code>", Text(part))?,
            }
        }
        Ok(())
    }
}
