//! How far an exploration is, for whoever waits for it. Plain data.

use std::time::Duration;

use super::counts::Counts;

/// What an exploration is doing.
#[derive(Debug, Clone, Copy)]
pub enum Progress<'a> {
    /// It searches.
    Searching {
        /// What it has done.
        counts: &'a Counts,
        /// How many choices are left to try from the states on the path to the present one, as far
        /// as is known, if it searches depth first. How long these take cannot be estimated: most
        /// lead to states that are known by then, and some to most of all states.
        frontier: Option<u64>,
        /// How long other processes had searched before.
        before: Duration,
    },
    /// It makes the schedule that it has found shorter.
    Shortening {
        /// Its turns when it was found.
        turns: usize,
    },
    /// It looks for the point of no return of that schedule.
    PointOfNoReturn {
        /// Its turns.
        turns: usize,
    },
}

/// A callback that is told from time to time.
pub type OnProgress<'a> = dyn FnMut(&Progress<'_>) + Send + 'a;
