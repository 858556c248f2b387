//! Writes traces in the Trace Event Format, which ui.perfetto.dev and chrome://tracing open: a
//! process per machine, for each vCPU a track of what the guest did and one of what the host did
//! with it, and IPIs as arrows. The format is described in "Trace Event Format" (Google, 2016).
//!
//! What viewers want beyond that text, and what `tests::trace_format` checks: times are whole
//! nanoseconds, so that a slice does not end behind the one around it once it is rounded; the events
//! of a track are in the order of time, each slice before those within it; and each end of an arrow
//! follows the slice that it is tied to.

mod marks;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::io::{self, Write};

use serde_json::{Map, Value, json};
use shared::ledger::CallId;

use crate::lab::call_name::CallName;
use crate::manifest::vectors;
use crate::provenance::Provenance;
use crate::stats::marks::Mark;
use crate::stats::meaning::Meaning;
use crate::stats::timeline::{InstantEvent, Ipi, Stretch, StretchKind, Timeline};
use crate::stats::trace::Trace;
use crate::stats::trace_filter::{DRIVEN, TraceFilter};

/// The longest time, in nanoseconds, about six days: microseconds with three digits behind the
/// point are exact up to it. A guest can write later times into its records; they count as this.
const LONGEST: u64 = 1 << 49;

/// How much was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Events, without those that only name tracks.
    pub events: u64,
    /// Events that the filter left out.
    pub left_out: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Writes of the traces of several machines, each with its provenance, what `filter` leaves.
///
/// # Errors
/// Those of `out`.
pub fn write(
    out: &mut impl Write,
    traces: &[(&Trace, &Provenance)],
    filter: &TraceFilter,
) -> io::Result<Written> {
    let mut events = Events {
        out,
        any: false,
        written: Written::default(),
    };
    events.text("{\"displayTimeUnit\":\"ns\",\"traceEvents\":[")?;
    for (number, (trace, provenance)) in (1..).zip(traces) {
        let mut timeline = Timeline::new(trace);
        events.written.left_out += filter.apply(&mut timeline, &trace.meanings) as u64;
        let mut machine = Machine::new(number, trace, &timeline);
        if !filter.takes(DRIVEN) {
            let lanes = std::mem::take(&mut machine.driven);
            events.written.left_out += lanes
                .iter()
                .map(|(_, marks)| marks.len() as u64)
                .sum::<u64>();
        }
        machine.write(&mut events, provenance)?;
    }
    let lost: u64 = traces.iter().map(|(trace, _)| trace.dropped()).sum();
    let blind: Vec<_> = traces
        .iter()
        .filter_map(|(trace, _)| trace.host_blind.as_deref())
        .collect();
    let machines: Vec<_> = traces.iter().map(|(_, provenance)| provenance).collect();
    let other = json!({
        "events": events.written.events, "left_out": events.written.left_out, "dropped": lost,
        "host_blind": blind, "provenance": machines,
    });
    events.text(&format!("\n],\"otherData\":{other}}}\n"))?;
    Ok(events.written)
}

struct Events<'a, W> {
    out: &'a mut W,
    any: bool,
    written: Written,
}

impl<W: Write> Events<'_, W> {
    /// Writes something that happened.
    fn put(&mut self, event: &Value) -> io::Result<()> {
        self.written.events += 1;
        self.name(event)
    }

    /// Writes an event that is none: the name of a track.
    fn name(&mut self, event: &Value) -> io::Result<()> {
        let comma = if self.any { "," } else { "" };
        self.any = true;
        self.text(&format!("{comma}\n{event}"))
    }

    fn text(&mut self, text: &str) -> io::Result<()> {
        self.written.bytes += text.len() as u64;
        self.out.write_all(text.as_bytes())
    }
}

