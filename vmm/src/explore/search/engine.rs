//! What every strategy drives: it makes the steps of a [`TransitionSystem`], keeps the counts, and
//! says when the search has to stop or to begin anew. Chooses no step itself.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::counts::Counts;
use super::dfs::Cut;
use super::found::Found;
use super::progress::{OnProgress, Progress};
use super::round::Round;
use super::storage::Storage;
use super::system::TransitionSystem;
use crate::explore::schedule::{Choice, Turn};
use crate::explore::sharing::Sharing;
use crate::explore::specimen::{Breach, MOST_STOPS, Moved, SpecimenError, State};
use crate::explore::stop_reason::StopReason;

/// Transitions between two checks of what is expensive to check: new pages, signals and the clock.
/// The small searches of tests would not come to many.
const CHECK_EVERY: u64 = if cfg!(test) { 5 } else { 64 };

/// The limits of a search.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// The greatest number of states that it may keep.
    pub states: Option<u64>,
    /// Where it keeps them, and within which memory.
    pub storage: Arc<Storage>,
}

/// What every strategy drives: it makes steps of the transition system, and keeps the counts. Each
/// worker of a search has one, and only the first of them reports progress.
pub struct Engine<'a> {
    /// The transition system.
    pub system: &'a mut dyn TransitionSystem,
    /// What is known about the memory that CPUs share.
    pub sharing: &'a mut Sharing,
    /// The limits.
    pub limits: Limits,
    /// What the search has done.
    pub counts: Counts,
    /// The hashes of the final states that it has reached ([`TransitionSystem::outcome`]).
    pub outcomes: BTreeSet<u128>,
    /// What the search has found and gone on from.
    pub found: Found,
    /// Whether the search has found that states form a cycle.
    pub(super) has_cycle: bool,
    /// What the workers tell each other, and the place of this one among them.
    pub(super) round: Arc<Round>,
    pub(super) place: usize,
    /// How long other processes had searched before.
    pub(super) before: Duration,
    /// When it is to pause, so that the search can be kept, if it can be.
    pub(super) pauses: Option<Instant>,
    on_progress: Option<&'a mut OnProgress<'a>>,
    last_report: Instant,
}

impl std::fmt::Debug for Engine<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("limits", &self.limits)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

/// The time between two calls of [`OnProgress`].
const REPORT_EVERY: Duration = Duration::from_millis(200);

impl<'a> Engine<'a> {
    /// An engine for `system`, which has done nothing yet.
    pub fn new(
        system: &'a mut dyn TransitionSystem,
        sharing: &'a mut Sharing,
        limits: Limits,
        on_progress: Option<&'a mut OnProgress<'a>>,
    ) -> Self {
        Self {
            system,
            sharing,
            limits,
            counts: Counts::default(),
            outcomes: BTreeSet::new(),
            found: Found::default(),
            has_cycle: false,
            round: Arc::new(Round::new(1)),
            place: 0,
            before: Duration::ZERO,
            pauses: None,
            on_progress,
            last_report: Instant::now(),
        }
    }

    /// Makes the step `choice`.
    ///
    /// # Errors
    /// As [`TransitionSystem::advance`].
    pub fn advance(&mut self, choice: Choice) -> Result<Moved, SpecimenError> {
        let moved = self.system.advance(choice, self.sharing)?;
        self.counts.transitions += 1;
        self.counts.entries += moved.entries;
        Ok(moved)
    }

    /// Makes the step `choice` from `state`, the present one, as a search that tries all orders has
    /// to. If it goes on past breaches, and the step leads to one behind accesses that were passed
    /// over, makes the step only to the first of these. What is passed over can be moved behind the
    /// steps of other CPUs only if its CPU gets past it.
    ///
    /// # Errors
    /// As [`TransitionSystem::advance`].
    pub fn advance_from(&mut self, state: &State, choice: Choice) -> Result<Moved, SpecimenError> {
        let moved = self.advance(choice)?;
        let splits = self.found.wanted.keeps_going
            && moved.breach.is_some()
            && (2..MOST_STOPS).contains(&moved.stops);
        if !splits {
            return Ok(moved);
        }
        self.system.mend()?;
        self.system.load(state);
        let first = self.system.advance_to_next_stop(choice, self.sharing)?;
        self.counts.entries += first.entries;
        Ok(first)
    }

    /// Notes which conditions hold in the present state, and its data races, to which `turns` have led. `is_end` says
    /// whether it is an end.
    pub fn note(&mut self, is_end: bool, turns: &dyn Fn() -> Vec<Turn>) {
        if !self.found.wanted.conditions.is_empty() {
            let holding = self.system.holding(is_end);
            let buffered = || self.system.buffered();
            self.found.note_holding(holding, turns, buffered);
        }
        if self.found.wanted.data_races.are_wanted() {
            let races = self.system.data_races();
            let buffered = || self.system.buffered();
            self.found.note_races(races, turns, buffered);
        }
    }

