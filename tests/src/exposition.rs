//! The rules of Prometheus' text format, version 0.0.4, and those conventions on names and units
//! that `promtool check metrics` holds a text to. Reads a text, and knows nothing of who wrote it.
//! Where there is a `promtool`, it is asked as well.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};

use crate::skip;

/// Ends of names that say another unit than the base unit of what is measured.
const NOT_BASE_UNITS: [&str; 12] = [
    "ns",
    "us",
    "ms",
    "nanoseconds",
    "microseconds",
    "milliseconds",
    "minutes",
    "hours",
    "kib",
    "kilobytes",
    "megabytes",
    "cycles",
];

/// What is wrong with a text, in sentences; nothing if it holds to the rules.
pub fn problems(text: &str) -> Vec<String> {
    let mut reader = Reader::default();
    for line in text.lines() {
        if let Err(problem) = reader.take(line) {
            reader.problems.push(format!("{problem}: {line}"));
        }
    }
    if !text.is_empty() && !text.ends_with('\n') {
        reader
            .problems
            .push("the last line does not end".to_owned());
    }
    reader.end();
    reader.problems
}

/// Has Prometheus' own tool judge a text, or says that there is none.
///
/// # Panics
/// If it is there and finds something.
#[track_caller]
pub fn ask_promtool(text: &str) {
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]);
    let pipes = promtool
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut running = match pipes.spawn() {
        Ok(running) => running,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            skip("the text for Prometheus is held to our own rules only: there is no promtool");
            return;
        }
        Err(error) => panic!("cannot run promtool: {error}"),
    };
    let mut stdin = running.stdin.take().expect("a pipe");
    stdin
        .write_all(text.as_bytes())
        .expect("promtool reads all of it");
    drop(stdin);
    let output = running.wait_with_output().expect("promtool ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool: {said}{text}");
}

#[derive(Default)]
struct Reader {
    problems: Vec<String>,
    helps: BTreeSet<String>,
    kinds: BTreeMap<String, String>,
    /// The family whose lines come now, and those that are through.
    family: String,
    over: BTreeSet<String>,
    series: BTreeSet<String>,
    /// By histogram and labels: the buckets in their order, and the count.
    buckets: BTreeMap<String, Vec<(f64, f64)>>,
    counts: BTreeMap<String, f64>,
    sums: BTreeSet<String>,
}

impl Reader {
    fn take(&mut self, line: &str) -> Result<(), String> {
        let words: Vec<_> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "HELP", name, help] => {
                self.begin(name)?;
                let is_first = self.helps.insert(name.to_owned());
                check(is_first, "a second help")?;
                check(!help.trim().is_empty(), "an empty help")
            }
            ["#", "TYPE", name, kind] => {
                self.begin(name)?;
                check(self.helps.contains(name), "a type without a help in front")?;
                let before = self.kinds.insert(name.to_owned(), kind.to_owned());
                check(before.is_none(), "a second type")?;
                check_name(name, kind)
            }
            _ if line.starts_with('#') => Err("a comment that is neither help nor type".to_owned()),
            _ => self.sample(line),
        }
    }

    /// A line of a family comes: all lines of one have to come together.
    fn begin(&mut self, family: &str) -> Result<(), String> {
        if self.family != family {
            let before = std::mem::replace(&mut self.family, family.to_owned());
            self.over.insert(before);
        }
        check(!self.over.contains(family), "a family that was over")
    }

    fn sample(&mut self, line: &str) -> Result<(), String> {
        let (series, value) = line.rsplit_once(' ').ok_or("no sample")?;
        let value = match value {
            "+Inf" => f64::INFINITY,
            value => value.parse().map_err(|_| "no number")?,
        };
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, read_labels(labels)?),
            None => (series, BTreeMap::new()),
        };
        let is_histogram =
            |family: &&str| self.kinds.get(*family).is_some_and(|it| it == "histogram");
        let parts = ["_bucket", "_sum", "_count"].iter();
        let family = parts
            .filter_map(|part| name.strip_suffix(part))
            .find(is_histogram);
        let family = family.unwrap_or(name).to_owned();
        let kind = self
            .kinds
            .get(&family)
            .ok_or("a sample without a type in front")?
            .clone();
        self.begin(&family)?;
        check(
            self.series.insert(format!("{name} {labels:?}")),
            "a second sample of one series",
        )?;
        let of_bucket = labels.get("le").cloned();
        check(
            of_bucket.is_some() == name.ends_with("_bucket"),
            "the label le is of buckets",
        )?;
        if kind == "counter" {
            check(
                value >= 0.0 && value.is_finite(),
                "a counter that is no count",
            )?;
        }
        if kind == "histogram" {
            let mut others = labels;
            others.remove("le");
            let whole = format!("{family} {others:?}");
            if let Some(bound) = of_bucket {
                let bound = if bound == "+Inf" {
                    f64::INFINITY
                } else {
                    bound.parse().map_err(|_| "no bound")?
                };
                self.buckets.entry(whole).or_default().push((bound, value));
            } else if name.ends_with("_count") {
                self.counts.insert(whole, value);
            } else if name.ends_with("_sum") {
                self.sums.insert(whole);
            } else {
                return Err("no sample of a histogram".to_owned());
            }
        }
        Ok(())
    }

    fn end(&mut self) {
        for (whole, buckets) in &self.buckets {
            let in_order = |one: &(f64, f64), next: &(f64, f64)| one.0 < next.0 && one.1 <= next.1;
            let count = self.counts.get(whole);
            let is_whole = buckets.is_sorted_by(in_order)
                && buckets
                    .last()
                    .is_some_and(|(bound, all)| bound.is_infinite() && Some(all) == count)
                && self.sums.contains(whole);
            if !is_whole {
                self.problems
                    .push(format!("the buckets of {whole} do not add up"));
            }
        }
        for name in self.helps.iter().filter(|it| !self.kinds.contains_key(*it)) {
            self.problems.push(format!("{name} has no type"));
        }
    }
}

