//! Every order, as in the exhaustive search but without sleep sets. It checks what all searches
//! that backtrack rely on: from two states with the same key, the same choice leads to states with
//! the same key. Whenever a state is reached again, each of its choices is made again, and the
//! result is compared with the first one.

use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::collections::{HashMap, HashSet};

use super::dfs::{Cut, Entry, Visitor, depth_first};
use super::end::SearchEnd;
use super::engine::Engine;
use super::parts::{Root, Task};
use super::tasks::Tasks;
use super::workers::Workers;
use crate::explore::key::to_hex;
use crate::explore::schedule::Choice;
use crate::explore::specimen::{SpecimenError, State};

/// Searches from the initial state, by the first worker alone.
///
/// # Errors
/// [`SpecimenError::NotCanonical`] if a choice leads to another state than before; others if the
/// host fails.
pub fn search(workers: &mut Workers<'_>) -> Result<SearchEnd, SpecimenError> {
    workers.alone_until_sound(|engine| {
        engine.counts.ends = 0;
        let root = Root::beginning(engine);
        let mut checking = Checking::default();
        let alone = Tasks::new(1, [Task::from(root)]);
        depth_first(engine, &mut checking, &alone)?;
        match checking.failed {
            // A difference can come from what was learnt since.
            Some(_) if engine.is_void() || engine.is_incomplete()? => Err(Cut::Void),
            Some(error) => Err(Cut::Failed(error)),
            None => Ok(()),
        }
    })
}

#[derive(Debug, Default)]
struct Checking {
    seen: HashSet<u128>,
    /// By state and choice: the state to which it led.
    led: HashMap<(u128, Choice), u128>,
    failed: Option<SpecimenError>,
}

impl Visitor for Checking {
    /// The choices that are left to try.
    type Data = Vec<Choice>;
    /// The key of the state in which it was made, and the choice.
    type Step = (u128, Choice);

    fn next(&mut self, state: &State, todo: &mut Vec<Choice>) -> Option<(Choice, (u128, Choice))> {
        if self.failed.is_some() {
            return None;
        }
        todo.pop().map(|choice| (choice, (state.key(), choice)))
    }

    fn left(todo: &Vec<Choice>) -> usize {
        todo.len()
    }

    fn enter(
        &mut self,
        engine: &mut Engine<'_>,
        state: &State,
        by: Option<(u128, Choice)>,
    ) -> Entry<Vec<Choice>> {
        if let Some((from, choice)) = by {
            self.compare(from, choice, state.key());
        }
        let todo = engine.system.choices();
        if self.seen.insert(state.key()) {
            engine.counts.states += 1;
            return if todo.is_empty() {
                Entry::End
            } else {
                Entry::GoOn(todo)
            };
        }
        for choice in todo {
            if let Err(error) = self.again(engine, state, choice) {
                self.failed.get_or_insert(error);
            }
        }
        Entry::Known
    }
}

impl Checking {
    /// Makes `choice` once more from `state`, which was reached again.
    fn again(
        &mut self,
        engine: &mut Engine<'_>,
        state: &State,
        choice: Choice,
    ) -> Result<(), SpecimenError> {
        engine.system.load(state);
        let moved = engine.advance(choice)?;
        engine.counts.checked += 1;
        if moved.breach.is_none() {
            let next = engine.system.save().key();
            self.compare(state.key(), choice, next);
        }
        Ok(())
    }

    /// Notes where `choice` led, or compares that with where it led before.
    fn compare(&mut self, from: u128, choice: Choice, to: u128) {
        match self.led.entry((from, choice)) {
            Vacant(place) => {
                place.insert(to);
            }
            Occupied(before) if *before.get() == to => {}
            Occupied(before) => {
                let before = to_hex(*before.get());
                self.failed
                    .get_or_insert_with(|| SpecimenError::NotCanonical {
                        cpu: choice.cpu,
                        from: to_hex(from),
                        to: to_hex(to),
                        before,
                    });
            }
        }
    }
}
