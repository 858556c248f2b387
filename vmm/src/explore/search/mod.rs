//! Searches: which steps are made, one after the other, until something breaks or nothing is left
//! to try. Each strategy has a file of its own; those that backtrack share one depth-first search,
//! in `dfs`. They move a [`system::TransitionSystem`], and know nothing else of the machine.

pub mod bounded;
mod by_key;
pub mod checking;
pub mod checkpoint;
mod counts;
mod dfs;
mod divided;
pub mod dpor;
mod end;
mod engine;
pub mod exhaustive;
pub mod found;
mod frontier;
mod graph;
mod leaving;
pub mod links;
pub mod livelock;
mod parts;
mod progress;
pub mod reference;
pub mod region;
mod round;
pub mod sampled;
pub mod seen;
pub mod storage;
pub mod system;
pub mod table;
mod tasks;
pub mod workers;

#[cfg(test)]
mod enumeration_test;

pub use counts::Counts;
pub use end::{Counterexample, SearchEnd};
pub use engine::{Check, Engine, Limits};
pub use progress::{OnProgress, Progress};
