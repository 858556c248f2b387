//! The judgement on a lab, which verdict, report and explorer share: what the guest's oracles
//! found, what the VMM found in the ledger, both counted by oracle, whether it can be believed, and
//! how many calls the VMM has judged itself. Lists are cut off; counts are complete.

use shared::lab::Finding;

use super::capped::Capped;
use super::contradictions::{self, LedgerSums, Quiescent};
use super::judge::{self, Breach, OpenCall};
use super::oracles::{self, ByOracle};
use super::{Lab, Totals};
use crate::cpus::CpuSet;

/// What a lab with a contradiction is reported as, where the names of oracles are listed.
pub const NOT_BELIEVED: &str = "not-believed";

/// The judgement on one lab.
#[derive(Debug, Clone)]
pub struct Judgement {
    /// Whether the workload has ended, so that the ledger has to be in order.
    pub ended: bool,
    /// Whether the guest has ever written to the lab.
    pub is_used: bool,
    /// CPUs that the guest says it brought up; `None` if it has not said so, or the machine has
    /// fewer.
    pub cpus_online: Option<u32>,
    /// What the guest counted.
    pub totals: Totals,
    /// The findings of the guest's oracles for which there was room.
    pub findings: Vec<Finding>,
    /// Their number by oracle, all of them.
    pub found: ByOracle,
    /// What is wrong with the ledger, cut off; the first breach of each oracle is there in any
    /// case.
    pub breaches: Capped<Breach>,
    /// Their number by oracle, all of them.
    pub breached: ByOracle,
    /// Open calls.
    pub open: Capped<OpenCall>,
    /// Why the lab is not to be believed, if it is not.
    pub contradictions: Capped<String>,
    /// How many calls the ledger still held and were judged here. Earlier ones are gone: the guest
    /// uses a record again once its call is complete.
    pub judged: u64,
}

impl Judgement {
    /// Judges the lab of a workload that has ended, except on the CPUs in `abandoned`, which can
    /// have been stopped anywhere.
    pub fn on_end(lab: &Lab, abandoned: &CpuSet) -> Self {
        Self::on(lab, &Quiescent::AllBut(abandoned.clone()))
    }

    /// Judges the lab of a workload that still runs, or was cut off: calls may be open, and any CPU
    /// may have left half of what it was writing.
    pub fn on_the_way(lab: &Lab) -> Self {
        Self::on(lab, &Quiescent::None)
    }

    fn on(lab: &Lab, quiescent: &Quiescent) -> Self {
        let ended = matches!(quiescent, Quiescent::AllBut(_));
        let (slots, cpus) = (lab.slots(), lab.cpus());
        let mut sums = LedgerSums::new(cpus, slots);
        let mut contradictions = Capped::default();
        let mut breaches = Breaches {
            kept: Capped::default(),
            counts: ByOracle::nothing(lab.manifest()),
        };
        let mut open = Capped::default();
        for record in lab.records_and_deeds() {
            if let Some(why) = contradictions::of_record(&record, slots, cpus) {
                contradictions.push(why);
                continue;
            }
            sums.add(&record);
            if !record.is_call() {
                continue;
            }
            if ended {
                judge::judge_record(&record, &mut |breach| breaches.add(breach));
            }
            open.extend(OpenCall::of(record));
        }
        contradictions::of_lab(lab, &sums, quiescent, &mut contradictions);
        let totals = lab.totals();
        if ended {
            let are_all_held = sums.held() == totals.made;
            let runs = lab.counted().map(|counted| counted.tally.calls_executed);
            let runs = (0..).zip(runs).map(|(cpu, run)| (cpu, run, sums.ran(cpu)));
            let is_whole = are_all_held && quiescent.is_all();
            judge::judge_counts(&totals, runs.filter(|_| is_whole), &mut |breach| {
                breaches.add(breach);
            });
        }
        let mut found = ByOracle::nothing(lab.manifest());
        // There is no oracle 0.
        for (number, count) in (0_u32..).zip(lab.found()).skip(1) {
            if count > 0 {
                found.add(&oracles::name(lab.manifest(), number), count);
            }
        }
        let is_used = lab.is_used();
        let online = lab.header().cpus_online;
        Self {
            ended,
            is_used,
            cpus_online: (is_used && online <= cpus).then_some(online),
            // A finding whose place was taken but that was not written yet has no oracle.
            findings: lab
                .findings()
                .into_iter()
                .filter(|it| it.oracle != 0)
                .collect(),
            found,
            breaches: breaches.kept,
            breached: breaches.counts,
            open,
            judged: if ended && contradictions.total == 0 {
                sums.held()
            } else {
                0
            },
            contradictions,
            totals,
        }
    }

    /// Whether the lab has no contradiction, so that what is in it can be believed.
    pub fn is_believed(&self) -> bool {
        self.contradictions.total == 0
    }

    /// The names of the oracles that found something, in the guest or in the VMM.
    pub fn oracles(&self) -> Vec<&str> {
        let all = self.found.iter();
        let either = all.filter(|(name, count)| *count > 0 || self.breached.of(name) > 0);
        either.map(|(name, _)| name).collect()
    }
}

/// Collects breaches.
struct Breaches {
    kept: Capped<Breach>,
    counts: ByOracle,
}

impl Breaches {
    fn add(&mut self, breach: Breach) {
        let name = breach.property.name();
        let is_first = self.counts.of(name) == 0;
        self.counts.add(name, 1);
        if is_first {
            self.kept.push_surely(breach);
        } else {
            self.kept.push(breach);
        }
    }
}

#[cfg(test)]
#[path = "judgement_test.rs"]
mod tests;
