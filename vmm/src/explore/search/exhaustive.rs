//! Every order, once: depth first, with every state that was seen kept by its key, so that none is
//! gone on from twice. Orders of steps that do not touch each other lead to the same state; *sleep
//! sets* (Godefroid, 1996) keep the search from taking all of them, and are stored with the states
//! so that both go together.

use std::collections::BTreeSet;
use std::collections::hash_map::Entry::{Occupied, Vacant};

use shared::stop::Kind;

use super::frontier::{self, Frontier};
use super::seen::{Seen, Set};
use super::walk::{Entry, Frame, Walker, until_sound, walk};
use super::{End, Hunt};
use crate::explore::Shard;
use crate::explore::schedule::{Choice, Granularity};
use crate::explore::sharing::Way;
use crate::explore::specimen::{SpecimenError, State, Stop};

/// Which choice has which place in a [`Set`]: of each CPU to go on, and to take one of some
/// vectors. Those for which there is no room are never in one.
#[derive(Debug)]
struct Places {
    vectors: Vec<u8>,
}

/// Searches `shard`'s part of the orders, from the beginning.
///
/// # Errors
/// [`SpecimenError`] if the host fails.
pub fn search(hunt: &mut Hunt<'_>, seen: &mut Seen, shard: Shard) -> Result<End, SpecimenError> {
    let reduces = hunt.specimen.granularity() == Granularity::Access;
    until_sound(hunt, |hunt| {
        *seen = Seen::default();
        hunt.counts.ends = 0;
        let places = Places::of(hunt.specimen.vectors());
        let Frontier { mine, all } = frontier::expand(hunt, seen, shard)?;
        // The first shard also says what the states lead to that are of no shard alone.
        let mut from: BTreeSet<_> = mine.iter().map(|root| root.state.key()).collect();
        if shard.index == 0 {
            from.extend(&all);
        }
        for root in mine {
            let mut search = Exhaustive {
                seen,
                reduces,
                places: &places,
            };
            walk(hunt, &mut search, root)?;
        }
        hunt.comes_round |= seen.links.has_round();
        if shard != Shard::WHOLE {
            seen.across = seen.links.reached(from, &all);
        }
        Ok(())
    })
}

/// One search.
#[derive(Debug)]
struct Exhaustive<'a> {
    seen: &'a mut Seen,
    /// Whether choices are put to sleep: only where it is known what they touch.
    reduces: bool,
    places: &'a Places,
}

/// What is kept of a state on the way.
#[derive(Debug)]
struct Kept {
    /// Choices to try from there.
    todo: Vec<Choice>,
    /// Choices that need not be tried: what they lead to is reached another way.
    asleep: Set,
}

impl Walker for Exhaustive<'_> {
    type Kept = Kept;
    /// The key of the state it begins in, and what sleeps on behind it.
    type Step = (u128, Set);

    fn next(&mut self, state: &State, kept: &mut Kept) -> Option<(Choice, (u128, Set))> {
        let choice = kept.todo.pop()?;
        if !self.reduces {
            return Some((choice, (state.key(), 0)));
        }
        let asleep = self.still_asleep(state, kept.asleep, choice);
        kept.asleep |= self.places.bit(choice);
        Some((choice, (state.key(), asleep)))
    }

    fn enter(
        &mut self,
        hunt: &mut Hunt<'_>,
        _: &mut [Frame<Kept>],
        state: &State,
        by: Option<(u128, Set)>,
    ) -> Entry<Kept> {
        if let Some((from, _)) = by {
            self.seen.links.add(from, state.key());
        }
        let asleep = by.map_or(0, |(_, asleep)| asleep);
        let bit = |choice: &Choice| self.places.bit(*choice);
        let mut todo = hunt.specimen.choices();
        let asleep = match self.seen.states.entry(state.key()) {
            Occupied(mut known) => {
                let before = *known.get();
                *known.get_mut() = before & asleep;
                todo.retain(|it| bit(it) & before & !asleep != 0);
                before & asleep
            }
            Vacant(place) => {
                place.insert(asleep);
                hunt.counts.states += 1;
                if todo.is_empty() {
                    self.seen.ends.push(state.key());
                    return Entry::End;
                }
                todo.retain(|it| bit(it) & asleep == 0);
                asleep
            }
        };
        if todo.is_empty() {
            Entry::Known
        } else {
            Entry::GoOn(Kept { todo, asleep })
        }
    }
}

impl Exhaustive<'_> {
    /// Those of `asleep` that `taken` does not touch: they can sleep on behind it.
    fn still_asleep(&self, state: &State, asleep: Set, taken: Choice) -> Set {
        let taken_touches = touches(state, taken);
        let mut still = 0;
        let mut rest = asleep;
        while rest != 0 {
            let place = rest.trailing_zeros();
            rest &= rest - 1;
            let sleeper = self.places.choice(place);
            if sleeper.cpu != taken.cpu && !collide(&touches(state, sleeper), &taken_touches) {
                still |= 1 << place;
            }
        }
        still
    }
}

