//! Every order that can matter: depth first, and from each state only one CPU goes on at first. Another is tried
//! there only if a later step of it turns out to race with one that was taken from there (dynamic partial-order
//! reduction: Flanagan and Godefroid, POPL 2005). States are kept by their keys, each with all that happens
//! behind it, so that the search need not go on from one twice, and still learns which of those steps race with
//! the way on which it came there the second time (Yang, Chen, Gopalakrishnan and Kirby, SPIN 2008).
//!
//! Two steps race if their order can matter and nothing between them orders them already.

use std::collections::HashMap;

use shared::stop::Kind;

use super::{ByKey, End, Found, Hunt, Look};
use crate::explore::schedule::{Choice, Turn};
use crate::explore::sharing::Way;
use crate::explore::specimen::{Breach, SpecimenError, State, Stop};

/// CPUs, as a set.
type Cpus = u64;

/// CPUs that this search can tell apart.
pub const MOST_CPUS: usize = 64;

/// What a step has to do with the interrupts that are pending at some CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Interrupts {
    /// Nothing.
    None,
    /// It would be another step if one were pending at its own.
    Heeds,
    /// It takes one that is pending at its own.
    Takes,
    /// It adds to those of this one.
    Sends(usize),
}

/// A step, as far as others can matter to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Action {
    cpu: usize,
    words: Vec<(u64, Way)>,
    interrupts: Interrupts,
}

impl Action {
    fn of(state: &State, choice: Choice) -> Self {
        let stopped = &state.cpus()[choice.cpu];
        let mut action = Self {
            cpu: choice.cpu,
            words: Vec::new(),
            interrupts: if stopped.irqs_on() {
                Interrupts::Heeds
            } else {
                Interrupts::None
            },
        };
        if choice.takes.is_some() {
            action.interrupts = Interrupts::Takes;
            return action;
        }
        match stopped.at {
            Stop::Access(Kind::IrqsOff, _) | Stop::Left | Stop::Point(_) | Stop::Instruction(_) => {
            }
            Stop::Access(kind, address) => action.words.push((address & !7, Way::of(kind))),
            Stop::Send { target, .. } => action.interrupts = Interrupts::Sends(target),
            Stop::Idle => action.interrupts = Interrupts::Takes,
            Stop::Relax => {
                action.words = stopped.watched().map(|word| (word, Way::Reads)).collect();
            }
        }
        action
    }

    /// Whether its order with `other`, of another CPU, can matter.
    fn collides(&self, other: &Self) -> bool {
        let sends = |one: &Self, other: &Self| {
            one.interrupts == Interrupts::Sends(other.cpu)
                && matches!(other.interrupts, Interrupts::Heeds | Interrupts::Takes)
        };
        let words = self.words.iter().any(|(word, way)| {
            (other.words.iter()).any(|(its, its_way)| its == word && its_way.collides(*way))
        });
        words || sends(self, other) || sends(other, self)
    }
}

/// Actions by number, so that sets of them are small.
#[derive(Debug, Default)]
struct Actions {
    numbers: HashMap<Action, usize>,
    all: Vec<Action>,
}

impl Actions {
    fn number(&mut self, action: &Action) -> usize {
        if let Some(number) = self.numbers.get(action) {
            return *number;
        }
        let number = self.all.len();
        self.all.push(action.clone());
        self.numbers.insert(action.clone(), number);
        number
    }
}

/// A set of actions, by number.
#[derive(Debug, Clone, Default)]
struct Future(Vec<u64>);

impl Future {
    fn insert(&mut self, number: usize) {
        if self.0.len() <= number / 64 {
            self.0.resize(number / 64 + 1, 0);
        }
        self.0[number / 64] |= 1 << (number % 64);
    }

    fn add(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (word, its) in self.0.iter_mut().zip(&other.0) {
            *word |= its;
        }
    }

    fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().flat_map(|(index, word)| {
            (0..64)
                .filter(move |bit| word >> bit & 1 != 0)
                .map(move |bit| index * 64 + bit)
        })
    }
}

/// What led to a state.
#[derive(Debug)]
struct Step {
    turn: Turn,
    action: Action,
    number: usize,
    /// By CPU: the last of its steps, by their places on the way from 1, that comes before this one in every
    /// order that is the same; 0 for none.
    clock: Vec<u32>,
}

#[derive(Debug)]
struct Frame {
    state: State,
    choices: Vec<Choice>,
    /// CPUs that have to be tried from here, and those that were.
    wanted: Cpus,
    tried: Cpus,
    todo: Vec<Choice>,
    future: Future,
    by: Option<Step>,
}

impl Frame {
    fn can_move(&self) -> Cpus {
        self.choices
            .iter()
            .fold(0, |set, choice| set | 1 << choice.cpu)
    }

