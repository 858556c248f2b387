//! The VMM's own look at the calls in the ledger, independent of what the guest found: which of
//! them broke a property, and which are on their way. Records that cannot be any are not its
//! concern.

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
    /// Of which call, if it is one call's.
    pub call: Option<CallId>,
    /// On which CPUs.
    pub cpus: CpuSet,
    /// A sentence about it.
    pub text: String,
}

/// A call on its way: it has not run everywhere, or its caller still waits.
#[derive(Debug, Clone)]
pub struct OpenCall(pub Record);

impl OpenCall {
    /// The call of `record`, if it is on its way. Not every open record's is: a source closes a
    /// record when it gets to it, which can be long after the call is done.
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

/// The calls on their way, as far as their records can be records.
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

/// What is wrong with a call whose record is in order, in a workload that has ended.
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

/// What is wrong with the counts of a workload that has ended: of all CPUs, and of each in `runs`,
/// which says how many executions it counted and how many the ledger holds of it.
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
