//! Every order that can matter, by dynamic partial-order reduction (DPOR: Flanagan and Godefroid,
//! POPL 2005). The search is depth first, and from each state only one CPU goes on at first.
//! Another CPU is tried there only if one of its later steps turns out to race with a step that was
//! taken from there. Visited states are kept by their keys, each with a summary of the actions that
//! can happen after it. So no state is expanded twice, and yet the search learns which of those
//! actions race with the path by which it reached the state again (Yang, Chen, Gopalakrishnan and
//! Kirby, SPIN 2008).
//!
//! Two steps race if their order can matter and no step between them orders them already.

mod actions;
mod trace;

use super::by_key::ByKey;
use super::dfs::{Entry, Frame, Root, Visitor, depth_first, until_sound};
use super::end::SearchEnd;
use super::engine::Engine;
use crate::explore::schedule::{Act, Choice};
use crate::explore::specimen::{SpecimenError, State};
use actions::{Action, ActionSet, Actions};
use trace::Trace;

/// A set of CPUs.
type Cpus = u64;

/// The number of CPUs that this search can tell apart.
pub const MOST_CPUS: usize = 64;

/// Searches from the initial state.
///
/// # Errors
/// [`SpecimenError`] if the host fails.
pub fn search(engine: &mut Engine<'_>) -> Result<SearchEnd, SpecimenError> {
    until_sound(engine, |engine| {
        let root = Root::beginning(engine);
        depth_first(engine, &mut Dpor::new(root.state.cpus().len()), root)
    })
}

/// One search.
#[derive(Debug)]
struct Dpor {
    visited: ByKey<u128, Visited>,
    actions: Actions,
    /// The steps between the states on the search stack.
    trace: Trace,
}

/// What is known of a state that was visited.
#[derive(Debug)]
enum Visited {
    /// It is on the search stack, at this index.
    OnStack(usize),
    /// It was left. These actions can happen after it.
    Done(ActionSet),
    /// It was left, and is in the same strongly connected component as the state with this key:
    /// each can be reached from the other, and the same actions can happen after both.
    SameComponent(u128),
}

/// What is kept for a state on the search stack. The names of the sets are those of Flanagan and
/// Godefroid.
#[derive(Debug)]
struct Node {
    /// The choices, with the numbers of their actions.
    choices: Vec<(Choice, usize)>,
    /// The CPUs that can go on there, if only by taking an interrupt.
    enabled: Cpus,
    /// Those of them that can go on with what they are about to do, if only after their store
    /// buffers are empty.
    unblocked: Cpus,
    /// The CPUs that have to be tried there.
    backtrack: Cpus,
    /// The CPUs that were tried there.
    done: Cpus,
    /// The choices that are left of the CPU that is being tried.
    todo: Vec<(Choice, usize)>,
    /// The actions that can happen after the state, as far as they are known.
    summary: ActionSet,
    /// The index of the first frame on the stack that can be reached from the state, if one can.
    low_link: Option<usize>,
}

impl Visitor for Dpor {
    type Data = Node;
    /// The number of its action.
    type Step = usize;

    fn next(&mut self, _: &State, node: &mut Node) -> Option<(Choice, usize)> {
        if node.todo.is_empty() {
            let fresh = node.backtrack & !node.done & node.enabled;
            if fresh == 0 {
                return None;
            }
            let cpu = fresh.trailing_zeros() as usize;
            node.done |= 1 << cpu;
            let of_it = node.choices.iter().filter(|(choice, _)| choice.cpu == cpu);
            node.todo.extend(of_it.copied());
        }
        node.todo.pop()
    }

    fn left(node: &Node) -> usize {
        // Of a CPU that is yet to be tried it is not known by how many choices it goes on.
        let fresh = node.backtrack & !node.done & node.enabled;
        node.todo.len() + fresh.count_ones() as usize
    }

