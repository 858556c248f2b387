//! Shares out an exhaustive search: every shard walks the same few states from the beginning,
//! breadth first and without leaving anything out, and then searches on from its part of those that
//! it came to. Which ones those are depends on the case and on what is known of what CPUs share, on
//! nothing else.

use std::collections::{BTreeSet, VecDeque};

use super::Engine;
use super::dfs::{Cut, Root, judge, make};
use super::seen::Seen;
use crate::explore::Shard;

/// States for each shard, of which some lead to many more than others.
const PER_SHARD: usize = 8;

/// Where a shard begins.
#[derive(Debug)]
pub struct Frontier {
    /// The states from which it searches on.
    pub mine: Vec<Root>,
    /// The keys of all states that every shard knows: those on the way, and those from which one
    /// searches on.
    pub all: BTreeSet<u128>,
}

/// Finds the states from which `shard` searches on. Those of the others are put into `seen`, as are
/// those on the way, with all that was tried from there: somebody does.
///
/// # Errors
/// [`Cut`] if it did not come to them.
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
    // What was met, to tell what is new; `seen` gets it once it is known whose it is.
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
    // A page that is kept from now on is in none of the states that wait.
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
