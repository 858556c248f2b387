//! The names by which scripts and clients know what a guest's CPU has counted.

use shared::lab::Transport;

use crate::lab::Counted;

/// What a CPU has counted since it booted, by name.
pub fn named(Counted { tally, counters }: &Counted) -> impl Iterator<Item = (String, u64)> {
    let sent = Transport::ALL.map(|transport| {
        let name = format!("sent_{}", transport.name().replace('-', "_"));
        (name, counters.ipi_sent[transport as usize])
    });
    let rest = [
        ("calls_made", tally.calls_made),
        ("calls_executed", tally.calls_executed),
        ("ipis_sent", crate::lab::ipis_sent(counters)),
        ("ipi_targets", counters.ipi_targets),
        ("ipis_received", counters.ipi_received()),
        ("empty_received", counters.empty_received),
        ("wait_spins", counters.wait_spins),
        ("visits", counters.visits),
        ("longest_walk", counters.longest_walk),
    ];
    rest.map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .chain(sent)
}
