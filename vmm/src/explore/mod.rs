//! The explorer: finds orders of steps of the machine's CPUs that break something, or shows that
//! there are none. `docs/exploration.md` says how. One thread moves the machine, one CPU at a time;
//! nothing here uses [`crate::control`], where machines run on threads of their own.

pub mod answers;
pub mod case;
pub mod checkpoint_file;
mod checks;
pub mod condition;
mod config;
pub mod data_races;
pub mod debug;
pub mod draft;
mod errors;
mod exploration;
pub mod key;
pub mod memory;
pub mod merge;
pub mod naming;
pub mod options;
mod outcome;
mod phases;
pub mod point_of_no_return;
mod program_text;
pub mod recorded;
pub mod reduce;
pub mod replay;
pub mod result;
pub mod retrace;
pub mod schedule;
pub mod search;
mod shard;
pub mod sharing;
pub mod shrink;
pub mod specimen;
pub mod stop_reason;
pub mod story;
mod strategy;
pub mod until;

pub use checks::check;
pub use config::Config;
pub use errors::ExploreError;
pub use exploration::explore;
pub use outcome::{ConditionOutcome, Outcome, Reached, SearchVerdict, Way};
pub use replay::{Replay, Replayed, replay};
pub use search::{OnProgress, Progress};
pub use shard::{MOST_SHARDS, Shard};
pub use strategy::{Strategy, is_possible, knows_stores};
