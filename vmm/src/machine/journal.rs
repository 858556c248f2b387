//! What happened to one vCPU on the host's side, and when: its stays in the guest, what ended each
//! of them, and its stalls. Written by the vCPU's own thread, and only while a trace is on.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::clock;
use super::lifecycle::State;

/// Most entries that are kept of one machine, which is 128 MiB; later ones are only counted.
const MOST: usize = 1 << 22;

/// How many entries a vCPU takes room for at once: seldom enough that vCPUs do not wait for each
/// other, and few enough that all of the most that a machine can have get some.
const CHUNK: usize = 1 << 10;

/// The room for the entries of all vCPUs of one machine.
#[derive(Debug)]
pub struct Room {
    left: AtomicUsize,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            left: AtomicUsize::new(MOST),
        }
    }
}

impl Room {
    /// Takes a part of it, of [`CHUNK`] entries as long as there are so many.
    fn take(&self) -> usize {
        let less = |left: usize| Some(left.saturating_sub(CHUNK));
        let before = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        before.map_or(0, |before| before.min(CHUNK))
    }
}

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
    recorded: Mutex<Recorded>,
    /// Shared by the vCPUs of the machine.
    room: Arc<Room>,
}

/// What was recorded, in the order in which it ended.
#[derive(Debug, Default, Clone)]
pub struct JournalEntries {
    /// The entries for which there was room.
    pub entries: Vec<Entry>,
    /// How many entries there was no room for.
    pub lost: u64,
}

/// The same, and how many more there is room for that this vCPU has taken.
#[derive(Debug, Default)]
struct Recorded {
    entries: JournalEntries,
    room: usize,
}

impl Journal {
    /// An empty one, which finds its room in `room`.
    pub(super) fn new(room: &Arc<Room>) -> Self {
        Self {
            room: Arc::clone(room),
            ..Self::default()
        }
    }

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
        std::mem::take(&mut self.recorded().entries)
    }

    fn put(&self, entry: Entry) {
        let mut recorded = self.recorded();
        if recorded.room == 0 {
            recorded.room = self.room.take();
        }
        match recorded.room.checked_sub(1) {
            Some(left) => {
                recorded.room = left;
                recorded.entries.entries.push(entry);
            }
            None => recorded.entries.lost += 1,
        }
    }

    fn recorded(&self) -> MutexGuard<'_, Recorded> {
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

    /// 1,024 vCPUs have no more room together than one has alone, and each has some.
    #[test]
    fn the_vcpus_of_a_machine_share_the_room() {
        for vcpus in [1, 1024] {
            let room = Arc::default();
            let journals: Vec<_> = (0..vcpus).map(|_| Journal::new(&room)).collect();
            let more = 10;
            for _ in 0..(MOST / vcpus + more) {
                for journal in &journals {
                    journal.put(Entry::Unseen { at: 1 });
                }
            }
            let taken: Vec<_> = journals.iter().map(Journal::take).collect();
            let kept = taken.iter().map(|it| it.entries.len()).sum::<usize>();
            let lost = taken.iter().map(|it| it.lost).sum::<u64>();
            assert_eq!((kept, lost), (MOST, (vcpus * more) as u64), "{vcpus} vCPUs");
            assert!(
                taken.iter().all(|it| it.entries.len() >= CHUNK),
                "{vcpus} vCPUs"
            );
        }
        assert_eq!(MOST * size_of::<Entry>(), 128 << 20);
    }
}
