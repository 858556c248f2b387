//! The states that a search has seen, by their keys, each with a number, and which of them lead to
//! which. Several workers fill it at once. Shards of a search are merged by what is here, after the
//! search.

use std::collections::BTreeSet;
use std::collections::hash_map::Entry;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::checkpoint::{read_list, read_plain, write_list, write_plain};
use super::links::Links;
use super::table::Table;

/// What can be kept for a state: a plain value.
pub trait Plain: Copy + FromBytes + IntoBytes + Immutable {}

impl<V: Copy + FromBytes + IntoBytes + Immutable> Plain for V {}

/// A state that was seen.
#[derive(Debug, Clone, Copy)]
pub struct Known<V> {
    /// Its number, from 0 on.
    pub number: u32,
    /// What the strategy keeps for it.
    pub value: V,
}

/// What is left of the states that were seen once the search is over: their keys.
#[derive(Debug, Default)]
pub struct States {
    /// All of them.
    pub all: Vec<u128>,
    /// The final ones.
    pub ends: Vec<u128>,
    /// Of a shard: for the states that all shards know, which can be reached from which, as far as
    /// this shard has tried. Two shards together can have a cycle that neither has alone.
    pub across: Vec<(u128, u128)>,
}

/// The states that were seen, with what a strategy keeps for each.
#[derive(Debug)]
pub struct Seen<V> {
    states: Table<u128, Known<V>>,
    next: AtomicU32,
    ends: Mutex<Vec<u128>>,
    links: Mutex<Links>,
}

impl<V> Default for Seen<V> {
    fn default() -> Self {
        Self {
            states: Table::default(),
            next: AtomicU32::new(0),
            ends: Mutex::default(),
            links: Mutex::default(),
        }
    }
}

impl<V: Copy> Seen<V> {
    /// Notes that a state was reached. If it was reached before, `again` changes what is kept for
    /// it; else that is `first`. Returns its number, and what `again` has returned.
    pub fn reach<R>(
        &self,
        key: u128,
        first: V,
        again: impl FnOnce(&mut V) -> R,
    ) -> (u32, Option<R>) {
        self.states.with(key, |entry| match entry {
            Entry::Occupied(mut known) => {
                let known = known.get_mut();
                (known.number, Some(again(&mut known.value)))
            }
            Entry::Vacant(place) => {
                let number = self.next.fetch_add(1, Ordering::Relaxed);
                assert!(number < u32::MAX, "fewer states than would fit into memory");
                let value = first;
                place.insert(Known { number, value });
                (number, None)
            }
        })
    }

    /// Notes a final state. Must be called once for each.
    pub fn add_end(&self, key: u128) {
        let ends = self.ends.lock();
        ends.unwrap_or_else(PoisonError::into_inner).push(key);
    }

    /// Adds what a worker knows of which states lead to which.
    pub fn add_links(&self, links: Links) {
        let all = self.links.lock();
        all.unwrap_or_else(PoisonError::into_inner).append(links);
    }

    /// Whether the states form a cycle.
    pub fn has_cycle(&self) -> bool {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.has_cycle(self.next.load(Ordering::Relaxed))
    }

    /// Pairs of a state in `from` and another one in `to` that can be reached from it.
    pub fn reached(&self, from: &BTreeSet<u128>, to: &BTreeSet<u128>) -> Vec<(u128, u128)> {
        let numbered = |keys: &BTreeSet<u128>| -> Vec<(u32, u128)> {
            let known = |key: &u128| Some((self.states.get(*key)?.number, *key));
            keys.iter().filter_map(known).collect()
        };
        let (from, to) = (numbered(from), numbered(to));
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pairs = links.reached(self.next.load(Ordering::Relaxed), &from, &to);
        pairs.sort_unstable();
        pairs
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, to: &mut dyn Write) -> io::Result<()>
    where
        V: Plain,
    {
        let states = |each: &mut dyn FnMut((u128, Known<V>))| {
            self.states.each(|key, known| each((*key, *known)));
        };
        write_list(to, states, |to, (key, known)| {
            write_plain(to, &key)?;
            write_plain(to, &known.number)?;
            write_plain(to, &known.value)
        })?;
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        write_list(
            to,
            |each| ends.iter().copied().for_each(each),
            |to, key| write_plain(to, &key),
        )?;
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        write_list(
            to,
            |each| links.each(each),
            |to, (from, next)| {
                write_plain(to, &from)?;
                write_plain(to, &next)
            },
        )
    }

    /// Reads what [`Seen::write`] has written.
    ///
    /// # Errors
    /// If it cannot be read, or contradicts itself.
    pub fn read(from: &mut dyn Read) -> io::Result<Self>
    where
        V: Plain,
    {
        let mut seen = Self::default();
        let (mut states, mut above) = (0_u32, 0_u32);
        read_list(from, |from| {
            let key = read_plain(from)?;
            let (number, value) = (read_plain::<u32>(from)?, read_plain(from)?);
            seen.states.set(key, Known { number, value });
            (states, above) = (states + 1, above.max(number.saturating_add(1)));
            Ok(())
        })?;
        let mut ends = Vec::new();
        read_list(from, |from| {
            ends.push(read_plain(from)?);
            Ok(())
        })?;
        let mut links = Links::default();
        read_list(from, |from| {
            let (from, to) = (read_plain::<u32>(from)?, read_plain(from)?);
            above = above.max(from.max(to).saturating_add(1));
            links.add(from, to);
            Ok(())
        })?;
        if above > states {
            return Err(io::Error::other("a state has a number that is too large"));
        }
        seen.next = AtomicU32::new(states);
        (seen.ends, seen.links) = (Mutex::new(ends), Mutex::new(links));
        Ok(seen)
    }

    /// Whether there is a state with this number.
    pub fn has_number(&self, number: u32) -> bool {
        number < self.next.load(Ordering::Relaxed)
    }

    /// The keys of all states, and those of the final ones.
    pub fn into_keys(self) -> (Vec<u128>, Vec<u128>) {
        let mut keys = Vec::new();
        self.states.each(|key, _| keys.push(*key));
        let ends = self.ends.into_inner();
        (keys, ends.unwrap_or_else(PoisonError::into_inner))
    }
}
