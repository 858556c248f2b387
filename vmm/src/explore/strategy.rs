//! Strategies: which searches each is made of, what they learn first, and what may be said once
//! they are over. Makes no choice itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schedule::Granularity;
use super::search::sampled::Way;
use super::search::seen::Seen;
use super::search::{End, Found, Hunt, all_end};
use super::search::{bounded, checking, exhaustive, races, reference, sampled};
use super::specimen::SpecimenError;
use super::{Config, Shard};

/// How choices are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// With few preemptions first, up to this many, then every order.
    Auto(u32),
    /// Every order, once.
    Exhaustive,
    /// Every order, with no rule that leaves anything out: what the others are held against.
    Reference,
    /// Every order that can matter.
    Races,
    /// Every order with at most this many preemptions.
    Bounded(u32),
    /// This many orders, at random.
    Sampled(Way, u64),
}

impl Strategy {
    /// Whether several processes can each do a part of it. The others keep on a path what they have
    /// to try further up, or count preemptions on the way to a state: their parts would depend on
    /// each other.
    pub fn can_be_shared(self) -> bool {
        matches!(self, Self::Exhaustive | Self::Sampled(..))
    }
}

/// Runs at random by which a search learns what CPUs share before it begins, at least and at most,
/// and how many of them have to teach nothing new.
const LEARNING: (u64, u64, u64) = (16, 200, 8);

/// Whether a search by `strategy` is possible at this granularity.
pub fn is_possible(strategy: Strategy, granularity: Granularity) -> bool {
    (strategy == Strategy::Reference) == (granularity == Granularity::Every)
}

/// What a search has covered.
pub(super) struct Covered {
    /// How it ended.
    pub(super) end: End,
    /// The bound on preemptions with which it ended, if it had one.
    pub(super) bound: Option<u32>,
    /// What the reference search has found to break.
    pub(super) broken: Vec<Found>,
}

impl Covered {
    pub(super) fn only(end: End) -> Self {
        Self {
            end,
            bound: None,
            broken: Vec::new(),
        }
    }
}

/// Searches as `config` says.
pub(super) fn run(
    hunt: &mut Hunt<'_>,
    config: &Config,
    seen: &mut Seen,
) -> Result<Covered, SpecimenError> {
    let learns = config.known.is_none() && config.strategy != Strategy::Reference;
    if learns && let Some(end) = learn(hunt, config.seed)? {
        return Ok(Covered::only(end));
    }
    let bounded = |hunt: &mut Hunt<'_>, most| {
        let (end, bound) = bounded::search(hunt, most)?;
        Ok(Covered {
            bound: Some(bound),
            ..Covered::only(end)
        })
    };
    match config.strategy {
        Strategy::Bounded(bound) => bounded(hunt, bound),
        Strategy::Auto(bound) => match bounded(hunt, bound)? {
            Covered {
                end: End::Complete, ..
            } => Ok(Covered::only(races(hunt, seen)?)),
            other => Ok(other),
        },
        Strategy::Reference => {
            let (end, broken) = reference::search(hunt)?;
            Ok(Covered {
                broken,
                ..Covered::only(end)
            })
        }
        Strategy::Races => Ok(Covered::only(races(hunt, seen)?)),
        Strategy::Exhaustive if config.check_keys => {
            let end = checking::search(hunt)?;
            Ok(Covered::only(all_end(hunt, end, false)?))
        }
        Strategy::Exhaustive => {
            let end = exhaustive::search(hunt, seen, config.shard)?;
            let is_part = config.shard != Shard::WHOLE;
            Ok(Covered::only(all_end(hunt, end, is_part)?))
        }
        Strategy::Sampled(way, runs) => {
            let Shard { index, of } = config.shard;
            let mine = |run: u64| run % of == index;
            let end = sampled::search(hunt, way, config.seed, runs, mine)?;
            Ok(Covered::only(end))
        }
    }
}

/// Tries every order that can matter, or, where it is not known which those are, every order.
fn races(hunt: &mut Hunt<'_>, seen: &mut Seen) -> Result<End, SpecimenError> {
    let knows_accesses = hunt.specimen.granularity() == Granularity::Access;
    let end = if knows_accesses && hunt.specimen.cpus().len() <= races::MOST_CPUS {
        races::search(hunt)?
    } else {
        exhaustive::search(hunt, seen, Shard::WHOLE)?
    };
    all_end(hunt, end, false)
}

/// Learns what CPUs share from runs at random, any of which can break something already.
fn learn(hunt: &mut Hunt<'_>, seed: u64) -> Result<Option<End>, SpecimenError> {
    let (least, most, quiet) = LEARNING;
    let mut known = hunt.sharing.size();
    let mut same = 0;
    for run in 0..most {
        let end = sampled::single(hunt, Way::Uniform, seed, run)?;
        if end.is_some() {
            return Ok(end);
        }
        let is_new = hunt.sharing.size() != known;
        known = hunt.sharing.size();
        same = if is_new { 0 } else { same + 1 };
        if run + 1 >= least && same >= quiet {
            break;
        }
    }
    hunt.sharing.begin_anew();
    // What was learnt from is no part of the search.
    (hunt.counts.ends, hunt.counts.schedules) = (0, 0);
    hunt.outcomes.clear();
    Ok(None)
}
