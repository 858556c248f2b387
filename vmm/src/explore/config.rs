//! What to explore, and how: the input of an exploration. Plain data.

use std::time::Duration;

use super::case::Case;
use super::checkpoint_file::Checkpoints;
use super::data_races::DataRaces;
use super::memory::Memory;
use super::schedule::Granularity;
use super::search::storage::MemoryLimit;
use super::shard::Shard;
use super::sharing::SharingRecord;
use super::strategy::Strategy;
use crate::machine::guest::Guest;
use crate::provenance::Input;
use crate::stats::sources::Kvm;

/// What to explore, and how.
#[derive(Debug, Clone)]
pub struct Config {
    /// The guest image.
    pub guest: Guest,
    /// The case.
    pub case: Case,
    /// The file of the case, if it came from one.
    pub case_file: Option<Input>,
    /// The kind of this host's KVM, as far as it is known.
    pub kvm: Kvm,
    /// Options for the guest, in addition to those of the case.
    pub append: String,
    /// Where CPUs stop.
    pub granularity: Granularity,
    /// The memory model.
    pub memory: Memory,
    /// How orders are chosen.
    pub strategy: Strategy,
    /// The seed of the random choices. Equal seeds give equal choices.
    pub seed: u64,
    /// The time limit, including the boot and the shortening of what is found.
    pub time: Option<Duration>,
    /// The limit on the number of states.
    pub states: Option<u64>,
    /// The limit on the memory of the process.
    pub memory_limit: Option<MemoryLimit>,
    /// Whether the keys of all states are kept, for a result that is to be merged.
    pub keeps_keys: bool,
    /// The part of the search that this process does.
    pub shard: Shard,
    /// Where the search is kept from time to time, if anywhere.
    pub checkpoints: Option<Checkpoints>,
    /// How many machines it searches with at once, each on a thread of its own; at least 1.
    pub jobs: usize,
    /// What earlier searches learnt about the memory that CPUs share. Without it the search begins
    /// with a phase that learns it.
    pub known: Option<SharingRecord>,
    /// Whether an exhaustive search checks that equal states lead to equal states. This costs one
    /// step for each choice of each state that is reached again.
    pub check_keys: bool,
    /// Whether CPUs exit also where the search passes over what they are about to do. It finds the
    /// same, and is slower.
    pub every_exit: bool,
    /// Whether the search goes on past what breaks, and lists every kind of breach.
    pub keep_going: bool,
    /// What it does about data races.
    pub data_races: DataRaces,
    /// Whether it keeps an order that breaks nothing, to look at.
    pub witness: bool,
    /// The time limit for shortening a schedule. Finding its point of no return may take half as
    /// long in addition.
    pub shrink: Duration,
}
