//! Every order that can matter, by dynamic partial-order reduction (DPOR: Flanagan and Godefroid,
//! POPL 2005). The search is depth first, and from each state only one CPU goes on at first.
//! Another CPU is tried there only if one of its later steps turns out to race with a step that was
//! taken from there. Visited states are kept by their keys, each with a summary of the actions that
//! can happen after it. So no state is expanded twice, and yet the search learns which of those
//! actions race with the path by which it reached the state again (Yang, Chen, Gopalakrishnan and
//! Kirby, SPIN 2008).
//!
//! Two steps race if their order can matter and no step between them orders them already.
//!
//! A search can go on past breaches. A breach ends its order, and what would have come after it stays
//! unknown, races included. So from every state from which the search comes to a breach, all CPUs
//! are tried.
//!
//! Several workers share the states. The paths on which they are form a tree of nodes. A worker that
//! has nothing to do takes a choice that is left at somebody else's node, and the last to be through
//! with what lies behind a node closes it. A step that leads to a node that is still open *waits* for
//! it: once that node is closed, the races of what can happen there with the path to the step are
//! looked for, as if it had been closed before. A worker alone never waits, since every open node is
//! on its own path.

mod actions;
mod checkpoint;
mod node;
mod trace;
mod visited;

use std::sync::Arc;

use super::checkpoint::{Checkpoint, Resumable};
use super::dfs::{Cut, Led, broke, go_on, judge, make};
use super::end::SearchEnd;
use super::engine::Engine;
use super::exhaustive;
use super::parts::Root;
use super::tasks::Tasks;
use super::workers::{Together, Workers};
use crate::explore::Shard;
use crate::explore::schedule::{Choice, Turn, is_fair_cycle};
use crate::explore::specimen::{Breach, SpecimenError, State};
use actions::{Action, ActionSet, Actions, Numbering};
use node::{Cpus, Found, Node, Reached, Step};
use trace::Trace;
use visited::{Visit, Visited};

/// The number of CPUs that this search can tell apart.
pub const MOST_CPUS: usize = Cpus::BITS as usize;

/// Searches the part of the orders that belongs to `shard`, from the initial state, or from where a
/// search was that was `kept`.
///
/// # Errors
/// [`SpecimenError`] if the host fails.
pub fn search(
    workers: &mut Workers<'_>,
    shard: Shard,
    mut kept: Option<Checkpoint>,
) -> Result<SearchEnd, SpecimenError> {
    let begin = |engine: &mut Engine<'_>, workers: usize| {
        if let Some(kept) = kept.take() {
            return checkpoint::resume(kept, engine, workers);
        }
        engine.counts.ends = 0;
        let roots = exhaustive::roots(engine, shard)?;
        let tasks = roots.into_iter().map(Task::Begin);
        let visited = Visited::new(&engine.limits.storage);
        Ok(Common::new(visited, Numbering::default(), workers, tasks))
    };
    let work = |engine: &mut Engine<'_>, common: &Common| Dpor::new(common, engine).search(engine);
    let (end, common) = workers.until_sound(begin, work)?;
    // If nobody has anything left, and yet there are open nodes, steps wait for each other, all around
    // a cycle. What can happen after these nodes is then not known, and something can have been left
    // out: as with any other cycle, `confirm_complete` makes every step.
    let waits = common.is_some_and(|common| common.visited.has_open());
    workers.first().has_cycle |= waits;
    Ok(end)
}

/// What the workers have together.
#[derive(Debug)]
struct Common {
    visited: Visited,
    numbering: Numbering,
    tasks: Tasks<Task>,
}

impl Common {
    fn new(
        visited: Visited,
        numbering: Numbering,
        workers: usize,
        tasks: impl IntoIterator<Item = Task>,
    ) -> Self {
        Self {
            visited,
            numbering,
            tasks: Tasks::new(workers, tasks),
        }
    }
}

/// What a worker can begin with.
#[derive(Debug)]
enum Task {
    /// A state whose every predecessor was expanded in every order.
    Begin(Root),
    /// A node at which choices were left.
    GoOn(Arc<Node>),
}

impl Together for Common {
    fn end(&self) {
        self.tasks.end();
    }

    fn resumable(&mut self) -> Option<&mut dyn Resumable> {
        Some(self)
    }
}

/// One worker.
#[derive(Debug)]
struct Dpor<'a> {
    common: &'a Common,
    actions: Actions<'a>,
    /// The nodes from the beginning to the one at which it is.
    path: Vec<Arc<Node>>,
    /// The turns from the initial state to that node.
    turns: Vec<Turn>,
    /// The steps between the nodes.
    trace: Trace,
    /// Whether it has stopped where others can go on.
    is_at_rest: bool,
}

