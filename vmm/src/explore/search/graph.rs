//! What leads where: all states that can be reached, every step from each of them made, and nothing left out. Who has
//! that knows of each state whether an end can still be reached from it.

use std::collections::{HashMap, HashSet, VecDeque};

use super::walk::Cut;
use super::{ByKey, End, Found, Hunt, Look};
use crate::explore::schedule::{Choice, Turn};
use crate::explore::specimen::{Breach, State};

/// Most ways to break something of which one is kept.
const MOST_KINDS: usize = 64;

/// The states, by number, and what leads where.
#[derive(Debug, Default)]
pub struct Graph {
    numbers: ByKey<u128, usize>,
    nodes: Vec<Node>,
    edges: Vec<Edge>,
    /// What can break, each kind once with the first way that led there.
    pub broken: Vec<Found>,
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
                self.breaks(&choices, breach);
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
                self.breaks(&choices, breach);
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
    pub fn breaks(&mut self, choices: &[Choice], breach: Breach) {
        let mut known = self.broken.iter();
        let is_known = known.any(|found| found.breach.names == breach.names);
        if !is_known && self.broken.len() < MOST_KINDS {
            let turns = choices.iter().map(|choice| step(*choice)).collect();
            self.broken.push(Found { turns, breach });
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
        let mut from: Vec<Vec<usize>> = vec![Vec::new(); self.nodes.len()];
        for edge in &self.edges {
            from[edge.to].push(edge.from);
        }
        let mut ends: Vec<_> = self.nodes.iter().map(|node| node.is_end).collect();
        let mut todo: Vec<_> = (0..ends.len()).filter(|number| ends[*number]).collect();
        while let Some(number) = todo.pop() {
            for source in &from[number] {
                if !std::mem::replace(&mut ends[*source], true) {
                    todo.push(*source);
                }
            }
        }
        ends.iter().position(|ends| !ends)
    }

    /// From the state with this number, from which nothing comes to an end: the choices that lead into a round, and the
    /// round, on which each choice that there is on it is made.
    pub fn round_from(&self, number: usize) -> (Vec<Choice>, Vec<Choice>) {
        let mut neighbours = Neighbours::of(self);
        let (mut start, mut into) = (number, Vec::new());
        // On to where everything that can be reached leads back.
        let all = loop {
            let all = neighbours.behind(start);
            let before = neighbours.before(start);
            match all.iter().find(|other| !before.contains(other)) {
                Some(other) => {
                    into.extend(neighbours.way(start, |edge| edge.to == *other));
                    start = *other;
                }
                None => break all,
            }
        };
        neighbours.leads.retain(|from, _| all.contains(from));
        let edges = neighbours.leads.values().flatten();
        let mut missing: HashSet<Choice> = edges.map(|edge| edge.choice).collect();
        let (mut at, mut round) = (start, Vec::new());
        while !missing.is_empty() {
            for edge in neighbours.way(at, |edge| missing.contains(&edge.choice)) {
                missing.remove(&edge.choice);
                at = edge.to;
                round.push(edge);
            }
        }
        if at != start {
            round.extend(neighbours.way(at, |edge| edge.to == start));
        }
        let choices = |edges: Vec<Edge>| edges.into_iter().map(|edge| edge.choice).collect();
        (choices(into), choices(round))
    }
}

/// The steps of a graph, by where they begin and by where they lead.
struct Neighbours {
    leads: HashMap<usize, Vec<Edge>>,
    comes: HashMap<usize, Vec<Edge>>,
}

impl Neighbours {
    fn of(graph: &Graph) -> Self {
        let (mut leads, mut comes) = (HashMap::new(), HashMap::new());
        for edge in &graph.edges {
            leads.entry(edge.from).or_insert_with(Vec::new).push(*edge);
            comes.entry(edge.to).or_insert_with(Vec::new).push(*edge);
        }
        Self { leads, comes }
    }

    /// All states that can be reached from this one, and itself.
    fn behind(&self, number: usize) -> HashSet<usize> {
        reach(number, &self.leads, |edge| edge.to)
    }

    /// All states from which this one can be reached, and itself.
    fn before(&self, number: usize) -> HashSet<usize> {
        reach(number, &self.comes, |edge| edge.from)
    }

    /// The shortest way from `start` that ends with a step that is wanted; none, if there is no such.
    fn way(&self, start: usize, is_wanted: impl Fn(&Edge) -> bool) -> Vec<Edge> {
        let mut by: HashMap<usize, Option<Edge>> = HashMap::from([(start, None)]);
        let mut waiting = VecDeque::from([start]);
        while let Some(at) = waiting.pop_front() {
            for edge in self.leads.get(&at).into_iter().flatten() {
                if is_wanted(edge) {
                    let before = |edge: &Edge| by[&edge.from];
                    let mut way: Vec<_> = std::iter::successors(Some(*edge), before).collect();
                    way.reverse();
                    return way;
                }
                by.entry(edge.to).or_insert_with(|| {
                    waiting.push_back(edge.to);
                    Some(*edge)
                });
            }
        }
        Vec::new()
    }
}

/// All that can be reached from `start` by `edges`, each of which goes on to `end`.
fn reach(
    start: usize,
    edges: &HashMap<usize, Vec<Edge>>,
    end: impl Fn(&Edge) -> usize,
) -> HashSet<usize> {
    let mut reached = HashSet::from([start]);
    let mut todo = vec![start];
    while let Some(at) = todo.pop() {
        for edge in edges.get(&at).into_iter().flatten() {
            if reached.insert(end(edge)) {
                todo.push(end(edge));
            }
        }
    }
    reached
}

/// A turn of one step.
fn step(choice: Choice) -> Turn {
    Turn {
        cpu: u32::try_from(choice.cpu).unwrap_or(u32::MAX),
        takes: choice.takes,
        stops: 1,
        until: String::new(),
        state: None,
    }
}
