//! The point of no return of a schedule that breaks something: its first step after which every
//! order of steps breaks something. Later steps only make it visible. From the states of the
//! schedule this looks for an escape, that is, an order that breaks nothing, and says whether all
//! orders were tried. It does not look for breaches.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use shared::stop::Kind;

use super::schedule::{Act, Choice, Claim, PointOfNoReturn, Step, Turn};
use super::sharing::{AccessKind, Sharing};
use super::specimen::{Entry, Specimen, SpecimenError, State, Stop};
use super::story::StoryBuilder;

/// The greatest number of steps of a schedule. The states of all of them are kept.
const MOST_STEPS: usize = 20_000;

/// Choices after which an attempt is given up.
const LONGEST: usize = 2_000;

/// The greatest number of states that are visited to try every order from one state.
const MOST_STATES: usize = 500_000;

/// Random attempts from each state. A few are enough: from the state that decides, every order is
/// tried if there is time.
const AT_RANDOM: u64 = 8;

/// Up to this number of CPUs, all permutations are tried; with more, only rotations.
const PERMUTED: usize = 3;

/// The greatest number of rotations that are tried.
const MOST_ORDERS: usize = 16;

/// Finds the point of no return of `turns`, which break something. `None` if it is not found before
/// `until`, or cannot be found out.
///
/// # Errors
/// [`SpecimenError`] if the host fails, or a signal arrives.
pub fn find(
    specimen: &mut Specimen,
    story_builder: &StoryBuilder<'_>,
    sharing: &Sharing,
    turns: &[Turn],
    until: Instant,
) -> Result<Option<PointOfNoReturn>, SpecimenError> {
    let mut steps: Vec<_> = steps(turns).take(MOST_STEPS + 1).collect();
    if steps.is_empty() || steps.len() > MOST_STEPS {
        return Ok(None);
    }
    let Some(states) = states(specimen, &mut steps, until)? else {
        return Ok(None);
    };
    let mut sharing = sharing.clone();
    sharing.begin_anew();
    let mut search = EscapeSearch {
        specimen,
        sharing,
        broken_ends: HashSet::new(),
        until,
    };
    let Some((place, claim)) = search.first_lost(&states)? else {
        return Ok(None);
    };
    let at_beginning = place == 0;
    // The step that leads to that state.
    let at = place.saturating_sub(1);
    let step = steps[at];
    let meets = meets(&states, &steps, at);
    let Choice { cpu, act } = step.choice;
    search.specimen.load(&states[at]);
    let stop = search.specimen.cpus()[cpu].at;
    let does = match act {
        Act::Take(vector) => format!("takes {}", story_builder.interrupt(vector)),
        Act::GoOn => search.specimen.describe(stop),
        Act::Flush => search.specimen.describe_flush(cpu),
        Act::Arrive => search.specimen.describe_arrival(cpu),
    };
    // What leaves a store buffer was stored before.
    search.specimen.load(&states[stored(&states, &steps, at)]);
    let known = story_builder.place(search.specimen, cpu);
    Ok(Some(PointOfNoReturn {
        step: step.step,
        cpu: step.cpu,
        does,
        place: known.map_or_else(String::new, |place| {
            format!("{}:{}", place.file, place.line)
        }),
        claim,
        meets: meets.filter(|_| !at_beginning),
        at_beginning,
    }))
}

/// A step of a schedule.
#[derive(Debug, Clone, Copy)]
struct Taken {
    cpu: u32,
    choice: Choice,
    step: Step,
}

/// The steps of `turns`, in order.
fn steps(turns: &[Turn]) -> impl Iterator<Item = Taken> + '_ {
    turns.iter().enumerate().flat_map(|(number, turn)| {
        let stops = usize::try_from(turn.stops).unwrap_or(usize::MAX);
        (0..stops).map(move |stop| Taken {
            cpu: turn.cpu,
            choice: match stop {
                0 => turn.choice(),
                // Or what it has to wait for, which is known once it is there.
                _ => Choice::go_on(turn.cpu as usize),
            },
            step: Step { turn: number, stop },
        })
    })
}

