//! Where a search keeps what it has seen: in memory, or, with a limit on memory, in files that are
//! paged out once the process has more resident than that. Says why a search has to stop when there
//! is no room left. Knows nothing of what is kept.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError, TryLockError, Weak};

use rustix::fs::statfs;
use tracing::debug;

use super::region::{Plain, Region};
use crate::control_characters::spell_out_path;
use crate::explore::stop_reason::StopReason;
use crate::machine::limits;
use crate::page_size::PAGE_SIZE;
use crate::size;

/// A limit on the memory of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryLimit {
    /// The most bytes that may be resident, apart from what is needed for a moment.
    pub bytes: u64,
    /// Where the files are that are paged out.
    pub directory: PathBuf,
}

/// Something in several parts that can be paged out.
pub trait PageOut: Send + Sync {
    /// How many parts it has.
    fn parts(&self) -> usize;

    /// Pages out one of them.
    fn page_out(&self, part: usize);
}

impl<T: Plain + Sync> PageOut for Region<T> {
    fn parts(&self) -> usize {
        1
    }

    fn page_out(&self, _: usize) {
        Self::page_out(self);
    }
}

/// Where a search keeps what it has seen. By default that is memory, without a limit.
#[derive(Debug, Default)]
pub struct Storage {
    limit: Option<MemoryLimit>,
    /// Whether the process has a limit on its address space, to which the search must not come.
    is_bounded: bool,
    /// What can be paged out, and the number of the part whose turn it is.
    pageable: Mutex<(Vec<Weak<dyn PageOut>>, usize)>,
    stopped: OnceLock<StopReason>,
    /// Why there was no room left.
    no_room: OnceLock<String>,
}

/// How often everything is paged out before it is concluded that this is not enough. Meanwhile other
/// workers get parts of it back.
const ROUNDS: usize = 3;

impl Storage {
    /// With this limit.
    ///
    /// # Errors
    /// If no files can be made in the directory.
    pub fn new(limit: MemoryLimit) -> io::Result<Self> {
        Region::<u64>::in_file(1, &limit.directory)?;
        Ok(Self {
            limit: Some(limit),
            ..Self::default()
        })
    }

    /// With a limit on the address space of the process, or without.
    #[must_use]
    pub fn bounded(self, is_bounded: bool) -> Self {
        Self { is_bounded, ..self }
    }

    /// A new region.
    ///
    /// # Errors
    /// If there is no room for it: the search has to stop.
    pub fn region<T: Plain>(&self, values: usize) -> Result<Region<T>, StopReason> {
        let region = match &self.limit {
            None => Region::in_memory(values),
            Some(limit) => Region::in_file(values, &limit.directory),
        };
        let region = region.map_err(|error| self.note_no_room::<T>(values, &error))?;
        self.keep_spare()?;
        Ok(region)
    }

    /// Has the search stop while the process has room for what comes after it.
    fn keep_spare(&self) -> Result<(), StopReason> {
        match self.is_bounded && !limits::have_spare() {
            true => Err(self.note_full(
                "this process has come near the limit on its memory (ulimit -v); raise it, or ask \
                 for fewer --jobs",
            )),
            false => Ok(()),
        }
    }

    fn note_no_room<T>(&self, values: usize, error: &io::Error) -> StopReason {
        let size = size::words(values.saturating_mul(size_of::<T>()) as u64);
        let who = self.limit.as_ref().map_or_else(
            || "the host".to_owned(),
            |limit| spell_out_path(&limit.directory),
        );
        self.note_full(&format!(
            "{who} has no room for {size} more of states: {error}"
        ))
    }

    /// Notes that there is no room left, and why.
    pub fn note_full(&self, why: &str) -> StopReason {
        let _ = self.no_room.set(why.to_owned());
        self.stop(StopReason::Room);
        StopReason::Room
    }

    fn stop(&self, why: StopReason) {
        let _ = self.stopped.set(why);
    }

