//! What happened to one vCPU on the host's side and when: its stays in the guest, what ended each,
//! and its stalls. Written by the vCPU's own thread, and only while somebody wants it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::clock;
use super::lifecycle::State;

/// Entries that are kept of one vCPU; what comes after is counted.
const MOST: usize = 1 << 20;

/// One entry. Times are of the host's TSC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// It was in the guest.
    Stay {
        /// When it went in.
        from: u64,
        /// When it came out.
        to: u64,
        /// What for, by its place in [`super::tally::REASONS`].
        reason: usize,
    },
    /// It confirmed that it is in this state now.
    Became {
        /// When.
        at: u64,
        /// The state.
        state: State,
    },
}

/// A stay in the guest that has begun.
#[derive(Debug, Clone, Copy)]
pub struct Entered {
    at: u64,
    is_kept: bool,
}

/// The journal of one vCPU.
#[derive(Debug, Default)]
pub struct Journal {
    is_kept: AtomicBool,
    kept: Mutex<Kept>,
}

/// Entries in the order in which they ended.
#[derive(Debug, Default, Clone)]
pub struct Kept {
    /// The first of them.
    pub entries: Vec<Entry>,
    /// How many there was no room for.
    pub lost: u64,
}

impl Journal {
    /// Keeps it from now on, or no longer.
    pub fn keep(&self, is_kept: bool) {
        self.is_kept.store(is_kept, Ordering::Relaxed);
    }

    /// A stay in the guest begins.
    pub fn enter(&self) -> Entered {
        Entered {
            at: clock::now(),
            is_kept: self.is_kept.load(Ordering::Relaxed),
        }
    }

    /// The stay that began with `entered` is over. It is kept if the journal is, or was then: what
    /// the guest did meanwhile can be in the trace in both cases.
    pub fn leave(&self, entered: Entered, reason: usize) {
        if entered.is_kept || self.is_kept.load(Ordering::Relaxed) {
            let (from, to) = (entered.at, clock::now());
            self.put(Entry::Stay { from, to, reason });
        }
    }

    /// The vCPU has confirmed `state`.
    pub fn became(&self, state: State) {
        if self.is_kept.load(Ordering::Relaxed) {
            let at = clock::now();
            self.put(Entry::Became { at, state });
        }
    }

    /// Takes what was kept so far.
    pub fn take(&self) -> Kept {
        std::mem::take(&mut *self.kept())
    }

    fn put(&self, entry: Entry) {
        let mut kept = self.kept();
        if kept.entries.len() < MOST {
            kept.entries.push(entry);
        } else {
            kept.lost += 1;
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
