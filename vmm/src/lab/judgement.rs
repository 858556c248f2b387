//! The one judgement on a lab that verdict, report and explorer share: what the guest's oracles found, what the VMM
//! finds in the ledger, both counted by oracle, whether any of it can be believed, and how many calls the VMM has
//! judged itself. Lists are cut; counts are not.

use std::fmt;

use shared::lab::{Finding, Oracle};

use super::contradictions::{self, Census, Settled};
use super::judge::{self, Breach, Kept, OpenCall};
use super::{Lab, Totals};
use crate::cpus::CpuSet;

/// The name under which a lab with a contradiction stands among the names of oracles.
pub const NOT_BELIEVED: &str = "not-believed";

/// How often each oracle found something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ByOracle([u64; Oracle::ALL.len()]);

impl ByOracle {
    /// How often `oracle` did.
    pub fn of(&self, oracle: Oracle) -> u64 {
        let slot = Oracle::ALL.iter().position(|it| *it == oracle);
        slot.map_or(0, |slot| self.0[slot])
    }

    /// Every oracle, with how often it did.
    pub fn iter(&self) -> impl Iterator<Item = (Oracle, u64)> {
        Oracle::ALL.into_iter().zip(self.0)
    }

    /// Those that found something.
    pub fn found(&self) -> impl Iterator<Item = (Oracle, u64)> {
        self.iter().filter(|(_, count)| *count > 0)
    }

    /// How often any did. A broken guest can have counted anything.
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, it| sum.saturating_add(*it))
    }

    fn add(&mut self, oracle: Oracle, count: u64) {
        if let Some(slot) = Oracle::ALL.iter().position(|it| *it == oracle) {
            self.0[slot] = self.0[slot].saturating_add(count);
        }
    }
}

impl fmt::Display for ByOracle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (oracle, count)) in self.found().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{count} {}", oracle.name())?;
        }
        Ok(())
    }
}

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
    pub breaches: Kept<Breach>,
    /// All of that.
    pub breached: ByOracle,
    /// Calls on their way.
    pub open: Kept<OpenCall>,
    /// Why the lab is not to be believed, if it is not.
    pub contradictions: Kept<String>,
    /// Calls that the ledger still held, and that have been judged here. Those before them are gone: the guest
    /// used their records again, which it does once a call is complete.
    pub judged: u64,
}

impl Judgement {
    /// On the lab of a workload that came to its end, but on the CPUs of `abandoned`, which can stand anywhere.
    pub fn on_end(lab: &Lab, abandoned: &CpuSet) -> Self {
        Self::on(lab, &Settled::AllBut(abandoned.clone()))
    }

    /// On the lab of a workload that is still going on, or was cut off: calls may be open, and no CPU need have
    /// finished what it was writing.
    pub fn on_the_way(lab: &Lab) -> Self {
        Self::on(lab, &Settled::Nobody)
    }

    fn on(lab: &Lab, settled: &Settled) -> Self {
        let ended = matches!(settled, Settled::AllBut(_));
        let (slots, cpus) = (lab.slots(), lab.cpus());
        let mut census = Census::new(cpus, slots);
        let mut contradictions = Kept::default();
        let mut breaches = Breaches::default();
        let mut open = Kept::default();
        for record in lab.records() {
            if let Some(why) = contradictions::of_record(&record, slots, cpus) {
                contradictions.push(why);
                continue;
            }
            census.add(&record);
            if ended {
                judge::judge_record(&record, &mut |breach| breaches.add(breach));
            }
            open.extend(OpenCall::of(record));
        }
        contradictions::of_lab(lab, &census, settled, &mut contradictions);
        let totals = lab.totals();
        if ended {
            let are_all_held = census.held() == totals.made;
            let runs = lab.counted().map(|counted| counted.tally.calls_executed);
            let runs = (0..)
                .zip(runs)
                .map(|(cpu, run)| (cpu, run, census.ran(cpu)));
            let is_whole = are_all_held && settled.is_everybody();
            judge::judge_counts(&totals, runs.filter(|_| is_whole), &mut |breach| {
                breaches.add(breach);
            });
        }
        let mut found = ByOracle::default();
        for (number, count) in (0_u32..).zip(lab.found()) {
            if let Ok(oracle) = Oracle::try_from(number) {
                found.add(oracle, count);
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
                census.held()
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

    /// The oracles that found something, in the guest or here.
    pub fn oracles(&self) -> Vec<Oracle> {
        let either = |oracle: &Oracle| self.found.of(*oracle) > 0 || self.breached.of(*oracle) > 0;
        Oracle::ALL.into_iter().filter(either).collect()
    }
}

/// Breaches as they are found.
#[derive(Default)]
struct Breaches {
    kept: Kept<Breach>,
    counts: ByOracle,
}

impl Breaches {
    fn add(&mut self, breach: Breach) {
        let is_first = self.counts.of(breach.oracle) == 0;
        self.counts.add(breach.oracle, 1);
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
