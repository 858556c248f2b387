//! The state graph: all states that can be reached, and every step from each of them. It tells for
//! each state whether a final state can still be reached from there.

use std::collections::{HashMap, HashSet, VecDeque};

use super::by_key::ByKey;
use super::dfs::{Cut, go_on};
use super::engine::Engine;
use super::found::{has_room, is_same};
use super::links::reach;
use super::system::Holding;
use crate::explore::schedule::{Act, Choice, Granularity, Turn};
use crate::explore::specimen::{Breach, State};

/// The states, by number, and the steps between them.
#[derive(Debug, Default)]
pub struct Graph {
    numbers: ByKey<u128, usize>,
    nodes: Vec<Node>,
    edges: Vec<Edge>,
    /// What can break: for each kind of breach, the first choices that led to it. Of a search that
    /// does not go on past breaches, all with the same names are one kind.
    pub broken: Vec<(Vec<Choice>, Breach)>,
    /// Whether there were more kinds than are kept.
    pub more_kinds: bool,
    /// States in which something is to be noted of which the search has not noted any other order,
    /// and whether nothing is left to do there.
    pub to_note: Vec<(usize, bool)>,
    /// The conditions that hold in one of these states, as bits.
    held: u64,
    /// The data races of these states.
    races: Vec<Breach>,
    /// Whether one of them is an end at which nothing is broken.
    has_sound_end: bool,
}

/// A turn of one step.
pub fn step(choice: Choice) -> Turn {
    Turn {
        cpu: u32::try_from(choice.cpu).unwrap_or(u32::MAX),
        takes: choice.takes(),
        flushes: choice.act == Act::Flush,
        arrives: choice.act == Act::Arrive,
        stops: 1,
        until: String::new(),
        state: None,
    }
}

/// A state of the graph.
#[derive(Debug)]
struct Node {
    /// The step by which it was reached first.
    by: Option<Edge>,
    /// Whether the run ends here, or a step from here breaks something.
    is_end: bool,
}

/// A step.
#[derive(Debug, Clone, Copy)]
struct Edge {
    from: usize,
    choice: Choice,
    to: usize,
}

/// A state on the search stack.
#[derive(Debug)]
struct Frame {
    state: State,
    number: usize,
    todo: Vec<Choice>,
}

impl Graph {
    /// Makes every step from every state, beginning with the initial state.
    ///
    /// # Errors
    /// [`Cut`] if the search was cut short. A breach does not cut it short.
    pub fn explore(&mut self, engine: &mut Engine<'_>) -> Result<(), Cut> {
        let root = engine.system.root().clone();
        engine.system.load(&root);
        let mut stack = Vec::new();
        self.enter(engine, &mut stack, root, None)?;
        let mut is_there = true;
        while let Some(Frame {
            state,
            number,
            todo,
        }) = stack.last_mut()
        {
            let Some(choice) = todo.pop() else {
                stack.pop();
                is_there = false;
                continue;
            };
            if !is_there {
                engine.system.mend()?;
                engine.system.load(state);
            }
            let number = *number;
            let moved = engine.advance_from(state, choice)?;
            engine.counts.depth = stack.len() as u64;
            engine.counts.deepest = engine.counts.deepest.max(engine.counts.depth);
            go_on(engine.check()?)?;
            engine.report(|| None);
            if let Some(breach) = moved.breach {
                if engine.is_incomplete()? {
                    return Err(Cut::Void);
                }
                self.nodes[number].is_end = true;
                let mut choices = self.path_to(number);
                choices.push(choice);
                self.add_breach(engine, choices, breach);
                is_there = false;
                continue;
            }
            let next = engine.system.save();
            is_there = self.enter(engine, &mut stack, next, Some((number, choice)))?;
        }
        Ok(())
    }

    /// Adds `state`. Returns whether it is new, and was pushed to be expanded.
    fn enter(
        &mut self,
        engine: &mut Engine<'_>,
        stack: &mut Vec<Frame>,
        state: State,
        by: Option<(usize, Choice)>,
    ) -> Result<bool, Cut> {
        let number = self.nodes.len();
        let known = *self.numbers.entry(state.key()).or_insert(number);
        let by = by.map(|(from, choice)| Edge {
            from,
            choice,
            to: known,
        });
        self.edges.extend(by);
        if known != number {
            return Ok(false);
        }
        engine.counts.states += 1;
        self.nodes.push(Node { by, is_end: false });
        let todo = engine.system.choices();
        let is_end = todo.is_empty() || engine.system.is_over();
        // Where a step is one of several stops, the turns are known only once it is made again.
        let notes_later = engine.system.granularity() != Granularity::Every;
        let mut is_to_note = false;
        if notes_later {
            is_to_note = self.holds_anew(engine, todo.is_empty()) | self.races_anew(engine);
        } else {
            let turns = || self.path_to(number).into_iter().map(step).collect();
            engine.note(is_end, &turns);
            go_on(engine.confirm()?)?;
        }
        if is_end {
            self.nodes[number].is_end = true;
            engine.counts.ends += 1;
            engine.note_outcome();
            if let Some(breach) = engine.system.judge()? {
                if engine.is_incomplete()? {
                    return Err(Cut::Void);
                }
                let choices = self.path_to(number);
                self.add_breach(engine, choices, breach);
            } else if notes_later && todo.is_empty() && engine.wants_witness() {
                is_to_note |= !std::mem::replace(&mut self.has_sound_end, true);
            }
        }
        if is_to_note {
            self.to_note.push((number, todo.is_empty()));
        }
        stack.push(Frame {
            state,
            number,
            todo,
        });
        Ok(true)
    }

