//! A state from which not everything has been tried yet: what is left to try, who waits for it, and
//! what is known to happen after it. Nodes form a tree, each with the node from which it was reached
//! first. Several workers use a node at once. Makes no step, and knows no machine.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::actions::ActionSet;
use crate::explore::schedule::{Act, Choice, Turn};
use crate::explore::specimen::State;

/// A set of CPUs.
pub type Cpus = u64;

/// A state from which not everything has been tried yet. The names of the sets are those of Flanagan
/// and Godefroid.
#[derive(Debug)]
pub struct Node {
    /// The state.
    pub state: State,
    /// How it was reached first.
    pub by: Reached,
    /// The number of steps from the node at which the search begins.
    pub place: usize,
    /// The choices, with the numbers of their actions.
    choices: Vec<(Choice, usize)>,
    /// The CPUs that can go on there, if only by taking an interrupt.
    enabled: Cpus,
    /// Those of them that can go on with what they are about to do, if only after their store
    /// buffers are empty.
    unblocked: Cpus,
    progress: Mutex<NodeProgress<Step>>,
}

/// How a node was reached first.
#[derive(Debug, Clone)]
pub enum Reached {
    /// The search begins there. These turns lead there from the initial state.
    Beginning(Vec<Turn>),
    /// By a step from another node.
    By(Step),
}

/// A step from a node.
#[derive(Debug, Clone)]
pub struct Step {
    /// The node.
    pub from: Arc<Node>,
    /// The number of the step's action.
    pub action: usize,
    /// The turn that it was.
    pub turn: Turn,
}

/// What has been tried from a node, and what is known. A step is of type `S`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeProgress<S> {
    /// The CPUs that have to be tried there.
    backtrack: Cpus,
    /// The CPUs that were tried there.
    done: Cpus,
    /// The choices that are left of the CPUs that are being tried.
    pub todo: Vec<(Choice, usize)>,
    /// The choices that were taken by workers, and behind which not everything is tried yet.
    pub open: usize,
    /// The actions that can happen after the state, as far as they are known.
    pub summary: ActionSet,
    /// The steps that have led here since. What happens behind them is known once it is known here.
    pub waiting: Vec<S>,
    stage: Stage,
}

impl<S> NodeProgress<S> {
    /// The same, with steps as `step` makes them.
    fn with_steps<T>(self, step: impl Fn(S) -> T) -> NodeProgress<T> {
        NodeProgress {
            backtrack: self.backtrack,
            done: self.done,
            todo: self.todo,
            open: self.open,
            summary: self.summary,
            waiting: self.waiting.into_iter().map(step).collect(),
            stage: self.stage,
        }
    }
}

/// How far a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stage {
    /// There can be something to try.
    Open,
    /// A worker has found that there is no more to try, and is writing that down.
    Closing,
    /// That is written down.
    Closed,
}

/// What a worker finds at a node.
#[derive(Debug)]
pub enum Found {
    /// This is to be tried: a choice, with the number of its action.
    Choice(Choice, usize),
    /// There is no more to try, and this worker has to close it. These actions can happen after the
    /// state.
    Close(ActionSet),
    /// Nothing is to be tried now. Another worker will find what comes next.
    Nothing,
}