    /// Notes that `turns` have led to `breach`, past which the search goes on.
    pub fn note_breach(&mut self, turns: &[Turn], breach: Breach) {
        let buffered = self.system.buffered();
        self.found.note_breach(turns, breach, buffered);
    }

    /// Notes that `turns` have led to an end at which nothing is broken.
    pub fn note_end(&mut self, turns: &[Turn]) {
        if self.system.is_over() {
            let buffered = || self.system.buffered();
            self.found.note_end(turns, buffered);
        }
    }

    /// Whether an order to look at is wanted, and there is none yet.
    pub fn wants_witness(&self) -> bool {
        self.found.wanted.witness && self.found.witness.is_none()
    }

    /// What was noted counts from now on, unless the machine may not have been restored exactly.
    ///
    /// # Errors
    /// As [`TransitionSystem::keep_new_pages`].
    pub fn confirm(&mut self) -> Result<Check, SpecimenError> {
        if !self.found.is_pending() {
            return Ok(Check::GoOn);
        }
        if self.is_incomplete()? {
            self.found.drop_pending();
            return Ok(Check::Void);
        }
        self.found.confirm();
        Ok(match self.found.is_over() {
            true => Check::Stop(StopReason::Reached),
            false => Check::GoOn,
        })
    }

    /// Notes the final state that the system has reached.
    pub fn note_outcome(&mut self) {
        self.outcomes.insert(self.system.outcome());
    }

    /// Checks whether the search may go on. To be called after every transition; what is expensive
    /// to check is checked only after some of them.
    ///
    /// # Errors
    /// As [`TransitionSystem::keep_new_pages`].
    pub fn check(&mut self) -> Result<Check, SpecimenError> {
        if self.is_void() {
            return Ok(Check::Void);
        }
        if self.round.is_over() {
            return Ok(Check::Over);
        }
        if let Some(why) = self.limits.storage.stop_reason() {
            return Ok(Check::Stop(why));
        }
        if !self.counts.transitions.is_multiple_of(CHECK_EVERY) {
            return Ok(Check::GoOn);
        }
        if self.is_incomplete()? {
            return Ok(Check::Void);
        }
        if let Some(why) = self.system.stop_reason() {
            return Ok(Check::Stop(why));
        }
        if self.pauses.is_some_and(|due| Instant::now() >= due) {
            return Ok(Check::Pause);
        }
        self.limits.storage.keep_within(&[]);
        let Some(most) = self.limits.states else {
            return Ok(Check::GoOn);
        };
        self.round.tell(self.place, &self.counts, None);
        Ok(if self.round.counts().states >= most {
            Check::Stop(StopReason::States)
        } else {
            Check::GoOn
        })
    }

    /// Reports progress from time to time, to be called after every transition. `frontier` says
    /// how many choices are left to try, if that is known.
    pub fn report(&mut self, frontier: impl FnOnce() -> Option<u64>) {
        if !self.counts.transitions.is_multiple_of(CHECK_EVERY) {
            return;
        }
        let now = Instant::now();
        if now - self.last_report < REPORT_EVERY {
            return;
        }
        self.last_report = now;
        self.round.tell(self.place, &self.counts, frontier());
        if let Some(on_progress) = &mut self.on_progress {
            let (counts, frontier) = (&self.round.counts(), self.round.frontier());
            let before = self.before;
            on_progress(&Progress::Searching {
                counts,
                frontier,
                before,
            });
        }
    }

    /// Gets ready to restore `state`, whichever worker has saved it.
    ///
    /// # Errors
    /// [`Cut::Void`] if states that were saved before may not be whole.
    pub fn adopt(&mut self, state: &State) -> Result<(), Cut> {
        match self.system.adopt(state)? {
            true => Err(Cut::Void),
            false => Ok(()),
        }
    }

    /// Whether something was learnt that contradicts what the search has assumed so far.
    pub fn is_void(&self) -> bool {
        self.sharing.is_void() || self.system.is_behind(self.sharing)
    }

    /// Whether pages were written that were not saved before. The machine may then not have been
    /// restored exactly, so that what it did since proves nothing.
    ///
    /// # Errors
    /// As [`TransitionSystem::keep_new_pages`].
    pub fn is_incomplete(&mut self) -> Result<bool, SpecimenError> {
        self.system.keep_new_pages()
    }
}

/// Whether a search may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// It may.
    GoOn,
    /// What it has found so far is void, and it has to begin anew.
    Void,
    /// Another worker has ended the search, or has found that it has to begin anew.
    Over,
    /// It has to pause, so that it can be kept.
    Pause,
    /// It has to stop, and why.
    Stop(StopReason),
}
