//! A trace summed up: how many records it has, and the latencies in it. Shows nothing.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::counted::counted;
use crate::stats::latency::{Latencies, Spread, Times};
use crate::stats::timeline::Timeline;
use crate::stats::trace::Trace;

/// Most pairs of CPUs that are listed. The largest machine has a million.
const PAIRS: usize = 1024;

/// A trace, summed up.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Traced {
    /// Records of the guest.
    pub records: usize,
    /// Records and entries for which there was no room.
    pub dropped: u64,
    /// Why there is nothing from the host, if so.
    pub host_blind: Option<String>,
    /// From just before an IPI was sent to the handler that served it.
    pub ipi: Option<Spread>,
    /// From the beginning of a call until it ran on the last of its targets.
    pub call: Option<Spread>,
    /// From the beginning to the end of each kind of wait that the guest has, by the name that it
    /// gives them.
    #[serde(flatten)]
    pub waits: BTreeMap<String, Option<Spread>>,
    /// IPIs of which no handler is in the trace.
    pub untaken: u64,
    /// IPIs that were served together with another of the same vector.
    pub coalesced: u64,
    /// The same by pair of CPUs, the first of them.
    pub pairs: Vec<Pair>,
    /// All times that the above are taken from; not in the document.
    #[serde(skip)]
    pub times: AllTimes,
}

/// The latencies of a trace, one by one.
#[derive(Debug, Clone)]
pub struct AllTimes {
    /// Of IPIs.
    pub ipi: Times,
    /// Of calls.
    pub call: Times,
    /// Of the waits that the guest has.
    pub waits: Vec<Waited>,
    /// The guest's TSC, in kHz.
    pub tsc_khz: u32,
}

/// All waits of one kind.
#[derive(Debug, Clone)]
pub struct Waited {
    /// The name of their lane.
    pub lane: String,
    /// Their name in documents.
    pub key: String,
    /// What they are, in a sentence.
    pub about: String,
    /// How long they took.
    pub times: Times,
}

/// Latencies from one CPU to another.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Pair {
    /// The CPU that sent, called or waited.
    pub from: usize,
    /// The CPU that it sent to, called or waited for.
    pub to: usize,
    /// From just before an IPI was sent to the handler that served it.
    pub ipi: Option<Spread>,
    /// From the beginning of a call until it ran on this target.
    pub call: Option<Spread>,
    /// From the beginning to the end of each kind of wait that the guest has, where the call that
    /// was waited for ran last on this CPU.
    #[serde(flatten)]
    pub waits: BTreeMap<String, Option<Spread>>,
}

impl Traced {
    pub(super) fn new(trace: &Trace) -> Self {
        let latencies = Latencies::new(trace, &Timeline::new(trace));
        let spreads = |waits: &BTreeMap<usize, Times>| {
            let all = trace.meanings.waits();
            all.map(|(lane, _, wait)| {
                let times = waits.get(&lane);
                let spread = times.and_then(|times| times.spread(trace.tsc_khz));
                (wait.key.clone(), spread)
            })
            .collect()
        };
        let pairs = latencies.pairs.iter().map(|((from, to), times)| Pair {
            from: *from,
            to: *to,
            ipi: times.ipi.spread(trace.tsc_khz),
            call: times.call.spread(trace.tsc_khz),
            waits: spreads(&times.waits),
        });
        Self {
            records: trace.cpus.iter().map(|cpu| cpu.records.len()).sum(),
            dropped: trace.dropped(),
            host_blind: trace.host_blind.clone(),
            ipi: latencies.ipi.spread(trace.tsc_khz),
            call: latencies.call.spread(trace.tsc_khz),
            waits: spreads(&latencies.waits),
            untaken: latencies.untaken,
            coalesced: latencies.coalesced,
            pairs: pairs.take(PAIRS).collect(),
            times: AllTimes {
                waits: waited(trace, &latencies),
                ipi: latencies.ipi,
                call: latencies.call,
                tsc_khz: trace.tsc_khz,
            },
        }
    }

    /// Notes on what is missing in it.
    pub(super) fn notes(&self) -> impl Iterator<Item = String> {
        let dropped = (self.dropped > 0).then(|| {
            format!(
                "the trace lacks {} for want of room; latencies that would need them are missing \
                 or too long",
                counted(self.dropped, "event")
            )
        });
        let blind = self.host_blind.as_ref();
        let blind = blind.map(|why| format!("the trace shows no stalls and exits: {why}"));
        dropped.into_iter().chain(blind)
    }
}

/// The waits of each kind that the guest has.
pub(super) fn waited(trace: &Trace, latencies: &Latencies) -> Vec<Waited> {
    let all = trace.meanings.waits();
    all.map(|(place, lane, wait)| Waited {
        lane: lane.name.clone(),
        key: wait.key.clone(),
        about: wait.about.clone(),
        times: latencies.waits.get(&place).cloned().unwrap_or_default(),
    })
    .collect()
}
