//! The states that a search has seen, by their keys, each with a number, and which of them lead to
//! which. Several workers fill it at once. Shards of a search are merged by what is here, after the
//! search.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, native_endian};

use super::checkpoint::{read_list, read_plain, write_list, write_plain};
use super::links::{Link, Links};
use super::region::Plain;
use super::storage::Storage;
use super::table::{Table, Value};
use crate::explore::stop_reason::StopReason;

/// A state that was seen.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Known<V: Unaligned> {
    /// Its number, from 1 on.
    number: native_endian::U32,
    /// What the strategy keeps for it.
    value: V,
}

/// What a strategy keeps for each state.
pub trait Kept: Plain + Unaligned + Sync + std::fmt::Debug {}

impl<V: Plain + Unaligned + Sync + std::fmt::Debug> Kept for V {}

impl<V: Kept> Value for Known<V> {
    fn is_none(&self) -> bool {
        self.number == 0
    }
}

/// What is left of the states that were seen once the search is over: their keys.
#[derive(Debug, Default)]
pub struct States {
    /// All of them, if they are wanted.
    pub all: Vec<u128>,
    /// The final ones.
    pub ends: Vec<u128>,
    /// Of a shard: for the states that all shards know, which can be reached from which, as far as
    /// this shard has tried. Two shards together can have a cycle that neither has alone.
    pub across: Vec<(u128, u128)>,
}

/// The states that were seen, with what a strategy keeps for each.
#[derive(Debug)]
pub struct Seen<V: Kept> {
    storage: Arc<Storage>,
    states: Table<Known<V>>,
    count: AtomicU32,
    ends: Mutex<Vec<u128>>,
    links: Mutex<Links>,
}

impl<V: Kept> Seen<V> {
    /// None so far. They are kept in `storage`.
    pub fn new(storage: &Arc<Storage>) -> Self {
        Self {
            storage: Arc::clone(storage),
            states: Table::new(storage),
            count: AtomicU32::new(0),
            ends: Mutex::default(),
            links: Mutex::new(Links::new(storage)),
        }
    }

    /// Notes that a state was reached. If it was reached before, `again` changes what is kept for
    /// it; else that is `first`. Returns its number, and what `again` has returned.
    pub fn reach<R>(
        &self,
        key: u128,
        first: V,
        again: impl FnOnce(&mut V) -> R,
    ) -> (u32, Option<R>) {
        let mut number = 0;
        let new = || {
            number = self.next_number();
            Known {
                number: number.into(),
                value: first,
            }
        };
        let known = self.states.update(key, new, |known| {
            (known.number.get(), again(&mut known.value))
        });
        match known {
            Some((number, again)) => (number - 1, Some(again)),
            None => (number - 1, None),
        }
    }

    /// The number of a new state, from 1 on. Once there are no more, the search stops.
    fn next_number(&self) -> u32 {
        let count = &self.count;
        let next = |count: u32| count.checked_add(1);
        let before = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        before.map_or_else(
            |last| {
                self.storage
                    .note_full("no more than 2^32 - 1 states have numbers");
                last
            },
            |before| before + 1,
        )
    }

    /// What a worker uses to note which states lead to which.
    pub fn no_links(&self) -> Links {
        Links::new(&self.storage)
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
    ///
    /// # Errors
    /// Why that cannot be told.
    pub fn has_cycle(&self) -> Result<bool, StopReason> {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.has_cycle(self.count.load(Ordering::Relaxed))
    }

    /// Pairs of a state in `from` and another one in `to` that can be reached from it.
    ///
    /// # Errors
    /// Why that cannot be told.
    pub fn reached(
        &self,
        from: &BTreeSet<u128>,
        to: &BTreeSet<u128>,
    ) -> Result<Vec<(u128, u128)>, StopReason> {
        let number = |key| self.states.look(key, |known| known.number.get() - 1);
        let numbered = |keys: &BTreeSet<u128>| -> Vec<(u32, u128)> {
            let known = |key: &u128| Some((number(*key)?, *key));
            keys.iter().filter_map(known).collect()
        };
        let (from, to) = (numbered(from), numbered(to));
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pairs = links.reached(self.count.load(Ordering::Relaxed), &from, &to)?;
        pairs.sort_unstable();
        Ok(pairs)
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// If it cannot be written, or is not whole for lack of room.
    pub fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        // If there was no room, some links are not here.
        if self.storage.stop_reason() == Some(StopReason::Room) {
            return Err(io::Error::other("there was no room for all that it knows"));
        }
        let states = |each: &mut dyn FnMut((u128, Known<V>))| {
            self.states.each(|key, known| each((key, *known)));
        };
        write_list(to, states, |to, (key, known)| {
            write_plain(to, &key)?;
            write_plain(to, &known)
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
            |to, link| write_plain(to, &link),
        )
    }

    /// Reads what [`Seen::write`] has written, and keeps it in `storage`.
    ///
    /// # Errors
    /// If it cannot be read, or contradicts itself.
    pub fn read(from: &mut dyn Read, storage: &Arc<Storage>) -> io::Result<Self> {
        let mut seen = Self::new(storage);
        let (mut count, mut greatest) = (0_u32, 0);
        read_list(from, |from| {
            let (key, known) = (read_plain(from)?, read_plain::<Known<V>>(from)?);
            let again = seen.states.update(key, || known, |_| ()).is_some();
            greatest = greatest.max(known.number.get());
            count = count.saturating_add(1);
            match again || known.is_none() {
                true => Err(io::Error::other("a state is there twice, or has no number")),
                false => Ok(()),
            }
        })?;
        let mut ends = Vec::new();
        read_list(from, |from| {
            ends.push(read_plain(from)?);
            Ok(())
        })?;
        let mut links = Links::new(storage);
        read_list(from, |from| {
            let link: Link = read_plain(from)?;
            greatest = greatest.max(link.from.max(link.to).saturating_add(1));
            links.add(link.from, link.to);
            Ok(())
        })?;
        if greatest > count {
            return Err(io::Error::other("a state has a number that is too large"));
        }
        seen.count = AtomicU32::new(count);
        (seen.ends, seen.links) = (Mutex::new(ends), Mutex::new(links));
        Ok(seen)
    }

    /// Whether there is a state with this number.
    pub fn has_number(&self, number: u32) -> bool {
        number < self.count.load(Ordering::Relaxed)
    }

    /// The keys of all states, and those of the final ones.
    pub fn into_keys(self) -> (Vec<u128>, Vec<u128>) {
        let mut keys = Vec::new();
        self.states.each(|key, _| keys.push(key));
        let ends = self.ends.into_inner();
        (keys, ends.unwrap_or_else(PoisonError::into_inner))
    }
}
