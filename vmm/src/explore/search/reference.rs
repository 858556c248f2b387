//! The search that the others are held against. It shares none of their rules: every access, every release and every
//! round of a waiting loop is a step, an interrupt can come at each, nothing is passed over, learnt, or taken for the
//! same as anything else, and a state is all of memory and all registers. It does not end with the first thing that
//! breaks, so that it knows everything that can. It is slow, and for small cases.
//!
//! Nobody waits here: a CPU that finds nothing goes round, into a state that is known. So there is no state in which
//! nothing can go on and somebody waits; instead there are states from which no end can be reached any more, and that
//! is what a hang, or a livelock, is.

use super::sampled;
use super::walk::{Cut, until_sound};
use super::{ByKey, End, Found, Hunt, Look};
use crate::explore::schedule::{Choice, Turn};
use crate::explore::specimen::{Breach, SpecimenError, State};

/// Most ways to break something of which one is kept.
const MOST_KINDS: usize = 64;

/// Searches from the beginning. Returns what can break, each kind once with the first way that led there.
///
/// # Errors
/// [`SpecimenError`] if the host fails.
pub fn search(hunt: &mut Hunt<'_>) -> Result<(End, Vec<Found>), SpecimenError> {
    sampled::touch_pages(hunt)?;
    let mut broken = Vec::new();
    let end = until_sound(hunt, |hunt| {
        let mut graph = Graph::default();
        hunt.outcomes.clear();
        hunt.counts.ends = 0;
        let ended = graph.explore(hunt);
        if ended.is_ok()
            && let Some(place) = graph.without_end()
        {
            let turns = graph.way_to(place);
            graph.breaks(turns, Breach::without_end());
        }
        broken = graph.broken;
        ended
    })?;
    Ok((end, broken))
}

/// The states, by number, and what leads where.
#[derive(Debug, Default)]
struct Graph {
    numbers: ByKey<u128, usize>,
    nodes: Vec<Node>,
    /// From where to where.
    edges: Vec<(usize, usize)>,
    broken: Vec<Found>,
}

/// A state.
#[derive(Debug)]
struct Node {
    /// The state it was reached from first, and by which choice.
    by: Option<(usize, Choice)>,
    /// Whether something ends here: the run, or by something that breaks.
    is_end: bool,
}

/// A state on the way to the present one.
#[derive(Debug)]
struct Frame {
    state: State,
    number: usize,
    todo: Vec<Choice>,
}

impl Graph {
    fn explore(&mut self, hunt: &mut Hunt<'_>) -> Result<(), Cut> {
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
                let mut turns = self.way_to(number);
                turns.push(step(choice));
                self.breaks(turns, breach);
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
        if let Some((from, _)) = by {
            self.edges.push((from, known));
        }
        if known != number {
            return Ok(false);
        }
        hunt.counts.states += 1;
        self.nodes.push(Node { by, is_end: false });
        if hunt.specimen.is_over() {
            self.nodes[number].is_end = true;
            hunt.counts.ends += 1;
            hunt.note_outcome();
            if let Some(breach) = hunt.specimen.judge()? {
                if hunt.is_incomplete()? {
                    return Err(Cut::Void);
                }
                let turns = self.way_to(number);
                self.breaks(turns, breach);
            }
        }
        let todo = hunt.specimen.choices();
        way.push(Frame {
            state,
            number,
            todo,
        });
        Ok(true)
    }

    fn breaks(&mut self, turns: Vec<Turn>, breach: Breach) {
        let mut known = self.broken.iter();
        let is_known = known.any(|found| found.breach.names == breach.names);
        if !is_known && self.broken.len() < MOST_KINDS {
            self.broken.push(Found { turns, breach });
        }
    }

    /// The steps that led to the state with this number first.
    fn way_to(&self, number: usize) -> Vec<Turn> {
        let before = |(from, _): &(usize, Choice)| self.nodes[*from].by;
        let mut turns: Vec<_> = std::iter::successors(self.nodes[number].by, before)
            .map(|(_, choice)| step(choice))
            .collect();
        turns.reverse();
        turns
    }

    /// A state from which nothing comes to an end: the first that was met.
    fn without_end(&self) -> Option<usize> {
        let mut from: Vec<Vec<usize>> = vec![Vec::new(); self.nodes.len()];
        for (source, target) in &self.edges {
            from[*target].push(*source);
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