impl<'a> Dpor<'a> {
    fn new(common: &'a Common, engine: &Engine<'_>) -> Self {
        Self {
            common,
            actions: Actions::new(&common.numbering),
            path: Vec::new(),
            turns: Vec::new(),
            trace: Trace::new(engine.system.cpus().len()),
            is_at_rest: false,
        }
    }

    /// Searches until no worker has anything left to do. If the search has to stop or to pause before
    /// that, leaves what is left as a task.
    fn search(&mut self, engine: &mut Engine<'_>) -> Result<(), Cut> {
        let ended = self.do_tasks(engine);
        if ended.as_ref().is_err_and(Cut::leaves_rest) && !self.is_at_rest {
            self.common.tasks.tear();
        }
        ended
    }

    fn do_tasks(&mut self, engine: &mut Engine<'_>) -> Result<(), Cut> {
        while let Some(task) = self.common.tasks.take() {
            let is_there = match task {
                Task::Begin(root) => self.begin(engine, root)?,
                Task::GoOn(node) => {
                    self.go_to(&node);
                    false
                }
            };
            self.search_on(engine, is_there)?;
        }
        Ok(())
    }

    /// Begins at `root`. Returns whether the system is in the state of the node at which it is now.
    fn begin(&mut self, engine: &mut Engine<'_>, root: Root) -> Result<bool, Cut> {
        self.leave_path();
        engine.adopt(root.state())?;
        engine.system.load(root.state());
        self.turns.clone_from(&root.path);
        engine.note(false, &|| root.path.clone());
        go_on(engine.confirm()?)?;
        let state = State::clone(root.state());
        let is_new = self.visit(engine, state, Reached::Beginning(root.path))?;
        // Somebody else has come there: every path to it is expanded in every order, so that nothing
        // more has to be known of what happens after it.
        Ok(is_new.is_some())
    }

    /// Tries what is left at the node at which it is and at those before it, as long as nobody else
    /// has to be waited for. `is_there` says whether the system is in the state of that node.
    fn search_on(&mut self, engine: &mut Engine<'_>, mut is_there: bool) -> Result<(), Cut> {
        while let Some(node) = self.path.last().map(Arc::clone) {
            match node.take() {
                Found::Choice(choice, action) => {
                    if !is_there {
                        engine.adopt(&node.state)?;
                        engine.system.load(&node.state);
                    }
                    is_there = self.try_choice(engine, &node, choice, action)?;
                    engine.report(|| Some(self.path.iter().map(|node| node.left() as u64).sum()));
                    if self.common.tasks.is_wanted() {
                        self.leave_some();
                    }
                }
                Found::Close(summary) => {
                    self.close(&node, &summary);
                    self.step_back();
                    is_there = false;
                }
                Found::Nothing => return Ok(()),
            }
        }
        Ok(())
    }

    /// Leaves a node at which choices are left to another worker, the nearest to the beginning.
    fn leave_some(&self) {
        let mut left = self
            .path
            .iter()
            .map(|node| node.left())
            .filter(|left| *left > 0);
        if left.next().is_some_and(|first| first > 1) || left.next().is_some() {
            let node = self.path.iter().find(|node| node.left() > 0);
            if let Some(node) = node {
                self.common.tasks.put(Task::GoOn(Arc::clone(node)));
            }
        }
    }

    /// Makes the step `choice` from `node`, at which it is. Returns whether it is then at the node of
    /// the state that it led to.
    fn try_choice(
        &mut self,
        engine: &mut Engine<'_>,
        node: &Arc<Node>,
        choice: Choice,
        action: usize,
    ) -> Result<bool, Cut> {
        let led = make(engine, &node.state, choice, &mut self.turns);
        if led.as_ref().is_err_and(Cut::leaves_rest) {
            node.put_back(choice, action);
            self.common.tasks.put(Task::GoOn(Arc::clone(node)));
            self.is_at_rest = true;
        }
        if led? == Led::ToBreach {
            self.turns.pop();
            engine.counts.schedules += 1;
            self.try_all();
            node.finish_choice(&ActionSet::of_breach());
            return Ok(false);
        }
        let next = engine.system.save();
        self.actions.know(action + 1);
        self.trace.push(&self.actions, action);
        let step = Step {
            from: Arc::clone(node),
            action,
            turn: self.turns.last().expect("it was just made").clone(),
        };
        let visited = self.visit(engine, next, Reached::By(step))?;
        if visited.is_none() {
            self.trace.pop();
            self.turns.pop();
        }
        Ok(visited.is_some())
    }

