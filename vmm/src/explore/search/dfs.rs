//! The depth-first search (DFS) that every backtracking strategy uses. It keeps the states on the
//! search stack, so that it can restore them. Which choices are tried from a state, and whether a
//! state is expanded at all, is decided by a [`Visitor`]. Several workers divide it among them: who
//! has nothing to do is left choices of the states that are nearest to the beginning.

use std::sync::Arc;

use super::by_key::ByKey;
use super::end::{Counterexample, SearchEnd};
use super::engine::{Check, Engine};
use super::system::turn;
use super::tasks::Tasks;
use super::workers::Together;
use crate::explore::schedule::{Choice, Turn, is_fair_cycle};
use crate::explore::specimen::{Breach, SpecimenError, State};

/// What a strategy decides during a depth-first search.
pub trait Visitor {
    /// What it keeps for each state on the search stack.
    type Data;
    /// What it remembers of a step until that step has reached a state, if by another worker.
    type Step: Send;

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

/// Where a part of a search begins: the last of some states, each of which leads to the next.
#[derive(Debug, Clone)]
pub struct Root {
    /// The states, from the initial state on.
    pub states: Vec<Arc<State>>,
    /// The turns between them.
    pub path: Vec<Turn>,
}

impl Root {
    /// The initial state.
    pub fn beginning(engine: &Engine<'_>) -> Self {
        Self {
            states: vec![Arc::new(engine.system.root().clone())],
            path: Vec::new(),
        }
    }

    /// The state at which it begins.
    pub fn state(&self) -> &Arc<State> {
        self.states.last().expect("it has its own state at least")
    }
}

/// Why a search was cut short.
#[derive(Debug)]
pub enum Cut {
    /// What it has found so far is void.
    Void,
    /// Another worker has cut it short.
    Over,
    /// It has ended.
    End(SearchEnd),
    /// The host failed.
    Failed(SpecimenError),
}

impl From<SpecimenError> for Cut {
    fn from(error: SpecimenError) -> Self {
        Self::Failed(error)
    }
}

/// A part of a depth-first search that any worker can do.
#[derive(Debug)]
pub struct Task<S> {
    /// Where it begins.
    pub root: Root,
    /// The choice that it makes there; without one it visits that state.
    pub by: Option<(Choice, S)>,
}

impl<S> Task<S> {
    /// The search from `root` on.
    pub fn from(root: Root) -> Self {
        Self { root, by: None }
    }
}

/// What the workers of a depth-first search have together: `seen`, and the parts that are left.
#[derive(Debug)]
pub struct Divided<T, S> {
    /// What they know together.
    pub seen: T,
    tasks: Tasks<Task<S>>,
}

impl<T, S> Divided<T, S> {
    /// For this number of workers, who begin with `tasks`.
    pub fn new(seen: T, workers: usize, tasks: impl IntoIterator<Item = Task<S>>) -> Self {
        let tasks = Tasks::new(workers, tasks);
        Self { seen, tasks }
    }
}

impl<T: Sync, S: Send> Together for Divided<T, S> {
    fn end(&self) {
        self.tasks.end();
    }
}

/// Searches depth first, and tries every choice that `visitor` gives, until no worker has anything
/// left to do.
///
/// # Errors
/// [`Cut`] if the search was cut short.
pub fn depth_first<V: Visitor, T>(
    engine: &mut Engine<'_>,
    visitor: &mut V,
    together: &Divided<T, V::Step>,
) -> Result<(), Cut> {
    while let Some(task) = together.tasks.take() {
        do_task(engine, visitor, task, &together.tasks)?;
    }
    Ok(())
}

/// Does `task`, and leaves parts of it to workers that have nothing to do.
fn do_task<V: Visitor>(
    engine: &mut Engine<'_>,
    visitor: &mut V,
    task: Task<V::Step>,
    tasks: &Tasks<Task<V::Step>>,
) -> Result<(), Cut> {
    let mut stack = SearchStack {
        frames: Vec::new(),
        places: ByKey::default(),
        path: Vec::new(),
    };
    // Whether the system is in the state on top of the stack.
    let mut is_there = stack.begin(engine, visitor, task)?;
    while let Some(Frame {
        state,
        data: Some(data),
    }) = stack.frames.last_mut()
    {
        let Some((choice, step)) = visitor.next(state, data) else {
            stack.leave();
            is_there = false;
            continue;
        };
        if !is_there {
            engine.system.load(state);
        }
        is_there = stack.make(engine, visitor, choice, step)?;
        engine.report(|| Some(stack.frontier::<V>()));
        if tasks.is_wanted() {
            stack.leave_some(visitor, tasks);
        }
    }
    Ok(())
}

/// The search stack: the states from the initial state to the present one.
#[derive(Debug)]
struct SearchStack<D> {
    frames: Vec<Frame<D>>,
    /// By key: the index of the first frame of that state.
    places: ByKey<u128, usize>,
    /// The turns between them.
    path: Vec<Turn>,
}

impl<D> SearchStack<D> {
    /// Begins `task`. Returns whether a state was pushed, to be expanded.
    fn begin<V: Visitor<Data = D>>(
        &mut self,
        engine: &mut Engine<'_>,
        visitor: &mut V,
        Task { root, by }: Task<V::Step>,
    ) -> Result<bool, Cut> {
        let Root { mut states, path } = root;
        self.path = path;
        let begins = states.pop().expect("a root has a state");
        for state in states {
            self.push(state, None);
        }
        engine.adopt(&begins)?;
        engine.system.load(&begins);
        let Some((choice, step)) = by else {
            engine.note(false, &|| self.path.clone());
            go_on(engine.confirm()?)?;
            return self.enter(engine, visitor, begins, None);
        };
        self.push(begins, None);
        self.make(engine, visitor, choice, step)
    }