/// The states in which `steps` are made, in order; `None` if one of them is not possible, or the
/// time is up.
fn states(
    specimen: &mut Specimen,
    steps: &mut [Taken],
    until: Instant,
) -> Result<Option<Vec<State>>, SpecimenError> {
    specimen.keep_new_pages()?;
    specimen.rewind();
    let mut states = Vec::with_capacity(steps.len());
    for step in steps {
        if step.step.stop > 0 {
            step.choice = specimen.going_on(step.choice.cpu);
        }
        if Instant::now() >= until || !specimen.choices().contains(&step.choice) {
            return Ok(None);
        }
        states.push(specimen.save());
        specimen.follow(step.choice)?;
        specimen.keep_new_pages()?;
    }
    Ok(Some(states))
}

/// If the step `at` brings a store to memory, the step in which its CPU has made it, as far as that
/// is known; otherwise `at`.
fn stored(states: &[State], steps: &[Taken], at: usize) -> usize {
    let Choice { cpu, act } = steps[at].choice;
    let (Act::Flush, Some(Entry::Store(store))) = (act, states[at].cpus()[cpu].buffer().oldest())
    else {
        return at;
    };
    let made = |step: &usize| {
        let stood = states[*step].cpus()[cpu].at;
        steps[*step].choice == Choice::go_on(cpu)
            && stood == Stop::Access(Kind::Store, store.address)
    };
    (0..at).rev().find(made).unwrap_or(at)
}

/// The step by which another CPU first accesses what the step `at` has changed. If a CPU was
/// already stopped before an access to the same word, this is its next step; otherwise it is the
/// first step that accesses that word.
fn meets(states: &[State], steps: &[Taken], at: usize) -> Option<Step> {
    let Choice { cpu, act } = steps[at].choice;
    let (kind, address) = match (act, states[at].cpus()[cpu].at) {
        (Act::GoOn, Stop::Access(kind, address)) => (kind, address),
        (Act::Flush, _) => match states[at].cpus()[cpu].buffer().oldest() {
            Some(Entry::Store(store)) => (Kind::Store, store.address),
            _ => return None,
        },
        _ => return None,
    };
    if matches!(kind, Kind::Load | Kind::IrqsOff | Kind::Fence) {
        return None;
    }
    let collides = |stop: Stop| match stop {
        Stop::Access(Kind::IrqsOff | Kind::Fence, _) => false,
        Stop::Access(other, word) => {
            word & !7 == address & !7 && AccessKind::of(kind).depends_on(AccessKind::of(other))
        }
        _ => false,
    };
    let later = || (at + 1..steps.len()).filter(|later| steps[*later].choice.cpu != cpu);
    let is_waiting = |later: &usize| {
        let other = steps[*later].choice.cpu;
        // Its next step: it has not moved since.
        let is_next = steps[at + 1..*later]
            .iter()
            .all(|step| step.choice.cpu != other);
        is_next && steps[*later].choice.act == Act::GoOn && collides(states[at].cpus()[other].at)
    };
    let accesses = |later: &usize| {
        let Choice { cpu, act } = steps[*later].choice;
        act == Act::GoOn && collides(states[*later].cpus()[cpu].at)
    };
    let found = later().find(is_waiting).or_else(|| later().find(accesses));
    found.map(|later| steps[later].step)
}

/// How far a CPU goes on by one choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StepSize {
    /// To where other CPUs could interfere, as far as that is known.
    Long,
    /// To the next stop.
    Short,
}

/// Whether there is an escape from a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escape {
    /// There is an order that breaks nothing.
    Found,
    /// None of this number of orders that were tried.
    NoneOf(u64),
    /// None, and all orders were tried.
    None,
    /// The time was up.
    Unknown,
}

/// Looks for escapes.
struct EscapeSearch<'s> {
    specimen: &'s mut Specimen,
    sharing: Sharing,
    /// The keys of final states in which something was broken.
    broken_ends: HashSet<u128>,
    until: Instant,
}

