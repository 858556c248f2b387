//! The states that a search with DPOR has visited, by their keys, for all its workers: those from
//! which not everything is tried yet, and for the others which actions can happen after them.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::actions::ActionSet;
use super::node::Node;
use crate::explore::search::table::Table;

/// What is known of a state that was visited.
#[derive(Debug, Clone)]
pub enum Visit {
    /// Not everything is tried from there yet.
    Open(Arc<Node>),
    /// Everything is. These actions can happen after it; on a cycle there can be more.
    Done(Arc<ActionSet>),
}

/// The states that were visited.
#[derive(Debug, Default)]
pub struct Visited {
    states: Table<u128, Visit>,
}

impl Visited {
    /// What is known of the state with this key, if it was visited.
    pub fn get(&self, key: u128) -> Option<Visit> {
        self.states.get(key)
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

    /// Whether there are states from which not everything is tried yet.
    pub fn has_open(&self) -> bool {
        let mut has_open = false;
        self.states
            .each(|_, visit| has_open |= matches!(visit, Visit::Open(_)));
        has_open
    }
}
