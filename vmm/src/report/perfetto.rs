//! Writes traces in the Trace Event Format, which ui.perfetto.dev and chrome://tracing open: a
//! process per machine, for each vCPU a track of what the guest did and one of what the host did
//! with it, and IPIs as arrows. The format is described in "Trace Event Format" (Google, 2016).

mod marks;

use std::io::{self, Write};

use serde_json::{Value, json};
use shared::ledger::CallId;

use crate::lab::call_name::CallName;
use crate::provenance::Provenance;
use crate::stats::timeline::{Stretch, Timeline};
use crate::stats::trace::Trace;

/// Writes the traces of several machines, each with its provenance.
///
/// # Errors
/// Those of `out`.
pub fn write(out: &mut impl Write, traces: &[(&Trace, &Provenance)]) -> io::Result<()> {
    out.write_all(b"{\"displayTimeUnit\":\"ns\",\"traceEvents\":[")?;
    let mut events = Events { out, any: false };
    for (number, (trace, provenance)) in (1..).zip(traces) {
        Machine::new(number, trace).write(&mut events, provenance)?;
    }
    let lost: u64 = traces.iter().map(|(trace, _)| trace.dropped()).sum();
    let blind: Vec<_> = traces
        .iter()
        .filter_map(|(trace, _)| trace.host_blind.as_deref())
        .collect();
    let machines: Vec<_> = traces.iter().map(|(_, provenance)| provenance).collect();
    let other = json!({ "dropped": lost, "host_blind": blind, "provenance": machines });
    writeln!(out, "\n],\"otherData\":{other}}}")
}

struct Events<'a, W> {
    out: &'a mut W,
    any: bool,
}

impl<W: Write> Events<'_, W> {
    fn put(&mut self, event: &Value) -> io::Result<()> {
        let comma = if self.any { "," } else { "" };
        self.any = true;
        write!(self.out, "{comma}\n{event}")
    }
}

/// One machine as a process.
struct Machine<'a> {
    pid: u32,
    trace: &'a Trace,
    start: u64,
}

impl<'a> Machine<'a> {
    fn new(pid: u32, trace: &'a Trace) -> Self {
        let start = trace.span().map_or(0, |(start, _)| start);
        Self { pid, trace, start }
    }

    /// Microseconds since the first event of the trace.
    fn time(&self, tsc: u64) -> f64 {
        self.length(tsc.saturating_sub(self.start))
    }

    fn length(&self, cycles: u64) -> f64 {
        self.trace.nanoseconds(cycles) / 1000.0
    }

    /// The track of what the guest does on a CPU, or of what the host does with it.
    fn track(cpu: usize, is_host: bool) -> usize {
        2 * cpu + usize::from(is_host)
    }

    fn write<W: Write>(
        &self,
        events: &mut Events<'_, W>,
        provenance: &Provenance,
    ) -> io::Result<()> {
        let timeline = Timeline::new(self.trace);
        let pid = self.pid;
        let named = |tid: usize, what: &str, args: Value| {
            json!({
                "ph": "M", "pid": pid, "tid": tid, "name": what, "args": args,
            })
        };
        events.put(&named(
            0,
            "process_name",
            json!({ "name": format!("machine {pid}") }),
        ))?;
        let facts = provenance.facts().into_iter();
        let labels: Vec<_> = facts.map(|(name, fact)| format!("{name} {fact}")).collect();
        let labels = json!({ "labels": labels.join("; ") });
        events.put(&named(0, "process_labels", labels))?;
        for cpu in 0..self.trace.cpus.len() {
            for (is_host, side) in [(false, "guest"), (true, "host")] {
                let tid = Self::track(cpu, is_host);
                let name = json!({ "name": format!("CPU {cpu} {side}") });
                events.put(&named(tid, "thread_name", name))?;
                events.put(&named(
                    tid,
                    "thread_sort_index",
                    json!({ "sort_index": tid }),
                ))?;
            }
        }
        for stretch in &timeline.stretches {
            events.put(&self.stretch(&timeline, stretch))?;
        }
        for instant in &timeline.instants {
            let name = usize::try_from(instant.point)
                .ok()
                .and_then(|it| self.trace.points.get(it));
            events.put(&json!({
                "ph": "i", "s": "t", "cat": "probe",
                "pid": pid, "tid": Self::track(instant.cpu, false),
                "ts": self.time(instant.at), "name": name, "args": args(instant.call),
            }))?;
        }
        self.write_marks(events)?;
        for (id, ipi) in timeline.ipis.iter().enumerate() {
            let name = format!("IPI {:#04x}", ipi.vector);
            let end = |phase: &str, cpu, at| {
                json!({
                    "ph": phase, "cat": "ipi", "id": format!("{pid}.{id}"), "name": name,
                    "pid": pid, "tid": Self::track(cpu, false), "ts": self.time(at), "bp": "e",
                })
            };
            let Some(taken) = ipi.taken else {
                events.put(&json!({
                    "ph": "i", "s": "t", "cat": "ipi",
                    "pid": pid, "tid": Self::track(ipi.from, false), "ts": self.time(ipi.sent),
                    "name": format!("{name} to CPU {}, not seen there", ipi.to),
                }))?;
                continue;
            };
            events.put(&end("s", ipi.from, ipi.sent))?;
            events.put(&end("f", ipi.to, taken))?;
        }
        Ok(())
    }