    /// The next choice to try from here.
    fn next(&mut self) -> Option<Choice> {
        if self.todo.is_empty() {
            let fresh = self.wanted & !self.tried & self.can_move();
            if fresh == 0 {
                return None;
            }
            let cpu = fresh.trailing_zeros() as usize;
            self.tried |= 1 << cpu;
            let of_it = self.choices.iter().filter(|choice| choice.cpu == cpu);
            self.todo.extend(of_it.copied());
        }
        self.todo.pop()
    }
}

/// What is known of a state that was seen.
#[derive(Debug)]
enum Known {
    /// It is on the way to the present one, at this place.
    OnTheWay(usize),
    /// All that happens behind it.
    Done(Future),
}

/// The search.
#[derive(Debug, Default)]
struct Search {
    stack: Vec<Frame>,
    seen: ByKey<u128, Known>,
    actions: Actions,
}

/// Searches from the beginning.
///
/// # Errors
/// [`SpecimenError`] if the host fails.
pub fn search(hunt: &mut Hunt<'_>) -> Result<End, SpecimenError> {
    loop {
        hunt.counts.states = 0;
        if let Some(end) = Search::default().descend(hunt)? {
            return Ok(end);
        }
        hunt.sharing.begin_anew();
        hunt.counts.begun_anew += 1;
    }
}

impl Search {
    fn descend(&mut self, hunt: &mut Hunt<'_>) -> Result<Option<End>, SpecimenError> {
        hunt.specimen.rewind();
        let root = hunt.specimen.root().clone();
        if let Some(breach) = self.enter(hunt, root, None)? {
            return Ok(Some(self.broke(None, breach)));
        }
        let mut is_there = true;
        while let Some(frame) = self.stack.last_mut() {
            let Some(choice) = frame.next() else {
                self.leave();
                is_there = false;
                continue;
            };
            if !is_there {
                hunt.specimen.load(&frame.state);
            }
            let action = Action::of(&frame.state, choice);
            let moved = hunt.advance(choice)?;
            let turn = hunt.turn(choice, moved.stops);
            if let Some(breach) = moved.breach {
                if hunt.is_incomplete()? {
                    return Ok(None);
                }
                return Ok(Some(self.broke(Some(turn), breach)));
            }
            match hunt.look()? {
                Look::GoOn => {}
                Look::Void => return Ok(None),
                Look::Stop(why) => return Ok(Some(End::Stopped(why))),
            }
            let step = Step {
                clock: self.clock(&action),
                number: self.actions.number(&action),
                turn,
                action,
            };
            let next = hunt.specimen.save();
            let before = self.stack.len();
            let last = step.turn.clone();
            if let Some(breach) = self.enter(hunt, next, Some(step))? {
                if hunt.is_incomplete()? {
                    return Ok(None);
                }
                return Ok(Some(self.broke(Some(last), breach)));
            }
            is_there = self.stack.len() > before;
        }
        Ok(Some(End::Complete))
    }

    /// Goes on from `state`, unless that was done. Returns what broke, if it is an end.
    fn enter(
        &mut self,
        hunt: &mut Hunt<'_>,
        state: State,
        by: Option<Step>,
    ) -> Result<Option<Breach>, SpecimenError> {
        let key = state.key();
        let place = self.stack.len();
        if let Some(known) = self.seen.get(&key) {
            hunt.counts.schedules += 1;
            match known {
                Known::OnTheWay(at) => {
                    // Round in a circle. What happens behind it is not known yet, so nothing is left out.
                    let at = *at;
                    for frame in &mut self.stack[at..] {
                        frame.wanted = Cpus::MAX;
                    }
                    if let (Some(frame), Some(by)) = (self.stack.last_mut(), &by) {
                        frame.future.insert(by.number);
                    }
                }
                Known::Done(future) => {
                    let future = future.clone();
                    for number in future.iter() {
                        let action = self.actions.all[number].clone();
                        self.find_race(&action, by.as_ref(), Some(&future));
                    }
                    if let Some(frame) = self.stack.last_mut() {
                        frame.future.add(&future);
                        if let Some(by) = &by {
                            frame.future.insert(by.number);
                        }
                    }
                }
            }
            return Ok(None);
        }
        hunt.counts.states += 1;
        self.seen.insert(key, Known::OnTheWay(place));
        let choices = hunt.specimen.choices();
        let mut future = Future::default();
        for (cpu, _) in state.cpus().iter().enumerate() {
            let of_it = choices.iter().filter(|choice| choice.cpu == cpu);
            let mut all: Vec<_> = of_it.copied().collect();
            // What it waits for is a step too, of which it is to be known whether it could have come before.
            if !all.iter().any(|choice| choice.takes.is_none()) {
                all.push(Choice { cpu, takes: None });
            }
            for choice in all {
                let action = Action::of(&state, choice);
                future.insert(self.actions.number(&action));
                self.find_race(&action, by.as_ref(), None);
            }
        }
        let is_end = choices.is_empty();
        // Whoever ran last goes on first: schedules stay short.
        let last = by.as_ref().map(|step| step.action.cpu);
        let first = choices
            .iter()
            .find(|choice| Some(choice.cpu) == last)
            .or_else(|| choices.first());
        self.stack.push(Frame {
            wanted: first.map_or(0, |choice| 1 << choice.cpu),
            tried: 0,
            todo: Vec::new(),
            choices,
            future,
            state,
            by,
        });
        hunt.counts.depth = self.stack.len() as u64;
        hunt.counts.deepest = hunt.counts.deepest.max(hunt.counts.depth);
        if is_end {
            hunt.counts.ends += 1;
            hunt.counts.schedules += 1;
            let breach = hunt.specimen.judge()?;
            if breach.is_none() {
                self.leave();
            } else {
                // It is told by whoever made the step.
                self.stack.pop();
            }
            return Ok(breach);
        }
        Ok(None)
    }

