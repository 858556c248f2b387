//! The rows of the benchmark by which kernel and hypervisor developers have compared calls since
//! 2017: a dry run, a call to oneself, to one other, to all others, and to all others whose
//! function takes a lock. Plain data: what a row is, and its times beside those of the dry run.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::stats::latency::Time;

/// The row without a call, by which the others are normalised.
const DRY_RUN: &str = "dry-run";

/// The rows, in their order.
pub const ROWS: [&str; 5] = [DRY_RUN, "self", "normal", "broadcast", "broadcast-lock"];

/// Calls of each row if nobody says how many, as in the published tables.
pub const ROUNDS_OF_CLASSIC: u32 = 100_000;

/// What the others do if nobody says. They cannot be stalled: every call is waited for.
pub(super) const RECEIVERS: [&str; 2] = ["halted", "running"];

/// A row, and on what it was measured.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct ClassicCell {
    /// `dry-run`, `self`, `normal`, `broadcast` or `broadcast-lock`.
    pub row: String,
    /// What the other CPUs do: `halted` or `running`.
    pub receiver: String,
    /// The transport; `null` if the guest chose.
    pub transport: Option<String>,
    /// The design of the queue; `null` if the guest chose.
    pub queue: Option<String>,
}

/// What a row came to.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ClassicRow {
    /// The row.
    pub cell: ClassicCell,
    /// Its times, or why there are none.
    pub result: Result<ClassicCost, String>,
}

/// How long the loop of a row took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClassicCost {
    /// From just before each call to the beginning of its function, over all calls of the loop: of
    /// the run in the middle. 0 of a dry run, and of a broadcast, of which no function takes the
    /// time.
    pub delivered: Time,
    /// From the first call to the return of the last: of the run in the middle.
    pub total: Time,
    /// [`ClassicCost::delivered`] of each run, ascending.
    pub delivered_runs: Vec<Time>,
    /// [`ClassicCost::total`] of each run, ascending.
    pub total_runs: Vec<Time>,
    /// [`ClassicCost::delivered`] over the total of the dry run; `null` without a dry run.
    pub delivered_to_dry_run: Option<f64>,
    /// [`ClassicCost::total`] over the total of the dry run; `null` without a dry run.
    pub total_to_dry_run: Option<f64>,
    /// The options of the guest, as it says.
    pub words: Option<BTreeMap<String, String>>,
}

impl ClassicCell {
    /// Whether this is the dry run by which `other` is normalised.
    pub(super) fn is_dry_run_of(&self, other: &Self) -> bool {
        let dry_run = Self {
            row: DRY_RUN.to_owned(),
            ..other.clone()
        };
        *self == dry_run
    }
}

impl ClassicCost {
    /// By the times of each run.
    pub(super) fn of(loops: &[(Time, Time)], words: Option<BTreeMap<String, String>>) -> Self {
        let sorted = |times: &mut dyn Iterator<Item = Time>| {
            let mut times: Vec<_> = times.collect();
            times.sort_by_key(|it| it.cycles);
            times
        };
        let delivered_runs = sorted(&mut loops.iter().map(|it| it.0));
        let total_runs = sorted(&mut loops.iter().map(|it| it.1));
        let middle = |times: &[Time]| {
            let none = Time { cycles: 0, ns: 0 };
            times.get(times.len() / 2).copied().unwrap_or(none)
        };
        Self {
            delivered: middle(&delivered_runs),
            total: middle(&total_runs),
            delivered_runs,
            total_runs,
            delivered_to_dry_run: None,
            total_to_dry_run: None,
            words,
        }
    }

    /// The same, normalised to the total of the dry run.
    pub(super) fn over(self, dry_run: Option<Time>) -> Self {
        let over = |time: Time| {
            dry_run
                .filter(|by| by.cycles > 0)
                .map(|by| time.cycles as f64 / by.cycles as f64)
        };
        Self {
            delivered_to_dry_run: over(self.delivered),
            total_to_dry_run: over(self.total),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(cycles: u64) -> Time {
        Time {
            cycles,
            ns: cycles / 2,
        }
    }

    #[test]
    fn a_row_has_the_run_in_the_middle_over_the_dry_run() {
        let loops = [(9, 30), (3, 10), (6, 20)].map(|(one, all)| (time(one), time(all)));
        let cost = ClassicCost::of(&loops, None).over(Some(time(5)));
        assert_eq!((cost.delivered, cost.total), (time(6), time(20)));
        assert_eq!(cost.total_runs, [10, 20, 30].map(time));
        assert_eq!(cost.delivered_to_dry_run, Some(1.2));
        assert_eq!(cost.total_to_dry_run, Some(4.0));
        let none = ClassicCost::of(&loops, None).over(Some(time(0)));
        assert_eq!(none.total_to_dry_run, None);
    }
}
