//! What other CPUs can tell of it when the oldest entry of a store buffer leaves.

use crate::explore::sharing::AccessKind;
use crate::explore::specimen::{Entry, Signal, Stopped};

/// What leaves next from a store buffer.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Leaving {
    /// The words that are written, and how.
    pub words: Vec<(u64, AccessKind)>,
    /// The IPIs, each with the CPU to which it goes.
    pub ipis: Vec<(usize, Signal)>,
}

impl Leaving {
    /// What leaves next from the store buffer of the CPU.
    pub fn of(stopped: &Stopped) -> Self {
        let mut leaving = Self::default();
        for entry in stopped.buffer().leaving() {
            match entry {
                Entry::Store(store) if store.follows => {
                    leaving.words.push((store.word(), AccessKind::Unlocks));
                }
                Entry::Store(store) => leaving.words.push((store.word(), AccessKind::Writes)),
                Entry::Ipi { target, signal } => leaving.ipis.push((*target, *signal)),
            }
        }
        leaving
    }
}
