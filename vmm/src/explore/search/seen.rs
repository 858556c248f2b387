//! What an exhaustive search has seen, by the keys of states. It outlives the search: shards are
//! merged by it.

use super::ByKey;
use super::links::Links;

/// Choices, as a set; which has which place is for the search to say.
pub type Set = u128;

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// By key: the choices that were not tried from there.
    pub(super) states: ByKey<u128, Set>,
    /// Those in which nothing could go on.
    pub(super) ends: Vec<u128>,
    /// Which led to which.
    pub(super) links: Links,
    /// Of a part of a search: which states that all parts know can be reached from which, by what
    /// the part has tried.
    pub(super) across: Vec<(u128, u128)>,
}

impl Seen {
    /// The keys of all states.
    pub fn keys(&self) -> impl Iterator<Item = u128> {
        self.states.keys().copied()
    }

    /// The keys of those in which nothing could go on.
    pub fn ends(&self) -> &[u128] {
        &self.ends
    }

    /// Of a part of a search: which states that all parts know can be reached from which, by what
    /// it has tried. Two parts together can come back to a state to which neither does.
    pub fn across(&self) -> &[(u128, u128)] {
        &self.across
    }

    /// Notes a state as one from which everything was tried, or is by others. Whether it is new.
    pub fn insert(&mut self, key: u128) -> bool {
        self.states.insert(key, 0).is_none()
    }

    /// Notes a state in which nothing could go on, once.
    pub fn insert_end(&mut self, key: u128) {
        self.ends.push(key);
    }
}