impl EscapeSearch<'_> {
    /// The index of the first of `states` from which there is no escape, and how far that is known.
    /// The index is the number of states if only the last step leads to such a state.
    fn first_lost(&mut self, states: &[State]) -> Result<Option<(usize, Claim)>, SpecimenError> {
        // After the last step there is no escape, since the schedule breaks something. From a state
        // without an escape, no later state has one.
        let mut all_lost = states.len();
        // The first state that is not known to have an escape.
        let mut open = 0;
        loop {
            let mut lost = all_lost;
            let mut tried = 0;
            while open < lost {
                let middle = open + (lost - open) / 2;
                match self.some(&states[middle], middle as u64)? {
                    Escape::Found => open = middle + 1,
                    Escape::NoneOf(ways) => (lost, tried) = (middle, ways),
                    Escape::None => (lost, all_lost, tried) = (middle, middle, 0),
                    Escape::Unknown => return Ok(None),
                }
            }
            if lost == all_lost {
                return Ok(Some((lost, Claim::Every)));
            }
            match self.every(&states[lost])? {
                Escape::Found => open = lost + 1,
                Escape::None => return Ok(Some((lost, Claim::Every))),
                Escape::NoneOf(_) | Escape::Unknown => {
                    return Ok(Some((lost, Claim::NoneOf { ways: tried })));
                }
            }
        }
    }

    /// Tries some orders from `state`: each CPU goes as far as it can, one after the other, in
    /// several permutations of the CPUs; then at random.
    fn some(&mut self, state: &State, seed: u64) -> Result<Escape, SpecimenError> {
        let orders = orders(state.cpus().len());
        let mut ways = 0;
        for order in &orders {
            let choose = |choices: &[Choice]| first_of(order, choices);
            ways += 1;
            match self.go(state, StepSize::Long, choose)? {
                Some(true) => return Ok(Escape::Found),
                Some(false) => {}
                None => return Ok(Escape::Unknown),
            }
        }
        for run in 0..AT_RANDOM {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            random.set_stream(run);
            let choose = |choices: &[Choice]| {
                let place = random.next_u64() % choices.len() as u64;
                choices[usize::try_from(place).unwrap_or(0)]
            };
            ways += 1;
            match self.go(state, StepSize::Short, choose)? {
                Some(true) => return Ok(Escape::Found),
                Some(false) => {}
                None => return Ok(Escape::Unknown),
            }
        }
        Ok(Escape::NoneOf(ways))
    }

    /// Whether nothing breaks from `state` on if `choose` makes the choices; `None` if the time is
    /// up.
    fn go(
        &mut self,
        state: &State,
        size: StepSize,
        mut choose: impl FnMut(&[Choice]) -> Choice,
    ) -> Result<Option<bool>, SpecimenError> {
        self.specimen.load(state);
        for _ in 0..LONGEST {
            if !self.may_go_on()? {
                return Ok(None);
            }
            let choices = self.specimen.choices();
            if choices.is_empty() {
                return Ok(Some(self.ends_well()?));
            }
            if self.step(choose(&choices), size)?.is_some() {
                return Ok(Some(false));
            }
        }
        Ok(Some(false))
    }

    /// Tries every order from `state`.
    fn every(&mut self, state: &State) -> Result<Escape, SpecimenError> {
        loop {
            let found = self.every_once(state)?;
            // The states of the schedule are those of what was known when it was found.
            if found == Escape::None && self.specimen.buffering().is_behind(&self.sharing) {
                return Ok(Escape::Unknown);
            }
            if found != Escape::None || !self.sharing.is_void() {
                return Ok(found);
            }
            // It has passed over stops that must not be passed over by what is known now.
            self.sharing.begin_anew();
        }
    }

    fn every_once(&mut self, state: &State) -> Result<Escape, SpecimenError> {
        self.specimen.load(state);
        let mut seen = HashSet::from([state.key()]);
        let mut stack = vec![(state.clone(), self.specimen.choices())];
        let mut is_there = true;
        while let Some((state, todo)) = stack.last_mut() {
            let Some(choice) = todo.pop() else {
                stack.pop();
                is_there = false;
                continue;
            };
            if !is_there {
                self.specimen.load(state);
            }
            is_there = false;
            if !self.may_go_on()? || seen.len() >= MOST_STATES {
                return Ok(Escape::Unknown);
            }
            if let Some(stops) = self.step(choice, StepSize::Long)? {
                // Other CPUs could prevent the breach at the stops that were passed over. It is not
                // known yet that they matter, because no CPU has come so far. So go only to the
                // next stop.
                let passed_over = stops > 1;
                if !passed_over {
                    continue;
                }
                self.specimen.load(state);
                if self.step(choice, StepSize::Short)?.is_some() {
                    continue;
                }
            }
            let next = self.specimen.save();
            if !seen.insert(next.key()) {
                continue;
            }
            let choices = self.specimen.choices();
            if !choices.is_empty() {
                stack.push((next, choices));
                is_there = true;
            } else if self.ends_well()? {
                return Ok(Escape::Found);
            }
        }
        Ok(Escape::None)
    }

    /// Whether nothing is broken in the present state, which is a final one.
    fn ends_well(&mut self) -> Result<bool, SpecimenError> {
        let key = self.specimen.save().key();
        if self.broken_ends.contains(&key) {
            return Ok(false);
        }
        let is_sound = self.specimen.judge()?.is_none();
        if !is_sound {
            self.broken_ends.insert(key);
        }
        Ok(is_sound)
    }

    /// Makes the step `choice`. If something broke, returns after how many stops.
    fn step(&mut self, choice: Choice, size: StepSize) -> Result<Option<u32>, SpecimenError> {
        let sharing = &mut self.sharing;
        let broke_after = match size {
            StepSize::Long => {
                let moved = self.specimen.advance(choice, sharing)?;
                moved.breach.map(|_| moved.stops)
            }
            StepSize::Short => self.specimen.advance_one(choice, sharing)?.map(|_| 1),
        };
        self.specimen.mend()?;
        // After each step, so that every saved state has all pages.
        self.specimen.keep_new_pages()?;
        Ok(broke_after)
    }

    /// Whether there is time left.
    fn may_go_on(&self) -> Result<bool, SpecimenError> {
        if let Some(why) = self.specimen.stop_reason() {
            return Err(SpecimenError::Ended(why));
        }
        Ok(Instant::now() < self.until)
    }
}

