//! How far an exploration is, for whoever waits for it. Plain data.

use super::counts::Counts;

/// What an exploration is doing.
#[derive(Debug, Clone, Copy)]
pub enum Progress<'a> {
    /// It searches, and has done so much.
    Searching(&'a Counts),
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
pub type OnProgress<'a> = dyn FnMut(&Progress<'_>) + 'a;
