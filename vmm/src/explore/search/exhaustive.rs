//! Every order, once: depth first, with every state that was seen kept by its key, so that none is gone on from
//! twice. Orders of steps that do not touch each other lead to the same state; *sleep sets* (Godefroid, 1996)
//! keep the search from taking all of them, and are stored with the states so that both go together.

use std::collections::hash_map::Entry;

use shared::stop::Kind;

use super::frontier::{self, Frontier, Root};
use super::{ByKey, End, Found, Hunt, Look};
use crate::explore::Shard;
use crate::explore::schedule::{Choice, Granularity, Turn};
use crate::explore::sharing::Way;
use crate::explore::specimen::{SpecimenError, State, Stop};

/// Choices, as a set.
type Set = u128;

/// CPUs whose choices fit into a [`Set`]; those of the others are never in one.
const IN_SET: usize = 32;

/// A state on the way to the present one.
#[derive(Debug)]
struct Frame {
    state: State,
    /// Choices to try from here.
    todo: Vec<Choice>,
    /// Choices that need not be tried: what they lead to is reached another way.
    asleep: Set,
    /// What led here; nothing at the state that the search began with.
    by: Option<Turn>,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// By key: the choices that were not tried from there.
    states: ByKey<u128, Set>,
    /// Those in which nothing could go on.
    ends: Vec<u128>,
}

impl Seen {
    /// The keys of all states.
    pub fn keys(&self) -> impl Iterator<Item = u128> {
        self.states.keys().copied()
    }

    /// The keys of those in which nothing could go on.
    pub fn ends(&self) -> &[u128] {
        &self.ends
    }

    /// Notes a state as one from which everything was tried, or is by others. Whether it is new.
    pub fn insert(&mut self, key: u128) -> bool {
        self.states.insert(key, 0).is_none()
    }

    /// Notes a state in which nothing could go on, once.
    pub fn insert_end(&mut self, key: u128) {
        self.ends.push(key);
    }
}

/// Searches `shard`'s part of the orders, from the beginning.
///
/// # Errors
/// [`SpecimenError`] if the host fails.
pub fn search(hunt: &mut Hunt<'_>, seen: &mut Seen, shard: Shard) -> Result<End, SpecimenError> {
    loop {
        *seen = Seen::default();
        hunt.counts.states = 0;
        hunt.counts.ends = 0;
        if let Some(end) = search_once(hunt, seen, shard)? {
            return Ok(end);
        }
        hunt.sharing.begin_anew();
        hunt.counts.begun_anew += 1;
    }
}

/// One search; `None` if it proved void.
fn search_once(
    hunt: &mut Hunt<'_>,
    seen: &mut Seen,
    shard: Shard,
) -> Result<Option<End>, SpecimenError> {
    hunt.specimen.rewind();
    let roots = match frontier::expand(hunt, seen, shard)? {
        Frontier::Roots(roots) => roots,
        Frontier::Void => return Ok(None),
        Frontier::End(end) => return Ok(Some(end)),
    };
    for root in roots {
        match descend(hunt, seen, root)? {
            Some(End::Complete) => {}
            other => return Ok(other),
        }
    }
    Ok(Some(End::Complete))
}

/// Searches all that follows a state; `None` if it proved void.
fn descend(hunt: &mut Hunt<'_>, seen: &mut Seen, root: Root) -> Result<Option<End>, SpecimenError> {
    let Root { state, path } = root;
    hunt.specimen.load(&state);
    let reduces = hunt.specimen.granularity() == Granularity::Access;
    let mut stack: Vec<Frame> = Vec::new();
    let broke = |stack: &[Frame], last: Option<Turn>, breach| {
        let turns = stack.iter().filter_map(|frame| frame.by.clone());
        let turns = path.iter().cloned().chain(turns).chain(last).collect();
        End::Broke(Found { turns, breach })
    };
    if let Some(breach) = enter(hunt, seen, &mut stack, state, 0, None)? {
        if hunt.is_incomplete()? {
            return Ok(None);
        }
        return Ok(Some(broke(&stack, None, breach)));
    }
    // Whether the machine is in the state of the topmost frame.
    let mut is_there = true;
    while let Some(frame) = stack.last_mut() {
        let Some(choice) = frame.todo.pop() else {
            stack.pop();
            is_there = false;
            continue;
        };
        if !is_there {
            hunt.specimen.load(&frame.state);
        }
        let moved = hunt.advance(choice)?;
        let taken = hunt.turn(choice, moved.stops);
        if let Some(breach) = moved.breach {
            if hunt.is_incomplete()? {
                return Ok(None);
            }
            return Ok(Some(broke(&stack, Some(taken), breach)));
        }
        match hunt.look()? {
            Look::GoOn => {}
            Look::Void => return Ok(None),
            Look::Stop(why) => return Ok(Some(End::Stopped(why))),
        }
        let asleep = if reduces {
            still_asleep(&frame.state, frame.asleep, choice)
        } else {
            0
        };
        frame.asleep |= if reduces { bit(choice) } else { 0 };
        let next = hunt.specimen.save();
        let before = stack.len();
        if let Some(breach) = enter(hunt, seen, &mut stack, next, asleep, Some(&taken))? {
            if hunt.is_incomplete()? {
                return Ok(None);
            }
            return Ok(Some(broke(&stack, Some(taken), breach)));
        }
        is_there = stack.len() > before;
    }
    Ok(Some(End::Complete))
}

