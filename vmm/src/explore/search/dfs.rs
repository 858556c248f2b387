//! The depth-first search (DFS) that every backtracking strategy uses. It keeps the states on the
//! search stack, so that it can restore them. Which choices are tried from a state, and whether a
//! state is expanded at all, is decided by a [`Visitor`]. Several workers divide it among them: who
//! has nothing to do is left choices of the states that are nearest to the beginning.

use std::sync::Arc;

use super::by_key::ByKey;
use super::end::{Counterexample, SearchEnd};
use super::engine::{Check, Engine};
use super::parts::{Root, Task};
use super::system::turn;
use super::tasks::Tasks;
use crate::explore::schedule::{Choice, Turn, is_fair_cycle};
use crate::explore::specimen::{Breach, SpecimenError, State};
use crate::explore::stop_reason::StopReason;

/// What a strategy decides during a depth-first search.
pub trait Visitor {
    /// What it keeps for each state on the search stack.
    type Data;
    /// What it remembers of a step until that step has reached a state, if by another worker.
    type Step: Clone + Send;

    /// The next choice to try from `state`, for which it keeps `data`; `None` if no more are left.
    fn next(&mut self, state: &State, data: &mut Self::Data) -> Option<(Choice, Self::Step)>;

    /// Visits `state`, which is the present state of the system. It was reached by the step `by`;
    /// without a step, it is where the search begins. Counts the state if it is new.
    fn enter(
        &mut self,
        engine: &mut Engine<'_>,
        state: &State,
        by: Option<Self::Step>,
    ) -> Entry<Self::Data>;

    /// The key by which it notes `state`, reached by the step `by`.
    fn key(state: &State, _by: Option<&Self::Step>) -> u128 {
        state.key()
    }

    /// How many choices are left to try from the state for which it keeps `data`, as far as is known.
    fn left(data: &Self::Data) -> usize;
}

/// A state on the search stack.
#[derive(Debug)]
struct Frame<D> {
    state: Arc<State>,
    /// What the visitor keeps for it; `None` if another worker tries what is left there.
    data: Option<D>,
}

/// What is to be done with a state that the search has reached.
#[derive(Debug)]
pub enum Entry<D> {
    /// Expand it.
    GoOn(D),
    /// Backtrack: nothing is left to try from there.
    Known,
    /// Backtrack: it is a final state, in which no CPU can go on.
    End,
}

/// Why a search was cut short.
#[derive(Debug)]
pub enum Cut {
    /// What it has found so far is void.
    Void,
    /// Another worker has cut it short.
    Over,
    /// It has to pause.
    Paused,
    /// It has ended.
    End(SearchEnd),
    /// The host failed.
    Failed(SpecimenError),
}

impl Cut {
    /// Whether the search could go on from here later.
    pub fn leaves_rest(&self) -> bool {
        match self {
            Self::Over | Self::Paused => true,
            Self::End(SearchEnd::Stopped(why)) => *why != StopReason::Reached,
            Self::Failed(error) => matches!(error, SpecimenError::Ended(_)),
            Self::Void | Self::End(_) => false,
        }
    }
}

impl From<SpecimenError> for Cut {
    fn from(error: SpecimenError) -> Self {
        Self::Failed(error)
    }
}

/// Searches depth first, and tries every choice that `visitor` gives, until no worker has anything
/// left to do. If the search has to stop or to pause before that, leaves what is left as a task.
///
/// # Errors
/// [`Cut`] if the search was cut short.
pub fn depth_first<V: Visitor>(
    engine: &mut Engine<'_>,
    visitor: &mut V,
    tasks: &Tasks<Task<V::Data, V::Step>>,
) -> Result<(), Cut> {
    while let Some(task) = tasks.take() {
        let mut stack = SearchStack::of(task);
        let ended = stack.search(engine, visitor, tasks);
        if ended.as_ref().is_err_and(Cut::leaves_rest) {
            match stack.is_within_visit {
                true => tasks.tear(),
                false => tasks.put(stack.into_task()),
            }
        }
        ended?;
    }
    Ok(())
}

/// The search stack: the states from the initial state to the present one.
#[derive(Debug)]
struct SearchStack<D, S> {
    frames: Vec<Frame<D>>,
    /// By key: the index of the first frame of that state.
    places: ByKey<u128, usize>,
    /// The turns between them.
    path: Vec<Turn>,
    /// The state that is to be visited before anything else.
    visits: Option<Arc<State>>,
    /// The choice that is made next, or is being made, from the state on top.
    by: Option<(Choice, S)>,
    /// Whether a state is being visited, so that the visitor may have noted it already.
    is_within_visit: bool,
}

