//! What is kept of a search, so that another process can go on with it: what it has come to so far,
//! and in which form a strategy writes and reads what it knows and what it has left to do. Knows no
//! file, and decides nothing.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::counts::Counts;
use super::dfs::Cut;
use super::engine::Engine;
use super::found::Found;
use super::parts::Root;
use crate::explore::key::Key;
use crate::explore::schedule::Turn;
use crate::explore::sharing::SharingRecord;
use crate::explore::specimen::{SpecimenError, State};

/// Who keeps checkpoints of a search.
pub trait Keeper {
    /// When the search is to pause next, so that it can be kept.
    fn due(&self) -> Instant;

    /// Keeps the search, which pauses or has stopped. `write` writes all of it.
    fn keep(&mut self, write: &dyn Fn(&mut dyn Write) -> io::Result<()>);
}

/// What the workers of a search have together, if it can be kept. They must all have paused or
/// stopped.
pub trait Resumable {
    /// Has workers begin again where others have paused.
    fn go_on(&mut self);

    /// Which search it is.
    fn phase(&self) -> Phase;

    /// Whether everything is there that is left to do: no worker had to stop half-way.
    fn is_whole(&self) -> bool;

    /// Writes what the strategy knows, and what it has left to do.
    ///
    /// # Errors
    /// If it cannot be written.
    fn write(&self, to: &mut dyn Write) -> io::Result<()>;
}

/// Which search a strategy is at. A strategy can be several searches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Every order with at most this many preemptions.
    Bounded(u32),
    /// Every order.
    Exhaustive,
    /// Every order that can matter.
    Races,
}

/// What a search has come to so far, apart from what its strategy knows.
#[derive(Debug, Serialize, Deserialize)]
pub struct SoFar {
    /// What it has learnt about the memory that CPUs share.
    pub sharing: SharingRecord,
    /// The pages of guest memory that were written: a state has no others.
    pub pages: BTreeSet<usize>,
    /// How long it has taken.
    pub time: Duration,
    /// What it has done.
    counts: Counts,
    /// The hashes of the final states.
    outcomes: BTreeSet<u128>,
    /// What it has found and gone on from.
    found: Found,
    /// Whether it has found that states form a cycle.
    has_cycle: bool,
}

impl SoFar {
    /// What the search of `engine` has come to in this `time`. These pages can be in its states.
    pub fn of(engine: &Engine<'_>, pages: BTreeSet<usize>, time: Duration) -> Self {
        Self {
            sharing: engine.sharing.to_record(),
            pages,
            time,
            counts: engine.counts,
            outcomes: engine.outcomes.clone(),
            found: engine.found.clone(),
            has_cycle: engine.has_cycle,
        }
    }
}

/// A search that was kept, to go on with.
pub struct Checkpoint {
    /// What it was at.
    pub phase: Phase,
    /// What it had come to.
    pub so_far: SoFar,
    /// What its strategy has written.
    rest: Box<dyn Read + Send>,
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoint")
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}

impl Checkpoint {
    /// Reads a search that [`write`] has written.
    ///
    /// # Errors
    /// If it cannot be read, or is something else.
    pub fn read(mut rest: Box<dyn Read + Send>) -> io::Result<Self> {
        let so_far = read_value(&mut rest)?;
        let phase = read_value(&mut rest)?;
        Ok(Self {
            phase,
            so_far,
            rest,
        })
    }

    /// Has the search of `engine`, which is at `phase`, have come to what this one had. Returns what
    /// its strategy has written.
    ///
    /// # Errors
    /// [`Cut`] if it cannot be of the same search.
    pub fn begin(self, engine: &mut Engine<'_>, phase: Phase) -> Result<Box<dyn Read + Send>, Cut> {
        if self.phase != phase {
            return Err(unusable());
        }
        let so_far = self.so_far;
        let wanted = std::mem::take(&mut engine.found.wanted);
        if so_far.found.reached.len() != wanted.conditions.len() {
            return Err(unusable());
        }
        engine.found = so_far.found;
        engine.found.wanted = wanted;
        engine.counts = so_far.counts;
        engine.counts.resumed += 1;
        engine.before = so_far.time;
        engine.outcomes = so_far.outcomes;
        engine.has_cycle = so_far.has_cycle;
        Ok(self.rest)
    }
}

