//! The phases of each strategy: what it learns first, which searches it runs, and what it has
//! covered once they are over. Chooses no step itself.

use tracing::info;

use super::config::Config;
use super::schedule::Granularity;
use super::search::bounded::BoundedEnd;
use super::search::checkpoint::{Checkpoint, Phase};
use super::search::livelock::confirm_complete;
use super::search::sampled::Sampling;
use super::search::seen::States;
use super::search::workers::Workers;
use super::search::{self, Counterexample, Engine, SearchEnd};
use super::search::{bounded, checking, exhaustive, reference, sampled};
use super::shard::Shard;
use super::specimen::SpecimenError;
use super::strategy::Strategy;

/// Random runs from which a search learns what CPUs share before it begins: the least number, the
/// greatest number, and how many runs in a row have to teach nothing new.
const LEARNING: (u64, u64, u64) = (16, 200, 8);

/// What a search has covered.
pub(super) struct Covered {
    /// How it ended.
    pub(super) end: SearchEnd,
    /// The bound on preemptions at which it ended, if it had one.
    pub(super) bound: Option<u32>,
    /// The counterexamples that the reference search has found.
    pub(super) broken: Vec<Counterexample>,
    /// The states that it has seen, if it has kept them.
    pub(super) states: States,
}

impl Covered {
    pub(super) fn only(end: SearchEnd) -> Self {
        Self {
            end,
            bound: None,
            broken: Vec::new(),
            states: States::default(),
        }
    }
}

/// Searches as `config` says, from the beginning or from where a search was that was `kept`.
pub(super) fn run(
    workers: &mut Workers<'_>,
    config: &Config,
    kept: Option<Checkpoint>,
) -> Result<Covered, SpecimenError> {
    let learns = config.known.is_none() && kept.is_none() && config.strategy != Strategy::Reference;
    if learns && let Some(end) = learn(workers.first(), config.seed)? {
        return Ok(Covered::only(end));
    }
    match config.strategy {
        Strategy::Bounded(bound) => bounded(workers, config, bound, kept),
        Strategy::Auto(bound) => {
            let is_behind = |kept: &Checkpoint| !matches!(kept.phase, Phase::Bounded(_));
            if kept.as_ref().is_some_and(is_behind) {
                return races(workers, config, kept);
            }
            match bounded(workers, config, bound, kept)? {
                Covered {
                    end: SearchEnd::Complete,
                    ..
                } => {
                    info!("nothing breaks with {bound} preemptions; every order comes next");
                    races(workers, config, None)
                }
                other => Ok(other),
            }
        }
        Strategy::Reference => {
            let (end, broken) = reference::search(workers)?;
            Ok(Covered {
                broken,
                ..Covered::only(end)
            })
        }
        Strategy::Races => races(workers, config, kept),
        Strategy::Exhaustive if config.check_keys => {
            let end = checking::search(workers)?;
            Ok(Covered::only(confirm_complete(workers, end, false)?))
        }
        Strategy::Exhaustive => exhaustive(workers, config, kept),
        Strategy::Sampled(sampling, runs) => {
            let Shard { index, of } = config.shard;
            let mine = |run: u64| run % of == index;
            let end = sampled::search(workers, sampling, config.seed, runs, mine)?;
            Ok(Covered::only(end))
        }
    }
}

/// Tries every order with at most `bound` preemptions.
fn bounded(
    workers: &mut Workers<'_>,
    config: &Config,
    bound: u32,
    kept: Option<Checkpoint>,
) -> Result<Covered, SpecimenError> {
    let BoundedEnd { end, bound, across } = bounded::search(workers, bound, config.shard, kept)?;
    Ok(Covered {
        bound: Some(bound),
        states: States {
            across,
            ..States::default()
        },
        ..Covered::only(end)
    })
}

/// Tries every order, each state once.
fn exhaustive(
    workers: &mut Workers<'_>,
    config: &Config,
    kept: Option<Checkpoint>,
) -> Result<Covered, SpecimenError> {
    let (end, states) = exhaustive::search(workers, config.shard, config.keeps_keys, kept)?;
    let is_part = config.shard != Shard::WHOLE;
    Ok(Covered {
        states,
        ..Covered::only(confirm_complete(workers, end, is_part)?)
    })
}

/// Tries every order that can matter, by DPOR. Where DPOR does not know which those are, or cannot
/// tell the CPUs apart, tries every order.
fn races(
    workers: &mut Workers<'_>,
    config: &Config,
    kept: Option<Checkpoint>,
) -> Result<Covered, SpecimenError> {
    let system = &workers.first().system;
    let knows_accesses = system.granularity() == Granularity::Access;
    if !knows_accesses || system.cpus().len() > search::dpor::MOST_CPUS {
        return exhaustive(workers, config, kept);
    }
    let end = search::dpor::search(workers, config.shard, kept)?;
    let is_part = config.shard != Shard::WHOLE;
    Ok(Covered::only(confirm_complete(workers, end, is_part)?))
}

/// Learns what CPUs share from random runs. Any of them can already break something.
fn learn(engine: &mut Engine<'_>, seed: u64) -> Result<Option<SearchEnd>, SpecimenError> {
    let (least, most, quiet) = LEARNING;
    let mut known = engine.sharing.size();
    let mut same = 0;
    for run in 0..most {
        let end = sampled::single(engine, Sampling::Uniform, seed, run)?;
        if end.is_some() {
            return Ok(end);
        }
        let is_new = engine.sharing.size() != known;
        known = engine.sharing.size();
        same = if is_new { 0 } else { same + 1 };
        if run + 1 >= least && same >= quiet {
            break;
        }
    }
    info!("learnt from random runs what CPUs share");
    engine.sharing.begin_anew();
    // The learning runs are not part of the search.
    (engine.counts.ends, engine.counts.schedules) = (0, 0);
    engine.outcomes.clear();
    Ok(None)
}
