//! The depth-first search (DFS) that every backtracking strategy uses. It keeps the states on the
//! search stack, so that it can restore them. Which choices are tried from a state, and whether a
//! state is expanded at all, is decided by a [`Visitor`].

use super::by_key::ByKey;
use super::end::{Counterexample, SearchEnd};
use super::engine::{Check, Engine};
use super::system::turn;
use crate::explore::schedule::{Choice, Turn, is_fair_cycle};
use crate::explore::specimen::{Breach, SpecimenError, State};

/// What a strategy decides during a depth-first search.
pub trait Visitor {
    /// What it keeps for each state on the search stack.
    type Data;
    /// What it remembers of a step until that step has reached a state.
    type Step;

    /// The next choice to try from `state`, for which it keeps `data`; `None` if no more are left.
    fn next(&mut self, state: &State, data: &mut Self::Data) -> Option<(Choice, Self::Step)>;

    /// Visits `state`, which is the present state of the system. It was reached by the step `by`
    /// from the top of `stack`; without a step, it is where the search begins. Counts the state if
    /// it is new.
    fn enter(
        &mut self,
        engine: &mut Engine<'_>,
        stack: &mut [Frame<Self::Data>],
        state: &State,
        by: Option<Self::Step>,
    ) -> Entry<Self::Data>;

    /// How many choices are left to try from the state for which it keeps `data`, as far as is known.
    fn left(data: &Self::Data) -> usize;

    /// Backtracks from `frame`, from which everything was tried, to the top of `stack`.
    fn leave(&mut self, _stack: &mut [Frame<Self::Data>], _frame: Frame<Self::Data>) {}
}

