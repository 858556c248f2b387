//! The states that a search with DPOR has visited, by their keys, for all its workers: those from
//! which not everything is tried yet, and for the others which actions can happen after them. Many
//! states have the same such actions, so that each set of them is kept once.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, native_endian};

use super::actions::ActionSet;
use super::node::Node;
use crate::explore::search::by_key::ByKey;
use crate::explore::search::checkpoint::{read_list, read_plain, write_list, write_plain};
use crate::explore::search::storage::Storage;
use crate::explore::search::table::{Table, Value};

/// What is known of a state that was visited.
#[derive(Debug, Clone)]
pub enum Visit {
    /// Not everything is tried from there yet.
    Open(Arc<Node>),
    /// Everything is. These actions can happen after it; on a cycle there can be more.
    Done(Arc<ActionSet>),
}

/// What the table has of a state: 0 for nothing, 1 if it is open, and else the number of its summary,
/// from 2 on.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(transparent)]
struct Tag(native_endian::U32);

impl Tag {
    const OPEN: Self = Self(native_endian::U32::new(1));

    fn done(summary: u32) -> Self {
        Self((summary + 2).into())
    }

    /// The number of the summary, unless the state is open.
    fn summary(self) -> Option<u32> {
        self.0.get().checked_sub(2)
    }
}

impl Value for Tag {
    fn is_none(&self) -> bool {
        self.0 == 0
    }
}

/// The states that were visited.
#[derive(Debug)]
pub struct Visited {
    states: Table<Tag>,
    /// The open ones. To be locked only while the table's entry of the state is.
    open: Mutex<ByKey<u128, Arc<Node>>>,
    summaries: Summaries,
}

impl Visited {
    /// None so far. They are kept in `storage`.
    pub fn new(storage: &Arc<Storage>) -> Self {
        Self {
            states: Table::new(storage),
            open: Mutex::default(),
            summaries: Summaries::default(),
        }
    }

    fn open(&self) -> MutexGuard<'_, ByKey<u128, Arc<Node>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of the state with this key, if it was visited.
    pub fn get(&self, key: u128) -> Option<Visit> {
        self.states.look(key, |tag| match tag.summary() {
            Some(summary) => Visit::Done(self.summaries.get(summary)),
            None => {
                let node = self.open().get(&key).map(Arc::clone);
                Visit::Open(node.expect("what is open has a node"))
            }
        })
    }

    /// Notes that not everything is tried from the state of `node`, if it was not visited before.
    /// Returns whether that is so.
    pub fn begin(&self, key: u128, node: &Arc<Node>) -> bool {
        let first = || {
            self.open().insert(key, Arc::clone(node));
            Tag::OPEN
        };
        self.states.update(key, first, |_| ()).is_none()
    }

    /// Notes that nothing is to be tried from a state, if it was not visited before. Returns whether
    /// that is so.
    pub fn begin_done(&self, key: u128, summary: &ActionSet) -> bool {
        let first = || Tag::done(self.summaries.number(summary).0);
        self.states.update(key, first, |_| ()).is_none()
    }

    /// Notes that everything was tried from an open state, and returns its summary as it is kept.
    pub fn finish(&self, key: u128, summary: &ActionSet) -> Arc<ActionSet> {
        let (number, summary) = self.summaries.number(summary);
        self.states.look(key, |tag| {
            *tag = Tag::done(number);
            self.open().remove(&key);
        });
        summary
    }

    /// The nodes of the open states.
    pub fn open_nodes(&self) -> Vec<Arc<Node>> {
        self.open().values().map(Arc::clone).collect()
    }

    /// Writes the states that are not open.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        let summaries = self.summaries.all();
        write_list(
            to,
            |each| summaries.iter().for_each(each),
            |to, summary: &Arc<ActionSet>| summary.write(to),
        )?;
        let done = |each: &mut dyn FnMut((u128, u32))| {
            self.states.each(|key, tag| {
                if let Some(summary) = tag.summary() {
                    each((key, summary));
                }
            });
        };
        write_list(to, done, |to, (key, summary)| {
            write_plain(to, &key)?;
            write_plain(to, &summary)
        })
    }

    /// Reads what [`Visited::write`] has written, with so many `actions`, and keeps it in `storage`.
    ///
    /// # Errors
    /// If it cannot be read, or contradicts itself.
    pub fn read(from: &mut dyn Read, actions: usize, storage: &Arc<Storage>) -> io::Result<Self> {
        let visited = Self::new(storage);
        let mut count = 0;
        read_list(from, |from| {
            let (number, _) = visited.summaries.number(&ActionSet::read(from, actions)?);
            count += 1;
            match number + 1 == count {
                true => Ok(()),
                false => Err(io::Error::other("a set of actions is there twice")),
            }
        })?;
        read_list(from, |from| {
            let (key, summary) = (read_plain(from)?, read_plain::<u32>(from)?);
            let is_new = || {
                visited
                    .states
                    .update(key, || Tag::done(summary), |_| ())
                    .is_none()
            };
            match summary < count && is_new() {
                true => Ok(()),
                false => Err(io::Error::other(
                    "a state is there twice, or has no summary",
                )),
            }
        })?;
        Ok(visited)
    }

    /// Whether there are states from which not everything is tried yet.
    pub fn has_open(&self) -> bool {
        !self.open().is_empty()
    }
}

/// Sets of actions, each once, by number.
#[derive(Debug, Default)]
struct Summaries(RwLock<Numbered>);

#[derive(Debug, Default)]
struct Numbered {
    all: Vec<Arc<ActionSet>>,
    numbers: HashMap<Arc<ActionSet>, u32>,
}

impl Summaries {
    /// All of them, each at the place of its number.
    fn all(&self) -> Vec<Arc<ActionSet>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.all.clone()
    }

    fn get(&self, number: u32) -> Arc<ActionSet> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&known.all[number as usize])
    }

    /// The number of a set, and the set as it is kept.
    fn number(&self, set: &ActionSet) -> (u32, Arc<ActionSet>) {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((set, number)) = known.numbers.get_key_value(set) {
            return (*number, Arc::clone(set));
        }
        drop(known);
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        // Another worker can have been here.
        if let Some((set, number)) = known.numbers.get_key_value(set) {
            return (*number, Arc::clone(set));
        }
        let number = u32::try_from(known.all.len()).expect("fewer sets than states");
        let set = Arc::new(set.clone());
        known.all.push(Arc::clone(&set));
        known.numbers.insert(Arc::clone(&set), number);
        (number, set)
    }
}
