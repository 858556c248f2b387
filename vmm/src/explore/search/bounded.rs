//! Every order with few preemptions first: all with none, then all with one, and so on (iterative
//! context bounding: Musuvathi and Qadeer, PLDI 2007). Most bugs need one or two, and what is found
//! this way is short.
//!
//! A preemption is a change to another CPU while the one that ran could have gone on. What a CPU
//! that waits, or has nothing to do, leaves to others costs nothing, and neither does it to take a
//! pending interrupt.

use std::cmp::Reverse;
use std::collections::hash_map::Entry::{Occupied, Vacant};

use super::walk::{Entry, Frame, Root, Walker, until_sound, walk};
use super::{ByKey, End, Hunt};
use crate::explore::schedule::Choice;
use crate::explore::specimen::{SpecimenError, State};

/// Searches with at most `bound` preemptions, from none on. Returns with which bound it ended.
///
/// # Errors
/// [`SpecimenError`] if the host fails.
pub fn search(hunt: &mut Hunt<'_>, bound: u32) -> Result<(End, u32), SpecimenError> {
    for most in 0..=bound {
        let end = until_sound(hunt, |hunt| {
            let seen = ByKey::default();
            let root = Root::beginning(hunt);
            walk(hunt, &mut Bounded { most, seen }, root)
        })?;
        if !matches!(end, End::Complete) || most == bound {
            return Ok((end, most));
        }
    }
    Ok((End::Complete, bound))
}

/// One search.
#[derive(Debug)]
struct Bounded {
    /// Preemptions that an order may have.
    most: u32,
    /// By state and the CPU that ran last: the fewest preemptions it was reached with.
    seen: ByKey<(u128, usize), u32>,
}

/// A choice, with the preemptions that were used when it is made.
#[derive(Debug, Clone, Copy)]
struct Priced {
    choice: Choice,
    used: u32,
}

impl Walker for Bounded {
    /// Choices to try from there.
    type Kept = Vec<Priced>;
    type Step = Priced;

    fn next(&mut self, _: &State, todo: &mut Vec<Priced>) -> Option<(Choice, Priced)> {
        todo.pop().map(|priced| (priced.choice, priced))
    }

    fn enter(
        &mut self,
        hunt: &mut Hunt<'_>,
        _: &mut [Frame<Vec<Priced>>],
        state: &State,
        by: Option<Priced>,
    ) -> Entry<Vec<Priced>> {
        let last = by.map(|priced| priced.choice.cpu);
        let used = by.map_or(0, |priced| priced.used);
        match self.seen.entry((state.key(), last.unwrap_or(usize::MAX))) {
            Occupied(known) if *known.get() <= used => return Entry::Known,
            Occupied(mut known) => {
                known.insert(used);
            }
            Vacant(place) => {
                place.insert(used);
                hunt.counts.states += 1;
            }
        }
        let choices = hunt.specimen.choices();
        if choices.is_empty() {
            return Entry::End;
        }
        let could_go_on = choices
            .iter()
            .any(|choice| Some(choice.cpu) == last && choice.takes.is_none());
        let priced = choices.into_iter().map(|choice| {
            let is_preemption = could_go_on && Some(choice.cpu) != last;
            let used = used + u32::from(is_preemption);
            Priced { choice, used }
        });
        let mut todo: Vec<_> = priced.filter(|priced| priced.used <= self.most).collect();
        // What costs nothing is tried first.
        todo.sort_by_key(|priced| Reverse(priced.used));
        Entry::GoOn(todo)
    }
}
