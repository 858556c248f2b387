//! Every order, by a depth-first search that keeps the key of every visited state, so that no state
//! is expanded twice. Orders of independent steps lead to the same state; *sleep sets* (Godefroid,
//! 1996) keep the search from trying all of these orders. Sleep sets are stored with the states,
//! which makes them sound together with state matching.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shared::stop::Kind;
use zerocopy::native_endian;

use super::checkpoint::{Checkpoint, Phase};
use super::dfs::{Cut, Entry, Led, Visitor, depth_first, make};
use super::divided::{Divided, Refers};
use super::end::SearchEnd;
use super::engine::Engine;
use super::frontier::Frontier;
use super::leaving::Leaving;
use super::links::Links;
use super::parts::{Root, Task};
use super::seen::{Seen, States};
use super::workers::Workers;
use crate::explore::Shard;
use crate::explore::schedule::{Act, Choice, Granularity};
use crate::explore::sharing::AccessKind;
use crate::explore::specimen::{Signal, SpecimenError, State, Stop};

/// Which choice has which bit in a [`ChoiceSet`]. Each CPU has one bit for going on, one for its
/// store buffer, one for an INIT or a start-up IPI that arrives, and one for taking each of some
/// vectors. Choices for which there is no room are in
/// no set.
#[derive(Debug)]
struct ChoiceBits {
    vectors: Vec<u8>,
}

/// A set of choices. [`ChoiceBits`] says which choice has which bit.
type ChoiceSet = u128;

/// The states that were visited, each with the choices that were not tried from it: its sleep set.
type Visited = Seen<native_endian::U128>;

/// Searches the part of the orders that belongs to `shard`, from the initial state, or from where a
/// search was that was `kept`. Returns how it ended, and what it has seen; the keys of the states
/// only if it `keeps_keys`.
///
/// # Errors
/// [`SpecimenError`] if the host fails.
pub fn search(
    workers: &mut Workers<'_>,
    shard: Shard,
    keeps_keys: bool,
    mut kept: Option<Checkpoint>,
) -> Result<(SearchEnd, States), SpecimenError> {
    let reduces = workers.first().system.granularity() == Granularity::Access;
    let bits = ChoiceBits::of(workers.first().system.vectors());
    let begin = |engine: &mut Engine<'_>, workers: usize| {
        if let Some(kept) = kept.take() {
            return Divided::resume(Phase::Exhaustive, kept, engine, workers);
        }
        engine.counts.ends = 0;
        let seen = Visited::new(&engine.limits.storage);
        let mut first = Exhaustive::new(&seen, &bits, reduces);
        let Frontier { mine, known } = Frontier::of(engine, &mut first, shard)?;
        seen.add_links(first.links);
        let parts = Divided::new(Phase::Exhaustive, (seen, known), workers, mine);
        Ok(parts)
    };
    let work = |engine: &mut Engine<'_>, together: &Divided<native_endian::U128, _, _>| {
        let mut search = Exhaustive::new(&together.seen, &bits, reduces);
        let ended = depth_first(engine, &mut search, &together.tasks);
        together.seen.add_links(search.links);
        ended
    };
    let (end, parts) = workers.until_sound(begin, work)?;
    let Some(Divided { seen, known, .. }) = parts else {
        return Ok((end, States::default()));
    };
    if matches!(end, SearchEnd::Complete) {
        match seen.has_cycle() {
            Ok(has_cycle) => workers.first().has_cycle |= has_cycle,
            Err(why) => return Ok((SearchEnd::Stopped(why), States::default())),
        }
    }
    Ok(match known.states(seen, keeps_keys) {
        Ok(states) => (end, states),
        Err(why) => (end.unless_complete(why), States::default()),
    })
}

