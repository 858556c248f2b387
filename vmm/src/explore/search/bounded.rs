//! Every order with few preemptions first: all with none, then all with one, and so on (iterative
//! context bounding: Musuvathi and Qadeer, PLDI 2007). Most bugs need one or two, and what is found
//! this way is short.
//!
//! A preemption is a change to another CPU while the one that ran could have gone on. A change away
//! from a CPU that waits or is idle costs nothing, and neither does taking a pending interrupt. That
//! an entry leaves a store buffer is nothing that a CPU does: it costs nothing, and the CPU that ran
//! last stays the same.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};
use zerocopy::native_endian;

use super::checkpoint::{Checkpoint, Phase};
use super::dfs::{Entry, Visitor, depth_first};
use super::divided::{Divided, Refers};
use super::end::SearchEnd;
use super::engine::Engine;
use super::frontier::Frontier;
use super::links::Links;
use super::seen::Seen;
use super::workers::Workers;
use crate::explore::Shard;
use crate::explore::schedule::{Act, Choice};
use crate::explore::specimen::{SpecimenError, State};

/// The states that were visited, each with the CPU that ran last, and with the fewest preemptions
/// with which it was reached.
type Visited = Seen<native_endian::U32>;

/// What a bounded search came to.
#[derive(Debug)]
pub struct BoundedEnd {
    /// How it ended.
    pub end: SearchEnd,
    /// The bound at which it ended.
    pub bound: u32,
    /// Of a shard: for the states that all shards know, which can be reached from which.
    pub across: Vec<(u128, u128)>,
}

/// Searches the part of the orders that belongs to `shard`, with at most 0, then 1, and so on up to
/// `bound` preemptions, or from where a search was that was `kept` with one of these bounds.
///
/// # Errors
/// [`SpecimenError`] if the host fails.
pub fn search(
    workers: &mut Workers<'_>,
    bound: u32,
    shard: Shard,
    mut kept: Option<Checkpoint>,
) -> Result<BoundedEnd, SpecimenError> {
    let mut most = match kept.as_ref().map(|kept| kept.phase) {
        Some(Phase::Bounded(most)) => most.min(bound),
        _ => 0,
    };
    loop {
        let (end, across) = search_with(workers, most, shard, kept.take())?;
        if !matches!(end, SearchEnd::Complete) || most == bound {
            return Ok(BoundedEnd {
                end,
                bound: most,
                across,
            });
        }
        most += 1;
    }
}

/// Searches with at most `most` preemptions.
fn search_with(
    workers: &mut Workers<'_>,
    most: u32,
    shard: Shard,
    mut kept: Option<Checkpoint>,
) -> Result<(SearchEnd, Vec<(u128, u128)>), SpecimenError> {
    // A worker that searches the whole alone sees on its search stack that states form a cycle. The
    // first time that it comes to a state it tries all that it ever tries there, if no choice costs
    // too much; and it never comes to one on its search stack with fewer preemptions.
    // Others who go on with the search would not.
    let has_links = workers.count() > 1 || shard != Shard::WHOLE || workers.are_kept();
    let begin = |engine: &mut Engine<'_>, workers: usize| {
        if let Some(kept) = kept.take() {
            return Divided::resume(Phase::Bounded(most), kept, engine, workers);
        }
        let seen = Visited::new(&engine.limits.storage);
        let mut first = Bounded::new(&seen, most, has_links);
        let Frontier { mine, known } = Frontier::of(engine, &mut first, shard)?;
        first.links.into_iter().for_each(|it| seen.add_links(it));
        Ok(Divided::new(
            Phase::Bounded(most),
            (seen, known),
            workers,
            mine,
        ))
    };
    let work = |engine: &mut Engine<'_>, together: &Divided<native_endian::U32, _, _>| {
        let mut search = Bounded::new(&together.seen, most, has_links);
        let ended = depth_first(engine, &mut search, &together.tasks);
        (search.links.into_iter()).for_each(|it| together.seen.add_links(it));
        ended
    };
    let (end, parts) = workers.until_sound(begin, work)?;
    let Some(Divided {
        seen,
        known,
        is_resumed,
        ..
    }) = parts
    else {
        return Ok((end, Vec::new()));
    };
    // Whether CPUs can follow a cycle for ever is seen on the search stack as well. If it passes from
    // one worker to another, or from one process to another, one has to look alone.
    let is_divided = workers.count() > 1 || is_resumed;
    if matches!(end, SearchEnd::Complete) {
        match seen.has_cycle() {
            Ok(false) => {}
            Ok(true) if is_divided => {
                workers.first().has_cycle = true;
                return workers.alone(|workers| search_with(workers, most, shard, None));
            }
            Ok(true) => workers.first().has_cycle = true,
            Err(why) => return Ok((SearchEnd::Stopped(why), Vec::new())),
        }
    }
    Ok(match known.states(seen, false) {
        Ok(states) => (end, states.across),
        Err(why) => (end.unless_complete(why), Vec::new()),
    })
}

