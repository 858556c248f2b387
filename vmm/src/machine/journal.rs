//! What happened to one vCPU on the host's side, and when: its stays in the guest, what ended each
//! of them, and its stalls. Written by the vCPU's own thread, and only while a trace is on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::clock;
use super::lifecycle::State;

/// Most entries that are kept of one vCPU; later ones are only counted.
const MOST: usize = 1 << 20;

/// One entry. Times are in cycles of the host's TSC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// It was in the guest.
    Stay {
        /// When it entered.
        from: u64,
        /// When it came out.
        to: u64,
        /// The reason of the exit, as an index of [`super::exit_counts::REASONS`].
        reason: usize,
    },
    /// It entered the guest, when recording was off: of this stay and of what came after it nothing
    /// else is known, up to the next entry.
    Unseen {
        /// When it entered.
        at: u64,
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
    is_on: bool,
}

/// The journal of one vCPU.
#[derive(Debug, Default)]
pub struct Journal {
    is_on: AtomicBool,
    /// Whether the last stay was recorded, and not only its beginning. Written by the vCPU's thread
    /// alone.
    is_seen: AtomicBool,
    recorded: Mutex<JournalEntries>,
}

/// What was recorded, in the order in which it ended.
#[derive(Debug, Default, Clone)]
pub struct JournalEntries {
    /// The entries for which there was room.
    pub entries: Vec<Entry>,
    /// How many entries there was no room for.
    pub lost: u64,
}

impl Journal {
    /// Turns recording on or off.
    pub fn record(&self, is_on: bool) {
        self.is_on.store(is_on, Ordering::Relaxed);
    }

    /// A stay in the guest begins.
    pub fn enter(&self) -> Entered {
        Entered {
            at: clock::now(),
            is_on: self.is_on.load(Ordering::Relaxed),
        }
    }

    /// The stay that began with `entered` is over. It is recorded if recording is on, or was on
    /// when the stay began: in both cases the trace can hold what the guest did meanwhile. Of the
    /// first stay that is not recorded its beginning is, with which an exit or a stall ended.
    pub fn leave(&self, entered: Entered, reason: usize) {
        let is_seen = entered.is_on || self.is_on.load(Ordering::Relaxed);
        let was_seen = self.is_seen.swap(is_seen, Ordering::Relaxed);
        if is_seen {
            let (from, to) = (entered.at, clock::now());
            self.put(Entry::Stay { from, to, reason });
        } else if was_seen {
            self.put(Entry::Unseen { at: entered.at });
        }
    }

    /// The vCPU confirmed `state` at this time.
    pub fn became(&self, state: State, at: u64) {
        if self.is_on.load(Ordering::Relaxed) {
            self.put(Entry::Became { at, state });
        }
    }

    /// Takes what was recorded so far.
    pub fn take(&self) -> JournalEntries {
        std::mem::take(&mut *self.recorded())
    }

    fn put(&self, entry: Entry) {
        let mut recorded = self.recorded();
        if recorded.entries.len() < MOST {
            recorded.entries.push(entry);
        } else {
            recorded.lost += 1;
        }
    }

    fn recorded(&self) -> MutexGuard<'_, JournalEntries> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_stays_that_are_not_recorded_the_first_begins() {
        let journal = Journal::default();
        let stay = || journal.leave(journal.enter(), 3);
        stay();
        journal.record(true);
        stay();
        journal.record(false);
        stay();
        stay();
        journal.record(true);
        stay();
        let kinds = journal.take().entries.into_iter().map(|entry| match entry {
            Entry::Stay { .. } => "stay",
            Entry::Unseen { .. } => "unseen",
            Entry::Became { .. } => "became",
        });
        assert_eq!(kinds.collect::<Vec<_>>(), ["stay", "unseen", "stay"]);
    }
}
