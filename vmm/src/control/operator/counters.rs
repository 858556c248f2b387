//! The names of a CPU's counters for scripts and clients: those of the guest's manifest, and a few
//! of sums that the VMM computes from them.

use crate::lab::CpuCounts;
use crate::manifest::Manifest;

/// The counts of a CPU since it booted, by name.
pub fn named<'a>(
    CpuCounts { tally, counts }: &'a CpuCounts,
    manifest: &'a Manifest,
) -> impl Iterator<Item = (&'a str, u64)> {
    [
        ("calls_made", tally.calls_made),
        ("calls_executed", tally.calls_executed),
        ("ipis_sent", counts.sent),
        ("ipis_received", counts.received),
    ]
    .into_iter()
    .chain(counts.named(manifest))
}
