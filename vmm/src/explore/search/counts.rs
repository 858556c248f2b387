//! What a search has done so far, in figures. Plain data.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a search has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// Distinct states.
    pub states: u64,
    /// Transitions that were made.
    pub transitions: u64,
    /// How often a vCPU entered the guest for these transitions: at least once for each, and once
    /// more for each stop at which it exited although the search passed over it.
    #[serde(default)]
    pub entries: u64,
    /// Schedules that came to an end, or to a state that was known.
    pub schedules: u64,
    /// Final states: those in which no CPU can go on.
    pub ends: u64,
    /// Transitions of the longest schedule.
    pub deepest: u64,
    /// How often the search began anew because it had learnt more about what CPUs share.
    pub begun_anew: u64,
    /// How often another process went on with the search (`--checkpoint`).
    #[serde(default)]
    pub resumed: u64,
    /// States on the path to the present one.
    pub depth: u64,
    /// Steps that were repeated from a state that was reached again, and led to the same state as
    /// before (`--check-keys`).
    pub checked: u64,
}

impl Counts {
    /// The counts of all parts of a search. A state that several of them have visited counts once
    /// for each.
    pub fn sum(all: impl IntoIterator<Item = Self>) -> Self {
        all.into_iter().fold(Self::default(), |sum, one| Self {
            states: sum.states.saturating_add(one.states),
            transitions: sum.transitions.saturating_add(one.transitions),
            entries: sum.entries.saturating_add(one.entries),
            schedules: sum.schedules.saturating_add(one.schedules),
            ends: sum.ends.saturating_add(one.ends),
            deepest: sum.deepest.max(one.deepest),
            begun_anew: sum.begun_anew.max(one.begun_anew),
            resumed: sum.resumed.max(one.resumed),
            depth: sum.depth.max(one.depth),
            checked: sum.checked.saturating_add(one.checked),
        })
    }
}
