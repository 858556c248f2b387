//! Every order with few preemptions first: all with none, then all with one, and so on (iterative
//! context bounding: Musuvathi and Qadeer, PLDI 2007). Most bugs need one or two, and what is found
//! this way is short.
//!
//! A preemption is a change to another CPU while the one that ran could have gone on. A change away
//! from a CPU that waits or is idle costs nothing, and neither does taking a pending interrupt. That
//! an entry leaves a store buffer is nothing that a CPU does: it costs nothing, and the CPU that ran
//! last stays the same.

use std::cmp::Reverse;
use std::collections::hash_map::Entry::{Occupied, Vacant};

use super::by_key::ByKey;
use super::dfs::{Entry, Frame, Root, Visitor, depth_first, until_sound};
use super::end::SearchEnd;
use super::engine::Engine;
use crate::explore::schedule::{Act, Choice};
use crate::explore::specimen::{SpecimenError, State};

/// Searches with at most 0, then 1, and so on up to `bound` preemptions. Returns the bound at which
/// it ended.
///
/// # Errors
/// [`SpecimenError`] if the host fails.
pub fn search(engine: &mut Engine<'_>, bound: u32) -> Result<(SearchEnd, u32), SpecimenError> {
    for most in 0..=bound {
        let end = until_sound(engine, |engine| {
            let seen = ByKey::default();
            let root = Root::beginning(engine);
            depth_first(engine, &mut Bounded { most, seen }, root)
        })?;
        if !matches!(end, SearchEnd::Complete) || most == bound {
            return Ok((end, most));
        }
    }
    Ok((SearchEnd::Complete, bound))
}

/// One search.
#[derive(Debug)]
struct Bounded {
    /// The greatest number of preemptions of an order.
    most: u32,
    /// By state and by the CPU that ran last: the fewest preemptions with which it was reached.
    seen: ByKey<(u128, usize), u32>,
}

/// A choice, with the number of preemptions that are used once it is made, and the CPU that has
/// then run last.
#[derive(Debug, Clone, Copy)]
struct Priced {
    choice: Choice,
    used: u32,
    last: Option<usize>,
}

impl Visitor for Bounded {
    /// The choices that are left to try.
    type Data = Vec<Priced>;
    type Step = Priced;

    fn next(&mut self, _: &State, todo: &mut Vec<Priced>) -> Option<(Choice, Priced)> {
        todo.pop().map(|priced| (priced.choice, priced))
    }

    fn left(todo: &Vec<Priced>) -> usize {
        todo.len()
    }

    fn enter(
        &mut self,
        engine: &mut Engine<'_>,
        _: &mut [Frame<Vec<Priced>>],
        state: &State,
        by: Option<Priced>,
    ) -> Entry<Vec<Priced>> {
        let last = by.and_then(|priced| priced.last);
        let used = by.map_or(0, |priced| priced.used);
        match self.seen.entry((state.key(), last.unwrap_or(usize::MAX))) {
            Occupied(known) if *known.get() <= used => return Entry::Known,
            Occupied(mut known) => {
                known.insert(used);
            }
            Vacant(place) => {
                place.insert(used);
                engine.counts.states += 1;
            }
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
            }
        });
        let mut todo: Vec<_> = priced.filter(|priced| priced.used <= self.most).collect();
        // Choices that cost no preemption are tried first: `next` takes from the end.
        todo.sort_by_key(|priced| Reverse(priced.used));
        Entry::GoOn(todo)
    }
}
