//! The VMM's own check of the calls in the ledger, independent of what the guest found: which of
//! them broke a property, and which are still open. Records that contradict themselves are sorted
//! out before.

use std::fmt;

use shared::ledger::CallId;

use super::call_name::CallName;
use super::capped::Capped;
use super::oracles::Property;
use super::{Lab, Record, Totals, contradictions};
use crate::cpus::CpuSet;

/// A property of the ledger that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// Which property.
    pub property: Property,
    /// Of which call, if it concerns one call.
    pub call: Option<CallId>,
    /// On which CPUs.
    pub cpus: CpuSet,
    /// A sentence about it.
    pub text: String,
}

/// An open call: it has not run on all its targets, or its caller still waits.
#[derive(Debug, Clone)]
pub struct OpenCall(pub Record);

impl OpenCall {
    /// The call of `record`, if it is open. A record can be marked open although its call is done:
    /// the source closes it when it next comes by, which can be much later.
    pub(super) fn of(record: Record) -> Option<Self> {
        let done = record.targets.without(&record.ran).is_empty();
        let waits = record.head.wait != 0 && record.head.returned_tsc == 0;
        (record.head.open != 0 && (!done || waits)).then_some(Self(record))
    }
}

impl fmt::Display for OpenCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(record) = self;
        let id = CallId::from_raw(record.head.id);
        let waiting = if record.head.wait == 0 {
            ""
        } else {
            ", waiting"
        };
        write!(
            f,
            "{} from CPU {}{waiting}, made to {}, ",
            CallName(id),
            id.source(),
            record.targets.noun()
        )?;
        let missing = record.targets.without(&record.ran);
        if missing.is_empty() {
            f.write_str("has run everywhere, and its caller has not noticed")
        } else {
            write!(f, "has not run on {}", missing.noun())
        }
    }
}

/// The open calls, without those whose records contradict themselves.
pub fn open_calls(lab: &Lab) -> Capped<OpenCall> {
    let (slots, cpus) = (lab.slots(), lab.cpus());
    let mut open = Capped::default();
    for record in lab.records() {
        if contradictions::of_record(&record, slots, cpus).is_none() {
            open.extend(OpenCall::of(record));
        }
    }
    open
}

/// Checks the call of a record without a contradiction, in a workload that has ended.
pub(super) fn judge_record(record: &Record, breached: &mut impl FnMut(Breach)) {
    let id = CallId::from_raw(record.head.id);
    let name = CallName(id);
    let mut breach = |property, cpus, text| {
        breached(Breach {
            property,
            call: Some(id),
            cpus,
            text,
        });
    };
    let missing = record.targets.without(&record.ran);
    if !missing.is_empty() {
        let text = format!(
            "{name}, made to {}, never ran on {}",
            record.targets.noun(),
            missing.noun()
        );
        breach(Property::Lost, missing, text);
    } else if record.head.open != 0 {
        let text = format!(
            "{name} has run everywhere, and CPU {} never found it complete",
            record.row
        );
        breach(Property::Accounting, CpuSet::from_iter([record.row]), text);
    }
    let astray = record.ran.without(&record.targets);
    if !astray.is_empty() {
        let text = format!(
            "{name}, made to {}, ran on {}",
            record.targets.noun(),
            astray.noun()
        );
        breach(Property::WrongCpu, astray, text);
    }
}

/// Checks the counts of a workload that has ended: those of all CPUs, and those of each CPU in
/// `runs`, which are its number, the executions that it counted, and those that the ledger holds
/// for it.
pub(super) fn judge_counts(
    totals: &Totals,
    runs: impl Iterator<Item = (u32, u64, u64)>,
    breached: &mut impl FnMut(Breach),
) {
    let mut breach = |cpus, text| {
        breached(Breach {
            property: Property::Accounting,
            call: None,
            cpus,
            text,
        });
    };
    if totals.expected != totals.executed {
        let text = format!(
            "the calls made owe {} executions and {} were counted",
            totals.expected, totals.executed
        );
        breach(CpuSet::default(), text);
    }
    for (cpu, counted, entered) in runs.filter(|(_, counted, entered)| counted > entered) {
        let text = format!(
            "CPU {cpu} counted {counted} executions, and {entered} calls have run there: {} too \
             many",
            counted - entered
        );
        breach(CpuSet::from_iter([cpu]), text);
    }
}