/// Where `shard` begins with another search: the states to which the first steps from the initial
/// state lead. Nothing that matters is left out before them.
///
/// # Errors
/// [`Cut`] if the search was cut short before.
pub fn roots(engine: &mut Engine<'_>, shard: Shard) -> Result<Vec<Root>, Cut> {
    let seen = Visited::new(&engine.limits.storage);
    let bits = ChoiceBits::of(engine.system.vectors());
    let mut first = Exhaustive::new(&seen, &bits, true);
    let mine = Frontier::of(engine, &mut first, shard)?.mine;
    seen.add_links(first.links);
    let has_cycle = seen.has_cycle();
    engine.has_cycle |= has_cycle.map_err(|why| Cut::End(SearchEnd::Stopped(why)))?;
    let mut roots = Vec::new();
    for Task { mut root, by, .. } in mine {
        if let Some((choice, _)) = by {
            engine.system.load(root.state());
            let from = Arc::clone(root.state());
            if make(engine, &from, choice, &mut root.path)? == Led::ToBreach {
                continue;
            }
            root.states.push(Arc::new(engine.system.save()));
        }
        roots.push(root);
    }
    match engine.is_incomplete()? {
        true => Err(Cut::Void),
        false => Ok(roots),
    }
}

/// One worker of a search.
#[derive(Debug)]
struct Exhaustive<'a> {
    seen: &'a Visited,
    /// Whether it uses sleep sets: only where the footprint of a choice is known.
    reduces: bool,
    bits: &'a ChoiceBits,
    /// Which states lead to which. A worker alone needs that too: what was asleep in a state is tried
    /// later, when states that it was reached from can be done. So not every cycle of the orders that
    /// are left closes on the search stack.
    links: Links,
}

/// What is left to try from a state on the search stack.
#[derive(Debug, Serialize, Deserialize)]
struct Unexplored {
    /// The number of the state.
    number: u32,
    /// The choices that are left to try.
    todo: Vec<Choice>,
    /// The sleep set: choices that need not be tried, because what they lead to is reached by
    /// another order.
    asleep: ChoiceSet,
}

/// A step that is on its way.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Made {
    /// The number of the state in which it was made.
    from: u32,
    /// The sleep set of the state it leads to.
    asleep: ChoiceSet,
}

impl Visitor for Exhaustive<'_> {
    type Data = Unexplored;
    type Step = Made;

    fn next(&mut self, state: &State, node: &mut Unexplored) -> Option<(Choice, Made)> {
        let choice = node.todo.pop()?;
        let from = node.number;
        if !self.reduces {
            return Some((choice, Made { from, asleep: 0 }));
        }
        let asleep = self.still_asleep(state, node.asleep, choice);
        node.asleep |= self.bits.bit(choice);
        Some((choice, Made { from, asleep }))
    }

    fn left(node: &Unexplored) -> usize {
        node.todo.len()
    }

    fn enter(
        &mut self,
        engine: &mut Engine<'_>,
        state: &State,
        by: Option<Made>,
    ) -> Entry<Unexplored> {
        let asleep = by.as_ref().map_or(0, |by| by.asleep);
        // What is taken out of the sleep set here has to be tried here: nobody else does it.
        let (number, before) = self.seen.reach(state.key(), asleep.into(), |known| {
            let before = known.get();
            known.set(before & asleep);
            before
        });
        if let Some(by) = by {
            self.links.add(by.from, number);
        }
        let bit = |choice: &Choice| self.bits.bit(*choice);
        let mut todo = engine.system.choices();
        let asleep = match before {
            Some(before) => {
                todo.retain(|it| bit(it) & before & !asleep != 0);
                before & asleep
            }
            None => {
                engine.counts.states += 1;
                if todo.is_empty() {
                    self.seen.add_end(state.key());
                    return Entry::End;
                }
                todo.retain(|it| bit(it) & asleep == 0);
                asleep
            }
        };
        if todo.is_empty() {
            Entry::Known
        } else {
            Entry::GoOn(Unexplored {
                number,
                todo,
                asleep,
            })
        }
    }
}

impl Refers for Unexplored {
    fn refers(&self) -> (Vec<Choice>, Vec<u32>) {
        (self.todo.clone(), vec![self.number])
    }
}

impl Refers for Made {
    fn refers(&self) -> (Vec<Choice>, Vec<u32>) {
        (Vec::new(), vec![self.from])
    }
}

impl<'a> Exhaustive<'a> {
    fn new(seen: &'a Visited, bits: &'a ChoiceBits, reduces: bool) -> Self {
        Self {
            seen,
            reduces,
            bits,
            links: seen.no_links(),
        }
    }

