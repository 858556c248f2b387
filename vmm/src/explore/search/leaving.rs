//! What other CPUs can tell of it when the oldest entry of a store buffer leaves.

use crate::explore::sharing::AccessKind;
use crate::explore::specimen::{Entry, Stopped};

/// What leaves next from the store buffer of the CPU: the words that are written, and how; and the
/// CPUs to which IPIs go.
pub fn leaving(stopped: &Stopped) -> (Vec<(u64, AccessKind)>, Vec<usize>) {
    let (mut words, mut targets) = (Vec::new(), Vec::new());
    for entry in stopped.buffer().leaving() {
        match entry {
            Entry::Store(store) if store.releases => {
                words.push((store.word(), AccessKind::Unlocks));
            }
            Entry::Store(store) => words.push((store.word(), AccessKind::Writes)),
            Entry::Ipi { target, .. } => targets.push(*target),
        }
    }
    (words, targets)
}
