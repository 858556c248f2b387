//! The workers of a search: each moves a system of its own, on a thread of its own, and all have one
//! result. Has them begin anew together with what all have learnt, until they are through. What they
//! do is the strategy's business.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tracing::debug;

use super::checkpoint::{self, Keeper, Resumable, SoFar};
use super::counts::Counts;
use super::dfs::Cut;
use super::end::SearchEnd;
use super::engine::Engine;
use super::found::{Found, Wanted};
use super::round::Round;
use crate::confinement::{self, ThreadKind};
use crate::explore::specimen::{SpecimenError, State};

/// The workers of a search.
pub struct Workers<'a> {
    /// All of them. The first is this thread.
    all: Vec<Engine<'a>>,
    /// How many of them work.
    active: usize,
    /// Who keeps checkpoints.
    keeper: Option<&'a mut dyn Keeper>,
    /// When they began.
    begun: Instant,
}

impl std::fmt::Debug for Workers<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workers")
            .field("all", &self.all)
            .field("active", &self.active)
            .finish_non_exhaustive()
    }
}

/// What workers do together.
pub trait Together: Sync {
    /// Tells all of them that there is no more to do.
    fn end(&self);

    /// The same, as what can be kept; `None` if it cannot be.
    fn resumable(&mut self) -> Option<&mut dyn Resumable> {
        None
    }
}

/// How what workers did together has ended.
#[derive(Debug)]
pub enum Ended {
    /// In this way.
    In(SearchEnd),
    /// They pause, and can go on.
    Paused,
    /// It is void, and has to begin anew.
    Void,
}

/// Ends what the workers do together when one of them is through with less than all, even if by a
/// panic: the others would wait for it.
struct EndUnlessDone<'w> {
    round: &'w Round,
    together: &'w dyn Together,
    is_done: bool,
}

impl Drop for EndUnlessDone<'_> {
    fn drop(&mut self) {
        if !self.is_done {
            self.round.end();
            self.together.end();
        }
    }
}

/// A worker whose system belongs to this thread for a while, even if it panics.
struct Attached<'e, 'a>(&'e mut Engine<'a>);

impl<'e, 'a> Attached<'e, 'a> {
    fn new(engine: &'e mut Engine<'a>) -> Self {
        engine.system.attach();
        Self(engine)
    }
}

impl Drop for Attached<'_, '_> {
    fn drop(&mut self) {
        self.0.system.detach();
    }
}

/// What a worker does alone, while the others do nothing.
#[derive(Debug)]
pub struct Alone;

impl Together for Alone {
    fn end(&self) {}
}

impl<'a> Workers<'a> {
    /// These workers. All their systems have the same initial state, and all know the same.
    pub fn new(first: Engine<'a>, others: impl IntoIterator<Item = Engine<'a>>) -> Self {
        let mut all = vec![first];
        all.extend(others);
        let active = all.len();
        Self {
            all,
            active,
            keeper: None,
            begun: Instant::now(),
        }
    }

    /// Has all of them note what is `wanted`.
    pub fn note(&mut self, wanted: &Wanted) {
        for engine in &mut self.all {
            engine.found = Found::new(wanted.clone());
        }
    }

    /// Has `keeper` keep checkpoints of what they do.
    pub fn keep_by(&mut self, keeper: &'a mut dyn Keeper) {
        self.keeper = Some(keeper);
    }

    /// Whether their search is kept from time to time.
    pub fn are_kept(&self) -> bool {
        self.keeper.is_some()
    }

    /// How long the search has taken, also by other processes before.
    pub fn time(&self) -> Duration {
        self.all[0].before.saturating_add(self.begun.elapsed())
    }

