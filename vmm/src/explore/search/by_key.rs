//! Maps from the keys of states. A key is a hash already, so that it is not hashed again.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map from the keys of states.
pub type ByKey<K, T> = HashMap<K, T, BuildHasherDefault<FoldHasher>>;

/// A hasher for keys that are hashes already: it only folds them to 64 bits.
#[derive(Debug, Default)]
pub struct FoldHasher(u64);

impl Hasher for FoldHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = self.0.rotate_left(7) ^ u64::from_le_bytes(word);
        }
    }
}
