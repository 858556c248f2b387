//! Whether the host's hardware sends IPIs without an exit: concluded from the exits that sending
//! costs, as a source that is known to see exits has counted them. Without such a source nothing is
//! concluded.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::lab::Transport;

use crate::stats::sources::{STATS, Source, Status, status};
use crate::stats::tracepoints::events::{
    APIC_IPI, EXIT, MSR, SENDING_BY_HYPERCALL, SENDING_BY_X2APIC, SENDING_BY_XAPIC,
};

/// Fewer exits per send operation than this are taken for none.
const NONE: f64 = 0.05;
/// More exits per send operation than this are taken for one for each.
const EACH: f64 = 0.95;

/// Who handles what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Handling {
    /// The hardware: sending does not leave the guest.
    Accelerated,
    /// KVM: every operation leaves the guest.
    Emulated,
    /// Some leave it, as where a target that does not run has to be woken.
    Partial,
    /// KVM, asked by a hypercall.
    Paravirtual,
    /// Nobody knows: no source of exits can be believed.
    Unknown,
}

impl Handling {
    /// Its name, as in the JSON document.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accelerated => "accelerated",
            Self::Emulated => "emulated",
            Self::Partial => "partial",
            Self::Paravirtual => "paravirtual",
            Self::Unknown => "unknown",
        }
    }
}

/// How the host handles what is sent, and why that is known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Verdict")]
pub struct IpiHandling {
    /// Who handles it.
    pub handling: Handling,
    /// Exits that sending costs, for each operation. Those that belong to the waiting, or to the
    /// host, are none.
    pub exits_per_send: Option<f64>,
    /// Who counted them.
    pub source: Option<String>,
}

impl IpiHandling {
    /// The handling in a cell whose rounds have these send `operations`, with the counts of the
    /// `sender` per round. `is_xapic` says that its APICs are in xAPIC mode. `None` if nothing is
    /// sent.
    pub(super) fn of(
        is_xapic: bool,
        operations: &BTreeMap<String, f64>,
        sender: &BTreeMap<String, f64>,
        sources: &[Source],
    ) -> Option<Self> {
        let sends: f64 = operations.values().sum();
        if sends <= 0.0 {
            return None;
        }
        let counted = exits(is_xapic, sender, sources);
        let counted = counted.filter(|(exits, _)| *exits > -NONE * sends);
        let exits_per_send = counted.map(|(exits, _)| exits.max(0.0) / sends);
        let hypercall = operations.get(Transport::Pv.name()).copied().unwrap_or(0.0);
        let handling = match exits_per_send {
            _ if hypercall >= EACH * sends => Handling::Paravirtual,
            None => Handling::Unknown,
            // No exits, and yet KVM carried out commands: too much was taken away as background.
            Some(exits) if exits < NONE && by_kvm(sender, sources) >= NONE * sends => {
                Handling::Unknown
            }
            Some(exits) if exits < NONE => Handling::Accelerated,
            Some(exits) if exits < EACH => Handling::Partial,
            Some(_) => Handling::Emulated,
        };
        Some(Self {
            handling,
            exits_per_send,
            source: counted.map(|(_, source)| source.to_owned()),
        })
    }
}

/// Exits by which the sender sent, per round, and the source that counted them.
fn exits(
    is_xapic: bool,
    sender: &BTreeMap<String, f64>,
    sources: &[Source],
) -> Option<(f64, &'static str)> {
    let of = |name: &str| sender.get(name).copied().unwrap_or(0.0);
    if status(sources, EXIT) == Some(Status::Ok) {
        let writes: &[_] = match is_xapic {
            true => &SENDING_BY_XAPIC,
            false => &SENDING_BY_X2APIC,
        };
        let reasons = writes.iter().chain(&SENDING_BY_HYPERCALL);
        // Below zero if too much was taken away as background; it must not hide another reason's.
        let all: f64 = reasons
            .map(|reason| of(&format!("{EXIT} {reason}")).max(0.0))
            .sum();
        // A sender that sends to itself also writes EOI, which is an exit for the same reason.
        let ends = match is_xapic {
            true => 0.0,
            false => of(&format!("{MSR} eoi")),
        };
        return Some((all - ends, EXIT));
    }
    if status(sources, STATS) == Some(Status::Ok) {
        // These statistics do not count such exits alone: they are what the others leave.
        let others = ["irq_exits", "halt_exits", "io_exits", "pf_taken"].map(of);
        return Some((of(STATS) - others.iter().sum::<f64>(), STATS));
    }
    None
}

