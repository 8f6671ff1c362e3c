//! What a run shows, and where.

use std::{
    env,
    fs::File,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use electric_satellite::conformance::{Case, Outcome, Report};
use serde_json::json;

use super::Usage;

/// What is written where.
#[derive(Args)]
#[command(next_help_heading = "Output")]
pub(super) struct OutputArgs {
    /// Print one JSON object instead of lines for people; with --list, an array.
    #[arg(long)]
    json: bool,
    /// Print a line for every case, also if it passes.
    #[arg(long)]
    verbose: bool,
    /// Write JUnit XML into this file.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write a page for a browser into this file, with every conversation.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Files that are open for writing.
pub(super) struct Files {
    junit: Option<File>,
    html: Option<File>,
}

impl OutputArgs {
    /// Prints text. Whoever does not read on has read enough.
    pub(super) fn print(&self, text: &str) {
        let _ = io::stdout().write_all(text.as_bytes());
    }

    pub(super) fn list(&self, cases: &[Case]) {
        let widest = cases.iter().map(|case| case.id.len()).max().unwrap_or(0);
        let line = |case: &Case| {
            format!("{:<widest$}  {:<6}  {}\n", case.id, case.level.to_string(), case.rule)
        };
        match self.json {
            false => self.print(&cases.iter().map(line).collect::<String>()),
            true => {
                let cases: Vec<_> = cases.iter().map(as_json).collect();
                self.print(&format!("{:#}\n", json!(cases)));
            }
        }
    }

    /// Opens the files, so that a run is not lost for want of one.
    pub(super) fn files(&self) -> Result<Files, Usage> {
        let open = |file: &Option<PathBuf>| file.as_deref().map(create).transpose();
        Ok(Files { junit: open(&self.junit)?, html: open(&self.html)? })
    }

    /// Writes the report wherever it is wanted.
    pub(super) fn report(&self, report: &Report, files: Files) -> Result<(), String> {
        let write = |file: Option<File>, path: &Option<PathBuf>, text: fn(&Report) -> String| {
            let (Some(mut file), Some(path)) = (file, path) else { return Ok(()) };
            let written = file.write_all(text(report).as_bytes());
            written.map_err(|error| format!("{}: {error}", path.display()))
        };
        write(files.junit, &self.junit, Report::junit)?;
        write(files.html, &self.html, Report::html)?;
        match self.json {
            true => self.print(&format!("{:#}\n", report.json())),
            false => {
                let coloured = io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none();
                let text = report.text().verbose(self.verbose).coloured(coloured);
                self.print(&text.to_string());
            }
        }
        Ok(())
    }
}

fn create(path: &Path) -> Result<File, String> {
    File::create(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn as_json(case: &Case) -> serde_json::Value {
    let words = |words: Vec<String>| json!(words);
    json!({
        "id": case.id,
        "group": case.group(),
        "rule": case.rule,
        "level": case.level.to_string(),
        "source": case.source,
        "versions": [case.versions.start().to_string(), case.versions.end().to_string()],
        "needs": words(case.needs.iter().map(ToString::to_string).collect()),
        "otherwise": case.otherwise,
        "script": words(case.script.iter().map(ToString::to_string).collect()),
    })
}

/// How far a run has come: a line that is written over, if a person looks on.
pub(super) struct Progress {
    all: usize,
    done: usize,
    unexpected: usize,
    shown: bool,
}

impl Progress {
    pub(super) fn of(all: usize) -> Progress {
        Progress { all, done: 0, unexpected: 0, shown: io::stderr().is_terminal() }
    }

    /// Another case is done.
    pub(super) fn done(&mut self, outcome: &Outcome) {
        self.done += 1;
        self.unexpected += usize::from(outcome.standing().is_unexpected());
        if self.shown {
            let (done, all, unexpected) = (self.done, self.all, self.unexpected);
            let line = format!("{done}/{all}, {unexpected} unexpected  {}", outcome.id);
            let _ = write!(io::stderr(), "\r\x1b[2K{line}");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[2K");
        }
    }
}
