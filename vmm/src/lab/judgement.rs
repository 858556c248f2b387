//! The one judgement on a lab that verdict, report and explorer share: what the guest's oracles
//! found, what the VMM finds in the ledger, both counted by oracle, whether any of it can be
//! believed, and how many calls the VMM has judged itself. Lists are cut; counts are not.

use shared::lab::Finding;

use super::capped::Capped;
use super::contradictions::{self, LedgerSums, Quiescent};
use super::judge::{self, Breach, OpenCall};
use super::oracles::{self, ByOracle};
use super::{Lab, Totals};
use crate::cpus::CpuSet;

/// The name under which a lab with a contradiction stands among the names of oracles.
pub const NOT_BELIEVED: &str = "not-believed";

/// What there is to say about a lab.
#[derive(Debug, Clone)]
pub struct Judgement {
    /// Whether the workload came to its end, so that the ledger has to be in order.
    pub ended: bool,
    /// Whether the guest has ever written to the lab.
    pub is_used: bool,
    /// CPUs the guest says it brought up, if it says so and there can be so many.
    pub cpus_online: Option<u32>,
    /// What the guest counted.
    pub totals: Totals,
    /// The findings of the guest's oracles, as far as they were kept.
    pub findings: Vec<Finding>,
    /// All of them.
    pub found: ByOracle,
    /// What is wrong with the ledger, as far as it was kept; the first of each oracle is.
    pub breaches: Capped<Breach>,
    /// All of that.
    pub breached: ByOracle,
    /// Calls on their way.
    pub open: Capped<OpenCall>,
    /// Why the lab is not to be believed, if it is not.
    pub contradictions: Capped<String>,
    /// Calls that the ledger still held, and that have been judged here. Those before them are
    /// gone: the guest used their records again, which it does once a call is complete.
    pub judged: u64,
}

impl Judgement {
    /// On the lab of a workload that came to its end, but on the CPUs of `abandoned`, which can
    /// stand anywhere.
    pub fn on_end(lab: &Lab, abandoned: &CpuSet) -> Self {
        Self::on(lab, &Quiescent::AllBut(abandoned.clone()))
    }

    /// On the lab of a workload that is still going on, or was cut off: calls may be open, and no
    /// CPU need have finished what it was writing.
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
        for record in lab.records() {
            if let Some(why) = contradictions::of_record(&record, slots, cpus) {
                contradictions.push(why);
                continue;
            }
            sums.add(&record);
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
            // One whose place was taken and that was not written yet says nothing.
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

    /// Whether anything in the lab says anything.
    pub fn is_believed(&self) -> bool {
        self.contradictions.total == 0
    }

    /// The names of the oracles that found something, in the guest or here.
    pub fn oracles(&self) -> Vec<&str> {
        let all = self.found.iter();
        let either = all.filter(|(name, count)| *count > 0 || self.breached.of(name) > 0);
        either.map(|(name, _)| name).collect()
    }
}

/// Breaches as they are found.
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