    /// Visits `state`, which is the present one and was reached `by`. Returns the node to which it has
    /// gone, if there is one to be expanded.
    fn visit(
        &mut self,
        engine: &mut Engine<'_>,
        state: State,
        by: Reached,
    ) -> Result<Option<Arc<Node>>, Cut> {
        let key = state.key();
        if self.common.visited.get(key).is_some() {
            self.revisit(engine, key, by)?;
            return Ok(None);
        }
        let choices = engine.system.choices();
        // What a blocked CPU waits to do is an action as well: it may have been possible before.
        let cpus = 0..state.cpus().len();
        let waits: Vec<_> = cpus
            .map(Choice::go_on)
            .filter(|choice| !choices.contains(choice))
            .collect();
        let mut summary = ActionSet::default();
        let mut numbered = |choice: Choice| {
            let is_blocked = waits.iter().any(|waits| waits.cpu == choice.cpu);
            let action = Action::of(&state, choice, is_blocked);
            let action = self.actions.number(action);
            summary.insert(action);
            (choice, action)
        };
        let blocked: Vec<_> = waits.iter().map(|choice| numbered(*choice)).collect();
        let choices: Vec<_> = choices.into_iter().map(numbered).collect();
        let all: Vec<_> = blocked.iter().chain(&choices).map(|(_, it)| *it).collect();
        if choices.is_empty() {
            if !self.common.visited.begin_done(key, &summary) {
                self.revisit(engine, key, by)?;
                return Ok(None);
            }
            engine.counts.states += 1;
            engine.counts.schedules += 1;
            all.into_iter().for_each(|action| self.find_race(action));
            if let Reached::By(step) = by {
                step.from.finish_choice(&summary);
            }
            judge(engine, &self.turns)?;
            return Ok(None);
        }
        // The CPU that ran last goes on first, which keeps schedules short.
        let last = match &by {
            Reached::By(step) => Some(self.actions.cpu(step.action)),
            Reached::Beginning(_) => None,
        };
        let node = Arc::new(Node::new(state, by, choices, last, summary));
        if !self.common.visited.begin(key, &node) {
            let by = node.by.clone();
            self.revisit(engine, key, by)?;
            return Ok(None);
        }
        engine.counts.states += 1;
        all.into_iter().for_each(|action| self.find_race(action));
        self.path.push(Arc::clone(&node));
        Ok(Some(node))
    }

    /// Comes once more, `by`, to the state with this key, which was visited.
    fn revisit(&mut self, engine: &mut Engine<'_>, key: u128, by: Reached) -> Result<(), Cut> {
        engine.counts.schedules += 1;
        let Reached::By(mut step) = by else {
            return Ok(());
        };
        loop {
            let visit = self.common.visited.get(key);
            match visit.expect("what was visited stays so") {
                Visit::Done(summary) => {
                    self.find_later_races(&summary);
                    step.from.finish_choice(&summary);
                    return Ok(());
                }
                Visit::Open(node) => {
                    let place = node.place;
                    if self
                        .path
                        .get(place)
                        .is_some_and(|it| Arc::ptr_eq(it, &node))
                    {
                        return self.close_cycle(engine, place, &step);
                    }
                    match node.wait(step) {
                        Ok(()) => return Ok(()),
                        // It was closed in the meantime.
                        Err(again) => step = again,
                    }
                }
            }
        }
    }

    /// The step has closed a cycle with the node at `place` on the path. What can happen after that
    /// node is not known yet, so that nothing may be left out on the cycle. What is written down of
    /// its nodes can lack something all the same, so that `confirm_complete` makes every step.
    fn close_cycle(&self, engine: &mut Engine<'_>, place: usize, step: &Step) -> Result<(), Cut> {
        engine.has_cycle = true;
        for node in &self.path[place..] {
            node.add_backtrack(Cpus::MAX);
        }
        step.from.finish_choice(&ActionSet::default());
        let choices = self.path[place..].iter().flat_map(|node| node.choices());
        // The turns begin before the path, if that does not begin at the initial state.
        let cycle = &self.turns[self.turns.len() - (self.path.len() - place)..];
        if is_fair_cycle(cycle, choices) {
            return broke(engine, &self.turns, Breach::cycle(cycle));
        }
        Ok(())
    }