impl Node {
    /// The node of `state`, which was reached `by`, with these choices and the numbers of their
    /// actions. `first` is the CPU that is tried first, if it can go on. At first these are the
    /// actions that are known to happen after it: `summary`.
    pub fn new(
        state: State,
        by: Reached,
        choices: Vec<(Choice, usize)>,
        first: Option<usize>,
        summary: ActionSet,
    ) -> Self {
        let cpus = choices.iter().map(|(choice, _)| choice.cpu);
        let enabled: Cpus = cpus.fold(0, |set, cpu| set | 1 << cpu);
        // Whether by themselves or once their store buffers are empty, which nobody can prevent.
        let unblocked = (choices.iter())
            .filter(|(choice, _)| match choice.act {
                Act::GoOn => true,
                Act::Flush => state.cpus()[choice.cpu].waits_only_for_its_buffer(),
                Act::Take(_) | Act::Arrive => false,
            })
            .fold(0, |set, (choice, _)| set | 1 << choice.cpu);
        let first = first.filter(|cpu| enabled >> cpu & 1 != 0);
        let first = first.or_else(|| choices.first().map(|(choice, _)| choice.cpu));
        let place = match &by {
            Reached::Beginning(_) => 0,
            Reached::By(step) => step.from.place + 1,
        };
        Self {
            state,
            by,
            place,
            choices,
            enabled,
            unblocked,
            progress: Mutex::new(NodeProgress {
                backtrack: first.map_or(0, |cpu| 1 << cpu),
                done: 0,
                todo: Vec::new(),
                open: 0,
                summary,
                waiting: Vec::new(),
                stage: Stage::Open,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, NodeProgress<Step>> {
        // Nothing that is done under the lock panics half-way.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The choices.
    pub fn choices(&self) -> impl Iterator<Item = Choice> {
        self.choices.iter().map(|(choice, _)| *choice)
    }

    /// Whether `action` is that of a choice.
    pub fn has_action(&self, action: usize) -> bool {
        self.choices.iter().any(|(_, choice)| *choice == action)
    }

    /// Whether `cpu` can go on there, if only by taking an interrupt.
    pub fn is_enabled(&self, cpu: usize) -> bool {
        self.enabled >> cpu & 1 != 0
    }

    /// Whether `cpu` can go on there with what it is about to do.
    pub fn is_unblocked(&self, cpu: usize) -> bool {
        self.unblocked >> cpu & 1 != 0
    }

    /// Takes a choice that is to be tried, or says what else there is to do.
    pub fn take(&self) -> Found {
        let mut progress = self.lock();
        if progress.stage != Stage::Open {
            return Found::Nothing;
        }
        if progress.todo.is_empty() {
            let fresh = progress.backtrack & !progress.done & self.enabled;
            if fresh == 0 {
                if progress.open > 0 {
                    return Found::Nothing;
                }
                progress.stage = Stage::Closing;
                return Found::Close(std::mem::take(&mut progress.summary));
            }
            let cpu = fresh.trailing_zeros() as usize;
            progress.done |= 1 << cpu;
            let of_it = self.choices.iter().filter(|(choice, _)| choice.cpu == cpu);
            progress.todo.extend(of_it.copied());
        }
        progress.open += 1;
        let taken = progress.todo.pop();
        let (choice, action) = taken.expect("a CPU that is enabled has a choice");
        Found::Choice(choice, action)
    }

    /// Puts back a choice that was taken, with the number of its action. It is yet to be tried.
    pub fn put_back(&self, choice: Choice, action: usize) {
        let mut progress = self.lock();
        progress.todo.push((choice, action));
        progress.open -= 1;
    }

    /// The choices, with the numbers of their actions.
    pub fn numbered_choices(&self) -> &[(Choice, usize)] {
        &self.choices
    }

    /// A copy of what has been tried, with steps as `step` makes them.
    pub fn progress<S>(&self, step: impl Fn(&Step) -> S) -> NodeProgress<S> {
        self.lock().clone().with_steps(|it| step(&it))
    }

    /// From now on this has been tried. `step` makes the steps.
    pub fn go_on_from<S>(&self, tried: NodeProgress<S>, step: impl Fn(S) -> Step) {
        *self.lock() = NodeProgress {
            stage: Stage::Open,
            ..tried.with_steps(step)
        };
    }

    /// How many choices are left to try, as far as is known: of a CPU that is yet to be tried it is
    /// not known by how many it goes on.
    pub fn left(&self) -> usize {
        let progress = self.lock();
        let fresh = progress.backtrack & !progress.done & self.enabled;
        progress.todo.len() + fresh.count_ones() as usize
    }

    /// From now on these CPUs have to be tried there.
    pub fn add_backtrack(&self, cpus: Cpus) {
        self.lock().backtrack |= cpus;
    }

    /// Notes that what lies behind a choice that was taken is tried, and which actions can happen
    /// there.
    pub fn finish_choice(&self, summary: &ActionSet) {
        let mut progress = self.lock();
        progress.summary.add(summary);
        progress.open -= 1;
    }

    /// Has `step`, which has led here, wait until it is known what can happen here; `Err` if it is
    /// known.
    pub fn wait(&self, step: Step) -> Result<(), Step> {
        let mut progress = self.lock();
        match progress.stage {
            Stage::Open | Stage::Closing => {
                progress.waiting.push(step);
                Ok(())
            }
            Stage::Closed => Err(step),
        }
    }

    /// Notes that it is written down what can happen here, and returns the steps that wait for it.
    pub fn close(&self) -> Vec<Step> {
        let mut progress = self.lock();
        progress.stage = Stage::Closed;
        std::mem::take(&mut progress.waiting)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // One after the other: a path can be too long for the stack.
        let beginning = || Reached::Beginning(Vec::new());
        let mut by = std::mem::replace(&mut self.by, beginning());
        while let Reached::By(Step { from, .. }) = by {
            match Arc::into_inner(from) {
                Some(mut from) => by = std::mem::replace(&mut from.by, beginning()),
                None => break,
            }
        }
    }
}