    fn stretch(&self, timeline: &Timeline, stretch: &Stretch) -> Value {
        json!({
            "ph": "X", "cat": timeline.kind(stretch.kind), "name": timeline.name(stretch),
            "pid": self.pid,
            "tid": Self::track(stretch.cpu, stretch.kind.is_host()),
            "ts": self.time(stretch.from), "dur": self.length(stretch.to - stretch.from),
            "args": self.args(stretch),
        })
    }

    fn args(&self, stretch: &Stretch) -> Value {
        let stall = stretch.kind.stall();
        let by = stall.and_then(|stall| {
            let marks = &self.trace.marks;
            marks.who_stalled(stretch.cpu, stall, stretch.from)
        });
        match by {
            Some(by) => json!({ "ordered_by": by.to_string() }),
            None => args(stretch.call),
        }
    }
}

fn args(call: u64) -> Value {
    match call {
        0 => json!({}),
        call => json!({ "call": CallName(CallId::from_raw(call)).to_string() }),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;

    use super::*;
    use crate::provenance::Input;
    use crate::stats::marks::Marks;
    use crate::stats::sources::Kvm;
    use crate::stats::timeline::tests::{meanings, names};
    use crate::stats::trace::CpuTrace;
    use proptest::prelude::*;
    use shared::trace::Record;

    pub(super) fn written(traces: &[&Trace]) -> Value {
        let guest = Input::new(Path::new("guest.bin"), b"");
        let provenance = Provenance::new(Kvm::Unknown, guest, 2, "");
        let traces: Vec<_> = traces.iter().map(|trace| (*trace, &provenance)).collect();
        let mut text = Vec::new();
        write(&mut text, &traces).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    fn trace(records: Vec<Record>) -> Trace {
        Trace {
            cpus: vec![
                CpuTrace {
                    records,
                    ..CpuTrace::default()
                },
                CpuTrace::default(),
            ],
            points: names(),
            meanings: meanings(),
            tsc_khz: 1_000_000,
            host_blind: None,
            marks: Marks::default(),
        }
    }

    #[test]
    fn times_are_microseconds_since_the_first_event() {
        let place = |name| names().iter().position(|it| it == name);
        let point = |name| place(name).unwrap() as u32;
        let record = |tsc, name| Record {
            tsc,
            point: point(name),
            ..Record::default()
        };
        let document = written(&[&trace(vec![record(5000, "call"), record(6500, "called")])]);
        let events = document["traceEvents"].as_array().unwrap();
        let call = events.iter().find(|event| event["ph"] == "X").unwrap();
        assert_eq!((&call["ts"], &call["dur"]), (&json!(0.0), &json!(1.5)));
        assert_eq!(call["name"], "call");
        assert_eq!(written(&[])["traceEvents"], json!([]));
    }

    proptest! {
        #[test]
        fn whatever_a_guest_writes_it_stays_a_document(
            raw in proptest::collection::vec(
                (any::<u64>(), any::<u64>(), any::<u64>(), 0_u32..20), 0..50,
            ),
        ) {
            let mut records: Vec<_> = raw
                .into_iter()
                .map(|(tsc, call, detail, point)| Record { tsc, call, detail, point, number: 0 })
                .collect();
            records.sort_by_key(|record| record.tsc);
            let document = written(&[&trace(records)]);
            prop_assert!(document["traceEvents"].as_array().unwrap().len() >= 9);
        }
    }
}