    /// Writes down which actions can happen after `node`, at which it is and from which everything
    /// was tried, and tells the steps that wait for that.
    fn close(&mut self, node: &Arc<Node>, summary: &ActionSet) {
        let summary = self.common.visited.finish(node.state.key(), summary);
        for waits in node.close() {
            self.go_to(&waits.from);
            self.actions.know(waits.action + 1);
            self.trace.push(&self.actions, waits.action);
            self.find_later_races(&summary);
            self.trace.pop();
            waits.from.finish_choice(&summary);
            // Whoever takes it finds out whether there is more to try, or nothing any more.
            self.common.tasks.put(Task::GoOn(waits.from));
        }
        self.go_to(node);
        if let Reached::By(step) = &node.by {
            step.from.finish_choice(&summary);
        }
    }

    /// Goes back to the node from which this one was reached.
    fn step_back(&mut self) {
        self.path.pop();
        if !self.path.is_empty() {
            self.trace.pop();
            self.turns.pop();
        }
    }

    fn leave_path(&mut self) {
        while !self.path.is_empty() {
            self.step_back();
        }
        self.turns.clear();
    }

    /// Goes to `node`, wherever it is.
    fn go_to(&mut self, node: &Arc<Node>) {
        let mut ahead = vec![node];
        while let Some(node) = ahead.last()
            && !self
                .path
                .get(node.place)
                .is_some_and(|it| Arc::ptr_eq(it, node))
            && let Reached::By(step) = &node.by
        {
            ahead.push(&step.from);
        }
        let meets = ahead.pop().expect("it has the node itself at least");
        let is_on_path = self.path.get(meets.place);
        if is_on_path.is_some_and(|it| Arc::ptr_eq(it, meets)) {
            while self.path.len() > meets.place + 1 {
                self.step_back();
            }
        } else {
            self.leave_path();
            if let Reached::Beginning(turns) = &meets.by {
                self.turns.clone_from(turns);
            }
            self.path.push(Arc::clone(meets));
        }
        for node in ahead.into_iter().rev() {
            if let Reached::By(step) = &node.by {
                self.actions.know(step.action + 1);
                self.trace.push(&self.actions, step.action);
                self.turns.push(step.turn.clone());
                self.path.push(Arc::clone(node));
            }
        }
    }

    /// Has all CPUs tried at all nodes of the path.
    fn try_all(&self) {
        self.path
            .iter()
            .for_each(|node| node.add_backtrack(Cpus::MAX));
    }

    /// Adds a backtrack point for the last step of the trace that races with `action`, which could
    /// come next.
    fn find_race(&self, action: usize) {
        if let Some(race) = self.trace.races_with(&self.actions, action).max() {
            self.add_backtrack(action, race, false);
        }
    }

    /// The same for actions that can happen some time after the present state, and for all steps
    /// that race with one. The last of these can be ordered before the action by steps in between,
    /// whose order is no longer known.
    fn find_later_races(&mut self, summary: &ActionSet) {
        if summary.breaks {
            self.try_all();
        }
        self.actions.know(summary.end());
        for action in summary.iter() {
            for race in self.trace.races_with(&self.actions, action) {
                self.add_backtrack(action, race, true);
            }
        }
    }

    /// Adds a backtrack point before the step at `place`, which is one of the CPU `raced`: some CPU
    /// whose step there lets `action` come first.
    fn add_backtrack(&self, action: usize, (place, raced): (usize, usize), is_later: bool) {
        // Step 1 leads from the node at place 0.
        let node = &self.path[place - 1];
        let cpu = self.actions.cpu(action);
        let mut tried: Cpus = 0;
        if node.is_enabled(cpu) {
            tried |= 1 << cpu;
            let can_be_it = node.is_unblocked(cpu)
                || !self.actions.is_program_step(action)
                || node.has_action(action);
            if can_be_it {
                return node.add_backtrack(tried);
            }
            // It can take an interrupt there, but is blocked in what it was about to do.
        }
        // It was blocked there. Another CPU that brings it to where it can come first has to go on
        // instead.
        let mut instead: Cpus = 0;
        let before = self.trace.happens_before(&self.actions, action);
        for (other, last) in before.into_iter().enumerate() {
            if last > place && other != raced && node.is_enabled(other) {
                instead |= 1 << other;
            }
        }
        // Which CPUs these are is known only for an action that could come next. What comes before
        // a later one can be several steps, as when an interrupt is sent and taken. If no CPU
        // qualifies, one may have been passed over, and all are tried (Flanagan and Godefroid).
        if is_later || instead == 0 {
            instead = Cpus::MAX;
        }
        node.add_backtrack(tried | instead);
    }
}