    fn enter(
        &mut self,
        engine: &mut Engine<'_>,
        stack: &mut [Frame<Node>],
        state: &State,
        by: Option<usize>,
    ) -> Entry<Node> {
        if let Some(action) = by {
            self.trace.push(&self.actions, action);
        }
        let entry = match self.lookup(state.key()) {
            Some(visited) => {
                self.revisit(stack, visited);
                Entry::Known
            }
            None => self.visit(engine, stack, state, by),
        };
        if !matches!(entry, Entry::GoOn(_)) {
            self.trace.pop();
        }
        entry
    }

    fn leave(&mut self, stack: &mut [Frame<Node>], frame: Frame<Node>) {
        self.trace.pop();
        let Node {
            summary, low_link, ..
        } = frame.data;
        match low_link.filter(|place| *place < stack.len()) {
            // Its summary is known once that of the state at `place` is.
            Some(place) => {
                let first = stack[place].state.key();
                note_link(stack, place);
                add_summary(stack, &summary);
                let visited = Visited::SameComponent(first);
                self.visited.insert(frame.state.key(), visited);
            }
            None => self.close(stack, &frame.state, summary),
        }
    }
}

/// Notes that the state on top of `stack` leads back to the one at `place`.
fn note_link(stack: &mut [Frame<Node>], place: usize) {
    if let Some(top) = stack.last_mut() {
        let low = top.data.low_link.map_or(place, |before| before.min(place));
        top.data.low_link = Some(low);
    }
}

/// Adds to the actions that can happen after the state on top of `stack`.
fn add_summary(stack: &mut [Frame<Node>], summary: &ActionSet) {
    if let Some(top) = stack.last_mut() {
        top.data.summary.add(summary);
    }
}

impl Dpor {
    fn new(cpus: usize) -> Self {
        Self {
            visited: ByKey::default(),
            actions: Actions::default(),
            trace: Trace::new(cpus),
        }
    }

    /// Visits a new state, which was reached by a step of action `by`.
    fn visit(
        &mut self,
        engine: &mut Engine<'_>,
        stack: &mut [Frame<Node>],
        state: &State,
        by: Option<usize>,
    ) -> Entry<Node> {
        engine.counts.states += 1;
        let choices = engine.system.choices();
        // What a blocked CPU waits to do is an action as well: it may have been possible before.
        let cpus = 0..state.cpus().len();
        let waits: Vec<_> = cpus
            .map(Choice::go_on)
            .filter(|choice| !choices.contains(choice))
            .collect();
        let mut summary = ActionSet::default();
        let mut find_races = |choice: Choice| {
            let is_blocked = waits.iter().any(|waits| waits.cpu == choice.cpu);
            let action = Action::of(state, choice, is_blocked);
            let action = self.actions.number(action);
            self.find_race(stack, action);
            summary.insert(action);
            (choice, action)
        };
        for choice in &waits {
            find_races(*choice);
        }
        let choices: Vec<_> = choices.into_iter().map(find_races).collect();
        if choices.is_empty() {
            self.close(stack, state, summary);
            return Entry::End;
        }
        let visited = Visited::OnStack(stack.len());
        self.visited.insert(state.key(), visited);
        let cpus = choices.iter().map(|(choice, _)| choice.cpu);
        let enabled: Cpus = cpus.fold(0, |set, cpu| set | 1 << cpu);
        // Whether by themselves or once their store buffers are empty, which nobody can prevent.
        let unblocked = (choices.iter())
            .filter(|(choice, _)| match choice.act {
                Act::GoOn => true,
                Act::Flush => state.cpus()[choice.cpu].waits_only_for_its_buffer(),
                Act::Take(_) => false,
            })
            .fold(0, |set, (choice, _)| set | 1 << choice.cpu);
        // The CPU that ran last goes on first, which keeps schedules short.
        let last = by.map(|action| self.actions.cpu(action));
        let last = last.filter(|cpu| enabled >> cpu & 1 != 0);
        Entry::GoOn(Node {
            enabled,
            unblocked,
            backtrack: 1 << last.unwrap_or(choices[0].0.cpu),
            done: 0,
            todo: Vec::new(),
            summary,
            low_link: None,
            choices,
        })
    }