impl<D, S: Clone> SearchStack<D, S> {
    fn of(task: Task<D, S>) -> Self {
        let begins_with_visit = task.begins_with_visit();
        let Task { root, data, by } = task;
        let Root { mut states, path } = root;
        let visits = begins_with_visit.then(|| states.pop().expect("a root has a state"));
        let mut stack = Self {
            frames: Vec::new(),
            places: ByKey::default(),
            path,
            visits,
            by,
            is_within_visit: false,
        };
        let data = data.into_iter().chain(std::iter::repeat_with(|| None));
        for (state, data) in states.into_iter().zip(data) {
            stack.push(state, data);
        }
        stack
    }

    /// What is left to do.
    fn into_task(self) -> Task<D, S> {
        let (states, data): (Vec<_>, Vec<_>) = (self.frames.into_iter())
            .map(|frame| (frame.state, frame.data))
            .unzip();
        let mut path = self.path;
        // Without the turn of the choice that was being made.
        path.truncate(states.len() - 1);
        Task {
            root: Root { states, path },
            data,
            by: self.by,
        }
    }

    /// Searches until the stack is empty, and leaves parts of it to workers that have nothing to do.
    fn search<V: Visitor<Data = D, Step = S>>(
        &mut self,
        engine: &mut Engine<'_>,
        visitor: &mut V,
        tasks: &Tasks<Task<D, S>>,
    ) -> Result<(), Cut> {
        if let Some(frame) = self.frames.last() {
            engine.adopt(&frame.state)?;
        }
        // Whether the system is in the state on top of the stack.
        let mut is_there = false;
        if let Some(begins) = self.visits.take() {
            self.is_within_visit = true;
            engine.adopt(&begins)?;
            engine.system.load(&begins);
            engine.note(false, &|| self.path.clone());
            go_on(engine.confirm()?)?;
            is_there = self.enter(engine, visitor, begins, None)?;
        }
        while let Some(Frame { state, data }) = self.frames.last_mut() {
            if self.by.is_none() {
                self.by = data.as_mut().and_then(|data| visitor.next(state, data));
            }
            if self.by.is_none() {
                self.leave();
                is_there = false;
                continue;
            }
            if !is_there {
                engine.system.load(state);
            }
            is_there = self.make(engine, visitor)?;
            engine.report(|| Some(self.frontier::<V>()));
            if tasks.is_wanted() {
                self.leave_some(visitor, tasks);
            }
        }
        Ok(())
    }

    fn push(&mut self, state: Arc<State>, data: Option<D>) {
        let place = self.frames.len();
        self.places.entry(state.key()).or_insert(place);
        self.frames.push(Frame { state, data });
    }

    /// Makes the choice that comes next from the state on top. Returns whether the state that it led
    /// to was pushed, to be expanded.
    fn make<V: Visitor<Data = D, Step = S>>(
        &mut self,
        engine: &mut Engine<'_>,
        visitor: &mut V,
    ) -> Result<bool, Cut> {
        let top = self.frames.last().map(|frame| Arc::clone(&frame.state));
        let from = top.expect("a step begins at a state");
        let by = self.by.as_ref().map(|(choice, _)| *choice);
        let choice = by.expect("a choice comes next");
        if make(engine, &from, choice, &mut self.path)? == Led::ToBreach {
            self.by = None;
            self.path.pop();
            engine.counts.schedules += 1;
            return Ok(false);
        }
        let next = Arc::new(engine.system.save());
        let step = self.by.take().map(|(_, step)| step);
        let is_there = self.enter(engine, visitor, next, step)?;
        if !is_there {
            self.path.pop();
        }
        Ok(is_there)
    }

    /// Leaves a choice of the state nearest to the beginning that has any to another worker, unless
    /// it is the last.
    fn leave_some<V: Visitor<Data = D, Step = S>>(
        &mut self,
        visitor: &mut V,
        tasks: &Tasks<Task<D, S>>,
    ) {
        if self.frontier::<V>() < 2 {
            return;
        }
        for (place, Frame { state, data }) in self.frames.iter_mut().enumerate() {
            let by = data.as_mut().and_then(|data| visitor.next(state, data));
            if let Some((choice, step)) = by {
                let states = self.frames[..=place].iter();
                let root = Root {
                    states: states.map(|frame| Arc::clone(&frame.state)).collect(),
                    path: self.path[..place].to_vec(),
                };
                return tasks.put(Task::behind(root, choice, step));
            }
        }
    }

