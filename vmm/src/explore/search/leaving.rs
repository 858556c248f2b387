//! What other CPUs can tell of it when the oldest entry of a store buffer leaves.

use crate::explore::sharing::AccessKind;
use crate::explore::specimen::{Entry, Signal, Stopped};

/// What leaves next from the store buffer of the CPU: the words that are written, and how; and the
/// IPIs, each with the CPU to which it goes.
pub fn leaving(stopped: &Stopped) -> (Vec<(u64, AccessKind)>, Vec<(usize, Signal)>) {
    let (mut words, mut ipis) = (Vec::new(), Vec::new());
    for entry in stopped.buffer().leaving() {
        match entry {
            Entry::Store(store) if store.releases => {
                words.push((store.word(), AccessKind::Unlocks));
            }
            Entry::Store(store) => words.push((store.word(), AccessKind::Writes)),
            Entry::Ipi { target, signal } => ipis.push((*target, *signal)),
        }
    }
    (words, ipis)
}
