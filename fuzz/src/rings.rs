//! The trace rings of a lab, and the trace that is made of what they hold: the time line, its
//! figures, and the file for Perfetto. The input is that of [`lab`](crate::lab).

use std::path::Path;

use serde_json::Value;
use vmm::lab::rings::Rings;
use vmm::provenance::{Input, Provenance};
use vmm::report::perfetto;
use vmm::stats::latency::Latencies;
use vmm::stats::meaning::Meanings;
use vmm::stats::rounds::{Loop, Rounds};
use vmm::stats::sources::Kvm;
use vmm::stats::timeline::Timeline;
use vmm::stats::trace::{RawCpuTrace, Trace};
use vmm::stats::trace_filter::TraceFilter;

use crate::guest::MANIFEST;
use crate::lab;

/// Has every reader of the rings read what a guest has written there.
pub fn read(data: &[u8]) {
    let Some(lab) = lab::written(data) else { return };
    let most = shared::trace::ring_records(lab.cpus()) as usize;
    let mut rings = Rings::new(lab.clone());
    let mut cpus = Vec::new();
    for cpu in 0..lab.cpus() {
        let mut records = Vec::new();
        rings.take(cpu, &mut records);
        rings.take_last(cpu, &mut records);
        assert!(records.len() <= 2 * most, "one ring's worth at a time");
        cpus.push(RawCpuTrace {
            records,
            dropped: rings.dropped(cpu),
            ..RawCpuTrace::default()
        });
    }
    let points: Vec<_> = MANIFEST.points.iter().map(|it| it.name.clone()).collect();
    let meanings = Meanings::new(&points, &MANIFEST);
    let trace = Trace::new(cpus, points, meanings, 2_000_000);
    let timeline = Timeline::new(&trace);
    let _ = Latencies::new(&trace, &timeline);
    let _ = (Loop::in_trace(&trace), Rounds::new(&trace));
    let _ = (trace.span(), trace.dropped());
    let input = Input::new(Path::new("guest.bin"), b"");
    let provenance = Provenance::new(Kvm::Unknown, input, lab.cpus(), "");
    let mut file = Vec::new();
    let filter = TraceFilter::default();
    perfetto::write(&mut file, &[(&trace, &provenance)], &filter).expect("memory does not fail");
    serde_json::from_slice::<Value>(&file).expect("a trace is JSON");
}
