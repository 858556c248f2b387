//! The VMM's own verdict on the ledger, independent of what the guest found. It reads, and it can be
//! given any garbage: a lab that makes no sense is a breach and nothing worse.

use std::fmt;

use shared::lab::Oracle;
use shared::ledger::CallId;

use super::{Lab, Record};
use crate::cpus::CpuSet;

/// Breaches and open calls that are kept; more are only counted.
const KEPT: usize = 64;

/// A call as people refer to it: source CPU, lane, sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallName(pub CallId);

impl fmt::Display for CallName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(id) = self;
        write!(
            f,
            "call {}:{}:{}",
            id.source(),
            id.lane() as u32,
            id.sequence()
        )
    }
}

/// A property of the ledger that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// Which property.
    pub oracle: Oracle,
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

/// A list of which only the first entries are kept.
#[derive(Debug, Clone)]
pub struct Kept<T> {
    /// The first entries.
    pub first: Vec<T>,
    /// How many there are in all.
    pub total: u64,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self {
            first: Vec::new(),
            total: 0,
        }
    }
}

impl<T> Kept<T> {
    fn push(&mut self, entry: T) {
        self.total += 1;
        if self.first.len() < KEPT {
            self.first.push(entry);
        }
    }
}

/// The calls on their way. Not every open record is one: a source closes a record when it gets to
/// it, which can be long after the call is done.
pub fn open_calls(lab: &Lab) -> Kept<OpenCall> {
    let mut open = Kept::default();
    for record in lab.records().filter(|record| record.head.open != 0) {
        let done = record.targets.without(&record.ran).is_empty();
        let waits = record.head.wait != 0 && record.head.returned_tsc == 0;
        if !done || waits {
            open.push(OpenCall(record));
        }
    }
    open
}

/// Everything that is wrong with the ledger and the counters of a finished workload.
pub fn judge(lab: &Lab) -> Kept<Breach> {
    let mut breaches = Kept::default();
    let slots = lab.slots();
    for record in lab.records() {
        judge_record(&record, slots, lab.cpus(), &mut breaches);
    }
    let totals = lab.totals();
    if totals.expected != totals.executed {
        breaches.push(Breach {
            oracle: Oracle::Accounting,
            call: None,
            cpus: CpuSet::default(),
            text: format!(
                "the calls made owe {} executions and {} were counted",
                totals.expected, totals.executed
            ),
        });
    }
    breaches
}

fn judge_record(record: &Record, slots: u32, cpus: u32, breaches: &mut Kept<Breach>) {
    let id = CallId::from_raw(record.head.id);
    let name = CallName(id);
    let mut breach = |oracle, cpus, text| {
        breaches.push(Breach {
            oracle,
            call: Some(id),
            cpus,
            text,
        });
    };
    let in_place = u32::from(id.source()) == record.row
        && id.sequence() != 0
        && id.record_index(slots) == record.index;
    if !in_place {
        let text = format!(
            "record {} of CPU {} holds {name}, whose place is elsewhere",
            record.index, record.row
        );
        // Nothing else in such a record says anything about the call it names.
        return breach(Oracle::Accounting, CpuSet::from_iter([record.row]), text);
    }
    let missing = record.targets.without(&record.ran);
    if !missing.is_empty() {
        let text = format!(
            "{name}, made to {}, never ran on {}",
            record.targets.noun(),
            missing.noun()
        );
        breach(Oracle::Lost, missing, text);
    } else if record.head.open != 0 {
        let text = format!(
            "{name} has run everywhere, and CPU {} never found it complete",
            record.row
        );
        breach(Oracle::Accounting, CpuSet::from_iter([record.row]), text);
    }
    let astray = record.ran.without(&record.targets);
    if !astray.is_empty() {
        let text = format!(
            "{name}, made to {}, ran on {}",
            record.targets.noun(),
            astray.noun()
        );
        breach(Oracle::WrongCpu, astray, text);
    }
    let nobody: CpuSet = record.targets.iter().filter(|cpu| *cpu >= cpus).collect();
    if !nobody.is_empty() {
        let text = format!(
            "{name} was made to {}, beyond the machine's last",
            nobody.noun()
        );
        breach(Oracle::Accounting, nobody, text);
    }
}

#[cfg(test)]
#[path = "judge_test.rs"]
mod tests;
