//! Memory models: in which orders accesses of different CPUs can take effect. Plain data.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The memory model of a search.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Memory {
    /// Each access takes effect at once for all CPUs, in program order.
    #[default]
    SequentiallyConsistent,
    /// That of x86: the stores of a CPU wait in a first-in-first-out buffer, which the CPU itself
    /// reads first (Sewell, Sarkar, Owens, Nardelli and Myreen, "x86-TSO", CACM 2010; SDM Vol. 3A,
    /// "Memory Ordering").
    Tso,
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SequentiallyConsistent => "sequentially consistent",
            Self::Tso => "x86-TSO",
        })
    }
}