/// Writes a search, and by `strategy` what its strategy knows.
///
/// # Errors
/// If it cannot be written.
pub fn write(
    to: &mut dyn Write,
    so_far: &SoFar,
    phase: Phase,
    strategy: impl Fn(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    write_value(to, so_far)?;
    write_value(to, &phase)?;
    strategy(to)
}

/// Checks that getting back to where the search was has taught nothing new.
///
/// # Errors
/// [`Cut::Void`] if it has.
pub fn check_resumed(engine: &mut Engine<'_>) -> Result<(), Cut> {
    match engine.is_void() || engine.is_incomplete()? {
        true => Err(Cut::Void),
        false => Ok(()),
    }
}

/// That what was kept cannot be of this search.
pub fn unusable() -> Cut {
    Cut::Failed(SpecimenError::Checkpoint(
        "it contradicts itself, or is of another search".to_owned(),
    ))
}

/// The same, where reading it fails.
pub fn unreadable(error: &io::Error) -> Cut {
    Cut::Failed(SpecimenError::Checkpoint(error.to_string()))
}

/// Writes `value`.
///
/// # Errors
/// If it cannot be written.
pub fn write_value(to: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec(value)?;
    to.write_all(&(text.len() as u64).to_le_bytes())?;
    to.write_all(&text)
}

/// Reads what [`write_value`] has written.
///
/// # Errors
/// If it cannot be read, or is something else.
pub fn read_value<T: DeserializeOwned>(from: &mut dyn Read) -> io::Result<T> {
    let mut length = [0; 8];
    from.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    let mut text = Vec::new();
    from.take(length).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// Writes a list: before each entry, which `write` writes, a byte that says that there is one more.
///
/// # Errors
/// If it cannot be written.
pub fn write_list<T>(
    to: &mut dyn Write,
    all: impl FnOnce(&mut dyn FnMut(T)),
    write: impl Fn(&mut dyn Write, T) -> io::Result<()>,
) -> io::Result<()> {
    let mut written = Ok(());
    all(&mut |entry| {
        if written.is_ok() {
            written = to.write_all(&[1]).and_then(|()| write(to, entry));
        }
    });
    written?;
    to.write_all(&[0])
}

/// Reads a list that [`write_list`] has written: `read` reads each of its entries.
///
/// # Errors
/// If it cannot be read.
pub fn read_list(
    from: &mut dyn Read,
    mut read: impl FnMut(&mut dyn Read) -> io::Result<()>,
) -> io::Result<()> {
    loop {
        let mut more = [0];
        from.read_exact(&mut more)?;
        match more {
            [0] => return Ok(()),
            _ => read(from)?,
        }
    }
}

/// Writes a plain value.
///
/// # Errors
/// If it cannot be written.
pub fn write_plain(to: &mut dyn Write, value: &(impl IntoBytes + Immutable)) -> io::Result<()> {
    to.write_all(value.as_bytes())
}

/// Reads what [`write_plain`] has written.
///
/// # Errors
/// If it cannot be read.
pub fn read_plain<T: FromBytes + IntoBytes>(from: &mut dyn Read) -> io::Result<T> {
    let mut value = T::new_zeroed();
    from.read_exact(value.as_mut_bytes())?;
    Ok(value)
}

/// Makes the step again that was `turn`, from the state `from`, the present one. Returns the state to
/// which it leads.
///
/// # Errors
/// [`Cut`] if it cannot be made there, or does not lead to a state.
pub fn make_again(engine: &mut Engine<'_>, from: &State, turn: &Turn) -> Result<State, Cut> {
    let choice = turn.choice();
    if !engine.system.choices().contains(&choice) {
        return Err(unusable());
    }
    match engine.advance_from(from, choice)?.breach {
        Some(_) => Err(unusable()),
        None => Ok(engine.system.save()),
    }
}

/// A place in the orders: the turns that lead there, and the key of the state that is there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlaceRecord {
    turns: Vec<Turn>,
    key: Key,
}

impl PlaceRecord {
    /// The place of `root`.
    pub fn of(root: &Root) -> Self {
        Self::new(&root.path, root.state())
    }

    /// The place of `state`, to which these turns lead.
    pub fn new(turns: &[Turn], state: &State) -> Self {
        Self {
            turns: turns.to_vec(),
            key: Key(state.key()),
        }
    }

    /// Goes there from the initial state.
    ///
    /// # Errors
    /// [`Cut`] if it leads elsewhere.
    pub fn follow(self, engine: &mut Engine<'_>) -> Result<Root, Cut> {
        let mut root = Root::beginning(engine);
        engine.system.load(root.state());
        for turn in self.turns {
            let next = make_again(engine, root.state(), &turn)?;
            root.states.push(Arc::new(next));
            root.path.push(turn);
        }
        match root.state().key() == self.key.0 {
            true => Ok(root),
            false => Err(unusable()),
        }
    }
}
