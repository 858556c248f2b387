//! Merges the results of all shards of a search into the result that a single process would have
//! had. Needs only the results, no machine.

use std::collections::BTreeSet;

use super::case::{Case, CaseError};
use super::memory::Memory;
use super::result::{ConditionRecord, Document, Keys, Part, Search, VerdictRecord, WayRecord};
use super::schedule::Schedule;
use super::search::Counts;
use super::search::found::has_room;
use super::search::links::Links;
use super::sharing::{OtherCpus, Sharing, SharingRecord};
use super::stop_reason::StopReason;
use super::{Shard, Strategy};

/// Why results cannot be merged.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// There are no results.
    #[error("there are no results to merge")]
    Nothing,
    /// Two results are not of the same search.
    #[error("shard {one} and shard {other} are not of the same search: {what} differs")]
    OtherSearch {
        /// The shard of the first result.
        one: Shard,
        /// The shard of a result of another search.
        other: Shard,
        /// What differs.
        what: &'static str,
    },
    /// There are two results of one shard.
    #[error("there are two results of shard {0}")]
    Twice(Shard),
    /// The result of a shard is missing.
    #[error("there is no result of shard {0}, run it first")]
    Missing(Shard),
    /// The case in the results cannot be read.
    #[error("the case of the results: {0}")]
    Case(#[from] CaseError),
    /// What the shards know about shared memory is about different numbers of CPUs.
    #[error(transparent)]
    OtherCpus(#[from] OtherCpus),
    /// What all shards know together contradicts an assumption of one of them.
    #[error(
        "what the shards saw together speaks against what one of them took for granted, so that it \
         can have left out orders that matter"
    )]
    Contradicted(Box<SharingRecord>),
    /// Shards of a sampled search know different things about shared memory, and so made other runs
    /// than a single process would.
    #[error("shard {one} and shard {other} began with different knowledge of what CPUs share")]
    OtherKnowledge {
        /// The shard of the first result.
        one: Shard,
        /// A shard that knows something else.
        other: Shard,
        /// What all shards know together.
        known: Box<SharingRecord>,
    },
}

impl MergeError {
    /// What all shards have to begin anew with, if that solves the problem.
    pub fn remedy(&self) -> Option<&SharingRecord> {
        match self {
            Self::Contradicted(known) | Self::OtherKnowledge { known, .. } => Some(known),
            _ => None,
        }
    }
}

/// Checks that there is exactly one result of each shard of a search.
///
/// # Errors
/// [`MergeError`] that names the first shard with no result or with two.
pub fn check_all_there(parts: &[Part]) -> Result<(), MergeError> {
    let first = parts.first().ok_or(MergeError::Nothing)?;
    let of = first.document.shard.of;
    let mut there: Vec<_> = parts.iter().map(|part| part.document.shard).collect();
    there.sort_by_key(|shard| (shard.of != of, shard.index));
    for (index, shard) in (0..of).zip(there.iter().map(Some).chain(std::iter::repeat(None))) {
        let expected = Shard { index, of };
        match shard {
            Some(shard) if *shard == expected => {}
            Some(shard) if shard.of == of && shard.index < index => {
                return Err(MergeError::Twice(*shard));
            }
            _ => return Err(MergeError::Missing(expected)),
        }
    }
    match there.get(usize::try_from(of).unwrap_or(usize::MAX)) {
        None => Ok(()),
        Some(extra) => Err(MergeError::Twice(*extra)),
    }
}

