//! The parts of a depth-first search that any worker can do: search stacks, each with what is left
//! to try from its states. Plain data.

use std::sync::Arc;

use super::engine::Engine;
use crate::explore::schedule::{Choice, Turn};
use crate::explore::specimen::State;

/// Where a part of a search begins: the last of some states, each of which leads to the next.
#[derive(Debug, Clone)]
pub struct Root {
    /// The states, from the initial state on.
    pub states: Vec<Arc<State>>,
    /// The turns between them.
    pub path: Vec<Turn>,
}

impl Root {
    /// The initial state.
    pub fn beginning(engine: &Engine<'_>) -> Self {
        Self {
            states: vec![Arc::new(engine.system.root().clone())],
            path: Vec::new(),
        }
    }

    /// The state at which it begins.
    pub fn state(&self) -> &Arc<State> {
        self.states.last().expect("it has its own state at least")
    }
}

/// A part of a depth-first search that any worker can do: a search stack.
#[derive(Debug)]
pub struct Task<D, S> {
    /// Where it begins.
    pub root: Root,
    /// What the visitor keeps for the first states of the stack; nothing for a state at which others
    /// try what is left, and for those that are not here.
    pub data: Vec<Option<D>>,
    /// The choice that it makes first. Without one, and if nothing is kept for any state, it visits
    /// the state at which it begins.
    pub by: Option<(Choice, S)>,
}

impl<D, S> Task<D, S> {
    /// The search from `root` on.
    pub fn from(root: Root) -> Self {
        Self {
            root,
            data: Vec::new(),
            by: None,
        }
    }

    /// The search behind a choice that is made at `root`.
    pub fn behind(root: Root, choice: Choice, step: S) -> Self {
        Self {
            by: Some((choice, step)),
            ..Self::from(root)
        }
    }

    /// Whether it begins with a visit.
    pub fn begins_with_visit(&self) -> bool {
        self.data.is_empty() && self.by.is_none()
    }
}