/// One worker of a search.
#[derive(Debug)]
struct Bounded<'a> {
    /// The greatest number of preemptions of an order.
    most: u32,
    seen: &'a Visited,
    /// Which states lead to which, if that is needed.
    links: Option<Links>,
}

impl<'a> Bounded<'a> {
    fn new(seen: &'a Visited, most: u32, has_links: bool) -> Self {
        let links = has_links.then(|| seen.no_links());
        Self { most, seen, links }
    }
}

/// A choice, with the number of preemptions that are used once it is made, and the CPU that has
/// then run last.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Priced {
    choice: Choice,
    used: u32,
    last: Option<usize>,
    /// The number of the state in which it is made.
    from: u32,
}

/// Odd, so that no two CPUs make the same of a key.
const STEP: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;

impl Visitor for Bounded<'_> {
    /// The choices that are left to try.
    type Data = Vec<Priced>;
    type Step = Priced;

    fn next(&mut self, _: &State, todo: &mut Vec<Priced>) -> Option<(Choice, Priced)> {
        todo.pop().map(|priced| (priced.choice, priced))
    }

    /// A state counts once for each CPU that can have run last.
    fn key(state: &State, by: Option<&Priced>) -> u128 {
        let last = by.and_then(|priced| priced.last);
        let last = last.map_or(0, |cpu| cpu as u128 + 1);
        state.key().wrapping_add(last.wrapping_mul(STEP))
    }

    fn left(todo: &Vec<Priced>) -> usize {
        todo.len()
    }

    fn enter(
        &mut self,
        engine: &mut Engine<'_>,
        state: &State,
        by: Option<Priced>,
    ) -> Entry<Vec<Priced>> {
        let last = by.and_then(|priced| priced.last);
        let used = by.map_or(0, |priced| priced.used);
        let key = Self::key(state, by.as_ref());
        let (number, is_better) = self.seen.reach(key, used.into(), |known| {
            let is_better = used < known.get();
            known.set(used.min(known.get()));
            is_better
        });
        if let (Some(by), Some(links)) = (by, &mut self.links) {
            links.add(by.from, number);
        }
        match is_better {
            Some(false) => return Entry::Known,
            Some(true) => {}
            None => engine.counts.states += 1,
        }
        let choices = engine.system.choices();
        if choices.is_empty() {
            return Entry::End;
        }
        let could_go_on = choices
            .iter()
            .any(|choice| Some(choice.cpu) == last && choice.act == Act::GoOn);
        let priced = choices.into_iter().map(|choice| {
            let runs = choice.act != Act::Flush;
            let is_preemption = runs && could_go_on && Some(choice.cpu) != last;
            Priced {
                choice,
                used: used + u32::from(is_preemption),
                last: if runs { Some(choice.cpu) } else { last },
                from: number,
            }
        });
        let mut todo: Vec<_> = priced.filter(|priced| priced.used <= self.most).collect();
        // Choices that cost no preemption are tried first: `next` takes from the end.
        todo.sort_by_key(|priced| Reverse(priced.used));
        Entry::GoOn(todo)
    }
}

impl Refers for Vec<Priced> {
    fn refers(&self) -> (Vec<Choice>, Vec<u32>) {
        self.iter().map(|it| (it.choice, it.from)).unzip()
    }
}

impl Refers for Priced {
    fn refers(&self) -> (Vec<Choice>, Vec<u32>) {
        (vec![self.choice], vec![self.from])
    }
}