fn check(holds: bool, problem: &str) -> Result<(), String> {
    holds.then_some(()).ok_or_else(|| problem.to_owned())
}

fn is_word(word: &str) -> bool {
    let begins = |c: char| c.is_ascii_lowercase() || c == '_';
    word.starts_with(begins) && word.chars().all(|c| begins(c) || c.is_ascii_digit())
}

fn check_name(name: &str, kind: &str) -> Result<(), String> {
    check(is_word(name), "a name of other signs than a-z, 0-9 and _")?;
    let known = ["counter", "gauge", "histogram"];
    check(known.contains(&kind), "a type that is not known here")?;
    check(
        (kind == "counter") == name.ends_with("_total"),
        "counters, and no others, end in _total",
    )?;
    let base = name.trim_end_matches("_total");
    let last = base.rsplit('_').next().unwrap_or_default();
    check(!NOT_BASE_UNITS.contains(&last), "its unit is no base unit")?;
    let ends = ["_count", "_sum", "_bucket"];
    check(
        !ends.iter().any(|end| name.ends_with(end)),
        "a name like a part of a histogram",
    )?;
    let has_kind = base.split('_').any(|word| known.contains(&word));
    check(!has_kind, "its type is in its name")
}

/// Labels behind their opening brace.
fn read_labels(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    loop {
        let (name, value) = rest.split_once("=\"").ok_or("no label")?;
        check(
            is_word(name) && !name.starts_with("__"),
            "a label's name that may not be",
        )?;
        let mut escaped = false;
        let end = value.find(|c: char| {
            let is_end = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            is_end
        });
        let (value, after) = value.split_at(end.ok_or("a label without an end")?);
        check(
            labels.insert(name.to_owned(), value.to_owned()).is_none(),
            "a label twice",
        )?;
        if after == "\"}" {
            return Ok(labels);
        }
        rest = after
            .strip_prefix("\",")
            .ok_or("something behind a label")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# HELP x_seconds An x.\n# TYPE x_seconds histogram\n\
        x_seconds_bucket{of=\"a\\\"}\",le=\"0.5\"} 1\nx_seconds_bucket{of=\"a\\\"}\",le=\"+Inf\"} 2\n\
        x_seconds_sum{of=\"a\\\"}\"} 0.75\nx_seconds_count{of=\"a\\\"}\"} 2\n\
        # HELP y_total A y.\n# TYPE y_total counter\ny_total 1\ny_total{of=\"b\"} 2\n";

    #[test]
    fn a_good_text_has_no_problems() {
        assert_eq!(problems(GOOD), [""; 0]);
    }

    #[test]
    fn what_prometheus_would_not_take_is_a_problem() {
        for (good, bad, problem) in [
            (
                "y_total 1\n",
                "y_total 1\ny_total 1\n",
                "a second sample of one series",
            ),
            ("y_total 1\n", "y_total -1\n", "no count"),
            ("y_total 1\n", "y_total one\n", "no number"),
            ("y_total 1\n", "z_total 1\n", "without a type"),
            ("# HELP y_total A y.\n", "", "without a help"),
            (
                "# HELP y_total A y.\n",
                "# HELP y_total A y.\n# HELP y_total A y.\n",
                "a second help",
            ),
            ("y_total 1\n", "y_total 1\nx_seconds_sum 1\n", "was over"),
            ("y_total counter", "y_total gauge", "_total"),
            ("y_total 1\n", "y_total{B=\"x\"} 1\n", "may not be"),
            ("\"+Inf\"} 2", "\"+Inf\"} 3", "do not add up"),
            ("le=\"0.5\"} 1", "le=\"0.5\"} 5", "do not add up"),
            ("{of=\"b\"} 2\n", "{of=\"b\"} 2", "does not end"),
        ] {
            assert!(GOOD.contains(good), "{good}");
            let said = problems(&GOOD.replacen(good, bad, 1)).join("; ");
            assert!(said.contains(problem), "{bad}: {said}, not {problem}");
        }
        let said = problems(&GOOD.replace("x_seconds", "x_ms")).join("; ");
        assert!(said.contains("no base unit"), "{said}");
    }
}
