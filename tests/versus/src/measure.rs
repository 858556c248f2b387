//! What is measured, and in which order. Each search of ours is followed at once by the one of
//! theirs that it is compared with, and all of it is done several times, so that whatever else the
//! host does disturbs both alike. Draws no conclusions.

use std::time::Duration;

use guest::ipi::queue::QueueKind;
use serde::Serialize;
use vmm::explore::ExploreError;
use vmm::explore::case::Case;

use crate::ours::{self, Explorer};
use crate::search::{HANG, SearchResult};
use crate::theirs::{self, Program};

/// An explorer, and the strategy by which it searches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "by", content = "strategy", rename_all = "kebab-case")]
pub enum Searcher {
    /// `vmm explore`.
    Vmm(ours::VmmStrategy),
    /// Shuttle.
    Shuttle(theirs::ShuttleStrategy),
}

/// The searchers whose rates are measured: those that are compared are next to each other.
const RATES: [Searcher; 7] = [
    Searcher::Vmm(ours::VmmStrategy::Random),
    Searcher::Shuttle(theirs::ShuttleStrategy::Random),
    Searcher::Vmm(ours::VmmStrategy::Pct),
    Searcher::Shuttle(theirs::ShuttleStrategy::Pct),
    Searcher::Shuttle(theirs::ShuttleStrategy::Stalls),
    Searcher::Vmm(ours::VmmStrategy::Races),
    Searcher::Vmm(ours::VmmStrategy::Exhaustive),
];

/// The searchers that look for what is broken.
const HUNTS: [Searcher; 6] = [
    Searcher::Vmm(ours::VmmStrategy::Random),
    Searcher::Shuttle(theirs::ShuttleStrategy::Random),
    Searcher::Vmm(ours::VmmStrategy::Pct),
    Searcher::Shuttle(theirs::ShuttleStrategy::Pct),
    Searcher::Vmm(ours::VmmStrategy::Auto),
    Searcher::Shuttle(theirs::ShuttleStrategy::Stalls),
];

/// One search, and what it did.
#[derive(Clone, Debug, Serialize)]
pub struct SearchRun {
    /// The explorer and its strategy.
    #[serde(flatten)]
    pub searcher: Searcher,
    /// The seed of its random choices: the number of the round, from 1.
    pub seed: u64,
    /// What it did.
    #[serde(flatten)]
    pub result: SearchResult,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Figures {
    /// Searches through what is sound, in the order in which they were made.
    pub rates: Vec<SearchRun>,
    /// Searches for what is broken.
    pub hunts: Vec<SearchRun>,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// How often, each time from another seed.
    pub rounds: u64,
    /// For how long each rate is measured.
    pub each: Duration,
    /// How long what is broken is looked for, at most.
    pub hunt: Duration,
}

impl Effort {
    /// How many searches there are.
    pub fn searches(&self) -> u64 {
        self.rounds * (RATES.len() + HUNTS.len()) as u64
    }
}

/// The queues: one in which nothing breaks, and one in which something does.
#[derive(Clone, Copy, Debug)]
pub struct Queues {
    /// The sound one, for rates.
    pub sound: QueueKind,
    /// The broken one.
    pub broken: QueueKind,
}

/// Measures; tells `on_search` before each search.
///
/// # Errors
/// [`ExploreError`] if the host cannot run the guest.
pub fn measure(
    explorer: &Explorer,
    program: &Program,
    queues: Queues,
    effort: Effort,
    mut on_search: impl FnMut(Searcher),
) -> Result<Figures, ExploreError> {
    // What there is to learn is learnt before anything is timed.
    let known = explorer.learn(queues.sound)?;
    let mut runs =
        |searchers: &[Searcher],
         run: &dyn Fn(Searcher, u64) -> Result<SearchResult, ExploreError>| {
            let mut runs = Vec::new();
            for seed in 1..=effort.rounds {
                for &searcher in searchers {
                    on_search(searcher);
                    let result = run(searcher, seed)?;
                    runs.push(SearchRun {
                        searcher,
                        seed,
                        result,
                    });
                }
            }
            Ok::<_, ExploreError>(runs)
        };
    Ok(Figures {
        rates: runs(&RATES, &|searcher, seed| match searcher {
            Searcher::Vmm(strategy) => {
                explorer.pace(strategy, queues.sound, seed, effort.each, &known)
            }
            Searcher::Shuttle(strategy) => Ok(theirs::search(
                program,
                strategy,
                queues.sound,
                seed,
                effort.each,
            )),
        })?,
        hunts: runs(&HUNTS, &|searcher, seed| match searcher {
            Searcher::Vmm(strategy) => explorer.hunt(strategy, queues.broken, seed, effort.hunt),
            Searcher::Shuttle(strategy) => Ok(theirs::search(
                program,
                strategy,
                queues.broken,
                seed,
                effort.hunt,
            )),
        })?,
    })
}

/// Why `figures` are not of what they should be, if they are not: something broke that is sound, or
/// something else than `case` expects of the broken queue.
pub fn unexpected(figures: &Figures, case: &Case, queues: Queues) -> Option<String> {
    let broke = |runs: &[SearchRun], queue: QueueKind| {
        let options = format!("queue={}", queue.name());
        // A call that is lost and waited for is a hang, if it is not looked at why.
        let is_expected = |name: &String| {
            let expected = case.expected(&options);
            expected.contains(name) || (name == HANG && !expected.is_empty())
        };
        runs.iter().find_map(|run| {
            let names = run.result.broke.as_ref()?;
            let searcher = run.searcher;
            (!names.iter().any(is_expected)).then(|| {
                format!(
                    "{} {} from seed {} broke {options}, which the case does not expect: {}",
                    searcher.by(),
                    searcher.strategy(),
                    run.seed,
                    names.join(", ")
                )
            })
        })
    };
    broke(&figures.rates, queues.sound).or_else(|| broke(&figures.hunts, queues.broken))
}

impl Searcher {
    /// The explorer.
    pub fn by(self) -> &'static str {
        match self {
            Self::Vmm(_) => "vmm",
            Self::Shuttle(_) => "shuttle",
        }
    }

    /// Its strategy.
    pub fn strategy(self) -> &'static str {
        match self {
            Self::Vmm(strategy) => strategy.name(),
            Self::Shuttle(strategy) => strategy.name(),
        }
    }
}