    /// The choices of `asleep` that are independent of `taken`. They stay asleep after it.
    fn still_asleep(&self, state: &State, asleep: ChoiceSet, taken: Choice) -> ChoiceSet {
        let taken_footprint = footprint(state, taken);
        let mut still = 0;
        let mut rest = asleep;
        while rest != 0 {
            let place = rest.trailing_zeros();
            rest &= rest - 1;
            let sleeper = self.bits.choice(place);
            let footprint = footprint(state, sleeper);
            if sleeper.cpu != taken.cpu
                && !are_dependent(&footprint, &taken_footprint)
                && !starts(&footprint, taken.cpu)
                && !starts(&taken_footprint, sleeper.cpu)
            {
                still |= 1 << place;
            }
        }
        still
    }
}

impl ChoiceBits {
    fn of(vectors: &[u8]) -> Self {
        Self {
            vectors: vectors.to_vec(),
        }
    }

    /// The number of bits of each CPU.
    fn each(&self) -> usize {
        3 + self.vectors.len()
    }

    /// The number of CPUs that have bits.
    fn cpus(&self) -> usize {
        ChoiceSet::BITS as usize / self.each()
    }

    /// The set of only this choice; empty if it has no bit.
    fn bit(&self, choice: Choice) -> ChoiceSet {
        let kind = match choice.act {
            Act::GoOn => Some(0),
            Act::Flush => Some(1),
            Act::Arrive => Some(2),
            Act::Take(vector) => {
                let place = self.vectors.iter().position(|it| *it == vector);
                place.map(|place| 3 + place)
            }
        };
        match kind {
            Some(kind) if choice.cpu < self.cpus() => 1 << (choice.cpu * self.each() + kind),
            _ => 0,
        }
    }

    /// The choice that has the bit at `place`.
    fn choice(&self, place: u32) -> Choice {
        let place = place as usize;
        let cpu = place / self.each();
        match place % self.each() {
            0 => Choice::go_on(cpu),
            1 => Choice::flush(cpu),
            2 => Choice::arrive(cpu),
            vector => Choice::take(cpu, self.vectors[vector - 3]),
        }
    }
}

/// What a choice accesses that choices of other CPUs can access as well.
#[derive(Debug, PartialEq, Eq)]
enum Footprint {
    /// A word.
    Word(u64, AccessKind),
    /// Reads words.
    Words(Vec<u64>),
    /// Brings what has waited in a store buffer to memory: stores, and IPIs to CPUs.
    Leaves(Leaving),
    /// Sends something to a CPU.
    Sends(usize, Signal),
    /// Takes what is on its way to a CPU.
    Takes(usize),
    /// Nothing.
    Nothing,
}

fn footprint(state: &State, choice: Choice) -> Footprint {
    let stopped = &state.cpus()[choice.cpu];
    match choice.act {
        Act::GoOn => {}
        Act::Take(_) | Act::Arrive => return Footprint::Takes(choice.cpu),
        Act::Flush => return Footprint::Leaves(Leaving::of(stopped)),
    }
    match stopped.at {
        Stop::Access(Kind::IrqsOff | Kind::Fence, _) => Footprint::Nothing,
        Stop::Access(kind, address) => Footprint::Word(address, AccessKind::of(kind)),
        Stop::Send { target, signal } => Footprint::Sends(target, signal),
        Stop::Relax => Footprint::Words(stopped.watched().collect()),
        Stop::Idle | Stop::Left | Stop::NotStarted | Stop::WaitsForStartUp | Stop::Point(_) => {
            Footprint::Nothing
        }
    }
}

/// Whether it sends an INIT or a start-up IPI to `cpu`. An INIT puts an end to whatever the CPU does,
/// so that its order with everything that the CPU does can matter.
fn starts(footprint: &Footprint, cpu: usize) -> bool {
    let starts = |target: usize, signal: Signal| target == cpu && signal.starts();
    match footprint {
        Footprint::Sends(target, signal) => starts(*target, *signal),
        Footprint::Leaves(leaving) => leaving
            .ipis
            .iter()
            .any(|(target, signal)| starts(*target, *signal)),
        _ => false,
    }
}