/// Merges `parts`. If any of them broke, the verdict is the breach whose schedule has the fewest
/// switches between CPUs, then the fewest turns. Otherwise, if any of them stopped, it is why.
/// Otherwise it is the verdict of the first one, unless the shards together have a cycle: then a
/// complete search counts as stopped.
///
/// # Errors
/// [`MergeError`] if the parts do not belong together.
pub fn merge(parts: &[Part]) -> Result<Part, MergeError> {
    let first = &parts.first().ok_or(MergeError::Nothing)?.document;
    for part in parts {
        if let Some(what) = difference(first, &part.document) {
            return Err(MergeError::OtherSearch {
                one: first.shard,
                other: part.document.shard,
                what,
            });
        }
    }
    let case = Case::parse(&first.of.case)?;
    let mut sharing = Sharing::new(case.cpus as usize);
    for part in parts {
        sharing.learn(&part.document.sharing)?;
    }
    let mut verdict = verdict(parts);
    // Other verdicts need no check: a breach is real whatever the search has assumed, and a search
    // that stopped claims nothing.
    match (&verdict, first.of.strategy) {
        (VerdictRecord::Complete | VerdictRecord::BoundedComplete { .. }, _)
            if sharing.is_void() || first.of.memory == Memory::Tso && !agree(parts, &sharing)? =>
        {
            return Err(MergeError::Contradicted(Box::new(sharing.to_record())));
        }
        (VerdictRecord::Sampled { .. }, Strategy::Sampled(..)) => {
            let other = |part: &&Part| part.document.sharing != first.sharing;
            if let Some(part) = parts.iter().find(other) {
                return Err(MergeError::OtherKnowledge {
                    one: first.shard,
                    other: part.document.shard,
                    known: Box::new(sharing.to_record()),
                });
            }
        }
        _ => {}
    }
    // A cycle that no shard has alone passes from one shard to another at states that all shards
    // know. So it also shows in the links between these states.
    let across = parts.iter().flat_map(|part| &part.document.across);
    let (links, states) = Links::of(across.map(|[from, to]| (from.0, to.0)));
    let is_through = matches!(
        verdict,
        VerdictRecord::Complete | VerdictRecord::BoundedComplete { .. }
    );
    if is_through {
        match links.has_cycle(states) {
            Ok(false) => {}
            Ok(true) => {
                verdict = VerdictRecord::Stopped {
                    why: StopReason::Cycle,
                };
            }
            Err(why) => verdict = VerdictRecord::Stopped { why },
        }
    }
    let keys = parts.iter().map(|part| part.keys.as_ref()).collect();
    let keys = (verdict == VerdictRecord::Complete)
        .then(|| union(keys))
        .flatten();
    let mut counts = Counts::sum(parts.iter().map(|part| part.document.counts));
    if let Some(keys) = &keys {
        counts.states = keys.states.len() as u64;
        counts.ends = keys.ends.len() as u64;
    }
    let outcomes: BTreeSet<_> = (parts.iter())
        .flat_map(|part| &part.document.outcomes)
        .collect();
    let longest = |of: fn(&Document) -> u64| {
        let times = parts.iter().map(|part| of(&part.document));
        times.max().unwrap_or(0)
    };
    let words = parts.iter().flat_map(|part| part.document.words.clone());
    let words = words.collect();
    let documents = || parts.iter().map(|part| &part.document);
    let (ways, more_ways) = kinds(documents().map(|it| &it.ways));
    let (races, more_races) = kinds(documents().map(|it| &it.races));
    let witness = documents().filter_map(|it| it.witness.as_ref());
    let witness = witness.max_by_key(|it| (it.switches(), it.turns.len()));
    let mut answers = first.answers.clone();
    for part in parts {
        for (one, other) in answers.iter_mut().zip(&part.document.answers) {
            one.add(other);
        }
    }
    Ok(Part {
        document: Document {
            verdict,
            counts,
            shard: Shard::WHOLE,
            took_ms: longest(|document| document.took_ms),
            shortening_ms: longest(|document| document.shortening_ms),
            sharing: sharing.to_record(),
            words,
            states: keys.as_ref().map(Keys::about),
            outcomes: outcomes.into_iter().cloned().collect(),
            across: Vec::new(),
            answers,
            ways,
            races,
            more_ways: more_ways || more_races || documents().any(|it| it.more_ways),
            conditions: conditions(parts),
            witness: witness.cloned(),
            ..first.clone()
        }
        .settled(),
        keys,
    })
}

