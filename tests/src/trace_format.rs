//! The rules of the Trace Event Format by which viewers go, those that they only apply and do not
//! write down among them: what they drop without a word is a problem here. Reads a document, and
//! knows nothing of who wrote it.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

/// A slice that has begun on a track: when it began and, if that is known yet, when it ends.
type Open = (u64, Option<u64>);

/// A process and a thread of it.
type Track = (u64, u64);

/// What is wrong with a trace, in sentences; nothing if viewers show all of it.
///
/// * Every event has the fields of its phase, and its time is a whole number of nanoseconds.
/// * The events of a track are in the order of time. The text of the format lets them be in any
///   order, and has viewers sort them; but of those at one time, the order decides what encloses
///   what.
/// * Slices of a track lie within each other or apart (Perfetto drops one that overlaps another),
///   and each `B` has its `E`.
/// * Every arrow has one beginning and, not before it, one end; and on the track of each, the last
///   slice that began is there still (viewers tie the arrow to it, and drop the arrow without).
/// * `otherData.events`, if it is there, is the number of events.
pub fn problems(document: &Value) -> Vec<String> {
    let Some(events) = document["traceEvents"].as_array() else {
        return vec!["there is no list traceEvents".to_owned()];
    };
    let mut checker = Checker::default();
    for (number, event) in events.iter().enumerate() {
        if let Err(problem) = checker.take(event) {
            checker
                .problems
                .push(format!("event {number}: {problem}: {event}"));
        }
    }
    checker.end(&document["otherData"]["events"]);
    checker.problems
}

#[derive(Default)]
struct Checker {
    problems: Vec<String>,
    latest: HashMap<Track, u64>,
    open: HashMap<Track, Vec<Open>>,
    /// By category and identity of an arrow, when it begins and when it ends. The end can come
    /// first: it can be on a track further up.
    arrows: BTreeMap<(String, String), [Option<u64>; 2]>,
    events: u64,
}

impl Checker {
    fn take(&mut self, event: &Value) -> Result<(), String> {
        let phase = event["ph"].as_str().ok_or("no phase")?;
        let number = |key: &str| event[key].as_u64().ok_or_else(|| format!("no {key}"));
        let track = (number("pid")?, number("tid")?);
        if phase != "E" && event["name"].as_str().is_none_or(str::is_empty) {
            return Err("no name".to_owned());
        }
        if phase == "M" {
            return Ok(());
        }
        self.events += 1;
        let at = nanoseconds(&event["ts"]).ok_or("no time in whole nanoseconds")?;
        let latest = self.latest.entry(track).or_default();
        if at < *latest {
            return Err(format!(
                "it is {} ns before the one in front of it",
                *latest - at
            ));
        }
        *latest = at;
        match phase {
            "X" => {
                let length = nanoseconds(&event["dur"]).ok_or("no duration")?;
                self.begin(track, at, Some(at + length))
            }
            "B" => self.begin(track, at, None),
            "E" => self.close(track, at),
            "s" | "f" => self.arrow(phase, track, at, event),
            "i" => match event["s"].as_str() {
                Some("t" | "p" | "g") => Ok(()),
                _ => Err("an instant without a scope".to_owned()),
            },
            _ => Err(format!("phase {phase}, which is not known here")),
        }
    }

    fn begin(&mut self, track: Track, at: u64, end: Option<u64>) -> Result<(), String> {
        let open = self.open.entry(track).or_default();
        while open
            .pop_if(|(_, end)| end.is_some_and(|end| end <= at))
            .is_some()
        {}
        let around = open.last().and_then(|(_, end)| *end);
        let is_within = around.is_none_or(|around| end.is_some_and(|end| end <= around));
        open.push((at, end));
        is_within
            .then_some(())
            .ok_or_else(|| "it ends behind the slice it is in".to_owned())
    }

    fn close(&mut self, track: Track, at: u64) -> Result<(), String> {
        let open = self.open.entry(track).or_default();
        while open
            .pop_if(|(_, end)| end.is_some_and(|end| end <= at))
            .is_some()
        {}
        match open.pop() {
            Some((_, None)) => Ok(()),
            Some((_, Some(_))) => Err("it ends a slice around one that goes on".to_owned()),
            None => Err("it ends what has not begun".to_owned()),
        }
    }