    fn push(&mut self, state: Arc<State>, data: Option<D>) {
        let place = self.frames.len();
        self.places.entry(state.key()).or_insert(place);
        self.frames.push(Frame { state, data });
    }

    /// Makes the step `choice` from the state on top. Returns whether the state that it led to was
    /// pushed, to be expanded.
    fn make<V: Visitor<Data = D>>(
        &mut self,
        engine: &mut Engine<'_>,
        visitor: &mut V,
        choice: Choice,
        step: V::Step,
    ) -> Result<bool, Cut> {
        let top = self.frames.last().map(|frame| Arc::clone(&frame.state));
        let from = top.expect("a step begins at a state");
        if make(engine, &from, choice, &mut self.path)? == Led::ToBreach {
            self.path.pop();
            engine.counts.schedules += 1;
            return Ok(false);
        }
        let next = Arc::new(engine.system.save());
        let is_there = self.enter(engine, visitor, next, Some(step))?;
        if !is_there {
            self.path.pop();
        }
        Ok(is_there)
    }

    /// Leaves a choice of the state nearest to the beginning that has any to another worker, unless
    /// it is the last.
    fn leave_some<V: Visitor<Data = D>>(&mut self, visitor: &mut V, tasks: &Tasks<Task<V::Step>>) {
        if self.frontier::<V>() < 2 {
            return;
        }
        for (place, Frame { state, data }) in self.frames.iter_mut().enumerate() {
            if let Some(by) = data.as_mut().and_then(|data| visitor.next(state, data)) {
                let states = self.frames[..=place].iter();
                let root = Root {
                    states: states.map(|frame| Arc::clone(&frame.state)).collect(),
                    path: self.path[..place].to_vec(),
                };
                let by = Some(by);
                return tasks.put(Task { root, by });
            }
        }
    }

    /// Visits `state`. Returns whether it was pushed, to be expanded.
    fn enter<V: Visitor<Data = D>>(
        &mut self,
        engine: &mut Engine<'_>,
        visitor: &mut V,
        state: Arc<State>,
        by: Option<V::Step>,
    ) -> Result<bool, Cut> {
        let is_end = match visitor.enter(engine, &state, by) {
            Entry::GoOn(data) => {
                self.push(state, Some(data));
                return Ok(true);
            }
            Entry::Known => false,
            Entry::End => true,
        };
        engine.counts.schedules += 1;
        if is_end {
            judge(engine, &self.path)?;
        } else if let Some(place) = self.places.get(&state.key()) {
            engine.has_cycle = true;
            self.check_cycle(engine, *place)?;
        }
        Ok(false)
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
