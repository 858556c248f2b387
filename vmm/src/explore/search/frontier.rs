//! Divides a search among shards. Every shard makes the same first steps from the initial state,
//! breadth first, and then searches on with its part of what is left. What is left depends only on the
//! case and on what is known about the memory that CPUs share, so all shards come to the same.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Engine;
use super::dfs::{Cut, Entry, Led, Visitor, judge, make};
use super::parts::{Root, Task};
use super::seen::{Kept, Seen, States};
use crate::explore::Shard;
use crate::explore::stop_reason::StopReason;

/// Parts per shard: several, because some lead to many more states than others.
const PER_SHARD: usize = 8;

/// What a shard begins its search with.
#[derive(Debug)]
pub struct Frontier<D, S> {
    /// What it has to do.
    pub mine: Vec<Task<D, S>>,
    /// What all shards know.
    pub known: KnownToAll,
}

/// The states that all shards know. A path from one shard's part of a search to another's passes
/// through one of them.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct KnownToAll {
    /// By the keys under which they were noted.
    all: BTreeSet<u128>,
    /// Those from which this shard says what it can reach. It has tried all that it can from there,
    /// or no other shard says it.
    from: BTreeSet<u128>,
}

impl<D, S: Send> Frontier<D, S> {
    /// What `shard` begins with. What `visitor` notes on the way, all shards note.
    ///
    /// # Errors
    /// [`Cut`] if the search was cut short before.
    pub fn of<V: Visitor<Data = D, Step = S>>(
        engine: &mut Engine<'_>,
        visitor: &mut V,
        shard: Shard,
    ) -> Result<Self, Cut> {
        let first = Task::from(Root::beginning(engine));
        if shard == Shard::WHOLE {
            return Ok(Self {
                mine: vec![first],
                known: KnownToAll::default(),
            });
        }
        let shards = usize::try_from(shard.of).unwrap_or(usize::MAX);
        let enough = shards.saturating_mul(PER_SHARD);
        let mut known = KnownToAll::default();
        let key = V::key(first.root.state(), None);
        let mut waiting = VecDeque::from([(key, first)]);
        while waiting.len() < enough
            && let Some((_, Task { mut root, by, .. })) = waiting.pop_front()
        {
            engine.system.load(root.state());
            let mut step = None;
            if let Some((choice, by)) = by {
                let from = Arc::clone(root.state());
                if make(engine, &from, choice, &mut root.path)? == Led::ToBreach {
                    continue;
                }
                root.states.push(Arc::new(engine.system.save()));
                step = Some(by);
            }
            let key = V::key(root.state(), step.as_ref());
            known.all.insert(key);
            match visitor.enter(engine, root.state(), step) {
                Entry::Known => {}
                Entry::End => judge(engine, &root.path)?,
                Entry::GoOn(mut data) => {
                    while let Some((choice, step)) = visitor.next(root.state(), &mut data) {
                        waiting.push_back((key, Task::behind(root.clone(), choice, step)));
                    }
                }
            }
        }
        // The states of the tasks were saved without the pages that are found to be written only
        // now.
        if engine.is_incomplete()? {
            return Err(Cut::Void);
        }
        let mut mine = Vec::new();
        for (place, (key, task)) in (0..).zip(waiting) {
            let place: u64 = place;
            if place % shard.of == shard.index {
                known.from.insert(key);
                mine.push(task);
            }
        }
        if shard.index == 0 {
            known.from.clone_from(&known.all);
        }
        Ok(Self { mine, known })
    }
}

impl KnownToAll {
    /// What is left of `seen` for the shards to be merged; the keys of its states only if they are
    /// wanted.
    ///
    /// # Errors
    /// Why that cannot be told.
    pub fn states<V: Kept>(&self, seen: Seen<V>, keeps_keys: bool) -> Result<States, StopReason> {
        let across = seen.reached(&self.from, &self.all)?;
        let (all, ends) = match keeps_keys {
            true => seen.into_keys(),
            false => (Vec::new(), Vec::new()),
        };
        Ok(States { all, ends, across })
    }
}
