//! Every figure of a run: one table, and the same for programs.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde_json::{Map, Value, json};

use super::machine;

/// One figure.
pub(crate) struct Row {
    figure: String,
    value: f64,
    unit: &'static str,
    budget: Option<Budget>,
    /// What programs know it by.
    key: Option<&'static str>,
}

#[derive(Clone, Copy)]
enum Budget {
    AtMost(f64),
    AtLeast(f64),
}

impl Row {
    pub(crate) fn new(figure: impl Into<String>, value: f64, unit: &'static str) -> Row {
        Row { figure: figure.into(), value, unit, budget: None, key: None }
    }

    /// How many times something else it is.
    pub(crate) fn ratio(figure: impl Into<String>, value: f64) -> Row {
        Row::new(figure, value, "")
    }

    pub(crate) fn at_most(self, budget: f64) -> Row {
        Row { budget: Some(Budget::AtMost(budget)), ..self }
    }

    pub(crate) fn at_least(self, budget: f64) -> Row {
        Row { budget: Some(Budget::AtLeast(budget)), ..self }
    }

    pub(crate) fn key(self, key: &'static str) -> Row {
        Row { key: Some(key), ..self }
    }

    fn is_kept(&self) -> Option<bool> {
        self.budget.map(|budget| match budget {
            Budget::AtMost(most) => self.value <= most,
            Budget::AtLeast(least) => self.value >= least,
        })
    }

    /// Where it stands in the table: what is judged comes first, and ratios before details.
    fn rank(&self) -> u8 {
        match (self.key, self.budget, self.unit) {
            (Some(_), ..) => 0,
            (None, Some(_), _) => 1,
            (None, None, "") => 2,
            (None, None, _) => 3,
        }
    }
}

/// The figures of all sections.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<(&'static str, Row)>,
}

impl Report {
    pub(crate) fn add(&mut self, section: &'static str, rows: Vec<Row>) {
        self.rows.extend(rows.into_iter().map(|row| (section, row)));
    }

    /// What exceeds its budget.
    pub(crate) fn exceeded(&self) -> Vec<&str> {
        let exceeded = self.rows.iter().filter(|(_, row)| row.is_kept() == Some(false));
        exceeded.map(|(_, row)| row.key.unwrap_or(&row.figure)).collect()
    }

    /// Figure, value, budget, and whether it is kept.
    pub(crate) fn table(&self, is_judged: bool) -> String {
        let mut rows: Vec<_> = self.rows.iter().collect();
        rows.sort_by_key(|(_, row)| row.rank());
        let header = ["section", "figure", "value", "unit", "budget", ""].map(str::to_owned);
        let lines = rows.iter().map(|(section, row)| {
            let budget = match row.budget {
                None => String::new(),
                Some(Budget::AtMost(most)) => format!("≤ {}", number(most)),
                Some(Budget::AtLeast(least)) => format!("≥ {}", number(least)),
            };
            let verdict = match row.is_kept() {
                Some(true) if is_judged => "ok",
                Some(false) if is_judged => "over",
                Some(_) => "not judged",
                None => "",
            };
            let (figure, unit) = (row.figure.clone(), row.unit.to_owned());
            [(*section).to_owned(), figure, number(row.value), unit, budget, verdict.to_owned()]
        });
        aligned(&std::iter::once(header).chain(lines).collect::<Vec<_>>())
    }

    /// Writes `bench/summary.json` into the target directory, and says where that is.
    pub(crate) fn write_summary(&self) -> Result<PathBuf, Box<dyn Error>> {
        // Cargo's directory for what benches write is right in the target directory.
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().ok_or("no target")?;
        let directory = target.join("bench");
        fs::create_dir_all(&directory)?;
        let path = directory.join("summary.json");
        fs::write(&path, serde_json::to_string_pretty(&self.summary()?)? + "\n")?;
        Ok(path)
    }

    fn summary(&self) -> Result<Value, Box<dyn Error>> {
        let keyed = self.rows.iter().filter_map(|(_, row)| Some((row.key?, row.value)));
        let mut summary: Map<String, Value> =
            keyed.map(|(key, value)| (key.to_owned(), value.into())).collect();
        let date = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        summary.insert("date".into(), date.into());
        summary.insert("machine".into(), machine::description());
        if let Some(commit) = machine::commit() {
            summary.insert("commit".into(), commit.into());
        }
        summary.insert("details".into(), self.rows.iter().map(detail).collect());
        Ok(summary.into())
    }
}

fn detail((section, row): &(&str, Row)) -> Value {
    let mut detail = json!({
        "section": section,
        "figure": row.figure,
        "value": row.value,
        "unit": row.unit,
    });
    match row.budget {
        Some(Budget::AtMost(most)) => detail["at_most"] = most.into(),
        Some(Budget::AtLeast(least)) => detail["at_least"] = least.into(),
        None => {}
    }
    detail
}

/// Texts to the left, the value to the right.
fn aligned(lines: &[[String; 6]]) -> String {
    const VALUE: usize = 2;
    let width = |column: usize| {
        lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default()
    };
    let mut table = String::new();
    for line in lines {
        let cells: Vec<String> = line
            .iter()
            .enumerate()
            .map(|(column, cell)| match column {
                VALUE => format!("{cell:>0$}", width(column)),
                _ => format!("{cell:<0$}", width(column)),
            })
            .collect();
        table.push_str(cells.join("  ").trim_end());
        table.push('\n');
    }
    table
}

/// As many digits as say something, and thousands apart.
fn number(value: f64) -> String {
    match value.abs() {
        ..10.0 if value.fract() == 0.0 => format!("{value:.0}"),
        ..10.0 => format!("{value:.3}"),
        ..1_000.0 if value.fract() == 0.0 => format!("{value:.0}"),
        ..1_000.0 => format!("{value:.1}"),
        _ => {
            let digits = format!("{value:.0}");
            let groups: Vec<_> =
                digits.as_bytes().rchunks(3).rev().map(<[u8]>::escape_ascii).collect();
            groups.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        }
    }
}