    fn arrow(&mut self, phase: &str, track: Track, at: u64, event: &Value) -> Result<(), String> {
        let last = self.open.get(&track).and_then(|open| open.last());
        if last.is_none_or(|(_, end)| end.is_some_and(|end| end < at)) {
            return Err("an arrow is tied to no slice".to_owned());
        }
        let category = event["cat"].as_str().unwrap_or_default().to_owned();
        let name = event["id"].as_str().map(str::to_owned);
        let name = name.or_else(|| event["id"].as_u64().map(|id| id.to_string()));
        let arrow = (category, name.ok_or("an arrow without an identity")?);
        let end = &mut self.arrows.entry(arrow).or_default()[usize::from(phase == "f")];
        match end.replace(at) {
            None => Ok(()),
            Some(_) => Err("an arrow has two of these ends".to_owned()),
        }
    }

    fn end(&mut self, said: &Value) {
        for (track, open) in &self.open {
            let endless = open.iter().filter(|(_, end)| end.is_none()).count();
            if endless > 0 {
                self.problems
                    .push(format!("{endless} slices of track {track:?} have no end"));
            }
        }
        for (arrow, ends) in &self.arrows {
            let problem = match ends {
                [Some(from), Some(to)] if from <= to => continue,
                [Some(_), Some(_)] => "ends before it begins",
                [Some(_), None] => "has no end",
                _ => "has no beginning",
            };
            self.problems.push(format!("arrow {arrow:?} {problem}"));
        }
        let events = self.events;
        if said.as_u64().is_some_and(|said| said != events) {
            self.problems.push(format!(
                "there are {events} events, and {said} are said to be"
            ));
        }
    }
}

/// A time in microseconds as whole nanoseconds.
fn nanoseconds(time: &Value) -> Option<u64> {
    let exact = time.as_f64()? * 1000.0;
    let whole = exact.round();
    // A number of 15 digits has this much room for rounding.
    let is_whole = whole >= 0.0 && (exact - whole).abs() <= whole.max(1.0) * 1e-12;
    is_whole.then_some(whole as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// An event: its phase and its time, with a length or an identity.
    type Told<'a> = (&'a str, f64, Value);

    /// What is wrong with events of one track.
    fn wrong(events: &[Told<'_>]) -> String {
        let events = events.iter().map(|(phase, at, more)| {
            let mut event = json!({ "ph": phase, "name": "it", "pid": 1, "tid": 2, "ts": at });
            let key = if matches!(*phase, "s" | "f") {
                "id"
            } else {
                "dur"
            };
            event[key] = more.clone();
            event["s"] = json!("t");
            event
        });
        let events: Vec<_> = events.collect();
        problems(&json!({ "traceEvents": events })).join("; ")
    }

    #[test]
    fn a_good_trace_has_no_problems() {
        let none = json!(null);
        let good = [
            ("X", 1.0, json!(5.0)),
            ("X", 1.0, json!(0)),
            ("s", 1.0, json!("1")),
            ("i", 1.5, none.clone()),
            ("X", 2.0, json!(4.0)),
            ("B", 6.0, none.clone()),
            ("f", 7.001, json!("1")),
            ("E", 8.0, none),
        ];
        assert_eq!(wrong(&good), "");
    }

    #[test]
    fn what_a_viewer_would_drop_is_a_problem() {
        let none = || json!(null);
        let cases: [(&[Told<'_>], &str); 9] = [
            (
                &[("i", 2.0, none()), ("i", 1.0, none())],
                "before the one in front",
            ),
            (
                &[("X", 1.0, json!(2)), ("X", 2.0, json!(2))],
                "ends behind the slice",
            ),
            (&[("X", 1.0, none())], "no duration"),
            (&[("i", 0.0001, none())], "whole nanoseconds"),
            (&[("B", 1.0, none())], "have no end"),
            (&[("E", 1.0, none())], "has not begun"),
            (
                &[("X", 1.0, json!(1)), ("s", 3.0, json!(7))],
                "tied to no slice",
            ),
            (&[("X", 1.0, json!(1)), ("s", 1.0, json!(7))], "has no end"),
            (
                &[
                    ("X", 1.0, json!(9)),
                    ("f", 1.0, json!(7)),
                    ("s", 2.0, json!(7)),
                ],
                "ends before it begins",
            ),
        ];
        for (events, problem) in cases {
            let said = wrong(events);
            assert!(said.contains(problem), "{said}, not {problem}");
        }
        let said = json!({ "traceEvents": [], "otherData": { "events": 1 } });
        assert_eq!(problems(&said).len(), 1);
    }
}
