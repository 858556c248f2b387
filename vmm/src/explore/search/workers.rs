//! The workers of a search: each moves a system of its own, on a thread of its own, and all have one
//! result. Has them begin anew together with what all have learnt, until they are through. What they
//! do is the strategy's business.

use std::sync::Arc;
use std::thread;

use tracing::debug;

use super::counts::Counts;
use super::dfs::Cut;
use super::end::SearchEnd;
use super::engine::Engine;
use super::found::{Found, Wanted};
use super::round::Round;
use crate::explore::specimen::SpecimenError;

/// The workers of a search.
#[derive(Debug)]
pub struct Workers<'a> {
    /// All of them. The first is this thread.
    all: Vec<Engine<'a>>,
    /// How many of them work.
    active: usize,
}

/// What workers do together.
pub trait Together: Sync {
    /// Tells all of them that there is no more to do.
    fn end(&self);
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
        Self { all, active }
    }

    /// Has all of them note what is `wanted`.
    pub fn note(&mut self, wanted: &Wanted) {
        for engine in &mut self.all {
            engine.found = Found::new(wanted.clone());
        }
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
    /// void, has them do it again, with what all have learnt. Returns how it ended, and what they
    /// had together at last.
    ///
    /// # Errors
    /// [`SpecimenError`] if the host fails.
    pub fn until_sound<T: Together>(
        &mut self,
        mut new: impl FnMut(&mut Engine<'a>, usize) -> Result<T, Cut>,
        work: impl Fn(&mut Engine<'a>, &T) -> Result<(), Cut> + Sync,
    ) -> Result<(SearchEnd, Option<T>), SpecimenError> {
        loop {
            self.begin_round();
            let count = self.count();
            let mut together = None;
            let ended = match new(self.first(), count) {
                Ok(made) => {
                    let together = together.insert(made);
                    self.do_together(together, &work)
                }
                Err(cut) => vec![Err(cut)],
            };
            self.gather();
            if let Some(end) = self.conclude(ended)? {
                return Ok((end, together));
            }
            self.begin_anew()?;
        }
    }

    /// Has all workers begin with what the first one knows.
    pub fn begin_round(&mut self) {
        let round = Arc::new(Round::new(self.active));
        let (first, others) = self.split();
        for (place, other) in (1..).zip(others) {
            other.place = place;
            other.sharing.clone_from(first.sharing);
        }
        for engine in &mut self.all[..self.active] {
            engine.round = Arc::clone(&round);
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
                .map(|engine| scope.spawn(|| work(Attached::new(engine).0)))
                .collect();
            let mut ended = vec![work(first)];
            for other in others {
                let other = other.join();
                ended.push(other.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            ended
        })
    }

    /// How the search has ended, by how it has `ended` for each worker; `None` if it has to begin
    /// anew.
    ///
    /// # Errors
    /// [`SpecimenError`] if the host has failed.
    pub fn conclude(
        &mut self,
        ended: Vec<Result<(), Cut>>,
    ) -> Result<Option<SearchEnd>, SpecimenError> {
        self.learn();
        let (mut found, mut stopped, mut failed) = (None::<SearchEnd>, None, None);
        let mut is_void = false;
        for (place, cut) in ended.into_iter().enumerate() {
            match cut {
                Ok(()) => {}
                // What another worker has cut short is not complete, whatever becomes of the other.
                Err(Cut::Void | Cut::Over) => is_void = true,
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
        if found.is_some() {
            return Ok(found);
        }
        if let Some(error) = failed {
            return Err(error);
        }
        if stopped.is_some() {
            return Ok(stopped);
        }
        for engine in &mut self.all[..self.active] {
            // New pages are looked for only from time to time. One of the last steps can have
            // written one.
            is_void |= engine.is_incomplete()?;
        }
        let first = self.first();
        is_void |= first.is_void();
        Ok((!is_void).then_some(SearchEnd::Complete))
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