    /// Why the search has to stop, if it has to.
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.stopped.get().copied()
    }

    /// Why there was no room left, if that is so.
    pub fn no_room(&self) -> Option<&str> {
        self.no_room.get().map(String::as_str)
    }

    /// Whether it can be worth while to page something out.
    pub fn is_limited(&self) -> bool {
        self.limit.is_some()
    }

    /// From now on, and as long as it is there, `pageable` is paged out when it has to be.
    pub fn add(&self, pageable: Weak<dyn PageOut>) {
        if self.is_limited() {
            let mut all = self.pageable.lock().unwrap_or_else(PoisonError::into_inner);
            all.0.retain(|it| it.strong_count() > 0);
            all.0.push(pageable);
        }
    }

    /// Pages out what can be, if the process has more resident than it may have: part by part, until
    /// it has an eighth less. `own` is what only the caller can get at. If it is not enough to page
    /// out everything, the search has to stop.
    pub fn keep_within(&self, own: &[&dyn PageOut]) {
        // What stops it is noted.
        let _ = self.keep_spare();
        let Some(limit) = &self.limit else {
            return;
        };
        if resident() <= limit.bytes {
            return;
        }
        let mut pageable = match self.pageable.try_lock() {
            Ok(pageable) => pageable,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Another worker is at it.
            Err(TryLockError::WouldBlock) => return,
        };
        let (all, turn) = &mut *pageable;
        let all: Vec<_> = all.iter().filter_map(Weak::upgrade).collect();
        let all = all.iter().map(|it| &**it).chain(own.iter().copied());
        let parts: Vec<_> = all
            .flat_map(|it| (0..it.parts()).map(move |part| (it, part)))
            .collect();
        let goal = limit.bytes - limit.bytes / 8;
        for _ in 0..ROUNDS * parts.len() {
            *turn = (*turn + 1) % parts.len();
            let (it, part) = parts[*turn];
            it.page_out(part);
            if resident() <= goal {
                debug!("states were paged out");
                return;
            }
        }
        let needs = resident();
        if needs > limit.bytes {
            self.stop(StopReason::Memory { needs });
        }
    }
}

/// Whether a directory is on tmpfs, as far as the host says.
pub fn is_memory(directory: &Path) -> bool {
    // linux/magic.h
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    statfs(directory).is_ok_and(|it| it.f_type as u64 == TMPFS_MAGIC)
}

/// The memory of this process that is resident, in bytes; 0 if the host does not say.
pub fn resident() -> u64 {
    // The second number is that of resident pages (proc(5)).
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0_u64).saturating_mul(PAGE_SIZE as u64)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn limited(bytes: u64) -> Storage {
        let directory = PathBuf::from("/var/tmp");
        Storage::new(MemoryLimit { bytes, directory }).unwrap()
    }

    /// Says how often it was asked to be paged out.
    #[derive(Default)]
    struct Asked(AtomicUsize);

    impl PageOut for Asked {
        fn parts(&self) -> usize {
            2
        }

        fn page_out(&self, _: usize) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn what_is_over_the_limit_is_paged_out() {
        // More than the limit, and not touched again.
        let bytes = 256 << 20;
        let storage = limited(resident() + bytes / 2);
        let mut region = storage.region::<u8>(bytes as usize).unwrap();
        region.values_mut().fill(1);
        let asked = Arc::new(Asked::default());
        let pageable: Weak<Asked> = Arc::downgrade(&asked);
        storage.add(pageable);
        storage.keep_within(&[&region]);
        assert_eq!(storage.stop_reason(), None);
        assert!(asked.0.load(Ordering::Relaxed) > 0);
        assert!(region.values().iter().all(|byte| *byte == 1));
    }

    #[test]
    fn a_search_stops_if_all_is_paged_out_and_that_is_not_enough() {
        let storage = limited(1 << 20);
        storage.keep_within(&[]);
        let Some(StopReason::Memory { needs }) = storage.stop_reason() else {
            panic!("a process has more than that");
        };
        assert!(needs > 1 << 20);
        assert!(
            storage
                .stop_reason()
                .unwrap()
                .reason()
                .contains("--memory-limit")
        );
    }

    #[test]
    fn without_a_limit_nothing_is_paged_out() {
        let storage = Storage::default();
        let asked = Arc::new(Asked::default());
        let pageable: Weak<Asked> = Arc::downgrade(&asked);
        storage.add(pageable);
        storage.keep_within(&[&*asked]);
        assert_eq!(asked.0.load(Ordering::Relaxed), 0);
        assert_eq!(storage.stop_reason(), None);
        assert_eq!(
            storage.region::<u64>(usize::MAX / 4).err(),
            Some(StopReason::Room)
        );
        assert!(storage.no_room().unwrap().contains("no room"));
    }
}