/// Commands to the sender's APIC that KVM has carried out, per round; 0 if that is not known.
fn by_kvm(sender: &BTreeMap<String, f64>, sources: &[Source]) -> f64 {
    match status(sources, APIC_IPI) {
        Some(Status::Ok) => sender.get(APIC_IPI).copied().unwrap_or(0.0),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(figures: &[(&str, f64)]) -> BTreeMap<String, f64> {
        let owned = figures.iter().map(|(name, it)| ((*name).to_owned(), *it));
        owned.collect()
    }

    fn source(name: &str, status: Status) -> Source {
        Source {
            name: name.to_owned(),
            via: String::new(),
            canary: None,
            status,
            reason: None,
            remedy: None,
        }
    }

    #[track_caller]
    fn verdict(sends: &[(&str, f64)], sender: &[(&str, f64)], sources: &[Source]) -> IpiHandling {
        let is_xapic = sends[0].0 == "xapic";
        IpiHandling::of(is_xapic, &figures(sends), &figures(sender), sources)
            .expect("something is sent")
    }

    #[test]
    fn exits_for_sending_decide() {
        let sees = [source(EXIT, Status::Ok), source(STATS, Status::Ok)];
        let of = |sender: &[(&str, f64)]| verdict(&[("x2apic", 2.0)], sender, &sees).handling;
        assert_eq!(of(&[("kvm_exit msr", 2.02)]), Handling::Emulated);
        assert_eq!(of(&[("kvm_exit APIC_WRITE", 1.0)]), Handling::Partial);
        let waiting = [
            ("kvm_exit pause", 9.0),
            ("kvm_exit interrupt", 2.0),
            ("kvm_exit npf", 0.3),
        ];
        assert_eq!(of(&waiting), Handling::Accelerated);
        let by_page = verdict(&[("xapic", 1.0)], &[("kvm_exit npf", 2.0)], &sees);
        assert_eq!(by_page.exits_per_send, Some(2.0));
        let too_much_taken_away = [("kvm_exit msr", 2.0), ("kvm_exit APIC_WRITE", -0.2)];
        assert_eq!(of(&too_much_taken_away), Handling::Emulated);
        let to_itself = [("kvm_exit msr", 4.0), ("kvm_msr eoi", 2.0)];
        let verdict = verdict(&[("x2apic", 2.0)], &to_itself, &sees);
        assert_eq!(verdict.exits_per_send, Some(1.0));
        assert_eq!(verdict.source.as_deref(), Some("kvm_exit"));
    }

    #[test]
    fn nobody_who_is_blind_says_accelerated() {
        let none: [&[Source]; 3] = [
            &[],
            &[source(EXIT, Status::Blind), source(STATS, Status::Blind)],
            &[source(EXIT, Status::Denied), source(STATS, Status::Absent)],
        ];
        for sources in none {
            let verdict = verdict(&[("x2apic", 1.0)], &[], sources);
            assert_eq!(verdict.handling, Handling::Unknown);
            assert_eq!((verdict.exits_per_send, verdict.source), (None, None));
        }
    }

    #[test]
    fn nothing_follows_from_counts_that_contradict_each_other() {
        let less_than_none = [("exits", 1.0), ("halt_exits", 1.5)];
        let stats = [source(STATS, Status::Ok)];
        let verdict_of = verdict(&[("x2apic", 1.0)], &less_than_none, &stats);
        assert_eq!(verdict_of.handling, Handling::Unknown);
        let sees = [source(EXIT, Status::Ok), source(APIC_IPI, Status::Ok)];
        let by_kvm = [("kvm_apic_ipi", 1.0)];
        let verdict_of = verdict(&[("x2apic", 1.0)], &by_kvm, &sees);
        assert_eq!(verdict_of.handling, Handling::Unknown);
    }

    #[test]
    fn statistics_do_where_tracepoints_are_denied() {
        let sources = [source(EXIT, Status::Denied), source(STATS, Status::Ok)];
        let sender = [("exits", 1.3), ("irq_exits", 0.2), ("io_exits", 0.1)];
        let verdict = verdict(&[("x2apic", 1.0)], &sender, &sources);
        assert_eq!(verdict.handling, Handling::Emulated);
        assert_eq!(verdict.source.as_deref(), Some(STATS));
    }

    #[test]
    fn a_hypercall_is_one_and_nothing_sent_is_nothing() {
        let sees = [source(EXIT, Status::Ok)];
        let sender = [("kvm_exit hypercall", 1.0)];
        let verdict = verdict(&[("pv", 1.0)], &sender, &sees);
        assert_eq!(verdict.handling, Handling::Paravirtual);
        assert_eq!(verdict.exits_per_send, Some(1.0));
        assert_eq!(
            IpiHandling::of(false, &figures(&[]), &figures(&[]), &sees),
            None
        );
    }
}
