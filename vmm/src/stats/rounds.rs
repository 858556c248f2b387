//! How long the rounds of a benchmark took. The guest measures each round and writes two times into
//! the trace, in the two halves of a record's detail, at the point that its manifest gives the role
//! `round`; or it measures a whole loop of them, and writes two times at its end. Computed from a
//! trace alone.

use super::latency::Times;
use super::meaning::Meaning;
use super::trace::Trace;

/// How long a loop took that is timed as a whole, in cycles of the guest's TSC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loop {
    /// From just before each call to its function, over all calls.
    pub delivered: u64,
    /// From the first call to the return of the last.
    pub total: u64,
}

impl Loop {
    /// The times of the loop in `trace`; `None` unless both are there, and once.
    pub fn in_trace(trace: &Trace) -> Option<Self> {
        let of = |meaning| {
            let records = trace.cpus.iter().flat_map(|cpu| &cpu.records);
            let mut found = records.filter(|record| trace.meaning(record) == Some(meaning));
            let only = found.next()?;
            found.next().is_none().then_some(only.detail)
        };
        Some(Self {
            delivered: of(Meaning::Delivered)?,
            total: of(Meaning::Total)?,
        })
    }
}

/// Times of rounds, in cycles of the guest's TSC.
#[derive(Debug, Clone, Default)]
pub struct Rounds {
    /// Until the sender had sent. Empty for calls, where sending is not measured apart.
    pub sent: Times,
    /// Until the sender had seen that every target received.
    pub all: Times,
}

impl Rounds {
    /// The times of the rounds in `trace`.
    pub fn new(trace: &Trace) -> Self {
        let mut rounds = Self::default();
        for record in trace.cpus.iter().flat_map(|cpu| &cpu.records) {
            if trace.meaning(record) != Some(Meaning::Round) {
                continue;
            }
            let (sent, all) = (record.detail >> 32, record.detail & u64::from(u32::MAX));
            if sent != 0 {
                rounds.sent.record(sent);
            }
            rounds.all.record(all);
        }
        rounds
    }
}
