//! The progress of a search, as a line and as a spinner on the terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use vmm::explore::search::Counts;

/// A spinner that shows progress.
pub fn spinner() -> ProgressBar {
    ProgressBar::new_spinner().with_style(
        ProgressStyle::with_template("{spinner} {elapsed} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner()),
    )
}

/// One line about the progress of a search.
pub fn line(counts: &Counts, elapsed: Duration) -> String {
    let rate = counts.transitions as f64 / elapsed.as_secs_f64().max(0.001);
    format!(
        "{} states, {} schedules, {rate:.0} steps/s, depth {} of {}{}",
        counts.states,
        counts.schedules,
        counts.depth,
        counts.deepest,
        match counts.begun_anew {
            0 => String::new(),
            times => format!(", begun anew {times} times"),
        }
    )
}
