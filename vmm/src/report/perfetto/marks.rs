//! The tracks of those who drive a machine, above those of its CPUs: of a script, of each client,
//! of the program and of planned stalls. Each thing that they do is a slice with a sentence.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::{Events, Machine, microseconds};
use crate::stats::marks::{Actor, Mark};
use crate::stats::trace_filter::DRIVEN;

impl Machine<'_> {
    /// Writes the tracks, whose numbers follow those of the CPUs.
    pub(super) fn write_marks<W: Write>(&self, events: &mut Events<'_, W>) -> io::Result<()> {
        let first = Self::track(self.trace.cpus.len(), false);
        let lanes = &self.driven;
        let count = i64::try_from(lanes.len()).unwrap_or(i64::MAX);
        for ((tid, above), (name, marks)) in (first..).zip(-count..).zip(lanes) {
            let pid = self.pid;
            let named = |what: &str, args: Value| {
                json!({
                    "ph": "M", "pid": pid, "tid": tid, "name": what, "args": args,
                })
            };
            events.name(&named("thread_name", json!({ "name": name })))?;
            events.name(&named("thread_sort_index", json!({ "sort_index": above })))?;
            for mark in marks {
                let (from, to) = (self.time(mark.from), self.time(mark.to));
                events.put(&json!({
                    "ph": "X", "cat": DRIVEN, "name": mark.text, "pid": pid, "tid": tid,
                    "ts": microseconds(from), "dur": microseconds(to - from),
                    "args": args(mark),
                }))?;
            }
        }
        Ok(())
    }
}

fn args(mark: &Mark) -> Value {
    match mark.by {
        Actor::Script(line) => json!({ "line": line }),
        _ => json!({}),
    }
}

#[cfg(test)]
mod tests {
    use crate::report::perfetto::tests::written;
    use crate::stats::marks::tests::mark;
    use crate::stats::marks::{Actor, Marks};
    use crate::stats::timeline::tests::{record, trace};

    #[test]
    fn who_drives_has_a_track_above_the_cpus() {
        let mut trace = trace(vec![(vec![record("call", 2_000, 7, 0)], vec![])]);
        trace.tsc_khz = 1_000_000;
        trace.marks = Marks {
            list: vec![
                mark(1_000, 4_000, Actor::Script(12), "pauses CPU 0"),
                mark(3_000, 3_000, Actor::Client(1), "resumes \"CPU\" 0"),
            ],
            dropped: 0,
        };
        let document = written(&[&trace]);
        let events = document["traceEvents"].as_array().unwrap();
        let driven = events.iter().filter(|it| it["cat"] == "driven");
        let driven: Vec<_> = driven.collect();
        assert_eq!(driven.len(), 2);
        let [script, client] = [driven[0], driven[1]];
        assert_eq!((&script["ts"], &script["dur"]), (&0.0.into(), &3.0.into()));
        assert_eq!(script["args"]["line"], 12);
        assert_eq!(client["name"], "resumes \"CPU\" 0");
        let said = |of: &serde_json::Value, what: &str| {
            let named = |it: &&serde_json::Value| it["name"] == what && it["tid"] == of["tid"];
            events.iter().find(named).unwrap()["args"].clone()
        };
        assert_eq!(said(script, "thread_name")["name"], "script");
        assert_eq!(said(client, "thread_name")["name"], "client 1");
        let above = said(script, "thread_sort_index")["sort_index"].as_i64();
        assert!(above < Some(0), "{above:?}");
    }
}
