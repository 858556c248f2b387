//! Searches: which choices are made, one after the other, until something breaks or there is
//! nothing left to try. Each strategy has a file of its own; those that go back to where they were
//! share one [`walk`]. They move a [`Subject`] and look at nothing but its choices.

pub mod bounded;
pub mod checking;
mod endless;
pub mod exhaustive;
mod frontier;
mod graph;
pub mod links;
pub mod races;
pub mod reference;
pub mod sampled;
pub mod seen;
pub mod subject;
mod walk;

#[cfg(test)]
mod enumeration_test;

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schedule::{Choice, Turn};
use super::sharing::Sharing;
use super::specimen::{Breach, Moved, SpecimenError};
use subject::Subject;

/// Transitions between two looks at what is asked less often: pages, and the clock.
const LOOK_EVERY: u64 = 64;

/// A schedule that breaks something.
#[derive(Debug, Clone)]
pub struct Found {
    /// The schedule.
    pub turns: Vec<Turn>,
    /// What breaks.
    pub breach: Breach,
}

/// How a search ended.
#[derive(Debug)]
pub enum End {
    /// Something broke.
    Broke(Found),
    /// Everything that the strategy tries was tried.
    Complete,
    /// It had to stop before, and why.
    Stopped(Why),
}

/// Why a search stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Its time was up.
    Time,
    /// It had seen as many states as it may keep.
    States,
    /// A signal came.
    Signal,
    /// A part of a search can come back to a state from which it came.
    Round,
}

impl Why {
    /// The reason, in words.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Time => "the time was up (--time-limit)",
            Self::States => "there were too many states (--max-states)",
            Self::Signal => "a signal came",
            Self::Round => {
                "CPUs can go round, and whether they come to an end only one process can tell (no --jobs, no --shard)"
            }
        }
    }
}

/// What a search has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// States that differ.
    pub states: u64,
    /// Transitions that were made.
    pub transitions: u64,
    /// Schedules that came to an end, or to a state that was known.
    pub schedules: u64,
    /// States in which nothing could go on.
    pub ends: u64,
    /// Transitions of the longest schedule.
    pub deepest: u64,
    /// Times the search began anew, with more known of what CPUs share.
    pub begun_anew: u64,
    /// States on the way to the present one.
    pub depth: u64,
    /// Steps that were made again from a state that was met again, and led where they had led
    /// before (`--check-keys`).
    pub checked: u64,
}

/// How far a search may go.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// How many states it may keep.
    pub states: Option<u64>,
}

/// Is told, now and then, how far a search is.
pub type OnProgress<'a> = dyn FnMut(&Counts) + 'a;

/// What every search has.
pub struct Hunt<'a> {
    /// The machine.
    pub specimen: &'a mut dyn Subject,
    /// What is known of what CPUs share.
    pub sharing: &'a mut Sharing,
    /// How far it may go.
    pub limits: Limits,
    /// What it has done.
    pub counts: Counts,
    /// What has become of the machine at the ends it has come to ([`Subject::outcome`]).
    pub outcomes: BTreeSet<u128>,
    /// Whether it has come back to a state from which it came.
    comes_round: bool,
    on_progress: &'a mut OnProgress<'a>,
    told: Instant,
}

impl std::fmt::Debug for Hunt<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hunt")
            .field("limits", &self.limits)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

/// Between two words of progress.
const TELL_EVERY: Duration = Duration::from_millis(200);

impl<'a> Hunt<'a> {
    /// A hunt on `specimen`.
    pub fn new(
        specimen: &'a mut dyn Subject,
        sharing: &'a mut Sharing,
        limits: Limits,
        on_progress: &'a mut OnProgress<'a>,
    ) -> Self {
        Self {
            specimen,
            sharing,
            limits,
            counts: Counts::default(),
            outcomes: BTreeSet::new(),
            comes_round: false,
            on_progress,
            told: Instant::now(),
        }
    }

    /// Makes `choice`.
    ///
    /// # Errors
    /// As [`Subject::advance`].
    pub fn advance(&mut self, choice: Choice) -> Result<Moved, SpecimenError> {
        let moved = self.specimen.advance(choice, self.sharing)?;
        self.counts.transitions += 1;
        Ok(moved)
    }

    /// Notes what has become of the machine, which has come to an end.
    pub fn note_outcome(&mut self) {
        self.outcomes.insert(self.specimen.outcome());
    }

    /// Looks, now and then, at what need not be looked at each time.
    ///
    /// # Errors
    /// As [`Subject::keep_new_pages`].
    pub fn look(&mut self) -> Result<Look, SpecimenError> {
        if self.sharing.is_void() {
            return Ok(Look::Void);
        }
        if !self.counts.transitions.is_multiple_of(LOOK_EVERY) {
            return Ok(Look::GoOn);
        }
        if self.is_incomplete()? {
            return Ok(Look::Void);
        }
        if let Some(why) = self.specimen.is_to_end() {
            return Ok(Look::Stop(why));
        }
        let now = Instant::now();
        if now - self.told >= TELL_EVERY {
            self.told = now;
            (self.on_progress)(&self.counts);
        }
        let is_full = |most| self.counts.states >= most;
        Ok(if self.limits.states.is_some_and(is_full) {
            Look::Stop(Why::States)
        } else {
            Look::GoOn
        })
    }

    /// Begins anew, with all that has been learnt.
    pub fn begin_anew(&mut self) {
        self.sharing.begin_anew();
        self.counts.begun_anew += 1;
    }

    /// Whether pages were written that were not kept so far: then the machine may not have been put
    /// back to where it was, and what it did since is no evidence of anything.
    ///
    /// # Errors
    /// As [`Subject::keep_new_pages`].
    pub fn is_incomplete(&mut self) -> Result<bool, SpecimenError> {
        self.specimen.keep_new_pages()
    }
}

/// The turn that `choice` was, which has just come to its end.
pub fn turn(specimen: &dyn Subject, choice: Choice, stops: u32) -> Turn {
    let at = specimen.cpus()[choice.cpu].at;
    Turn {
        cpu: u32::try_from(choice.cpu).unwrap_or(u32::MAX),
        takes: choice.takes,
        stops,
        until: specimen.describe(at),
        state: None,
    }
}

/// What a search that has come to `end` may say of all orders: that it is complete only if they all
/// have an end. Where `is_part`, others have to tell.
///
/// # Errors
/// [`SpecimenError`] if the host fails.
pub fn all_end(hunt: &mut Hunt<'_>, end: End, is_part: bool) -> Result<End, SpecimenError> {
    match end {
        End::Complete if hunt.comes_round && is_part => Ok(End::Stopped(Why::Round)),
        End::Complete if hunt.comes_round => endless::search(hunt),
        end => Ok(end),
    }
}

/// What a look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Nothing.
    GoOn,
    /// What was found so far is void: the search begins anew.
    Void,
    /// It has to stop.
    Stop(Why),
}

/// A hasher for keys that are hashes already.
#[derive(Debug, Default)]
pub struct AsItIs(u64);

impl Hasher for AsItIs {
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

/// States by their keys.
pub type ByKey<K, T> = HashMap<K, T, BuildHasherDefault<AsItIs>>;
