//! Single schedules from the beginning to the end, chosen at random: uniformly, or by priorities
//! that change a few times (PCT: Burckhardt et al., "A Randomized Scheduler with Probabilistic
//! Guarantees of Finding Bugs", ASPLOS 2010). For machines that are too large to try everything.
//! Run `n` of a seed is the same wherever and in whatever company it runs, as long as as much is
//! known of what CPUs share, so that runs can be shared out.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{End, Found, Hunt, Look, turn};
use crate::explore::schedule::Choice;
use crate::explore::specimen::{Breach, SpecimenError};

/// How a run chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Any choice is as likely as any other.
    Uniform,
    /// The CPU with the highest priority goes on; priorities change `changes` times within the
    /// first `length` transitions. A pending interrupt has a priority of its own.
    Priorities {
        /// How often they change: one less than the depth of the bugs that are found.
        changes: u32,
        /// Transitions of a run, about.
        length: u64,
    },
}

/// What one run chooses.
#[derive(Debug)]
struct Chooser {
    random: ChaCha8Rng,
    /// By CPU and whether it is its interrupt.
    priorities: Vec<u64>,
    changes: Vec<u64>,
    made: u64,
    way: Way,
}

impl Chooser {
    fn new(way: Way, seed: u64, run: u64, cpus: usize) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(run);
        let mut chooser = Self {
            priorities: Vec::new(),
            changes: Vec::new(),
            made: 0,
            way,
            random,
        };
        if let Way::Priorities { changes, length } = way {
            // Above all that they change to.
            let high = |random: &mut ChaCha8Rng| random.next_u64() | 1 << 63;
            chooser.priorities = (0..cpus * 2).map(|_| high(&mut chooser.random)).collect();
            chooser.changes = (0..changes).map(|_| chooser.below(length.max(1))).collect();
        }
        chooser
    }

    fn below(&mut self, limit: u64) -> u64 {
        // The bias is that of 64 bits, which nobody will see.
        self.random.next_u64() % limit
    }

    fn choose(&mut self, choices: &[Choice]) -> Choice {
        let chosen = match self.way {
            Way::Uniform => {
                let place = self.below(choices.len() as u64);
                choices[usize::try_from(place).unwrap_or(0)]
            }
            Way::Priorities { .. } => {
                let place = |choice: &Choice| choice.cpu * 2 + usize::from(choice.takes.is_some());
                let highest = |choices: &[Choice], priorities: &[u64]| {
                    *choices
                        .iter()
                        .max_by_key(|choice| priorities[place(choice)])
                        .expect("there is a choice")
                };
                let mut chosen = highest(choices, &self.priorities);
                if let Some(lower) = self.changes.iter().position(|at| *at == self.made) {
                    self.priorities[place(&chosen)] = lower as u64;
                    chosen = highest(choices, &self.priorities);
                }
                chosen
            }
        };
        self.made += 1;
        chosen
    }
}

/// Makes those of `runs` of which `mine` is true. Each begins with what was known before all of
/// them.
///
/// # Errors
/// [`SpecimenError`] if the host fails.
pub fn search(
    hunt: &mut Hunt<'_>,
    way: Way,
    seed: u64,
    runs: u64,
    mine: impl Fn(u64) -> bool,
) -> Result<End, SpecimenError> {
    let known = hunt.sharing.clone();
    for run in (0..runs).filter(|run| mine(*run)) {
        let end = single(hunt, way, seed, run)?;
        hunt.sharing.clone_from(&known);
        if let Some(end) = end {
            return Ok(end);
        }
    }
    Ok(End::Complete)
}

/// Makes one run, and learns from it.
///
/// # Errors
/// [`SpecimenError`] if the host fails.
pub fn single(
    hunt: &mut Hunt<'_>,
    way: Way,
    seed: u64,
    run: u64,
) -> Result<Option<End>, SpecimenError> {
    // What was passed over by what was known by then stays possible in other runs, and nothing is
    // claimed of all of them.
    if hunt.sharing.is_void() {
        hunt.sharing.begin_anew();
    }
    loop {
        let mut chooser = Chooser::new(way, seed, run, hunt.specimen.cpus().len());
        let counts = hunt.counts;
        let end = once(hunt, LONGEST, |choices| chooser.choose(choices))?;
        // A page that was written for the first time, and not put back on the way, is no evidence
        // of anything: it is from now on, and the run is made again.
        if !hunt.is_incomplete()? {
            return Ok(end);
        }
        (hunt.counts.ends, hunt.counts.schedules) = (counts.ends, counts.schedules);
    }
}

/// Transitions after which a run is said to have no end.
const LONGEST: usize = 100_000;

/// Begins some runs at random, from which nothing is to be learnt but which pages the guest writes:
/// those are kept from then on. None goes on for long, whether it comes to an end or not.
///
/// # Errors
/// [`SpecimenError`] if the host fails.
pub fn touch_pages(hunt: &mut Hunt<'_>) -> Result<(), SpecimenError> {
    const RUNS: u64 = 16;
    const STEPS: usize = 1_000;
    for run in 0..RUNS {
        let mut chooser = Chooser::new(Way::Uniform, 1, run, hunt.specimen.cpus().len());
        once(hunt, STEPS, |choices| chooser.choose(choices))?;
        hunt.is_incomplete()?;
        hunt.specimen.mend()?;
    }
    Ok(())
}

/// One run, from the beginning to the end, or to `longest` transitions, which is then said to be no
/// end.
///
/// # Errors
/// [`SpecimenError`] if the host fails.
pub fn once(
    hunt: &mut Hunt<'_>,
    longest: usize,
    mut choose: impl FnMut(&[Choice]) -> Choice,
) -> Result<Option<End>, SpecimenError> {
    hunt.specimen.rewind();
    let mut turns = Vec::new();
    let breach = loop {
        let choices = hunt.specimen.choices();
        if choices.is_empty() {
            hunt.counts.ends += 1;
            hunt.note_outcome();
            break hunt.specimen.judge()?;
        }
        if turns.len() == longest {
            break Some(Breach::longest(longest));
        }
        let choice = choose(&choices);
        let moved = hunt.advance(choice)?;
        turns.push(turn(hunt.specimen, choice, moved.stops));
        if moved.breach.is_some() {
            break moved.breach;
        }
        if let Look::Stop(why) = hunt.look()? {
            return Ok(Some(End::Stopped(why)));
        }
    };
    hunt.counts.schedules += 1;
    hunt.counts.deepest = hunt.counts.deepest.max(turns.len() as u64);
    Ok(breach.map(|breach| End::Broke(Found { turns, breach })))
}
