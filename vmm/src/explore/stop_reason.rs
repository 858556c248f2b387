//! Why a search or a replay stopped before it was through. Plain data, shared by everything that
//! can stop one. (Where a CPU stops is something else: see [`super::specimen::Stop`].)

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why a search or a replay stopped before it was through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The time limit was reached.
    Time,
    /// The limit on the number of states was reached.
    States,
    /// A signal arrived.
    Signal,
    /// A condition was reached that must never be.
    Reached,
    /// One part of a shared search found that states can form a cycle. Whether every order still
    /// ends cannot be decided from the parts.
    #[serde(rename = "round")]
    Cycle,
}

impl StopReason {
    /// The reason, in words.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Time => "the time was up (--time-limit)",
            Self::States => "there were too many states (--max-states)",
            Self::Signal => "a signal came",
            Self::Reached => "what must never be was reached",
            Self::Cycle => {
                "CPUs can go round, and whether they come to an end only one process can tell \
                 (no --jobs, no --shard)"
            }
        }
    }
}
