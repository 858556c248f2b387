//! A table of the states that a search has seen, by their keys, which several workers use at once.
//! Each part of it has a lock of its own: a step takes far longer than a look, so that the workers
//! hardly ever meet at one.

use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, BuildHasherDefault, Hash};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::by_key::{ByKey, FoldHasher};

/// Parts of a table.
const PARTS: usize = 64;

/// A table by the keys of states.
#[derive(Debug)]
pub struct Table<K, V> {
    parts: Box<[Mutex<ByKey<K, V>>]>,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self {
            parts: (0..PARTS).map(|_| Mutex::default()).collect(),
        }
    }
}

/// A part, which is whole also if a worker has panicked: nothing that is done with it is left half
/// done.
fn lock<K, V>(part: &Mutex<ByKey<K, V>>) -> MutexGuard<'_, ByKey<K, V>> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K: Copy + Eq + Hash, V> Table<K, V> {
    fn part(&self, key: &K) -> MutexGuard<'_, ByKey<K, V>> {
        let hash = BuildHasherDefault::<FoldHasher>::default().hash_one(key);
        // The map itself goes by the lowest bits and by the highest.
        lock(&self.parts[(hash >> 32) as usize % PARTS])
    }

    /// Looks at the entry of `key`, or makes it. Nobody else does meanwhile.
    pub fn with<R>(&self, key: K, look: impl FnOnce(Entry<'_, K, V>) -> R) -> R {
        look(self.part(&key).entry(key))
    }

    /// What the table has for `key`.
    pub fn get(&self, key: K) -> Option<V>
    where
        V: Clone,
    {
        self.part(&key).get(&key).cloned()
    }

    /// Sets what the table has for `key`.
    pub fn set(&self, key: K, value: V) {
        self.part(&key).insert(key, value);
    }

    /// Shows `look` every entry.
    pub fn each(&self, mut look: impl FnMut(&K, &V)) {
        for part in &self.parts {
            lock(part).iter().for_each(|(key, value)| look(key, value));
        }
    }
}