/// Whether each of `parts` has let stores wait at the words at which CPUs conflict by what all
/// know. Otherwise the same orders have led them to different states.
fn agree(parts: &[Part], all: &Sharing) -> Result<bool, MergeError> {
    for part in parts {
        let mut own = Sharing::new(all.cpus());
        own.learn(&part.document.sharing)?;
        if own.contended() != all.contended() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What differs if two results are not of the same search.
fn difference(one: &Document, other: &Document) -> Option<&'static str> {
    let Search {
        case,
        append,
        memory,
        data_races,
        granularity,
        strategy,
        seed,
        image,
        begins,
    } = &one.of;
    let of = &other.of;
    let differences = [
        (*case != of.case, "the case"),
        (*append != of.append, "what the guest was given (--append)"),
        (*memory != of.memory, "what memory does"),
        (
            *data_races != of.data_races,
            "what is done about data races",
        ),
        (*granularity != of.granularity, "the granularity"),
        (*strategy != of.strategy, "the strategy"),
        (*seed != of.seed, "the seed"),
        (*image != of.image, "the guest image"),
        (
            *begins != of.begins,
            "the state in which the machine begins, as on hosts with different CPUs,",
        ),
        (one.shard.of != other.shard.of, "the number of shards"),
    ];
    let found = differences.into_iter().find(|(differs, _)| *differs);
    found.map(|(_, what)| what)
}

fn verdict(parts: &[Part]) -> VerdictRecord {
    let verdicts = || parts.iter().map(|part| &part.document.verdict);
    let broken = verdicts().filter_map(|verdict| match verdict {
        VerdictRecord::Broke { schedule, .. } => Some((cost(schedule), verdict)),
        _ => None,
    });
    if let Some((_, best)) = broken.min_by_key(|(cost, _)| *cost) {
        return best.clone();
    }
    let stopped = verdicts().filter_map(|verdict| match verdict {
        VerdictRecord::Stopped { why } => Some((rank(*why), verdict)),
        _ => None,
    });
    let first = stopped.min_by_key(|(rank, _)| *rank);
    first
        .map_or(&parts[0].document.verdict, |(_, verdict)| verdict)
        .clone()
}

/// Of several reasons to stop, the lowest is that of all shards.
fn rank(why: StopReason) -> u8 {
    match why {
        StopReason::Reached => 0,
        StopReason::Signal => 1,
        StopReason::Time => 2,
        StopReason::States => 3,
        StopReason::Memory { .. } => 4,
        StopReason::Room => 5,
        StopReason::Cycle => 6,
    }
}

fn cost(schedule: &Schedule) -> (usize, usize) {
    (schedule.switches(), schedule.turns.len())
}

/// The kinds of breaches, or of data races, of all shards, each with its shortest schedule, and
/// whether there are more.
fn kinds<'a>(shards: impl Iterator<Item = &'a Vec<WayRecord>>) -> (Vec<WayRecord>, bool) {
    let (mut ways, mut are_more) = (Vec::<WayRecord>::new(), false);
    for all in shards {
        for way in all {
            let names = ways.iter().map(|it| &*it.names);
            let has_room = has_room(&way.names, names);
            match ways.iter().position(|it| it.texts == way.texts) {
                Some(at) if cost(&way.schedule) < cost(&ways[at].schedule) => {
                    ways[at] = way.clone();
                }
                Some(_) => {}
                None if has_room => ways.push(way.clone()),
                None => are_more = true,
            }
        }
    }
    (ways, are_more)
}

/// The conditions: one is reached if it is in any shard.
fn conditions(parts: &[Part]) -> Vec<ConditionRecord> {
    let mut all = parts[0].document.conditions.clone();
    for part in &parts[1..] {
        for (one, other) in all.iter_mut().zip(&part.document.conditions) {
            one.could_be_told &= other.could_be_told;
            let is_better = match (&one.schedule, &other.schedule) {
                (Some(one), Some(other)) => cost(other) < cost(one),
                (one, other) => one.is_none() && other.is_some(),
            };
            if is_better {
                one.schedule.clone_from(&other.schedule);
                one.known = other.known;
            }
        }
    }
    all
}

/// All keys, without duplicates; `None` if any part has no keys.
fn union(all: Vec<Option<&Keys>>) -> Option<Keys> {
    let all: Vec<&Keys> = all.into_iter().collect::<Option<_>>()?;
    let once = |of: fn(&Keys) -> &Vec<u128>| {
        let mut keys: Vec<_> = all.iter().flat_map(|keys| of(keys)).copied().collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    };
    Some(Keys {
        states: once(|keys| &keys.states),
        ends: once(|keys| &keys.ends),
    })
}