impl Places {
    fn of(vectors: &[u8]) -> Self {
        Self {
            vectors: vectors.to_vec(),
        }
    }

    /// Places that each CPU has.
    fn each(&self) -> usize {
        1 + self.vectors.len()
    }

    /// CPUs that have some.
    fn cpus(&self) -> usize {
        Set::BITS as usize / self.each()
    }

    /// The place of a choice, as a set of its own; an empty one if it has none.
    fn bit(&self, choice: Choice) -> Set {
        let kind = match choice.takes {
            None => Some(0),
            Some(vector) => {
                let place = self.vectors.iter().position(|it| *it == vector);
                place.map(|place| 1 + place)
            }
        };
        match kind {
            Some(kind) if choice.cpu < self.cpus() => 1 << (choice.cpu * self.each() + kind),
            _ => 0,
        }
    }

    /// The choice that has a place.
    fn choice(&self, place: u32) -> Choice {
        let place = place as usize;
        let takes = (place % self.each()).checked_sub(1);
        Choice {
            cpu: place / self.each(),
            takes: takes.map(|vector| self.vectors[vector]),
        }
    }
}

/// What a choice touches that others can touch.
#[derive(Debug, PartialEq, Eq)]
enum Touched {
    /// A word.
    Word(u64, Way),
    /// Reads words.
    Words(Vec<u64>),
    /// Adds to the interrupts that are pending at a CPU.
    Sends(usize),
    /// Takes one of them.
    Takes(usize),
    /// Nothing.
    Nothing,
}

fn touches(state: &State, choice: Choice) -> Touched {
    let stopped = &state.cpus()[choice.cpu];
    if choice.takes.is_some() {
        return Touched::Takes(choice.cpu);
    }
    match stopped.at {
        Stop::Access(Kind::IrqsOff, _) => Touched::Nothing,
        Stop::Access(kind, address) => Touched::Word(address, Way::of(kind)),
        Stop::Send { target, .. } => Touched::Sends(target),
        Stop::Relax => Touched::Words(stopped.watched().collect()),
        Stop::Idle | Stop::Left | Stop::Point(_) => Touched::Nothing,
    }
}

/// Whether the order of two choices of different CPUs can matter.
fn collide(a: &Touched, b: &Touched) -> bool {
    match (a, b) {
        (Touched::Word(a, way_a), Touched::Word(b, way_b)) => {
            a & !7 == b & !7 && way_a.collides(*way_b)
        }
        (Touched::Words(words), Touched::Word(word, way))
        | (Touched::Word(word, way), Touched::Words(words)) => {
            way.collides(Way::Reads) && words.contains(&(word & !7))
        }
        (Touched::Sends(a), Touched::Takes(b)) | (Touched::Takes(b), Touched::Sends(a)) => a == b,
        // Two that are sent are both pending, in whichever order they came.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_choice_has_a_place_of_its_own() {
        for vectors in [&[][..], &[0xf3], &[0xf1, 0xf4, 0xfd], &[0xf0; 16]] {
            let places = Places::of(vectors);
            for cpu in 0..places.cpus() {
                let takes = vectors.iter().take(3).map(|vector| Some(*vector));
                for takes in takes.chain([None]) {
                    let one = Choice { cpu, takes };
                    let place = places.bit(one).trailing_zeros();
                    assert_eq!(places.choice(place), one);
                }
            }
            let without = [(places.cpus(), None), (0, Some(0xf2))];
            for (cpu, takes) in without {
                assert_eq!(places.bit(Choice { cpu, takes }), 0);
            }
        }
        assert_eq!(Places::of(&[0xf1, 0xf4, 0xfd]).cpus(), 32);
    }

    #[test]
    fn what_touches_the_same_word_collides_if_one_writes() {
        let read = Touched::Word(8, Way::Reads);
        let write = Touched::Word(12, Way::Writes);
        assert!(!collide(&read, &Touched::Word(8, Way::Reads)));
        assert!(collide(&read, &write));
        assert!(!collide(&Touched::Word(16, Way::Writes), &write));
        assert!(collide(&Touched::Words(vec![8]), &write));
        assert!(!collide(&Touched::Words(vec![8]), &read));
        assert!(collide(&Touched::Sends(1), &Touched::Takes(1)));
        assert!(!collide(&Touched::Sends(1), &Touched::Sends(1)));
        assert!(!collide(&Touched::Sends(1), &Touched::Takes(0)));
        assert!(!collide(&Touched::Nothing, &write));
    }
}
