//! Follows schedules again: exactly, to check that they lead to the same states, or as far as
//! possible, to find out whether a shorter one still breaks the same. Searches nothing.

use std::collections::HashMap;

use super::key::to_hex;
use super::schedule::{Choice, Turn, is_fair_cycle};
use super::search::Counterexample;
use super::search::system::turn;
use super::specimen::{Breach, MOST_STOPS, Specimen, SpecimenError};

/// How the machine diverged from a schedule that was to be followed exactly.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Diverged {
    /// A choice of the schedule does not exist.
    #[error("turn {turn}: CPU {cpu} cannot go on there, or has no such interrupt")]
    NoChoice {
        /// The number of the turn, from 1.
        turn: usize,
        /// Its CPU.
        cpu: u32,
    },
    /// A turn led to another stop.
    #[error("turn {turn}: CPU {cpu} came to \"{is}\", not to \"{was}\"")]
    Elsewhere {
        /// The number of the turn, from 1.
        turn: usize,
        /// Its CPU.
        cpu: u32,
        /// The stop in the schedule.
        was: String,
        /// The stop to which it led.
        is: String,
    },
    /// A turn led to the same stop, but to another state.
    #[error("turn {turn}: the machine is in state {is}, not in {was}")]
    OtherState {
        /// The number of the turn, from 1.
        turn: usize,
        /// The key of the state in the schedule.
        was: String,
        /// The key of the state to which it led.
        is: String,
    },
    /// All turns led to the same stops, and not to the condition that was to be reached.
    #[error("it did not reach what it is to reach")]
    NotReached,
    /// Something broke before the last turn.
    #[error("turn {turn}: it broke there already, and {left} turns were left")]
    Early {
        /// The number of the turn, from 1.
        turn: usize,
        /// The number of turns that were left.
        left: usize,
    },
}

/// A callback for every stop of a schedule that is followed: with the choice that began the turn,
/// and the number of the turn, from 0.
pub type OnStop<'a> = dyn FnMut(&Specimen, Choice, usize) + 'a;

/// The result of following a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    /// The turns, with the keys of the states they led to.
    pub turns: Vec<Turn>,
    /// What broke.
    pub breach: Option<Breach>,
}

/// Restores the initial state. Pages that were written for the first time are saved before: a
/// finding that stayed in one of them would be found by every schedule.
pub(super) fn begin(specimen: &mut Specimen) -> Result<(), SpecimenError> {
    specimen.keep_new_pages()?;
    specimen.mend()?;
    specimen.rewind();
    Ok(())
}

/// Follows `turns` exactly, from the initial state. Where a turn has a state, it is compared with
/// that of the machine. `on_stop` is called at each stop.
///
/// # Errors
/// The outer error is a [`SpecimenError`] if the host fails; the inner one says how the machine has
/// [`Diverged`].
pub fn follow(
    specimen: &mut Specimen,
    turns: &[Turn],
    on_stop: &mut OnStop<'_>,
) -> Result<Result<Followed, Diverged>, SpecimenError> {
    begin(specimen)?;
    let mut taken = Vec::with_capacity(turns.len());
    let mut cycles = CycleDetector::from(specimen);
    for (number, wanted) in (1..).zip(turns) {
        let (done, breach) = match follow_turn(specimen, wanted, number, on_stop)? {
            Ok(done) => done,
            Err(diverged) => return Ok(Err(diverged)),
        };
        taken.push(done);
        if breach.is_some() {
            let left = turns.len() - number;
            return Ok(if left == 0 {
                Ok(Followed {
                    turns: taken,
                    breach,
                })
            } else {
                Err(Diverged::Early { turn: number, left })
            });
        }
        cycles.come_to(specimen, &taken);
    }
    let is_over = specimen.choices().is_empty();
    let breach = if specimen.seeks() {
        specimen.sought()
    } else if is_over {
        specimen.judge()?
    } else {
        cycles.last
    };
    Ok(Ok(Followed {
        turns: taken,
        breach,
    }))
}

/// The first of `turns`, which are endless, up to where they have closed a fair cycle; all of them
/// if they close none.
///
/// # Errors
/// [`SpecimenError`] if the host fails.
pub fn up_to_cycle(specimen: &mut Specimen, turns: &[Turn]) -> Result<Vec<Turn>, SpecimenError> {
    begin(specimen)?;
    let mut taken = Vec::new();
    let mut cycles = CycleDetector::from(specimen);
    for (number, wanted) in (1..).zip(turns) {
        let Ok((done, None)) = follow_turn(specimen, wanted, number, &mut |_, _, _| {})? else {
            break;
        };
        taken.push(done);
        cycles.come_to(specimen, &taken);
        if cycles.last.is_some() {
            return Ok(taken);
        }
    }
    Ok(turns.to_vec())
}