/// Goes on from `state`, if there is anything to try from there that was not tried before. Returns what
/// broke, if it is an end.
fn enter(
    hunt: &mut Hunt<'_>,
    seen: &mut Seen,
    stack: &mut Vec<Frame>,
    state: State,
    asleep: Set,
    by: Option<&Turn>,
) -> Result<Option<crate::explore::specimen::Breach>, SpecimenError> {
    let choices = hunt.specimen.choices();
    let (todo, asleep): (Vec<_>, _) = match seen.states.entry(state.key()) {
        Entry::Occupied(mut known) => {
            let before = *known.get();
            let wanted = before & !asleep;
            *known.get_mut() = before & asleep;
            let todo = choices.into_iter().filter(|it| bit(*it) & wanted != 0);
            (todo.collect(), before & asleep)
        }
        Entry::Vacant(place) => {
            place.insert(asleep);
            hunt.counts.states += 1;
            if choices.is_empty() {
                seen.ends.push(state.key());
                hunt.counts.ends += 1;
                hunt.counts.schedules += 1;
                return hunt.specimen.judge();
            }
            let todo = choices.into_iter().filter(|it| bit(*it) & asleep == 0);
            (todo.collect(), asleep)
        }
    };
    if todo.is_empty() {
        hunt.counts.schedules += 1;
        return Ok(None);
    }
    stack.push(Frame {
        state,
        todo,
        asleep,
        by: by.cloned(),
    });
    hunt.counts.depth = stack.len() as u64;
    hunt.counts.deepest = hunt.counts.deepest.max(hunt.counts.depth);
    Ok(None)
}

/// The place of a choice in a [`Set`]; none for those that are never in one.
fn bit(choice: Choice) -> Set {
    let kind = match choice.takes {
        None => 0,
        Some(0xfb) => 1,
        Some(0xfc) => 2,
        Some(0xfd) => 3,
        Some(_) => return 0,
    };
    if choice.cpu < IN_SET {
        1 << (choice.cpu * 4 + kind)
    } else {
        0
    }
}

fn choice(bit: u32) -> Choice {
    let takes = match bit % 4 {
        0 => None,
        1 => Some(0xfb),
        2 => Some(0xfc),
        _ => Some(0xfd),
    };
    Choice {
        cpu: (bit / 4) as usize,
        takes,
    }
}

/// Those of `asleep` that `taken` does not touch: they can sleep on behind it.
fn still_asleep(state: &State, asleep: Set, taken: Choice) -> Set {
    let taken_touches = touches(state, taken);
    let mut still = 0;
    let mut rest = asleep;
    while rest != 0 {
        let place = rest.trailing_zeros();
        rest &= rest - 1;
        let sleeper = choice(place);
        if sleeper.cpu != taken.cpu && !collide(&touches(state, sleeper), &taken_touches) {
            still |= 1 << place;
        }
    }
    still
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
        Stop::Idle | Stop::Left | Stop::Point(_) | Stop::Instruction(_) => Touched::Nothing,
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
        for cpu in 0..IN_SET {
            for takes in [None, Some(0xfb), Some(0xfc), Some(0xfd)] {
                let one = Choice { cpu, takes };
                assert_eq!(choice(bit(one).trailing_zeros()), one);
            }
        }
        assert_eq!(
            bit(Choice {
                cpu: IN_SET,
                takes: None
            }),
            0
        );
        assert_eq!(
            bit(Choice {
                cpu: 0,
                takes: Some(0xf1)
            }),
            0
        );
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
