//! Ours: `vmm explore`, through the library that the command is made of.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use guest::ipi::queue::QueueKind;
use serde::Serialize;
use vmm::explore::case::Case;
use vmm::explore::data_races::DataRaces;
use vmm::explore::memory::Memory;
use vmm::explore::schedule::Granularity;
use vmm::explore::search::sampled::Sampling;
use vmm::explore::search::{Counts, OnProgress, Progress};
use vmm::explore::sharing::SharingRecord;
use vmm::explore::{Config, ExploreError, Outcome, SearchVerdict, Shard, Strategy, explore};
use vmm::machine::guest::Guest;
use vmm::stats::sources::Kvm;

use crate::search::{PCT_DEPTH, SearchResult};

/// `--length`, the default of `vmm explore`.
const PCT_LENGTH: u64 = 120;

/// `--strategy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum VmmStrategy {
    /// Any choice as likely as any other.
    Random,
    /// Priorities that change a few times.
    Pct,
    /// Every order with one preemption, then every order that can matter.
    Auto,
    /// Every order that can matter.
    Races,
    /// Every order.
    Exhaustive,
}

impl VmmStrategy {
    /// What the option calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Pct => "pct",
            Self::Auto => "auto",
            Self::Races => "races",
            Self::Exhaustive => "exhaustive",
        }
    }

    fn to_explore(self) -> Strategy {
        let changes = PCT_DEPTH as u32 - 1;
        let length = PCT_LENGTH;
        match self {
            Self::Random => Strategy::Sampled(Sampling::Uniform, u64::MAX),
            Self::Pct => Strategy::Sampled(Sampling::Priorities { changes, length }, u64::MAX),
            Self::Auto => Strategy::Auto(1),
            Self::Races => Strategy::Races,
            Self::Exhaustive => Strategy::Exhaustive,
        }
    }

    /// Whether it recognizes a state that it has seen before.
    fn knows_states(self) -> bool {
        matches!(self, Self::Auto | Self::Races | Self::Exhaustive)
    }
}

/// What is explored.
#[derive(Debug)]
pub struct Explorer {
    /// The case.
    pub case: Case,
    /// The guest image, built to be explored.
    pub guest: PathBuf,
}

impl Explorer {
    fn config(&self, strategy: Strategy, queue: QueueKind, seed: u64) -> Config {
        Config {
            guest: Guest::from(&self.guest),
            case: self.case.clone(),
            case_file: None,
            kvm: Kvm::Unknown,
            append: format!("queue={}", queue.name()),
            granularity: Granularity::Access,
            // As shuttle has it.
            memory: Memory::SequentiallyConsistent,
            strategy,
            seed,
            time: None,
            states: None,
            memory_limit: None,
            keeps_keys: false,
            shard: Shard::WHOLE,
            checkpoints: None,
            jobs: 1,
            known: None,
            check_keys: false,
            every_exit: false,
            keep_going: false,
            data_races: DataRaces::Ignored,
            witness: false,
            shrink: Duration::ZERO,
        }
    }

    /// What CPUs share, so that the searches that are timed need not learn it.
    ///
    /// # Errors
    /// As [`explore`].
    pub fn learn(&self, queue: QueueKind) -> Result<SharingRecord, ExploreError> {
        let none = Strategy::Sampled(Sampling::Uniform, 0);
        let outcome = run(&self.config(none, queue, 1), &mut |_| ())?;
        Ok(outcome.sharing.to_record())
    }

    /// How fast it searches: what it does between its first and its last report of progress within
    /// `time`. The boot comes before the first.
    ///
    /// # Errors
    /// As [`explore`].
    pub fn pace(
        &self,
        strategy: VmmStrategy,
        queue: QueueKind,
        seed: u64,
        time: Duration,
        known: &SharingRecord,
    ) -> Result<SearchResult, ExploreError> {
        let config = Config {
            time: Some(time),
            known: Some(known.clone()),
            ..self.config(strategy.to_explore(), queue, seed)
        };
        let mut reported: Option<[(Instant, Counts); 2]> = None;
        let outcome = run(&config, &mut |progress| {
            let Progress::Searching { counts, .. } = *progress else {
                return;
            };
            let now = (Instant::now(), *counts);
            // A search that begins anew counts anew.
            let first = reported.map(|[first, _]| first);
            let first = first.filter(|(_, before)| before.begun_anew == counts.begun_anew);
            reported = Some([first.unwrap_or(now), now]);
        })?;
        let result = |counts: &Counts, before: &Counts, time: Duration| SearchResult {
            schedules: counts.schedules - before.schedules,
            steps: counts.transitions - before.transitions,
            states: strategy
                .knows_states()
                .then(|| counts.states - before.states),
            seconds: time.as_secs_f64(),
            broke: broken(&outcome),
        };
        Ok(match reported {
            Some([(begun, before), (ended, counts)]) if begun < ended => {
                result(&counts, &before, ended - begun)
            }
            // Too short for two reports: then the boot counts as well.
            _ => result(&outcome.counts, &Counts::default(), outcome.time),
        })
    }

    /// Looks for what breaks, for at most `time`, boot and learning included.
    ///
    /// # Errors
    /// As [`explore`].
    pub fn hunt(
        &self,
        strategy: VmmStrategy,
        queue: QueueKind,
        seed: u64,
        time: Duration,
    ) -> Result<SearchResult, ExploreError> {
        let config = Config {
            time: Some(time),
            ..self.config(strategy.to_explore(), queue, seed)
        };
        let outcome = run(&config, &mut |_| ())?;
        Ok(SearchResult {
            schedules: outcome.counts.schedules,
            steps: outcome.counts.transitions,
            states: strategy.knows_states().then_some(outcome.counts.states),
            seconds: outcome.time.as_secs_f64(),
            broke: broken(&outcome),
        })
    }
}

/// Runs a search. Nothing interrupts it: a signal ends the whole program.
fn run(config: &Config, on_progress: &mut OnProgress<'_>) -> Result<Outcome, ExploreError> {
    explore(config, || false, on_progress)
}

fn broken(outcome: &Outcome) -> Option<Vec<String>> {
    match &outcome.verdict {
        SearchVerdict::Broke { breach, .. } => Some(breach.names.clone()),
        _ => None,
    }
}