/// Follows the turn `wanted`, which has this number, from 1. Returns the turn as it went, and what
/// broke.
fn follow_turn(
    specimen: &mut Specimen,
    wanted: &Turn,
    number: usize,
    on_stop: &mut OnStop<'_>,
) -> Result<Result<(Turn, Option<Breach>), Diverged>, SpecimenError> {
    let cpu = wanted.cpu;
    let choice = wanted.choice();
    let mut next = choice;
    let mut breach = None;
    let mut stops = 0;
    while stops < wanted.stops && breach.is_none() {
        // A CPU that is made to go on where it cannot, as at a lock that is taken, may never stop.
        if !specimen.choices().contains(&next) {
            return Ok(Err(Diverged::NoChoice { turn: number, cpu }));
        }
        breach = specimen.follow(next)?;
        on_stop(specimen, choice, number - 1);
        stops += 1;
        next = specimen.going_on(choice.cpu);
    }
    if breach.is_none() && stops >= MOST_STOPS {
        breach = specimen.endless(choice.cpu);
    }
    specimen.keep_new_pages()?;
    let mut done = turn(specimen, choice, stops);
    if done.until != wanted.until {
        return Ok(Err(Diverged::Elsewhere {
            turn: number,
            cpu,
            was: wanted.until.clone(),
            is: done.until,
        }));
    }
    let state = to_hex(specimen.save().key());
    if let Some(was) = wanted.state.as_ref().filter(|was| **was != state) {
        return Ok(Err(Diverged::OtherState {
            turn: number,
            was: was.clone(),
            is: state,
        }));
    }
    done.state = Some(state);
    Ok(Ok((done, breach)))
}

/// Finds out whether the turns so far have closed a fair cycle.
struct CycleDetector {
    /// By key of a state: the number of turns after which it was reached first.
    first: HashMap<String, usize>,
    /// By number of turns: the choices after them.
    choices: Vec<Vec<Choice>>,
    /// The livelock, if the last turn has closed a fair cycle.
    last: Option<Breach>,
}

impl CycleDetector {
    /// For turns that begin in the present state of `specimen`.
    fn from(specimen: &mut Specimen) -> Self {
        Self {
            first: HashMap::from([(to_hex(specimen.save().key()), 0)]),
            choices: vec![specimen.choices()],
            last: None,
        }
    }

    /// Notes that the last of `turns` has led to the present state of `specimen`.
    fn come_to(&mut self, specimen: &Specimen, turns: &[Turn]) {
        let state = turns.last().and_then(|turn| turn.state.clone());
        let count = turns.len();
        let first = *self.first.entry(state.unwrap_or_default()).or_insert(count);
        let cycle = &turns[first..];
        let is_endless =
            first < count && is_fair_cycle(cycle, self.choices[first..].iter().flatten().copied());
        self.last = is_endless.then(|| Breach::cycle(cycle));
        self.choices.push(specimen.choices());
    }
}

/// Follows `turns` as far as possible, skips what is not possible, and then lets every CPU go on as
/// long as it can, one after the other, to a final state. Returns the schedule if it breaks
/// something, or reaches the condition that is sought.
///
/// # Errors
/// [`SpecimenError`] if the host fails.
pub fn guide(
    specimen: &mut Specimen,
    turns: &[Turn],
) -> Result<Option<Counterexample>, SpecimenError> {
    /// Steps after the last turn after which a run is considered endless.
    const LONGEST: usize = 20_000;
    begin(specimen)?;
    let mut schedule = ScheduleBuilder::default();
    if let Some(reached) = specimen.sought() {
        return Ok(Some(schedule.found(reached)));
    }
    for wanted in turns {
        let mut choice = wanted.choice();
        for _ in 0..wanted.stops {
            if !specimen.choices().contains(&choice) {
                break;
            }
            match schedule.take(specimen, choice)? {
                Taken::Going => {}
                Taken::Found(breach) => return Ok(Some(schedule.found(breach))),
                Taken::Otherwise => return Ok(None),
            }
            choice = specimen.going_on(choice.cpu);
        }
    }
    let mut last = schedule.turns.last().map(|turn| turn.cpu as usize);
    for _ in 0..LONGEST {
        let choices = specimen.choices();
        let same = choices.iter().find(|choice| Some(choice.cpu) == last);
        let Some(choice) = same.or_else(|| choices.first()).copied() else {
            specimen.keep_new_pages()?;
            if specimen.seeks() {
                return Ok(specimen.sought().map(|breach| schedule.found(breach)));
            }
            return Ok(specimen.judge()?.map(|breach| schedule.found(breach)));
        };
        last = Some(choice.cpu);
        match schedule.take(specimen, choice)? {
            Taken::Going => {}
            Taken::Found(breach) => return Ok(Some(schedule.found(breach))),
            Taken::Otherwise => return Ok(None),
        }
    }
    Ok(None)
}

/// What a step of a schedule has led to.
enum Taken {
    /// Nothing yet.
    Going,
    /// What the schedule is to lead to.
    Found(Breach),
    /// A breach, where a condition is sought.
    Otherwise,
}

/// Builds a schedule from steps. Consecutive steps of one CPU become one turn.
#[derive(Debug, Default)]
struct ScheduleBuilder {
    turns: Vec<Turn>,
}

impl ScheduleBuilder {
    /// Makes the step `choice`, and adds it.
    fn take(&mut self, specimen: &mut Specimen, choice: Choice) -> Result<Taken, SpecimenError> {
        let goes_on = choice == specimen.going_on(choice.cpu);
        let breach = specimen.follow(choice)?;
        let done = turn(specimen, choice, 1);
        match self.turns.last_mut() {
            Some(last) if last.cpu == done.cpu && goes_on => {
                last.stops += done.stops;
                last.until = done.until;
            }
            _ => self.turns.push(done),
        }
        Ok(match (breach, specimen.seeks()) {
            (Some(breach), false) => Taken::Found(breach),
            (Some(_), true) => Taken::Otherwise,
            (None, false) => Taken::Going,
            (None, true) if specimen.choices().is_empty() => Taken::Going,
            (None, true) => specimen.sought().map_or(Taken::Going, Taken::Found),
        })
    }

    /// The schedule so far, which has led to `breach`.
    fn found(self, breach: Breach) -> Counterexample {
        Counterexample {
            turns: self.turns,
            breach,
        }
    }
}
