//! A table of the states that a search has seen, by their keys, which several workers use at once.
//! It is in parts, each with a lock of its own: a step takes far longer than a look, so that the
//! workers hardly ever meet at one. A part is an array of plain entries (open addressing, linear
//! probing), which can lie in a file and be paged out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, native_endian};

use super::region::{Plain, Region};
use super::storage::{PageOut, Storage};

/// Parts of a table. They grow, and are paged out, one at a time; so one must be small beside the
/// whole.
const PARTS: usize = 256;

/// The entries for which a part has room at first; in a file, which takes time to make, for more.
const FIRST: usize = 16;
const FIRST_IN_FILE: usize = 2048;

/// A part grows, by half, once more than so many eighths of its entries are taken.
const MOST_EIGHTHS: usize = 7;

/// What a table has for a key.
pub trait Value: Plain + Unaligned + Sync + std::fmt::Debug {
    /// Whether it is none. All zeros are none.
    fn is_none(&self) -> bool;
}

/// An entry. It is free if its value is none.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Slot<V: Unaligned> {
    key: native_endian::U128,
    value: V,
}

/// A table by the keys of states.
#[derive(Debug)]
pub struct Table<V: Value> {
    parts: Arc<Parts<V>>,
    storage: Arc<Storage>,
}

#[derive(Debug)]
struct Parts<V: Value>(Box<[Mutex<Part<V>>]>);

#[derive(Debug)]
struct Part<V: Value> {
    /// At least one of them is free. There are none before the first key comes.
    slots: Option<Region<Slot<V>>>,
    taken: usize,
}

impl<V: Value> Table<V> {
    /// An empty table, which is kept in `storage`. If there is no room left, it says so there, and
    /// takes a little more all the same, until the search has stopped.
    pub fn new(storage: &Arc<Storage>) -> Self {
        let part = || {
            Mutex::new(Part {
                slots: None,
                taken: 0,
            })
        };
        let parts = Arc::new(Parts((0..PARTS).map(|_| part()).collect()));
        let pageable: Weak<Parts<V>> = Arc::downgrade(&parts);
        storage.add(pageable);
        Self {
            parts,
            storage: Arc::clone(storage),
        }
    }

    fn part(&self, key: u128) -> MutexGuard<'_, Part<V>> {
        // A key is a hash. Its place within a part follows from the lower half.
        self.parts.lock((key >> 120) as usize % PARTS)
    }

    /// Changes what the table has for `key`, and returns what `again` has returned; or, if it has
    /// nothing, gives it `first`. Nobody else looks at it meanwhile.
    pub fn update<R>(
        &self,
        key: u128,
        first: impl FnOnce() -> V,
        again: impl FnOnce(&mut V) -> R,
    ) -> Option<R> {
        let mut part = self.part(key);
        if let Some(value) = part.find(key) {
            return Some(again(value));
        }
        part.insert(key, first(), &self.storage);
        None
    }

    /// What the table has for `key`, as `look` sees it. Nobody else looks at it meanwhile.
    pub fn look<R>(&self, key: u128, look: impl FnOnce(&mut V) -> R) -> Option<R> {
        self.part(key).find(key).map(look)
    }

    /// Shows `look` every entry.
    pub fn each(&self, mut look: impl FnMut(u128, &V)) {
        for part in 0..PARTS {
            let part = self.parts.lock(part);
            let slots = part.slots.iter().flat_map(Region::values);
            let taken = slots.filter(|slot| !slot.value.is_none());
            taken.for_each(|slot| look(slot.key.get(), &slot.value));
            drop(part);
            self.storage.keep_within(&[]);
        }
    }
}

impl<V: Value> Parts<V> {
    /// A part, which is whole also if a worker has panicked: nothing that is done with it is left
    /// half done.
    fn lock(&self, part: usize) -> MutexGuard<'_, Part<V>> {
        self.0[part].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V: Value> PageOut for Parts<V> {
    fn parts(&self) -> usize {
        PARTS
    }

    fn page_out(&self, part: usize) {
        if let Some(slots) = &self.lock(part).slots {
            slots.page_out();
        }
    }
}

/// Where `key` is among `slots`, or else the free one where it belongs. The places of keys are in the
/// order of the keys, so that moving all of them is one pass over both regions.
fn place<V: Value>(slots: &[Slot<V>], key: u128) -> usize {
    let hash = u128::from(key as u64);
    let mut at = ((hash * slots.len() as u128) >> 64) as usize;
    while !slots[at].value.is_none() && slots[at].key.get() != key {
        at += 1;
        if at == slots.len() {
            at = 0;
        }
    }
    at
}

impl<V: Value> Part<V> {
    fn find(&mut self, key: u128) -> Option<&mut V> {
        let slots = self.slots.as_mut()?.values_mut();
        let slot = &mut slots[place(slots, key)];
        (!slot.value.is_none()).then_some(&mut slot.value)
    }

    /// Adds a key that is not there.
    fn insert(&mut self, key: u128, value: V, storage: &Storage) {
        debug_assert!(!value.is_none(), "what is none cannot be found again");
        let slots = self.with_room(storage).values_mut();
        slots[place(slots, key)] = Slot {
            key: key.into(),
            value,
        };
        self.taken += 1;
    }

