//! Why a search or a replay stopped before it was through. Plain data, shared by everything that
//! can stop one. (Where a CPU stops is something else: see [`super::specimen::Stop`].)

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::size;

/// Why a search or a replay stopped before it was through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The time limit was reached.
    Time,
    /// The limit on the number of states was reached.
    States,
    /// What cannot be put on disk takes more memory than the limit.
    Memory {
        /// The memory that the process had when all else was on disk, in bytes.
        needs: u64,
    },
    /// There was no room left for what the search has seen.
    Room,
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
    pub fn reason(self) -> Cow<'static, str> {
        let reason = match self {
            Self::Time => "the time was up (--time-limit)",
            Self::States => "there were too many states (--max-states)",
            Self::Memory { needs } => {
                return Cow::Owned(format!(
                    "what cannot be put on disk takes {} of memory (--memory-limit)",
                    size::words(needs)
                ));
            }
            Self::Room => "there was no room left for more states, in memory or on disk",
            Self::Signal => "a signal came",
            Self::Reached => "what must never be was reached",
            Self::Cycle => {
                "CPUs can go round, and whether they come to an end only one process can tell \
                 (no --jobs, no --shard)"
            }
        };
        Cow::Borrowed(reason)
    }
}