    /// Whether a condition holds in the present state that holds in no state so far, neither of this
    /// search nor of the one before it.
    fn holds_anew(&mut self, engine: &mut Engine<'_>, is_end: bool) -> bool {
        if engine.found.wanted.conditions.is_empty() {
            return false;
        }
        let Holding { holds, untold } = engine.system.holding(is_end);
        engine.found.untold |= untold;
        let reached = engine.found.reached.iter().enumerate();
        let reached = reached.filter(|(_, order)| order.is_some());
        let before = reached.fold(self.held, |bits, (index, _)| bits | 1 << index);
        self.held = before | holds;
        holds & !before != 0
    }

    /// Whether the present state has a data race that none before it had.
    fn races_anew(&mut self, engine: &Engine<'_>) -> bool {
        if !engine.found.wanted.data_races.are_wanted() {
            return false;
        }
        let races = engine.system.data_races().into_iter();
        let fresh: Vec<_> = races
            .filter(|race| !engine.found.knows(race) && !self.races.contains(race))
            .collect();
        self.races.extend_from_slice(&fresh);
        !fresh.is_empty()
    }

    /// Notes a breach at the end of `choices`, if it is the first of its kind.
    pub fn add_breach(&mut self, engine: &Engine<'_>, choices: Vec<Choice>, breach: Breach) {
        let tells_texts = engine.found.wanted.keeps_going;
        let is_one_kind = |known: &Breach| match tells_texts {
            true => is_same(known, &breach),
            false => known.names == breach.names,
        };
        if self.broken.iter().any(|(_, known)| is_one_kind(known)) {
            return;
        }
        let names = self.broken.iter().map(|(_, known)| &*known.names);
        if has_room(&breach.names, names) {
            self.broken.push((choices, breach));
        } else {
            self.more_kinds = true;
        }
    }

    /// The choices by which the state with this number was reached first.
    pub fn path_to(&self, number: usize) -> Vec<Choice> {
        let before = |edge: &Edge| self.nodes[edge.from].by;
        let mut choices: Vec<_> = std::iter::successors(self.nodes[number].by, before)
            .map(|edge| edge.choice)
            .collect();
        choices.reverse();
        choices
    }

    /// The first state that was found from which no final state can be reached.
    pub fn without_end(&self) -> Option<usize> {
        let comes = self.edges_by(|edge| edge.to);
        let states = self.nodes.len();
        let ends = (0..states).filter(|number| self.nodes[*number].is_end);
        let is_good = reach(states, ends, |at| comes[at].iter().map(|edge| edge.from));
        is_good.iter().position(|is_good| !is_good)
    }

    /// From the state with this number, from which no final state can be reached: the choices that
    /// lead to a cycle, and a fair cycle, on which every choice that there is on it is made.
    pub fn cycle_from(&self, number: usize) -> (Vec<Choice>, Vec<Choice>) {
        let leads = self.edges_by(|edge| edge.from);
        let comes = self.edges_by(|edge| edge.to);
        let states = self.nodes.len();
        let (mut start, mut lead_in) = (number, Vec::new());
        // Go on to a state to which every state that it can reach leads back: it is in a bottom
        // strongly connected component.
        let all = loop {
            let descendants = reach(states, [start], |at| leads[at].iter().map(|edge| edge.to));
            let ancestors = reach(states, [start], |at| comes[at].iter().map(|edge| edge.from));
            match (0..states).find(|other| descendants[*other] && !ancestors[*other]) {
                Some(other) => {
                    lead_in.extend(shortest_path(&leads, start, |edge| edge.to == other));
                    start = other;
                }
                None => break descendants,
            }
        };
        let edges = self.edges.iter().filter(|edge| all[edge.from]);
        let mut missing: HashSet<Choice> = edges.map(|edge| edge.choice).collect();
        let (mut at, mut cycle) = (start, Vec::new());
        while !missing.is_empty() {
            for edge in shortest_path(&leads, at, |edge| missing.contains(&edge.choice)) {
                missing.remove(&edge.choice);
                at = edge.to;
                cycle.push(edge);
            }
        }
        if at != start {
            cycle.extend(shortest_path(&leads, at, |edge| edge.to == start));
        }
        let choices = |edges: Vec<&Edge>| edges.into_iter().map(|edge| edge.choice).collect();
        (choices(lead_in), choices(cycle))
    }

    /// By state: the edges of which it is this `end`.
    fn edges_by(&self, end: impl Fn(&Edge) -> usize) -> Vec<Vec<&Edge>> {
        let mut edges = vec![Vec::new(); self.nodes.len()];
        for edge in &self.edges {
            edges[end(edge)].push(edge);
        }
        edges
    }
}

/// The shortest path from `start` that ends with a wanted step, where `leads` has the edges that
/// leave each state; empty if there is none.
fn shortest_path<'a>(
    leads: &[Vec<&'a Edge>],
    start: usize,
    is_wanted: impl Fn(&Edge) -> bool,
) -> Vec<&'a Edge> {
    let mut by: HashMap<usize, Option<&Edge>> = HashMap::from([(start, None)]);
    let mut waiting = VecDeque::from([start]);
    while let Some(at) = waiting.pop_front() {
        for edge in &leads[at] {
            if is_wanted(edge) {
                let before = |edge: &&'a Edge| by[&edge.from];
                let mut path: Vec<_> = std::iter::successors(Some(*edge), before).collect();
                path.reverse();
                return path;
            }
            by.entry(edge.to).or_insert_with(|| {
                waiting.push_back(edge.to);
                Some(edge)
            });
        }
    }
    Vec::new()
}