    /// What is known of the state with this key, if it was visited.
    fn lookup(&self, key: u128) -> Option<&Visited> {
        let mut visited = self.visited.get(&key)?;
        while let Visited::SameComponent(key) = visited {
            visited = self.visited.get(key)?;
        }
        Some(visited)
    }

    /// Visits a state once more.
    fn revisit(&self, stack: &mut [Frame<Node>], visited: &Visited) {
        match visited {
            // The step has closed a cycle. What can happen after the state is not known yet, so
            // that nothing may be left out.
            Visited::OnStack(place) => {
                for frame in &mut stack[*place..] {
                    frame.data.backtrack = Cpus::MAX;
                }
                note_link(stack, *place);
            }
            Visited::Done(summary) => {
                for action in summary.iter() {
                    self.find_later_races(stack, action);
                }
                add_summary(stack, summary);
            }
            // `lookup` has followed these.
            Visited::SameComponent(_) => {}
        }
    }

    /// Notes which actions can happen after `state`, from which everything was tried. The state on
    /// top of `stack` leads to it.
    fn close(&mut self, stack: &mut [Frame<Node>], state: &State, summary: ActionSet) {
        add_summary(stack, &summary);
        self.visited.insert(state.key(), Visited::Done(summary));
    }

    /// Adds a backtrack point for the last step of the trace that races with `action`, which could
    /// come next.
    fn find_race(&self, stack: &mut [Frame<Node>], action: usize) {
        if let Some(race) = self.trace.races_with(&self.actions, action).max() {
            self.add_backtrack(stack, action, race, false);
        }
    }

    /// The same for an action that can happen some time after the present state, and for all steps
    /// that race with it. The last of these can be ordered before the action by steps in between,
    /// whose order is no longer known.
    fn find_later_races(&self, stack: &mut [Frame<Node>], action: usize) {
        for race in self.trace.races_with(&self.actions, action) {
            self.add_backtrack(stack, action, race, true);
        }
    }

    /// Adds a backtrack point before the step at `place`, which is one of the CPU `raced`: some CPU
    /// whose step there lets `action` come first.
    fn add_backtrack(
        &self,
        stack: &mut [Frame<Node>],
        action: usize,
        (place, raced): (usize, usize),
        is_later: bool,
    ) {
        // Step 1 leads from the state in frame 0.
        let node = &mut stack[place - 1].data;
        let enabled = node.enabled;
        let is_enabled = |cpu: usize| enabled >> cpu & 1 != 0;
        let cpu = self.actions.cpu(action);
        if is_enabled(cpu) {
            node.backtrack |= 1 << cpu;
            let is_there = || node.choices.iter().any(|(_, choice)| *choice == action);
            let can_be_it = node.unblocked >> cpu & 1 != 0
                || !self.actions.is_program_step(action)
                || is_there();
            if can_be_it {
                return;
            }
            // It can take an interrupt there, but is blocked in what it was about to do.
        }
        // It was blocked there. Another CPU that brings it to where it can come first has to go on
        // instead.
        let mut instead: Cpus = 0;
        let before = self.trace.happens_before(&self.actions, action);
        for (other, last) in before.into_iter().enumerate() {
            if last > place && other != raced && is_enabled(other) {
                instead |= 1 << other;
            }
        }
        // Which CPUs these are is known only for an action that could come next. What comes before
        // a later one can be several steps, as when an interrupt is sent and taken. If no CPU
        // qualifies, one may have been passed over, and all are tried (Flanagan and Godefroid).
        if is_later || instead == 0 {
            instead = Cpus::MAX;
        }
        node.backtrack |= instead;
    }
}