/// What stands in a track.
#[derive(Debug, Clone, Copy)]
enum Item<'a> {
    Stretch(&'a Stretch),
    /// An IPI leaves. Of its kind: its number in the timeline.
    Send(usize, &'a Ipi),
    /// An IPI arrives whose handler is not written.
    Arrival(usize, &'a Ipi),
    Instant(&'a InstantEvent),
}

/// One machine as a process.
struct Machine<'a> {
    pid: u32,
    trace: &'a Trace,
    timeline: &'a Timeline,
    start: u64,
    /// What drove it: lanes with their marks.
    driven: Vec<(String, Vec<&'a Mark>)>,
    /// By CPU, time and vector of a handler, the IPIs that it serves.
    served: HashMap<(usize, u64, u64), Vec<usize>>,
}

impl<'a> Machine<'a> {
    fn new(pid: u32, trace: &'a Trace, timeline: &'a Timeline) -> Self {
        let mut served: HashMap<_, Vec<_>> = HashMap::new();
        for (id, ipi) in timeline.ipis.iter().enumerate() {
            if let Some(taken) = ipi.taken {
                let handler = (ipi.to, taken, u64::from(ipi.vector));
                served.entry(handler).or_default().push(id);
            }
        }
        Self {
            pid,
            trace,
            timeline,
            start: trace.span().map_or(0, |(start, _)| start),
            driven: trace.marks.lanes(),
            served,
        }
    }

    /// Whole nanoseconds since the first event of the trace.
    fn time(&self, tsc: u64) -> u64 {
        let since = self.trace.nanoseconds(tsc.saturating_sub(self.start));
        (since.round() as u64).min(LONGEST)
    }

    /// The track of what the guest does on a CPU, or of what the host does with it.
    fn track(cpu: usize, is_host: bool) -> usize {
        2 * cpu + usize::from(is_host)
    }

    fn write<W: Write>(
        mut self,
        events: &mut Events<'_, W>,
        provenance: &Provenance,
    ) -> io::Result<()> {
        let pid = self.pid;
        let named = |tid: usize, what: &str, args: Value| {
            json!({
                "ph": "M", "pid": pid, "tid": tid, "name": what, "args": args,
            })
        };
        events.name(&named(
            0,
            "process_name",
            json!({ "name": format!("machine {pid}") }),
        ))?;
        let facts = provenance.facts().into_iter();
        let labels: Vec<_> = facts.map(|(name, fact)| format!("{name} {fact}")).collect();
        let labels = json!({ "labels": labels.join("; ") });
        events.name(&named(0, "process_labels", labels))?;
        self.write_marks(events)?;
        for (tid, mut items) in self.tracks().into_iter().enumerate() {
            if items.is_empty() {
                continue;
            }
            let (cpu, side) = (tid / 2, if tid % 2 == 0 { "guest" } else { "host" });
            let name = json!({ "name": format!("CPU {cpu} {side}") });
            events.name(&named(tid, "thread_name", name))?;
            let order = json!({ "sort_index": tid });
            events.name(&named(tid, "thread_sort_index", order))?;
            items.sort_by_key(|(from, to, _)| (*from, Reverse(*to)));
            for (from, to, item) in items {
                self.put(events, tid, (from, to), item)?;
            }
        }
        Ok(())
    }

    /// By track, what stands in it, with the times at which it begins and ends. Of what begins and
    /// ends at the same times, what is in front here encloses the others.
    fn tracks(&self) -> Vec<Vec<(u64, u64, Item<'a>)>> {
        let mut tracks = vec![Vec::new(); 2 * self.trace.cpus.len()];
        let timeline = self.timeline;
        let mut put = |cpu: usize, is_host, from, to, item| {
            let place = (self.time(from), self.time(to), item);
            if let Some(track) = tracks.get_mut(Self::track(cpu, is_host)) {
                track.push(place);
            }
        };
        let mut handlers: HashMap<(usize, u64), u64> = HashMap::new();
        for it in &timeline.stretches {
            put(it.cpu, it.kind.is_host(), it.from, it.to, Item::Stretch(it));
            if it.kind == StretchKind::Handler {
                handlers.insert((it.cpu, it.from), it.detail);
            }
        }
        for (id, it) in timeline.ipis.iter().enumerate() {
            put(it.from, false, it.sent, it.sent, Item::Send(id, it));
            let Some(taken) = it.taken else { continue };
            if handlers.get(&(it.to, taken)) != Some(&it.vector.into()) {
                put(it.to, false, taken, taken, Item::Arrival(id, it));
            }
        }
        for it in &timeline.instants {
            put(it.cpu, false, it.at, it.at, Item::Instant(it));
        }
        tracks
    }

    fn put<W: Write>(
        &mut self,
        events: &mut Events<'_, W>,
        tid: usize,
        (from, to): (u64, u64),
        item: Item<'_>,
    ) -> io::Result<()> {
        let pid = self.pid;
        let slice = |category: &str, name: &str, args: Map<String, Value>| {
            let mut slice = json!({
                "ph": "X", "cat": category, "name": name, "pid": pid, "tid": tid,
                "ts": microseconds(from), "dur": microseconds(to - from),
            });
            if !args.is_empty() {
                slice["args"] = args.into();
            }
            slice
        };
        let end = |phase: &str, id: usize, name: &str| {
            json!({
                "ph": phase, "cat": "ipi", "id": format!("{pid}.{id}"), "name": name,
                "pid": pid, "tid": tid, "ts": microseconds(from), "bp": "e",
            })
        };
        match item {
            Item::Stretch(it) => {
                let kind = self.timeline.kind(it.kind);
                let mut args = called(it.call);
                if let Some(by) = it.ordered_by(&self.trace.marks) {
                    args.insert("ordered_by".to_owned(), by.to_string().into());
                }
                match it.kind {
                    StretchKind::Handler => vector(&mut args, it.detail),
                    StretchKind::Waiting => _ = args.insert("exits".to_owned(), it.exits.into()),
                    _ => {}
                }
                events.put(&slice(kind, &self.timeline.name(it), args))?;
                if it.kind == StretchKind::Handler {
                    let served = self.served.remove(&(it.cpu, it.from, it.detail));
                    for id in served.unwrap_or_default() {
                        events.put(&end("f", id, &self.ipi(&self.timeline.ipis[id])))?;
                    }
                }
            }
            Item::Send(id, it) => {
                let name = self.ipi(it);
                let mut args = Map::new();
                vector(&mut args, it.vector.into());
                args.insert("to_cpu".to_owned(), it.to.into());
                if it.taken.is_none() {
                    args.insert("handler".to_owned(), "not in the trace".into());
                }
                events.put(&slice("ipi", &format!("{name} to CPU {}", it.to), args))?;
                if it.taken.is_some() {
                    events.put(&end("s", id, &name))?;
                }
            }
            Item::Arrival(id, it) => {
                let name = self.ipi(it);
                let mut args = Map::new();
                vector(&mut args, it.vector.into());
                args.insert("from_cpu".to_owned(), it.from.into());
                events.put(&slice("ipi", &format!("{name} from CPU {}", it.from), args))?;
                events.put(&end("f", id, &name))?;
            }
            Item::Instant(it) => {
                let place = usize::try_from(it.point).ok();
                let name = place.and_then(|it| self.trace.points.get(it));
                let is_run = self.trace.meanings.of(it.point) == Some(Meaning::Run);
                let mut instant = json!({
                    "ph": "i", "s": "t", "cat": if is_run { "run" } else { "point" },
                    "pid": pid, "tid": tid, "ts": microseconds(from),
                    "name": name.map_or("?", String::as_str),
                });
                if it.call != 0 {
                    instant["args"] = called(it.call).into();
                }
                events.put(&instant)?;
            }
        }
        Ok(())
    }

    fn ipi(&self, ipi: &Ipi) -> String {
        format!("IPI {}", vectors::name(&self.timeline.vectors, ipi.vector))
    }
}

/// The format counts in microseconds.
fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1000.0
}

fn vector(args: &mut Map<String, Value>, number: u64) {
    args.insert("vector".to_owned(), format!("{number:#04x}").into());
}

fn called(call: u64) -> Map<String, Value> {
    let name = (call != 0).then(|| CallName(CallId::from_raw(call)).to_string());
    let pair = name.map(|name| ("call".to_owned(), name.into()));
    pair.into_iter().collect()
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
        let written = write(&mut text, &traces, &TraceFilter::default()).unwrap();
        assert_eq!(written.bytes, text.len() as u64);
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
            prop_assert_eq!(::tests::trace_format::problems(&document), [""; 0]);
            prop_assert!(document["traceEvents"].as_array().unwrap().len() >= 2);
        }
    }
}
