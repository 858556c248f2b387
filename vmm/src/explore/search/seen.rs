//! The states that an exhaustive search has visited, by their keys. Shards of a search are merged
//! by what is here, after the search.

use super::by_key::ByKey;
use super::links::Links;

/// A set of choices. The search decides which choice has which bit.
pub type ChoiceSet = u128;

/// The states that were visited.
#[derive(Debug, Default)]
pub struct Seen {
    /// By key: the choices that were not tried from that state (its sleep set).
    pub(super) states: ByKey<u128, ChoiceSet>,
    /// The final states.
    pub(super) ends: Vec<u128>,
    /// Which state led to which.
    pub(super) links: Links,
    /// Of a shard: for the states that all shards know, which can be reached from which, as far as
    /// this shard has tried.
    pub(super) across: Vec<(u128, u128)>,
}

impl Seen {
    /// The keys of all states.
    pub fn keys(&self) -> impl Iterator<Item = u128> {
        self.states.keys().copied()
    }

    /// The keys of the final states.
    pub fn ends(&self) -> &[u128] {
        &self.ends
    }

    /// Of a shard: for the states that all shards know, which can be reached from which, as far as
    /// this shard has tried. Two shards together can have a cycle that neither has alone.
    pub fn across(&self) -> &[(u128, u128)] {
        &self.across
    }

    /// Notes a state from which everything was tried, or is tried by other shards. Returns whether
    /// it is new.
    pub fn insert(&mut self, key: u128) -> bool {
        self.states.insert(key, 0).is_none()
    }

    /// Notes a final state. Must be called once for each.
    pub fn insert_end(&mut self, key: u128) {
        self.ends.push(key);
    }
}
