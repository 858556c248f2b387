//! The phases of each strategy: what it learns first, which searches it runs, and what it has
//! covered once they are over. Chooses no step itself.

use tracing::info;

use super::config::Config;
use super::schedule::Granularity;
use super::search::livelock::confirm_complete;
use super::search::sampled::Sampling;
use super::search::seen::Seen;
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
}

impl Covered {
    pub(super) fn only(end: SearchEnd) -> Self {
        Self {
            end,
            bound: None,
            broken: Vec::new(),
        }
    }
}

/// Searches as `config` says.
pub(super) fn run(
    engine: &mut Engine<'_>,
    config: &Config,
    seen: &mut Seen,
) -> Result<Covered, SpecimenError> {
    let learns = config.known.is_none() && config.strategy != Strategy::Reference;
    if learns && let Some(end) = learn(engine, config.seed)? {
        return Ok(Covered::only(end));
    }
    let bounded = |engine: &mut Engine<'_>, most| {
        let (end, bound) = bounded::search(engine, most)?;
        Ok(Covered {
            bound: Some(bound),
            ..Covered::only(end)
        })
    };
    match config.strategy {
        Strategy::Bounded(bound) => bounded(engine, bound),
        Strategy::Auto(bound) => match bounded(engine, bound)? {
            Covered {
                end: SearchEnd::Complete,
                ..
            } => {
                info!("nothing breaks with {bound} preemptions; every order comes next");
                Ok(Covered::only(dpor(engine, seen)?))
            }
            other => Ok(other),
        },
        Strategy::Reference => {
            let (end, broken) = reference::search(engine)?;
            Ok(Covered {
                broken,
                ..Covered::only(end)
            })
        }
        Strategy::Races => Ok(Covered::only(dpor(engine, seen)?)),
        Strategy::Exhaustive if config.check_keys => {
            let end = checking::search(engine)?;
            Ok(Covered::only(confirm_complete(engine, end, false)?))
        }
        Strategy::Exhaustive => {
            let end = exhaustive::search(engine, seen, config.shard)?;
            let is_part = config.shard != Shard::WHOLE;
            Ok(Covered::only(confirm_complete(engine, end, is_part)?))
        }
        Strategy::Sampled(sampling, runs) => {
            let Shard { index, of } = config.shard;
            let mine = |run: u64| run % of == index;
            let end = sampled::search(engine, sampling, config.seed, runs, mine)?;
            Ok(Covered::only(end))
        }
    }
}

/// Tries every order that can matter, by DPOR. Where DPOR does not know which those are, or cannot
/// tell the CPUs apart, tries every order.
fn dpor(engine: &mut Engine<'_>, seen: &mut Seen) -> Result<SearchEnd, SpecimenError> {
    let knows_accesses = engine.system.granularity() == Granularity::Access;
    let end = if knows_accesses && engine.system.cpus().len() <= search::dpor::MOST_CPUS {
        search::dpor::search(engine)?
    } else {
        exhaustive::search(engine, seen, Shard::WHOLE)?
    };
    confirm_complete(engine, end, false)
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
