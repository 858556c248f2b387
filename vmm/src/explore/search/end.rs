//! How a search ends. Plain data.

use serde::{Deserialize, Serialize};

use crate::explore::schedule::Turn;
use crate::explore::specimen::Breach;
use crate::explore::stop_reason::StopReason;

/// A schedule that breaks something.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Counterexample {
    /// The schedule.
    pub turns: Vec<Turn>,
    /// What breaks.
    pub breach: Breach,
}

/// How a search ended.
#[derive(Debug)]
pub enum SearchEnd {
    /// Something broke.
    Broke(Counterexample),
    /// Everything that the strategy tries was tried.
    Complete,
    /// It had to stop before that.
    Stopped(StopReason),
}

impl SearchEnd {
    /// How it ended, if `why` was found afterwards: what was found stays, and what was complete is
    /// not.
    pub fn unless_complete(self, why: StopReason) -> Self {
        match self {
            Self::Complete => Self::Stopped(why),
            other => other,
        }
    }
}
