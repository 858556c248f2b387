//! How long the rounds of a bench took, as the guest measured each and told it to a trace: at a
//! point that its manifest names, in two halves of the detail. Knows no guest, and no more than the
//! trace says.

use super::latency::Times;
use super::meaning::Meaning;
use super::trace::Trace;

/// Times of rounds, in cycles of the guest's TSC.
#[derive(Debug, Clone, Default)]
pub struct Rounds {
    /// Until the sender had sent. Empty for calls, of which it is no part of its own.
    pub sent: Times,
    /// Until every target had received, and the sender had seen it.
    pub all: Times,
}

impl Rounds {
    /// Those in `trace`.
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
