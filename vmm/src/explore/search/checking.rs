//! Every order, as the exhaustive search has it but with nothing put to sleep, to check what all
//! searches that go back rest on: that of two states with the same key the same choice leads to
//! states with the same key. Whenever a state is met again, each of its choices is made again, and
//! held against where it led before.

use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::collections::{HashMap, HashSet};

use super::walk::{Cut, Entry, Frame, Root, Walker, until_sound, walk};
use super::{End, Hunt};
use crate::explore::retrace::name;
use crate::explore::schedule::Choice;
use crate::explore::specimen::{SpecimenError, State};

/// Searches from the beginning.
///
/// # Errors
/// [`SpecimenError::NotCanonical`] if a choice leads elsewhere than before; others if the host
/// fails.
pub fn search(hunt: &mut Hunt<'_>) -> Result<End, SpecimenError> {
    until_sound(hunt, |hunt| {
        hunt.counts.ends = 0;
        let root = Root::beginning(hunt);
        let mut checking = Checking::default();
        walk(hunt, &mut checking, root)?;
        match checking.failed {
            // What has just been learnt can be why.
            Some(_) if hunt.sharing.is_void() || hunt.is_incomplete()? => Err(Cut::Void),
            Some(error) => Err(Cut::Failed(error)),
            None => Ok(()),
        }
    })
}

#[derive(Debug, Default)]
struct Checking {
    seen: HashSet<u128>,
    /// Where a choice led from a state.
    led: HashMap<(u128, Choice), u128>,
    failed: Option<SpecimenError>,
}

impl Walker for Checking {
    /// Choices to try from there.
    type Kept = Vec<Choice>;
    /// From where, and by which choice.
    type Step = (u128, Choice);

    fn next(&mut self, state: &State, todo: &mut Vec<Choice>) -> Option<(Choice, (u128, Choice))> {
        if self.failed.is_some() {
            return None;
        }
        todo.pop().map(|choice| (choice, (state.key(), choice)))
    }

    fn enter(
        &mut self,
        hunt: &mut Hunt<'_>,
        _: &mut [Frame<Vec<Choice>>],
        state: &State,
        by: Option<(u128, Choice)>,
    ) -> Entry<Vec<Choice>> {
        if let Some((from, choice)) = by {
            self.hold(from, choice, state.key());
        }
        let todo = hunt.specimen.choices();
        if self.seen.insert(state.key()) {
            hunt.counts.states += 1;
            return if todo.is_empty() {
                Entry::End
            } else {
                Entry::GoOn(todo)
            };
        }
        for choice in todo {
            if let Err(error) = self.again(hunt, state, choice) {
                self.failed.get_or_insert(error);
            }
        }
        Entry::Known
    }
}

impl Checking {
    /// Makes `choice` from `state`, which was met before.
    fn again(
        &mut self,
        hunt: &mut Hunt<'_>,
        state: &State,
        choice: Choice,
    ) -> Result<(), SpecimenError> {
        hunt.specimen.load(state);
        let moved = hunt.advance(choice)?;
        hunt.counts.checked += 1;
        if moved.breach.is_none() {
            let next = hunt.specimen.save().key();
            self.hold(state.key(), choice, next);
        }
        Ok(())
    }

    fn hold(&mut self, from: u128, choice: Choice, to: u128) {
        match self.led.entry((from, choice)) {
            Vacant(place) => {
                place.insert(to);
            }
            Occupied(before) if *before.get() == to => {}
            Occupied(before) => {
                let before = name(*before.get());
                self.failed
                    .get_or_insert_with(|| SpecimenError::NotCanonical {
                        cpu: choice.cpu,
                        from: name(from),
                        to: name(to),
                        before,
                    });
            }
        }
    }
}