/// Orders in which this number of CPUs go on, each as far as it can.
fn orders(cpus: usize) -> Vec<Vec<usize>> {
    let all: Vec<usize> = (0..cpus).collect();
    if cpus <= PERMUTED {
        return permutations(&all);
    }
    let around = (0..cpus).flat_map(|first| {
        let mut up = all.clone();
        up.rotate_left(first);
        let down = up.iter().rev().copied().collect();
        [up, down]
    });
    around.take(MOST_ORDERS).collect()
}

fn permutations(all: &[usize]) -> Vec<Vec<usize>> {
    if all.is_empty() {
        return vec![Vec::new()];
    }
    let with = |first: usize| {
        let rest: Vec<_> = all
            .iter()
            .copied()
            .filter(|other| *other != first)
            .collect();
        let rests = permutations(&rest).into_iter();
        rests.map(move |rest| [vec![first], rest].concat())
    };
    all.iter().copied().flat_map(with).collect()
}

/// The first choice of the first CPU in `order` that has one. A CPU takes an interrupt only if it
/// has no other choice.
fn first_of(order: &[usize], choices: &[Choice]) -> Choice {
    let of = |cpu: &usize| choices.iter().find(|choice| choice.cpu == *cpu);
    let found = order.iter().find_map(of).or_else(|| choices.first());
    *found.expect("there is a choice")
}

/// How long finding the point of no return may take, if shortening the schedule may take `shrink`.
pub fn share_of(shrink: Duration) -> Duration {
    shrink / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_cpus_go_on_in_every_order_and_many_in_some() {
        assert_eq!(orders(1), [[0]]);
        let three: HashSet<_> = orders(3).into_iter().collect();
        assert_eq!(three.len(), 6);
        let many = orders(64);
        assert_eq!(many.len(), MOST_ORDERS);
        for order in many {
            let cpus: HashSet<_> = order.iter().collect();
            assert_eq!((order.len(), cpus.len()), (64, 64));
        }
    }

    #[test]
    fn the_first_cpu_of_an_order_that_can_go_on_does() {
        let choices = [Choice::go_on(0), Choice::go_on(2), Choice::take(2, 0xfc)];
        assert_eq!(first_of(&[1, 2, 0], &choices), choices[1]);
        assert_eq!(first_of(&[0, 2, 1], &choices), choices[0]);
    }

    #[test]
    fn a_turn_takes_its_interrupt_in_its_first_step() {
        let turn = |cpu, takes, stops| Turn {
            cpu,
            takes,
            flushes: false,
            arrives: false,
            stops,
            until: String::new(),
            state: None,
        };
        let turns = [turn(1, Some(0xfc), 2), turn(0, None, 1)];
        let taken: Vec<_> = steps(&turns)
            .map(|it| (it.step.turn, it.step.stop, it.choice.cpu, it.choice.takes()))
            .collect();
        assert_eq!(
            taken,
            [(0, 0, 1, Some(0xfc)), (0, 1, 1, None), (1, 0, 0, None)]
        );
    }
}