/// Whether the order of two choices of different CPUs can matter, apart from [`starts`].
fn are_dependent(a: &Footprint, b: &Footprint) -> bool {
    match (a, b) {
        (Footprint::Leaves(leaving), other) | (other, Footprint::Leaves(leaving)) => {
            let Leaving { words, ipis } = leaving;
            let word = |(word, kind): &(u64, AccessKind)| Footprint::Word(*word, *kind);
            let ipi = |(target, signal): &(usize, Signal)| Footprint::Sends(*target, *signal);
            words.iter().any(|it| are_dependent(&word(it), other))
                || ipis.iter().any(|it| are_dependent(&ipi(it), other))
        }
        (Footprint::Word(a, kind_a), Footprint::Word(b, kind_b)) => {
            a & !7 == b & !7 && kind_a.depends_on(*kind_b)
        }
        (Footprint::Words(words), Footprint::Word(word, kind))
        | (Footprint::Word(word, kind), Footprint::Words(words)) => {
            kind.depends_on(AccessKind::Reads) && words.contains(&(word & !7))
        }
        (Footprint::Sends(a, _), Footprint::Takes(b))
        | (Footprint::Takes(b), Footprint::Sends(a, _)) => a == b,
        // INITs and start-up IPIs arrive in the order in which they were sent.
        (Footprint::Sends(a, one), Footprint::Sends(b, other)) => {
            a == b && one.starts() && other.starts()
        }
        // Two interrupts that are sent are both pending afterwards, in whichever order.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_choice_has_a_bit_of_its_own() {
        for vectors in [&[][..], &[0xf3], &[0xf1, 0xf4, 0xfd], &[0xf0; 16]] {
            let bits = ChoiceBits::of(vectors);
            for cpu in 0..bits.cpus() {
                let takes = vectors.iter().take(3).map(|it| Choice::take(cpu, *it));
                let others = [Choice::go_on(cpu), Choice::flush(cpu), Choice::arrive(cpu)];
                for one in takes.chain(others) {
                    let place = bits.bit(one).trailing_zeros();
                    assert_eq!(bits.choice(place), one);
                }
            }
            for without in [Choice::go_on(bits.cpus()), Choice::take(0, 0xf2)] {
                assert_eq!(bits.bit(without), 0);
            }
        }
        assert_eq!(ChoiceBits::of(&[0xf1, 0xf4, 0xfd]).cpus(), 21);
    }

    #[test]
    fn accesses_to_the_same_word_are_dependent_if_one_writes() {
        const CALL: Signal = Signal::Interrupt(0xfc);
        let leaving = |words, ipis| Footprint::Leaves(Leaving { words, ipis });
        let read = Footprint::Word(8, AccessKind::Reads);
        let write = Footprint::Word(12, AccessKind::Writes);
        assert!(!are_dependent(
            &read,
            &Footprint::Word(8, AccessKind::Reads)
        ));
        assert!(are_dependent(&read, &write));
        assert!(!are_dependent(
            &Footprint::Word(16, AccessKind::Writes),
            &write
        ));
        assert!(are_dependent(&Footprint::Words(vec![8]), &write));
        assert!(!are_dependent(&Footprint::Words(vec![8]), &read));
        assert!(are_dependent(
            &Footprint::Sends(1, CALL),
            &Footprint::Takes(1)
        ));
        assert!(!are_dependent(
            &Footprint::Sends(1, CALL),
            &Footprint::Sends(1, CALL)
        ));
        assert!(!are_dependent(
            &Footprint::Sends(1, CALL),
            &Footprint::Takes(0)
        ));
        assert!(!are_dependent(&Footprint::Nothing, &write));
        let leaves = leaving(vec![(8, AccessKind::Writes)], vec![(1, CALL)]);
        assert!(are_dependent(&leaves, &read) && are_dependent(&read, &leaves));
        assert!(are_dependent(&leaves, &Footprint::Takes(1)));
        assert!(!are_dependent(&leaves, &Footprint::Takes(0)));
        let elsewhere = leaving(vec![(16, AccessKind::Writes)], vec![(1, CALL)]);
        assert!(!are_dependent(&leaves, &elsewhere));
        assert!(are_dependent(&leaves, &leaves));
        let (init, start) = (Footprint::Sends(1, Signal::Init), Signal::StartUp(8));
        assert!(are_dependent(&init, &Footprint::Sends(1, start)));
        assert!(are_dependent(&init, &Footprint::Takes(1)));
        assert!(!are_dependent(&init, &Footprint::Sends(2, start)));
        assert!(!are_dependent(&init, &Footprint::Sends(1, CALL)));
        assert!(starts(&init, 1) && !starts(&init, 2));
        assert!(!starts(&leaves, 1));
        assert!(starts(&leaving(Vec::new(), vec![(1, start)]), 1));
    }
}
