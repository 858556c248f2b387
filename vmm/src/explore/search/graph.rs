//! What leads where: all states that can be reached, every step from each of them made, and nothing
//! left out. Who has that knows of each state whether an end can still be reached from it.

use std::collections::{HashMap, HashSet, VecDeque};

use super::links::reach;
use super::walk::Cut;
use super::{ByKey, End, Hunt, Look};
use crate::explore::schedule::Choice;
use crate::explore::specimen::{Breach, State};

/// Most ways to break something of which one is kept.
const MOST_KINDS: usize = 64;

/// The states, by number, and what leads where.
#[derive(Debug, Default)]
pub struct Graph {
    numbers: ByKey<u128, usize>,
    nodes: Vec<Node>,
    edges: Vec<Edge>,
    /// What can break, each kind once behind the choices that led there first.
    pub broken: Vec<(Vec<Choice>, Breach)>,
}

/// A state.
#[derive(Debug)]
struct Node {
    /// The step by which it was reached first.
    by: Option<Edge>,
    /// Whether something ends here: the run, or by something that breaks.
    is_end: bool,
}

/// A step.
#[derive(Debug, Clone, Copy)]
struct Edge {
    from: usize,
    choice: Choice,
    to: usize,
}

/// A state on the way to the present one.
#[derive(Debug)]
struct Frame {
    state: State,
    number: usize,
    todo: Vec<Choice>,
}

impl Graph {
    /// Makes every step from every state, from the beginning on.
    ///
    /// # Errors
    /// [`Cut`] if it did not come to the end of that. That something breaks is none.
    pub fn explore(&mut self, hunt: &mut Hunt<'_>) -> Result<(), Cut> {
        let root = hunt.specimen.root().clone();
        hunt.specimen.load(&root);
        let mut way = Vec::new();
        self.enter(hunt, &mut way, root, None)?;
        let mut is_there = true;
        while let Some(Frame {
            state,
            number,
            todo,
        }) = way.last_mut()
        {
            let Some(choice) = todo.pop() else {
                way.pop();
                is_there = false;
                continue;
            };
            if !is_there {
                hunt.specimen.mend()?;
                hunt.specimen.load(state);
            }
            let number = *number;
            let moved = hunt.advance(choice)?;
            hunt.counts.depth = way.len() as u64;
            hunt.counts.deepest = hunt.counts.deepest.max(hunt.counts.depth);
            match hunt.look()? {
                Look::GoOn => {}
                Look::Void => return Err(Cut::Void),
                Look::Stop(why) => return Err(Cut::End(End::Stopped(why))),
            }
            if let Some(breach) = moved.breach {
                if hunt.is_incomplete()? {
                    return Err(Cut::Void);
                }
                self.nodes[number].is_end = true;
                let mut choices = self.way_to(number);
                choices.push(choice);
                self.breaks(choices, breach);
                is_there = false;
                continue;
            }
            let next = hunt.specimen.save();
            is_there = self.enter(hunt, &mut way, next, Some((number, choice)))?;
        }
        Ok(())
    }

    /// Comes to `state`. Whether to go on from there.
    fn enter(
        &mut self,
        hunt: &mut Hunt<'_>,
        way: &mut Vec<Frame>,
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
        hunt.counts.states += 1;
        self.nodes.push(Node { by, is_end: false });
        let todo = hunt.specimen.choices();
        if todo.is_empty() || hunt.specimen.is_over() {
            self.nodes[number].is_end = true;
            hunt.counts.ends += 1;
            hunt.note_outcome();
            if let Some(breach) = hunt.specimen.judge()? {
                if hunt.is_incomplete()? {
                    return Err(Cut::Void);
                }
                let choices = self.way_to(number);
                self.breaks(choices, breach);
            }
        }
        way.push(Frame {
            state,
            number,
            todo,
        });
        Ok(true)
    }

    /// Notes that something broke at the end of `choices`.
    pub fn breaks(&mut self, choices: Vec<Choice>, breach: Breach) {
        let mut known = self.broken.iter();
        let is_known = known.any(|(_, known)| known.names == breach.names);
        if !is_known && self.broken.len() < MOST_KINDS {
            self.broken.push((choices, breach));
        }
    }

    /// The choices that led to the state with this number first.
    pub fn way_to(&self, number: usize) -> Vec<Choice> {
        let before = |edge: &Edge| self.nodes[edge.from].by;
        let mut choices: Vec<_> = std::iter::successors(self.nodes[number].by, before)
            .map(|edge| edge.choice)
            .collect();
        choices.reverse();
        choices
    }

    /// A state from which nothing comes to an end: the first that was met.
    pub fn without_end(&self) -> Option<usize> {
        let comes = self.edges_by(|edge| edge.to);
        let states = self.nodes.len();
        let ends = (0..states).filter(|number| self.nodes[*number].is_end);
        let is_good = reach(states, ends, |at| comes[at].iter().map(|edge| edge.from));
        is_good.iter().position(|is_good| !is_good)
    }

    /// From the state with this number, from which nothing comes to an end: the choices that lead
    /// into a round, and the round, on which each choice that there is on it is made.
    pub fn round_from(&self, number: usize) -> (Vec<Choice>, Vec<Choice>) {
        let leads = self.edges_by(|edge| edge.from);
        let comes = self.edges_by(|edge| edge.to);
        let states = self.nodes.len();
        let (mut start, mut into) = (number, Vec::new());
        // On to where everything that can be reached leads back.
        let all = loop {
            let behind = reach(states, [start], |at| leads[at].iter().map(|edge| edge.to));
            let before = reach(states, [start], |at| comes[at].iter().map(|edge| edge.from));
            match (0..states).find(|other| behind[*other] && !before[*other]) {
                Some(other) => {
                    into.extend(way(&leads, start, |edge| edge.to == other));
                    start = other;
                }
                None => break behind,
            }
        };
        let edges = self.edges.iter().filter(|edge| all[edge.from]);
        let mut missing: HashSet<Choice> = edges.map(|edge| edge.choice).collect();
        let (mut at, mut round) = (start, Vec::new());
        while !missing.is_empty() {
            for edge in way(&leads, at, |edge| missing.contains(&edge.choice)) {
                missing.remove(&edge.choice);
                at = edge.to;
                round.push(edge);
            }
        }
        if at != start {
            round.extend(way(&leads, at, |edge| edge.to == start));
        }
        let choices = |edges: Vec<&Edge>| edges.into_iter().map(|edge| edge.choice).collect();
        (choices(into), choices(round))
    }

    /// By state: the edges of which it is the `end`.
    fn edges_by(&self, end: impl Fn(&Edge) -> usize) -> Vec<Vec<&Edge>> {
        let mut edges = vec![Vec::new(); self.nodes.len()];
        for edge in &self.edges {
            edges[end(edge)].push(edge);
        }
        edges
    }
}

/// The shortest way from `start` that ends with a step that is wanted, where from each state these
/// edges lead on; none, if there is no such.
fn way<'a>(
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
                let mut way: Vec<_> = std::iter::successors(Some(*edge), before).collect();
                way.reverse();
                return way;
            }
            by.entry(edge.to).or_insert_with(|| {
                waiting.push_back(edge.to);
                Some(edge)
            });
        }
    }
    Vec::new()
}
