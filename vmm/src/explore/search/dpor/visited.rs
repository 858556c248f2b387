//! The states that a search with DPOR has visited, by their keys, for all its workers: those from
//! which not everything is tried yet, and for the others which actions can happen after them.

use std::collections::hash_map::Entry;
use std::io::{self, Read, Write};
use std::sync::Arc;

use super::actions::ActionSet;
use super::node::Node;
use crate::explore::search::checkpoint::{read_list, read_plain, write_list, write_plain};
use crate::explore::search::table::Table;

/// What is known of a state that was visited.
#[derive(Debug, Clone)]
pub enum Visit {
    /// Not everything is tried from there yet.
    Open(Arc<Node>),
    /// Everything is. These actions can happen after it.
    Done(Arc<ActionSet>),
    /// Everything is tried from there, and it is in the same strongly connected component as the
    /// state with this key: each can be reached from the other, and the same actions can happen
    /// after both.
    SameComponent(u128),
}

/// The states that were visited.
#[derive(Debug, Default)]
pub struct Visited {
    states: Table<u128, Visit>,
}

impl Visited {
    /// What is known of the state with this key, if it was visited; never
    /// [`Visit::SameComponent`].
    pub fn get(&self, key: u128) -> Option<Visit> {
        let mut visit = self.states.get(key)?;
        while let Visit::SameComponent(key) = visit {
            visit = self.states.get(key)?;
        }
        Some(visit)
    }

    /// Notes `visit` for a state that was not visited before. Returns whether that is so.
    pub fn begin(&self, key: u128, visit: impl FnOnce() -> Visit) -> bool {
        self.states.with(key, |entry| match entry {
            Entry::Occupied(_) => false,
            Entry::Vacant(place) => {
                place.insert(visit());
                true
            }
        })
    }

    /// Notes that everything was tried from a state.
    pub fn finish(&self, key: u128, visit: Visit) {
        self.states.set(key, visit);
    }

    /// The nodes of the states from which not everything is tried yet.
    pub fn open(&self) -> Vec<Arc<Node>> {
        let mut open = Vec::new();
        self.states.each(|_, visit| {
            if let Visit::Open(node) = visit {
                open.push(Arc::clone(node));
            }
        });
        open
    }

    /// Adds a node of a state from which not everything is tried yet.
    pub fn add_open(&self, node: &Arc<Node>) {
        self.states
            .set(node.state.key(), Visit::Open(Arc::clone(node)));
    }

    /// Writes the states from which everything is tried.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        let done = |each: &mut dyn FnMut((u128, Arc<ActionSet>))| {
            self.states.each(|key, visit| {
                if let Visit::Done(summary) = visit {
                    each((*key, Arc::clone(summary)));
                }
            });
        };
        write_list(to, done, |to, (key, summary)| {
            write_plain(to, &key)?;
            summary.write(to)
        })
    }

    /// Reads what [`Visited::write`] has written, with so many `actions`.
    ///
    /// # Errors
    /// If it cannot be read, or speaks of another action.
    pub fn read(from: &mut dyn Read, actions: usize) -> io::Result<Self> {
        let visited = Self::default();
        read_list(from, |from| {
            let key = read_plain(from)?;
            let summary = ActionSet::read(from, actions)?;
            visited.states.set(key, Visit::Done(Arc::new(summary)));
            Ok(())
        })?;
        Ok(visited)
    }

    /// Whether there are states from which not everything is tried yet.
    pub fn has_open(&self) -> bool {
        let mut has_open = false;
        self.states
            .each(|_, visit| has_open |= matches!(visit, Visit::Open(_)));
        has_open
    }
}
