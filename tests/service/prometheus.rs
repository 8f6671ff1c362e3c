//! Reads the [text format](https://prometheus.io/docs/instrumenting/exposition_formats/) of
//! Prometheus, strictly.

use std::collections::{BTreeMap, HashSet};

type Labels = BTreeMap<String, String>;

/// What was read.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    types: BTreeMap<String, String>,
    samples: Vec<Sample>,
}

#[derive(Debug)]
struct Sample {
    name: String,
    labels: Labels,
    value: f64,
}

impl Metrics {
    pub(crate) fn parse(text: &str) -> Result<Metrics, String> {
        if !text.is_empty() && !text.ends_with('\n') {
            return Err("the last line has no end".into());
        }
        let mut metrics = Metrics::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            metrics.line(line).map_err(|error| format!("{error} in {line:?}"))?;
        }
        metrics.check_series()?;
        metrics.check_histograms()?;
        Ok(metrics)
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        if let Some(comment) = line.strip_prefix('#') {
            let mut words = comment.split_whitespace();
            match (words.next(), words.next(), words.next()) {
                (Some("TYPE"), Some(name), Some(kind)) => {
                    if !["counter", "gauge", "histogram", "summary", "untyped"].contains(&kind) {
                        return Err(format!("no type: {kind}"));
                    }
                    if self.samples.iter().any(|sample| family(&sample.name) == name) {
                        return Err("a type behind its samples".into());
                    }
                    match self.types.insert(name.into(), kind.into()) {
                        None => Ok(()),
                        Some(_) => Err("a second type".into()),
                    }
                }
                (Some("TYPE"), ..) => Err("a type of nothing".into()),
                _ => Ok(()),
            }
        } else {
            let sample = sample(line)?;
            let kind = self.types.get(&sample.name).or(self.types.get(family(&sample.name)));
            match kind.map(String::as_str) {
                None => return Err("no type".into()),
                Some("histogram") if family(&sample.name) == sample.name => {
                    return Err("a bare sample of a histogram".into());
                }
                Some("counter") if sample.value < 0.0 => return Err("a negative counter".into()),
                Some(_) => {}
            }
            self.samples.push(sample);
            Ok(())
        }
    }

    fn check_series(&self) -> Result<(), String> {
        let mut seen = HashSet::new();
        match self.samples.iter().find(|it| !seen.insert((&it.name, &it.labels))) {
            Some(twice) => Err(format!("twice: {twice:?}")),
            None => Ok(()),
        }
    }

    /// Buckets grow, the last is infinite, and as large as the count.
    fn check_histograms(&self) -> Result<(), String> {
        for (name, _) in self.types.iter().filter(|(_, kind)| *kind == "histogram") {
            let mut series: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
            for sample in self.samples.iter().filter(|it| it.name == format!("{name}_bucket")) {
                let mut labels = sample.labels.clone();
                let bound = labels.remove("le").ok_or("a bucket without bound")?;
                let bound = number(&bound).ok_or("a bucket with a strange bound")?;
                series.entry(labels).or_default().push((bound, sample.value));
            }
            if series.is_empty() {
                return Err(format!("{name} has no buckets"));
            }
            for (labels, buckets) in series {
                let grows = buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1);
                let count = self.exactly(&format!("{name}_count"), &labels);
                let sum = self.exactly(&format!("{name}_sum"), &labels);
                let last = buckets.last().copied();
                if !grows || sum.is_none() || last != count.map(|count| (f64::INFINITY, count)) {
                    return Err(format!("{name}{labels:?}: {buckets:?}, {count:?}, {sum:?}"));
                }
            }
        }
        Ok(())
    }

    fn exactly(&self, name: &str, labels: &Labels) -> Option<f64> {
        self.samples.iter().find(|it| it.name == name && it.labels == *labels).map(|it| it.value)
    }

    /// The value of the one sample with these labels, and no others.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|&(name, value)| (name.into(), value.into())).collect();
        self.exactly(name, &labels)
    }

    /// The sum of all samples of this name.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        self.samples.iter().filter(|it| it.name == name).map(|it| it.value).sum()
    }

    /// The samples of this name, by the value of a label.
    pub(crate) fn by(&self, name: &str, label: &str) -> BTreeMap<&str, f64> {
        let samples = self.samples.iter().filter(|it| it.name == name);
        samples.filter_map(|it| Some((it.labels.get(label)?.as_str(), it.value))).collect()
    }

    pub(crate) fn kind(&self, name: &str) -> Option<&str> {
        self.types.get(name).map(String::as_str)
    }
}

/// The metric that a sample belongs to.
fn family(name: &str) -> &str {
    ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
}

fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        "NaN" => Some(f64::NAN),
        _ => text.parse().ok().filter(|number: &f64| number.is_finite()),
    }
}

fn is_name(name: &str) -> bool {
    let is_part = |it: char| it.is_ascii_alphanumeric() || it == '_' || it == ':';
    !name.is_empty() && name.chars().all(is_part) && !name.starts_with(|it: char| it.is_numeric())
}

/// `name{label="value",…} value`
fn sample(line: &str) -> Result<Sample, String> {
    let end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, mut rest) = line.split_at(end);
    if !is_name(name) {
        return Err("a strange name".into());
    }
    let mut labels = Labels::new();
    if let Some(mut inner) = rest.strip_prefix('{') {
        loop {
            if let Some(after) = inner.strip_prefix('}') {
                rest = after;
                break;
            }
            let (label, after) = inner.split_once("=\"").ok_or("a label without value")?;
            let (value, after) = quoted(after)?;
            if !is_name(label) || labels.insert(label.into(), value).is_some() {
                return Err("a strange label".into());
            }
            inner = after.strip_prefix(',').unwrap_or(after);
        }
    }
    let value = rest.strip_prefix(' ').and_then(number).ok_or("a strange value")?;
    Ok(Sample { name: name.into(), labels, value })
}

/// A label's value up to its closing quote, and what stands behind.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, same @ ('\\' | '"'))) => value.push(same),
                _ => return Err("a strange escape".into()),
            },
            char => value.push(char),
        }
    }
    Err("a quote that does not end".into())
}
