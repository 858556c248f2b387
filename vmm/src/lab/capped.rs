//! A list of bounded length that still knows how many entries there were. A broken guest can give
//! cause for any number of them.

/// How many entries are kept; more are only counted.
pub(super) const CAPACITY: usize = 64;

/// A list of which only the first entries are kept.
#[derive(Debug, Clone)]
pub struct Capped<T> {
    /// The first entries.
    pub first: Vec<T>,
    /// How many there are in all.
    pub total: u64,
}

impl<T> Default for Capped<T> {
    fn default() -> Self {
        Self {
            first: Vec::new(),
            total: 0,
        }
    }
}

impl<T> Capped<T> {
    pub(super) fn push(&mut self, entry: T) {
        self.total += 1;
        if self.first.len() < CAPACITY {
            self.first.push(entry);
        }
    }

    /// Adds an entry that is kept even if there are many already.
    pub(super) fn push_surely(&mut self, entry: T) {
        self.total += 1;
        self.first.push(entry);
    }

    pub(super) fn extend(&mut self, entries: impl IntoIterator<Item = T>) {
        entries.into_iter().for_each(|entry| self.push(entry));
    }
}