    /// Visits `state`. Returns whether it was pushed, to be expanded.
    fn enter<V: Visitor<Data = D, Step = S>>(
        &mut self,
        engine: &mut Engine<'_>,
        visitor: &mut V,
        state: Arc<State>,
        by: Option<S>,
    ) -> Result<bool, Cut> {
        self.is_within_visit = true;
        let is_pushed = match visitor.enter(engine, &state, by) {
            Entry::GoOn(data) => {
                self.push(state, Some(data));
                true
            }
            Entry::Known => {
                engine.counts.schedules += 1;
                if let Some(place) = self.places.get(&state.key()) {
                    engine.has_cycle = true;
                    self.check_cycle(engine, *place)?;
                }
                false
            }
            Entry::End => {
                engine.counts.schedules += 1;
                judge(engine, &self.path)?;
                false
            }
        };
        self.is_within_visit = false;
        Ok(is_pushed)
    }

    /// How many choices are left to try from the states on the stack.
    fn frontier<V: Visitor<Data = D>>(&self) -> u64 {
        let data = self.frames.iter().filter_map(|frame| frame.data.as_ref());
        data.map(|data| V::left(data) as u64).sum()
    }

    /// Pops the top of the stack.
    fn leave(&mut self) {
        if let Some(frame) = self.frames.pop() {
            let key = frame.state.key();
            if self.places.get(&key) == Some(&self.frames.len()) {
                self.places.remove(&key);
            }
        }
        self.path.pop();
    }

    /// Checks the cycle that was closed by a step back to the frame at `place`: if it is fair, the
    /// CPUs can follow it for ever, which is a livelock.
    fn check_cycle(&self, engine: &mut Engine<'_>, place: usize) -> Result<(), Cut> {
        let mut choices = Vec::new();
        for frame in &self.frames[place..] {
            engine.system.load(&frame.state);
            choices.extend(engine.system.choices());
        }
        let cycle = &self.path[place..];
        if is_fair_cycle(cycle, choices) {
            return broke(engine, &self.path, Breach::cycle(cycle));
        }
        Ok(())
    }
}

/// Where a step has led.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Led {
    /// To a state.
    ToState,
    /// To a breach, past which the search goes on. The system is in no state.
    ToBreach,
}

/// Makes the step `choice` from the state `from`, the present one, and adds it to `path`.
///
/// # Errors
/// [`Cut`] if something broke and the search does not go on past that, or if it must not go on.
pub fn make(
    engine: &mut Engine<'_>,
    from: &State,
    choice: Choice,
    path: &mut Vec<Turn>,
) -> Result<Led, Cut> {
    let moved = engine.advance_from(from, choice)?;
    path.push(turn(engine.system, choice, moved.stops));
    engine.counts.depth = path.len() as u64;
    engine.counts.deepest = engine.counts.deepest.max(engine.counts.depth);
    if let Some(breach) = moved.breach {
        broke(engine, path, breach)?;
        go_on(engine.check()?)?;
        return Ok(Led::ToBreach);
    }
    go_on(engine.check()?)?;
    engine.note(false, &|| path.clone());
    go_on(engine.confirm()?)?;
    Ok(Led::ToState)
}

/// Whether the search goes on.
///
/// # Errors
/// [`Cut`] if it does not.
pub fn go_on(check: Check) -> Result<(), Cut> {
    match check {
        Check::GoOn => Ok(()),
        Check::Void => Err(Cut::Void),
        Check::Over => Err(Cut::Over),
        Check::Pause => Err(Cut::Paused),
        Check::Stop(why) => Err(Cut::End(SearchEnd::Stopped(why))),
    }
}

/// Judges the final state to which `path` has led.
///
/// # Errors
/// [`Cut`] if something is broken there.
pub fn judge(engine: &mut Engine<'_>, path: &[Turn]) -> Result<(), Cut> {
    engine.counts.ends += 1;
    engine.note_outcome();
    engine.note(true, &|| path.to_vec());
    match engine.system.judge()? {
        None => {
            engine.note_end(path);
            go_on(engine.confirm()?)
        }
        Some(breach) => {
            let confirmed = engine.confirm()?;
            if confirmed == Check::Void {
                return Err(Cut::Void);
            }
            // A breach says more than that a condition was reached.
            broke(engine, path, breach)?;
            go_on(confirmed)
        }
    }
}

/// Notes a breach at the end of `path`, if the search goes on past it.
///
/// # Errors
/// [`Cut`] if it does not, or must not.
pub fn broke(engine: &mut Engine<'_>, path: &[Turn], breach: Breach) -> Result<(), Cut> {
    if engine.found.wanted.keeps_going {
        engine.note_breach(path, breach);
        go_on(engine.confirm()?)?;
        engine.system.mend()?;
        return Ok(());
    }
    if engine.is_incomplete()? {
        return Err(Cut::Void);
    }
    Err(Cut::End(SearchEnd::Broke(Counterexample {
        turns: path.to_vec(),
        breach,
    })))
}
