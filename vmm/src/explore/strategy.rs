//! The strategies by which a search chooses orders. Plain data; what each of them does is in
//! [`super::phases`] and [`super::search`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schedule::Granularity;
use super::search::sampled::Sampling;

/// How orders are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// First every order with at most this many preemptions, then every order that can matter.
    Auto(u32),
    /// Every order, by a depth-first search (DFS) that expands each state once.
    Exhaustive,
    /// Every order, with no reduction at all: the reference for the other strategies.
    Reference,
    /// Every order that can matter, by dynamic partial-order reduction (DPOR).
    Races,
    /// Every order with at most this many preemptions.
    Bounded(u32),
    /// This many orders, chosen at random.
    Sampled(Sampling, u64),
}

impl Strategy {
    /// How many schedules it tries, if that is known before.
    pub fn runs(self) -> Option<u64> {
        match self {
            Self::Sampled(_, runs) => Some(runs),
            _ => None,
        }
    }

    /// Whether several machines can each do a part of it. The reference search is made to be simple.
    pub fn can_be_shared(self) -> bool {
        self != Self::Reference
    }

    /// Whether its searches can be kept, and gone on with later.
    pub fn can_be_kept(self) -> bool {
        match self {
            Self::Auto(_) | Self::Exhaustive | Self::Races | Self::Bounded(_) => true,
            Self::Reference | Self::Sampled(..) => false,
        }
    }
}

/// Whether stores can wait in store buffers at this granularity: only where each is announced.
pub fn knows_stores(granularity: Granularity) -> bool {
    granularity != Granularity::Probe
}

/// Whether a search by `strategy` is possible at this granularity.
pub fn is_possible(strategy: Strategy, granularity: Granularity) -> bool {
    (strategy == Strategy::Reference) == (granularity == Granularity::Every)
}
