//! Schedules taken again: exactly, to see that they lead where they led, or as far as they can be,
//! to see whether a shorter one still breaks the same. Searches nothing.

use std::collections::HashMap;

use super::key::to_hex;
use super::schedule::{Choice, Turn, is_fair_cycle};
use super::search::Counterexample;
use super::search::system::turn;
use super::specimen::{Breach, MOST_STOPS, Specimen, SpecimenError};

/// How a schedule that was to be followed exactly went another way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Diverged {
    /// A choice that there is not.
    #[error("turn {turn}: CPU {cpu} cannot go on there, or has no such interrupt")]
    NoChoice {
        /// Which turn, from 1.
        turn: usize,
        /// Its CPU.
        cpu: u32,
    },
    /// It led elsewhere.
    #[error("turn {turn}: CPU {cpu} came to \"{is}\", not to \"{was}\"")]
    Elsewhere {
        /// Which turn, from 1.
        turn: usize,
        /// Its CPU.
        cpu: u32,
        /// Where it was to come to.
        was: String,
        /// Where it came to.
        is: String,
    },
    /// It led to the same stop, in another state.
    #[error("turn {turn}: the machine is in state {is}, not in {was}")]
    OtherState {
        /// Which turn, from 1.
        turn: usize,
        /// As it was to be.
        was: String,
        /// As it is.
        is: String,
    },
    /// Something broke before the end.
    #[error("turn {turn}: it broke there already, and {left} turns were left")]
    Early {
        /// Which turn, from 1.
        turn: usize,
        /// Turns left.
        left: usize,
    },
}

/// Is shown every stop of a schedule that is followed.
pub type OnStop<'a> = dyn FnMut(&Specimen, Choice, usize) + 'a;

/// What became of a schedule that was followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    /// The turns, with the states they led to.
    pub turns: Vec<Turn>,
    /// What broke.
    pub breach: Option<Breach>,
}

/// Puts the machine back to its beginning, whatever was written for the first time since it last
/// was: a finding that stays is found by every schedule.
fn begin(specimen: &mut Specimen) -> Result<(), SpecimenError> {
    specimen.keep_new_pages()?;
    specimen.mend()?;
    specimen.rewind();
    Ok(())
}

/// Follows `turns` from the beginning, exactly. Where a turn names a state, that is held against
/// the machine's. `on_stop` is shown each stop with the number of its turn.
///
/// # Errors
/// Outside, [`SpecimenError`] if the host fails; inside, [`Diverged`].
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
    let breach = if is_over {
        specimen.judge()?
    } else {
        cycles.last
    };
    Ok(Ok(Followed {
        turns: taken,
        breach,
    }))
}

/// As much of `turns`, which have no end, as leads into a round that can go on for ever; all, if
/// there is none.
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

/// Takes the turn `wanted`, which has that number. Returns it as it went, and what broke.
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
        // Whoever goes on where it cannot, as at a lock that is taken, may never come back.
        if !specimen.choices().contains(&next) {
            return Ok(Err(Diverged::NoChoice { turn: number, cpu }));
        }
        breach = specimen.follow(next)?;
        on_stop(specimen, choice, number - 1);
        stops += 1;
        next.takes = None;
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

/// Finds out where a way comes round to a state in which the machine was before.
struct CycleDetector {
    /// By state: after how many turns the machine came to it first.
    first: HashMap<String, usize>,
    /// The choices there were, after so many turns.
    choices: Vec<Vec<Choice>>,
    /// What it means that the last turn led to a known state, if it did.
    last: Option<Breach>,
}

impl CycleDetector {
    /// Of a way that begins where `specimen` is.
    fn from(specimen: &mut Specimen) -> Self {
        Self {
            first: HashMap::from([(to_hex(specimen.save().key()), 0)]),
            choices: vec![specimen.choices()],
            last: None,
        }
    }

    /// The last of `turns` has led to where `specimen` is.
    fn come_to(&mut self, specimen: &Specimen, turns: &[Turn]) {
        let state = turns.last().and_then(|turn| turn.state.clone());
        let count = turns.len();
        let first = *self.first.entry(state.unwrap_or_default()).or_insert(count);
        let round = &turns[first..];
        let is_endless =
            first < count && is_fair_cycle(round, self.choices[first..].iter().flatten().copied());
        self.last = is_endless.then(|| Breach::cycle(round));
        self.choices.push(specimen.choices());
    }
}

/// Follows `turns` as far as they can be, passes over what cannot, and then lets every CPU go on as
/// long as it can, one after the other, to the end. Returns what it came to if that breaks
/// something.
///
/// # Errors
/// [`SpecimenError`] if the host fails.
pub fn guide(
    specimen: &mut Specimen,
    turns: &[Turn],
) -> Result<Option<Counterexample>, SpecimenError> {
    /// A run that is longer than this has no end.
    const LONGEST: usize = 20_000;
    begin(specimen)?;
    let mut path = ScheduleBuilder::default();
    for wanted in turns {
        let mut choice = wanted.choice();
        for _ in 0..wanted.stops {
            if !specimen.choices().contains(&choice) {
                break;
            }
            if let Some(breach) = path.take(specimen, choice)? {
                return Ok(Some(path.found(breach)));
            }
            choice.takes = None;
        }
    }
    let mut last = path.turns.last().map(|turn| turn.cpu as usize);
    for _ in 0..LONGEST {
        let choices = specimen.choices();
        let same = choices.iter().find(|choice| Some(choice.cpu) == last);
        let Some(choice) = same.or_else(|| choices.first()).copied() else {
            specimen.keep_new_pages()?;
            return Ok(specimen.judge()?.map(|breach| path.found(breach)));
        };
        last = Some(choice.cpu);
        if let Some(breach) = path.take(specimen, choice)? {
            return Ok(Some(path.found(breach)));
        }
    }
    Ok(None)
}

/// A schedule in the making, in which steps of one CPU that follow each other are one turn.
#[derive(Debug, Default)]
struct ScheduleBuilder {
    turns: Vec<Turn>,
}

impl ScheduleBuilder {
    fn take(
        &mut self,
        specimen: &mut Specimen,
        choice: Choice,
    ) -> Result<Option<Breach>, SpecimenError> {
        let breach = specimen.follow(choice)?;
        let done = turn(specimen, choice, 1);
        match self.turns.last_mut() {
            Some(last) if last.cpu == done.cpu && done.takes.is_none() => {
                last.stops += done.stops;
                last.until = done.until;
            }
            _ => self.turns.push(done),
        }
        Ok(breach)
    }

    fn found(self, breach: Breach) -> Counterexample {
        Counterexample {
            turns: self.turns,
            breach,
        }
    }
}
