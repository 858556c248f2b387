//! The IPIs of a run, from sending to handling: four counts, each taken where it happens, and what
//! became of the IPIs for which no handler was entered. Computes from the guest's counters, from
//! what the VMM itself did to IPIs, and from where the CPUs stood at the end.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::control::RunResult;
use crate::lab::CounterValues;
use crate::machine::exit_counts::WAITING;
use crate::machine::inspect::VcpuDump;
use crate::manifest::Manifest;
use crate::stats::sources::{STATS, Status, named};

/// Inter-processor interrupts.
///
/// On a run that the guest has ended itself, `targets` and `added` together are `received`,
/// `coalesced`, `lost`, `dropped`, `to_nobody`, `in_flight` and `pending`. When one CPU ends the
/// run, others may just be sending, with the IPI not counted yet, or taking one: `coalesced` is as
/// exact as that.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Ipis {
    /// Sent, each operation once: a write of the ICR, a hypercall, a message to the wire. Counted
    /// by the sender.
    pub sent: u64,
    /// Targets of those sent. Counted by the sender.
    pub targets: u64,
    /// Interrupts that the VMM added, to wake a CPU that was told something.
    pub added: u64,
    /// Handler entries. Counted by the handler.
    pub received: u64,
    /// Handler entries that found nothing to do.
    pub received_empty: u64,
    /// IPIs that became one with another of the same vector, which their target had not taken yet:
    /// a local APIC keeps one bit per vector (SDM Vol. 3A, 11.8.4). What is left of `targets` and
    /// `added` when all else is taken away. `null` if that cannot be told: the guest did not end by
    /// itself, or CPUs went offline, whose pending interrupts are dropped when they come back, or
    /// the counts contradict each other.
    pub coalesced: Option<u64>,
    /// IPIs that the wire lost, because somebody said so.
    pub lost: u64,
    /// IPIs that the local APIC of a CPU that was being started dropped: INIT turns it off.
    pub dropped: u64,
    /// IPIs on the wire to a CPU that does not exist.
    pub to_nobody: u64,
    /// IPIs that were still on the wire at the end.
    pub in_flight: u64,
    /// Interrupts that CPUs had accepted and not yet taken at the end.
    pub pending: u64,
    /// Interrupts that CPUs were just taking at the end: their handlers may have counted themselves
    /// or not.
    pub entering: u64,
    /// INIT and start-up IPIs that went by the wire. No other count here has them.
    pub starts: Starts,
    /// Sent, by transport.
    pub by_transport: BTreeMap<String, u64>,
    /// Exits over IPIs sent, both in the window; `null` unless who counts exits has been seen to
    /// count them.
    pub exits_per_ipi: Option<f64>,
    /// Who counted those exits.
    pub exits_source: Option<&'static str>,
    /// Why there is no `exits_per_ipi`; `null` if there is.
    pub exits_unknown: Option<String>,
}

/// INIT and start-up IPIs, as the wire counts them. By another transport they do not come by it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Starts {
    /// Handed to the wire by the guest.
    pub sent: u64,
    /// Lost by the wire, because somebody said so.
    pub lost: u64,
    /// Still on the wire at the end.
    pub in_flight: u64,
}

impl Ipis {
    /// The IPIs of a run with this result. `is_whole` says that the guest came to its
    /// end, so that its counters are final.
    pub(super) fn of(
        run_result: &RunResult,
        manifest: &Manifest,
        counts: &CounterValues,
        is_whole: bool,
    ) -> Self {
        let vmm_ipis = run_result.vmm_ipis;
        // Every interrupt is an IPI, or was added by the VMM: the guest has no other source.
        let in_dumps = |vectors: fn(&VcpuDump) -> usize| {
            let of_each = run_result.dumps.iter().map(vectors);
            of_each.sum::<usize>() as u64
        };
        let all_seen = run_result.dumps.len() == run_result.vcpus as usize;
        let pending = in_dumps(|dump| dump.requested.len());
        let known = [
            counts.received,
            vmm_ipis.lost,
            vmm_ipis.dropped,
            vmm_ipis.to_nobody,
            vmm_ipis.in_flight,
            pending,
        ];
        let rest = known
            .iter()
            .try_fold(counts.targets.checked_add(vmm_ipis.added), |left, part| {
                left.map(|left| left.checked_sub(*part))
            });
        let exits_per_ipi = exits_per_ipi(run_result);
        Self {
            sent: counts.sent,
            targets: counts.targets,
            added: vmm_ipis.added,
            received: counts.received,
            received_empty: counts.empty,
            coalesced: rest
                .flatten()
                .filter(|_| is_whole && all_seen && counts.departed == 0),
            lost: vmm_ipis.lost,
            dropped: vmm_ipis.dropped,
            to_nobody: vmm_ipis.to_nobody,
            in_flight: vmm_ipis.in_flight,
            pending,
            entering: in_dumps(|dump| dump.in_service.len()),
            starts: Starts {
                sent: vmm_ipis.starts.sent,
                lost: vmm_ipis.starts.lost,
                in_flight: vmm_ipis.starts.in_flight,
            },
            by_transport: (counts.by_transport(manifest))
                .map(|(transport, sent)| (transport.to_owned(), sent))
                .collect(),
            exits_source: exits_per_ipi.is_ok().then_some("KVM binary stats, exits"),
            exits_unknown: exits_per_ipi.as_ref().err().cloned(),
            exits_per_ipi: exits_per_ipi.ok(),
        }
    }
}

/// Exits over IPIs sent, or why that is not known.
fn exits_per_ipi(run_result: &RunResult) -> Result<f64, String> {
    match named(&run_result.sources, STATS) {
        None => {
            return Err("nobody has tried whether KVM's count of exits can be believed".to_owned());
        }
        Some(source) if source.status != Status::Ok => {
            let why = source.reason.as_deref().unwrap_or_default();
            let status = source.status.name();
            return Err(format!("KVM's count of exits is {status}: {why}"));
        }
        Some(_) => {}
    }
    let window = &run_result.window;
    // The exits by which a vCPU only says that it is waiting are not caused by an IPI.
    let exits = (0..run_result.vcpus as usize)
        .map(|id| {
            let exits = window.kvm_count(id, "exits")?;
            Some(exits.saturating_sub(window.exits(id)[WAITING]))
        })
        .try_fold(0_u64, |sum, exits| {
            exits.map(|exits| sum.wrapping_add(exits))
        });
    let exits = exits.ok_or("KVM has not said how many exits there were")?;
    match window.ipis() {
        0 => Err("no IPI was sent".to_owned()),
        sent => Ok(exits as f64 / sent as f64),
    }
}