    /// The entries, of which at least two are free.
    fn with_room(&mut self, storage: &Storage) -> &mut Region<Slot<V>> {
        let now = self.slots.as_ref().map_or(0, |slots| slots.values().len());
        if 8 * (self.taken + 1) > MOST_EIGHTHS * now {
            let first = match storage.is_limited() {
                true => FIRST_IN_FILE,
                false => FIRST,
            };
            let more = (now + now / 2).max(first);
            match storage.region(more) {
                Ok(region) => self.move_to(region),
                // The search stops. What its workers find until they notice has to go somewhere.
                Err(_) if now < self.taken + 2 => {
                    let region = Region::in_memory(more);
                    self.move_to(region.expect("the host has memory for what is found last"));
                }
                Err(_) => {}
            }
        }
        self.slots.as_mut().expect("there was room")
    }

    fn move_to(&mut self, mut region: Region<Slot<V>>) {
        let slots = region.values_mut();
        let before = self.slots.iter().flat_map(Region::values);
        for slot in before.filter(|slot| !slot.value.is_none()) {
            slots[place(slots, slot.key.get())] = *slot;
        }
        self.slots = Some(region);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::thread;

    use proptest::prelude::*;
    use xxhash_rust::xxh3::xxh3_128;

    use super::super::storage::MemoryLimit;
    use super::*;
    use crate::explore::stop_reason::StopReason;

    /// A number that is not 0.
    #[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
    #[repr(transparent)]
    struct Number(native_endian::U32);

    impl Value for Number {
        fn is_none(&self) -> bool {
            self.0 == 0
        }
    }

    fn number(number: u32) -> Number {
        Number(number.into())
    }

    fn key(number: u32) -> u128 {
        xxh3_128(&number.to_le_bytes())
    }

    fn entries(table: &Table<Number>) -> HashMap<u128, u32> {
        let mut all = HashMap::new();
        table.each(|key, number| assert_eq!(all.insert(key, number.0.get()), None));
        all
    }

    /// In files, with a limit that is passed at once.
    fn in_files() -> Arc<Storage> {
        let directory = "/var/tmp".into();
        Arc::new(
            Storage::new(MemoryLimit {
                bytes: 1,
                directory,
            })
            .unwrap(),
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 8,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// Keys that crowd two places of one part, the last included, among others of many parts.
        #[test]
        fn it_is_a_map(
            keys in proptest::collection::vec(prop_oneof![
                0..400_u128,
                (0..400_u128).prop_map(|low| u128::from(u64::MAX) - low),
                any::<u128>(),
            ], 0..800),
            is_in_files in any::<bool>(),
        ) {
            let storage = if is_in_files { in_files() } else { Arc::default() };
            let table = Table::new(&storage);
            let mut map = HashMap::new();
            for (key, value) in keys.into_iter().zip(1..) {
                let before = map.insert(key, value);
                let look = |known: &mut Number| std::mem::replace(known, number(value)).0.get();
                let now = table.look(key, |known: &mut Number| known.0.get());
                prop_assert_eq!(now, before);
                prop_assert_eq!(table.update(key, || number(value), look), before);
                if value % 100 == 0 {
                    storage.keep_within(&[]);
                }
            }
            prop_assert_eq!(entries(&table), map);
        }
    }

    #[test]
    fn several_threads_fill_it() {
        for storage in [Arc::default(), in_files()] {
            let table = Table::new(&storage);
            let all = 40_000;
            thread::scope(|scope| {
                for first in 0..4 {
                    let (table, storage) = (&table, &storage);
                    scope.spawn(move || {
                        // Each begins elsewhere, and two come to each key.
                        for step in 0..all / 2 {
                            let it = (first * all / 4 + step) % all;
                            table.update(key(it), || number(1), |count| count.0 += 1);
                            if step % 1000 == 0 {
                                storage.keep_within(&[]);
                            }
                        }
                    });
                }
            });
            let entries = entries(&table);
            assert_eq!(entries.len(), all as usize);
            assert!(entries.values().all(|count| *count == 2));
        }
    }

    /// What comes after the room has run out is kept until the search has stopped.
    #[test]
    fn nothing_is_lost_where_there_is_no_room() {
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let limit = MemoryLimit {
            bytes: u64::MAX,
            directory: directory.path().to_owned(),
        };
        let storage = Arc::new(Storage::new(limit).unwrap());
        let table = Table::new(&storage);
        let fill = |keys: std::ops::Range<u32>| {
            for it in keys {
                assert!(table.update(key(it), || number(it + 1), |_| ()).is_none());
            }
        };
        fill(0..20_000);
        assert_eq!(storage.stop_reason(), None);
        // No more files can be made, and no part has room for its share of what comes.
        directory.close().unwrap();
        fill(20_000..700_000);
        assert_eq!(storage.stop_reason(), Some(StopReason::Room));
        assert!(storage.no_room().unwrap().contains("no room for"));
        assert_eq!(entries(&table).len(), 700_000);
        for it in 0..700_000 {
            assert_eq!(table.look(key(it), |known| known.0.get()), Some(it + 1));
        }
    }
}
