//! What a search is asked for and what it did, the same for both explorers, so that neither needs
//! to know the other.

use serde::Serialize;

/// What PCT calls the depth of a bug: one more than the number of times that priorities change.
pub const PCT_DEPTH: usize = 3;

/// What a schedule that has no end is called.
pub const HANG: &str = "hang";

/// What a search did.
#[derive(Clone, Debug, Serialize)]
pub struct SearchResult {
    /// Schedules that came to their end, or to a state that was known.
    pub schedules: u64,
    /// Steps that were made.
    pub steps: u64,
    /// States that differ, of a search that tells them apart.
    pub states: Option<u64>,
    /// Seconds it took.
    pub seconds: f64,
    /// What broke, by name, if anything did.
    pub broke: Option<Vec<String>>,
}