/// A state on the search stack.
#[derive(Debug)]
pub struct Frame<D> {
    /// The state.
    pub state: State,
    /// What the visitor keeps for it.
    pub data: D,
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

/// A state at which a search begins.
#[derive(Debug, Clone)]
pub struct Root {
    /// The state.
    pub state: State,
    /// The turns that lead there from the initial state.
    pub path: Vec<Turn>,
}

impl Root {
    /// The initial state.
    pub fn beginning(engine: &Engine<'_>) -> Self {
        Self {
            state: engine.system.root().clone(),
            path: Vec::new(),
        }
    }
}

/// Why a search was cut short.
#[derive(Debug)]
pub enum Cut {
    /// What it has found so far is void.
    Void,
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

/// Runs `once`, and runs it anew with what has been learnt as long as it turns out to be void.
///
/// # Errors
/// [`SpecimenError`] if the host fails.
pub fn until_sound<'a>(
    engine: &mut Engine<'a>,
    mut once: impl FnMut(&mut Engine<'a>) -> Result<(), Cut>,
) -> Result<SearchEnd, SpecimenError> {
    loop {
        engine.counts.states = 0;
        engine.outcomes.clear();
        engine.has_cycle = false;
        engine.system.follow_sharing(engine.sharing);
        match once(engine) {
            // New pages are looked for only from time to time. One of the last steps can have
            // written one.
            Ok(()) if !engine.is_incomplete()? && !engine.is_void() => {
                return Ok(SearchEnd::Complete);
            }
            Ok(()) => engine.begin_anew(),
            Err(Cut::End(end)) => return Ok(end),
            // A machine of which a page was not restored, since it was not known to be written, can
            // do anything.
            Err(Cut::Failed(error @ SpecimenError::OtherSituation { .. })) => {
                if !engine.is_incomplete()? {
                    return Err(error);
                }
                engine.system.mend()?;
                engine.begin_anew();
            }
            Err(Cut::Failed(error)) => return Err(error),
            Err(Cut::Void) => engine.begin_anew(),
        }
    }
}

/// Searches depth first from `root`, and tries every choice that `visitor` gives.
///
/// # Errors
/// [`Cut`] if the search was cut short.
pub fn depth_first<V: Visitor>(
    engine: &mut Engine<'_>,
    visitor: &mut V,
    root: Root,
) -> Result<(), Cut> {
    let Root { state, path } = root;
    engine.system.load(&state);
    let mut stack = SearchStack {
        frames: Vec::new(),
        places: ByKey::default(),
        root_turns: path.len(),
        path,
    };
    // Whether the system is in the state on top of the stack.
    let mut is_there = stack.enter(engine, visitor, state, None)?;
    while let Some(Frame { state, data }) = stack.frames.last_mut() {
        let Some((choice, step)) = visitor.next(state, data) else {
            stack.leave(visitor);
            is_there = false;
            continue;
        };
        if !is_there {
            engine.system.load(state);
        }
        make(engine, choice, &mut stack.path)?;
        let next = engine.system.save();
        is_there = stack.enter(engine, visitor, next, Some(step))?;
        if !is_there {
            stack.path.pop();
        }
        engine.report(|| Some(stack.frontier::<V>()));
    }
    Ok(())
}

/// The search stack: the states from the root to the present state.
#[derive(Debug)]
struct SearchStack<D> {
    frames: Vec<Frame<D>>,
    /// By key: the index of the first frame of that state.
    places: ByKey<u128, usize>,
    /// The turns from the initial state to the present state.
    path: Vec<Turn>,
    /// How many of these turns lead to the root.
    root_turns: usize,
}

impl<D> SearchStack<D> {
    /// Visits `state`. Returns whether it was pushed, to be expanded.
    fn enter<V: Visitor<Data = D>>(
        &mut self,
        engine: &mut Engine<'_>,
        visitor: &mut V,
        state: State,
        by: Option<V::Step>,
    ) -> Result<bool, Cut> {
        let is_end = match visitor.enter(engine, &mut self.frames, &state, by) {
            Entry::GoOn(data) => {
                let place = self.frames.len();
                self.places.entry(state.key()).or_insert(place);
                self.frames.push(Frame { state, data });
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
        let left = self.frames.iter().map(|frame| V::left(&frame.data) as u64);
        left.sum()
    }

    /// Pops the top of the stack.
    fn leave<V: Visitor<Data = D>>(&mut self, visitor: &mut V) {
        if let Some(frame) = self.frames.pop() {
            let key = frame.state.key();
            if self.places.get(&key) == Some(&self.frames.len()) {
                self.places.remove(&key);
            }
            visitor.leave(&mut self.frames, frame);
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
        let cycle = &self.path[self.root_turns + place..];
        if is_fair_cycle(cycle, choices) {
            return Err(broke(engine, &self.path, Breach::cycle(cycle)));
        }
        Ok(())
    }
}

/// Makes the step `choice`, and adds it to `path`.
///
/// # Errors
/// [`Cut`] if something broke, or the search must not go on.
pub fn make(engine: &mut Engine<'_>, choice: Choice, path: &mut Vec<Turn>) -> Result<(), Cut> {
    let moved = engine.advance(choice)?;
    path.push(turn(engine.system, choice, moved.stops));
    engine.counts.depth = path.len() as u64;
    engine.counts.deepest = engine.counts.deepest.max(engine.counts.depth);
    if let Some(breach) = moved.breach {
        return Err(broke(engine, path, breach));
    }
    match engine.check()? {
        Check::GoOn => Ok(()),
        Check::Void => Err(Cut::Void),
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
    match engine.system.judge()? {
        None => Ok(()),
        Some(breach) => Err(broke(engine, path, breach)),
    }
}

/// How a search is cut short by a breach at the end of `path`.
pub fn broke(engine: &mut Engine<'_>, path: &[Turn], breach: Breach) -> Cut {
    match engine.is_incomplete() {
        Ok(true) => Cut::Void,
        Ok(false) => Cut::End(SearchEnd::Broke(Counterexample {
            turns: path.to_vec(),
            breach,
        })),
        Err(error) => Cut::Failed(error),
    }
}