    /// Goes back from the topmost state, behind which everything was tried.
    fn leave(&mut self) {
        let Some(frame) = self.stack.pop() else {
            return;
        };
        if let Some(below) = self.stack.last_mut() {
            below.future.add(&frame.future);
            if let Some(by) = &frame.by {
                below.future.insert(by.number);
            }
        }
        self.seen
            .insert(frame.state.key(), Known::Done(frame.future));
    }

    /// The steps on the way, each with its place from 1, and `last`, which comes behind them.
    fn steps<'a>(
        stack: &'a [Frame],
        last: Option<&'a Step>,
    ) -> impl DoubleEndedIterator<Item = (usize, &'a Step)> {
        let steps = stack.iter().filter_map(|frame| frame.by.as_ref());
        let count = stack.len().saturating_sub(1);
        steps
            .enumerate()
            .map(|(index, step)| (index + 1, step))
            .collect::<Vec<_>>()
            .into_iter()
            .chain(last.map(|step| (count + 1, step)))
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// What comes before `action`, which is about to be taken, in every order that is the same.
    fn clock(&self, action: &Action) -> Vec<u32> {
        let cpus = self.stack[0].state.cpus().len();
        let mut clock = vec![0; cpus];
        for (_, step) in Self::steps(&self.stack, None) {
            if step.action.cpu == action.cpu || step.action.collides(action) {
                for (mine, its) in clock.iter_mut().zip(&step.clock) {
                    *mine = (*mine).max(*its);
                }
            }
        }
        // Its own place: it leads from the topmost state.
        clock[action.cpu] = u32::try_from(self.stack.len()).unwrap_or(u32::MAX);
        clock
    }

    /// Looks for the last step on the way, `last` included, that races with `action`, which comes next, or, with
    /// `future`, some time behind a state of which that is the future; and has tried in front of that step
    /// whatever lets the action come first.
    fn find_race(&mut self, action: &Action, last: Option<&Step>, future: Option<&Future>) {
        let steps: Vec<_> = Self::steps(&self.stack, last).collect();
        let of_same = |step: &Step| step.action.cpu == action.cpu;
        let before = steps.iter().rev().find(|(_, step)| of_same(step));
        let is_ordered = |place: usize, cpu: usize| {
            before.is_some_and(|(_, step)| step.clock[cpu] as usize >= place)
        };
        let raced = steps.iter().rev().find(|(place, step)| {
            !of_same(step) && step.action.collides(action) && !is_ordered(*place, step.action.cpu)
        });
        let Some(&(place, raced)) = raced else {
            return;
        };
        let raced = raced.action.cpu;
        // Step 1 leads from frame 0.
        let can_move = self.stack[place - 1].can_move();
        let is_able = |cpu: usize| can_move >> cpu & 1 != 0;
        if is_able(action.cpu) {
            drop(steps);
            self.stack[place - 1].wanted |= 1 << action.cpu;
            return;
        }
        // It waited there. Whoever else brings it to where it can come first has to go on instead.
        let mut instead: Cpus = 0;
        let behind = &steps[place..];
        for (cpu, _) in
            (self.stack[0].state.cpus().iter().enumerate()).filter(|(cpu, _)| is_able(*cpu))
        {
            let helps = behind.iter().any(|(_, step)| {
                (step.action.collides(action) || of_same(step)) && step.clock[cpu] as usize > place
            });
            if helps && cpu != raced {
                instead |= 1 << cpu;
            }
        }
        let later = future.into_iter().flat_map(Future::iter);
        for number in later {
            let other = &self.actions.all[number];
            let cpu = other.cpu;
            if cpu != action.cpu && cpu != raced && other.collides(action) {
                instead |= if is_able(cpu) { 1 << cpu } else { Cpus::MAX };
            }
        }
        if instead == 0 && behind.iter().any(|(_, step)| of_same(step)) {
            instead = Cpus::MAX;
        }
        // Else it waited for that very step, and there is no other order.
        drop(steps);
        self.stack[place - 1].wanted |= instead;
    }

    fn broke(&self, last: Option<Turn>, breach: Breach) -> End {
        let turns = self.stack.iter().filter_map(|frame| frame.by.as_ref());
        End::Broke(Found {
            turns: turns.map(|step| step.turn.clone()).chain(last).collect(),
            breach,
        })
    }
}