    /// The first, which does alone what is not shared.
    pub fn first(&mut self) -> &mut Engine<'a> {
        &mut self.all[0]
    }

    /// Has the first one do alone what `search` does.
    pub fn alone<R>(&mut self, search: impl FnOnce(&mut Self) -> R) -> R {
        let active = std::mem::replace(&mut self.active, 1);
        let result = search(self);
        self.active = active;
        result
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.active
    }

    /// Those that work: the first, and the others.
    fn split(&mut self) -> (&mut Engine<'a>, &mut [Engine<'a>]) {
        let (first, others) = self.all[..self.active].split_at_mut(1);
        (&mut first[0], others)
    }

    /// Makes the first worker's counts and outcomes those of all, and takes them from the others.
    pub fn gather(&mut self) {
        let (first, others) = self.split();
        for other in others {
            first.counts = Counts::sum([first.counts, std::mem::take(&mut other.counts)]);
            first.outcomes.append(&mut other.outcomes);
            first.found.add(&mut other.found);
            first.has_cycle |= other.has_cycle;
        }
    }

    /// Has every worker do `work`, on what `new` has made for them together. If it turns out to be
    /// void, has them do it again, with what all have learnt. Pauses for checkpoints. Returns how it
    /// ended, and what they had together at last.
    ///
    /// # Errors
    /// [`SpecimenError`] if the host fails.
    pub fn until_sound<T: Together>(
        &mut self,
        mut new: impl FnMut(&mut Engine<'a>, usize) -> Result<T, Cut>,
        work: impl Fn(&mut Engine<'a>, &T) -> Result<(), Cut> + Sync,
    ) -> Result<(SearchEnd, Option<T>), SpecimenError> {
        loop {
            self.begin();
            let count = self.count();
            let made = match new(self.first(), count) {
                Ok(made) => Some(made),
                Err(cut) => match self.conclude(vec![Err(cut)])? {
                    Ended::In(end) => return Ok((end, None)),
                    Ended::Paused | Ended::Void => None,
                },
            };
            if let Some(mut together) = made
                && let Some(end) = self.until_over(&mut together, &work)?
            {
                return Ok((end, Some(together)));
            }
            self.begin_anew()?;
        }
    }

    /// Has every worker do `work`, with pauses for checkpoints. Returns how it ended; `None` if it is
    /// void.
    fn until_over<T: Together>(
        &mut self,
        together: &mut T,
        work: &(impl Fn(&mut Engine<'a>, &T) -> Result<(), Cut> + Sync),
    ) -> Result<Option<SearchEnd>, SpecimenError> {
        loop {
            let keeper = together.resumable().and(self.keeper.as_ref());
            let due = keeper.map(|keeper| keeper.due());
            self.all.iter_mut().for_each(|engine| engine.pauses = due);
            let ended = self.do_together(together, work);
            self.all.iter_mut().for_each(|engine| engine.pauses = None);
            self.gather();
            let leaves_rest = |ended: &Result<(), Cut>| match ended {
                Ok(()) => true,
                Err(cut) => cut.leaves_rest(),
            };
            let leave_rest = ended.iter().all(leaves_rest);
            let ended = self.conclude(ended);
            let is_through = matches!(ended, Ok(Ended::In(SearchEnd::Complete) | Ended::Void));
            if leave_rest && !is_through {
                self.keep(together);
            }
            match ended? {
                Ended::In(end) => return Ok(Some(end)),
                Ended::Void => return Ok(None),
                Ended::Paused => {
                    self.share_round();
                    let resumable = together.resumable();
                    resumable.expect("only such pauses").go_on();
                }
            }
        }
    }

    /// Has the search kept, if it pauses or has stopped where it can go on, unless it is void.
    fn keep(&mut self, together: &mut impl Together) {
        let time = self.time();
        let Some(keeper) = &mut self.keeper else {
            return;
        };
        let Some(together) = together.resumable().filter(|it| it.is_whole()) else {
            return;
        };
        let is_sound = |engine: &mut Engine<'_>| {
            matches!(engine.is_incomplete(), Ok(false)) && !engine.is_void()
        };
        if self.all[..self.active].iter_mut().all(is_sound) {
            let roots = self.all.iter().map(|engine| engine.system.root());
            let pages = roots.flat_map(State::pages).collect();
            let so_far = SoFar::of(&self.all[0], pages, time);
            let phase = together.phase();
            keeper.keep(&|to| checkpoint::write(to, &so_far, phase, |to| together.write(to)));
        }
    }

    /// Has all workers tell each other how far they are, from now on.
    fn share_round(&mut self) {
        let round = Arc::new(Round::new(self.active));
        for engine in &mut self.all[..self.active] {
            engine.round = Arc::clone(&round);
        }
    }

    /// Has all workers begin with what the first one knows.
    pub fn begin(&mut self) {
        self.share_round();
        let (first, others) = self.split();
        for (place, other) in (1..).zip(others) {
            other.place = place;
            other.sharing.clone_from(first.sharing);
        }
        for engine in &mut self.all[..self.active] {
            engine.counts.states = 0;
            engine.outcomes.clear();
            engine.has_cycle = false;
            engine.system.follow_sharing(engine.sharing);
        }
    }

    /// Has every worker do `work`, and returns how it ended for each of them.
    pub fn do_together<T: Together>(
        &mut self,
        together: &T,
        work: &(impl Fn(&mut Engine<'a>, &T) -> Result<(), Cut> + Sync),
    ) -> Vec<Result<(), Cut>> {
        let work = |engine: &mut Engine<'a>| {
            let round = Arc::clone(&engine.round);
            let mut guard = EndUnlessDone {
                round: &round,
                together,
                is_done: false,
            };
            let ended = work(engine, together);
            guard.is_done = ended.is_ok();
            ended
        };
        let (first, others) = self.split();
        thread::scope(|scope| {
            let others: Vec<_> = (others.iter_mut())
                .map(|engine| {
                    scope.spawn(|| {
                        confinement::enter(ThreadKind::Search);
                        work(Attached::new(engine).0)
                    })
                })
                .collect();
            let mut ended = vec![work(first)];
            for other in others {
                let other = other.join();
                ended.push(other.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            ended
        })
    }

    /// How the search has ended, by how it has `ended` for each worker.
    ///
    /// # Errors
    /// [`SpecimenError`] if the host has failed.
    pub fn conclude(&mut self, ended: Vec<Result<(), Cut>>) -> Result<Ended, SpecimenError> {
        self.learn();
        let (mut found, mut stopped, mut failed) = (None::<SearchEnd>, None, None);
        let (mut is_void, mut is_over, mut is_paused) = (false, false, false);
        for (place, cut) in ended.into_iter().enumerate() {
            match cut {
                Ok(()) => {}
                Err(Cut::Void) => is_void = true,
                Err(Cut::Over) => is_over = true,
                Err(Cut::Paused) => is_paused = true,
                Err(Cut::End(end @ SearchEnd::Stopped(_))) => stopped = Some(end),
                Err(Cut::End(end)) => {
                    found.get_or_insert(end);
                }
                // A machine of which a page was not restored, since it was not known to be
                // written, can do anything.
                Err(Cut::Failed(error @ SpecimenError::OtherSituation { .. })) => {
                    let engine = &mut self.all[place];
                    if engine.is_incomplete()? {
                        engine.system.mend()?;
                        is_void = true;
                    } else {
                        failed.get_or_insert(error);
                    }
                }
                Err(Cut::Failed(error)) => {
                    failed.get_or_insert(error);
                }
            }
        }
        // What was found is real, whatever became of the others.
        if let Some(found) = found {
            return Ok(Ended::In(found));
        }
        if let Some(error) = failed {
            return Err(error);
        }
        if let Some(stopped) = stopped {
            return Ok(Ended::In(stopped));
        }
        for engine in &mut self.all[..self.active] {
            // New pages are looked for only from time to time. One of the last steps can have
            // written one.
            is_void |= engine.is_incomplete()?;
        }
        let first = self.first();
        is_void |= first.is_void();
        // What another worker has cut short is not complete, whatever became of that one.
        is_void |= is_over && !is_paused;
        Ok(match (is_void, is_paused) {
            (true, _) => Ended::Void,
            (false, true) => Ended::Paused,
            (false, false) => Ended::In(SearchEnd::Complete),
        })
    }

    /// Has the first worker learn what the others have learnt.
    fn learn(&mut self) {
        let (first, others) = self.split();
        for other in others {
            let learnt = first.sharing.learn(&other.sharing.to_record());
            learnt.expect("all have the same number of CPUs");
        }
    }

    /// Has the first worker do `once` alone. If it turns out to be void, has it do it again, with what
    /// it has learnt.
    ///
    /// # Errors
    /// [`SpecimenError`] if the host fails.
    pub fn alone_until_sound(
        &mut self,
        once: impl Fn(&mut Engine<'a>) -> Result<(), Cut> + Sync,
    ) -> Result<SearchEnd, SpecimenError> {
        let work = |engine: &mut Engine<'a>, _: &Alone| match engine.place {
            0 => once(engine),
            _ => Ok(()),
        };
        Ok(self.until_sound(|_, _| Ok(Alone), work)?.0)
    }

    /// Begins the search anew, with everything that was learnt.
    fn begin_anew(&mut self) -> Result<(), SpecimenError> {
        debug!("the search begins anew: it has learnt more of what CPUs share");
        let roots = self.all.iter().map(|engine| engine.system.root().clone());
        let roots: Vec<_> = roots.collect();
        // What one has seen written, another need not find out again.
        for engine in &mut self.all {
            for root in &roots {
                engine.system.adopt(root)?;
            }
        }
        let first = self.first();
        first.sharing.begin_anew();
        first.counts.begun_anew += 1;
        Ok(())
    }
}
