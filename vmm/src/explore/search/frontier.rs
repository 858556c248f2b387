//! Divides an exhaustive search among shards. Every shard expands the same few states from the
//! initial state, breadth first and without any reduction. Then it searches on from its part of the
//! frontier. The frontier depends only on the case and on what is known about the memory that CPUs
//! share, so all shards compute the same one.

use std::collections::{BTreeSet, VecDeque};

use super::Engine;
use super::dfs::{Cut, Root, judge, make};
use super::seen::Seen;
use crate::explore::Shard;

/// Frontier states per shard: several, because some lead to many more states than others.
const PER_SHARD: usize = 8;

/// Where a shard begins its search.
#[derive(Debug)]
pub struct Frontier {
    /// The frontier states from which this shard searches on.
    pub mine: Vec<Root>,
    /// The keys of the states that all shards know: those that every shard expands, and the
    /// frontier.
    pub all: BTreeSet<u128>,
}

/// Finds the frontier states from which `shard` searches on. Adds to `seen` the states that were
/// expanded on the way and the frontier states of the other shards, as states from which everything
/// is tried: the other shards search on from theirs.
///
/// # Errors
/// [`Cut`] if the search was cut short before it reached the frontier.
pub fn expand(engine: &mut Engine<'_>, seen: &mut Seen, shard: Shard) -> Result<Frontier, Cut> {
    let beginning = Root::beginning(engine);
    if shard == Shard::WHOLE {
        return Ok(Frontier {
            all: BTreeSet::from([beginning.state.key()]),
            mine: vec![beginning],
        });
    }
    let shards = usize::try_from(shard.of).unwrap_or(usize::MAX);
    let enough = shards.saturating_mul(PER_SHARD);
    // The states that were reached, to tell which are new. They are added to `seen` only when they
    // are expanded, or turn out to belong to another shard.
    let mut met = BTreeSet::from([beginning.state.key()]);
    let mut waiting = VecDeque::from([beginning]);
    while waiting.len() < enough
        && let Some(Root { state, path }) = waiting.pop_front()
    {
        engine.system.load(&state);
        let choices = engine.system.choices();
        if seen.insert(state.key()) {
            engine.counts.states += 1;
        }
        if choices.is_empty() {
            seen.insert_end(state.key());
            judge(engine, &path)?;
        }
        for (index, choice) in choices.into_iter().enumerate() {
            if index > 0 {
                engine.system.load(&state);
            }
            let mut path = path.clone();
            make(engine, choice, &mut path)?;
            let next = engine.system.save();
            seen.links.add(state.key(), next.key());
            if met.insert(next.key()) {
                waiting.push_back(Root { state: next, path });
            }
        }
    }
    // The waiting states were saved without the pages that are found to be written only now.
    if engine.is_incomplete()? {
        return Err(Cut::Void);
    }
    let (mine, others): (Vec<_>, Vec<_>) = (0..)
        .zip(waiting)
        .partition(|(place, _): &(u64, _)| place % shard.of == shard.index);
    for (_, root) in others {
        seen.insert(root.state.key());
        engine.counts.states += 1;
    }
    Ok(Frontier {
        mine: mine.into_iter().map(|(_, root)| root).collect(),
        all: met,
    })
}
