//! Single schedules from the initial state to a final one, chosen at random: uniformly, or by
//! priorities that change a few times (PCT: Burckhardt et al., "A Randomized Scheduler with
//! Probabilistic Guarantees of Finding Bugs", ASPLOS 2010). For machines on which trying everything
//! takes too long. Run `n` of a seed depends on nothing else but on what is known about the memory
//! that CPUs share, so that the runs can be shared out among processes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::dfs::Cut;
use super::end::{Counterexample, SearchEnd};
use super::engine::{Check, Engine};
use super::system::turn;
use super::workers::{Alone, Ended, Workers};
use crate::explore::schedule::{Act, Choice};
use crate::explore::specimen::{Breach, SpecimenError};
use crate::explore::stop_reason::StopReason;

/// How a run chooses its steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sampling {
    /// Every choice is equally likely.
    Uniform,
    /// PCT: the CPU with the highest priority goes on. Priorities change `changes` times within the
    /// first `length` transitions. A pending interrupt has a priority of its own.
    Priorities {
        /// How often priorities change: one less than the depth of the bugs that are found.
        changes: u32,
        /// The approximate number of transitions of a run.
        length: u64,
    },
}

/// Chooses the steps of one run.
#[derive(Debug)]
struct Chooser {
    random: ChaCha8Rng,
    /// For each CPU two priorities: of going on, and of taking what it is sent. Then one for each: of
    /// its store buffer.
    priorities: Vec<u64>,
    /// The numbers of the choices at which a priority is lowered.
    changes: Vec<u64>,
    /// How many choices were made.
    made: u64,
    sampling: Sampling,
}

impl Chooser {
    fn new(sampling: Sampling, seed: u64, run: u64, cpus: usize) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(run);
        let mut chooser = Self {
            priorities: Vec::new(),
            changes: Vec::new(),
            made: 0,
            sampling,
            random,
        };
        if let Sampling::Priorities { changes, length } = sampling {
            // Initial priorities are above all those to which they are lowered.
            let high = |random: &mut ChaCha8Rng| random.next_u64() | 1 << 63;
            chooser.priorities = (0..cpus * 2).map(|_| high(&mut chooser.random)).collect();
            chooser.changes = (0..changes).map(|_| chooser.below(length.max(1))).collect();
            let buffers = (0..cpus).map(|_| high(&mut chooser.random));
            chooser.priorities.extend(buffers.collect::<Vec<_>>());
        }
        chooser
    }

    fn below(&mut self, limit: u64) -> u64 {
        // The modulo bias of 64 random bits is negligible.
        self.random.next_u64() % limit
    }

    fn choose(&mut self, choices: &[Choice]) -> Choice {
        let chosen = match self.sampling {
            Sampling::Uniform => {
                let place = self.below(choices.len() as u64);
                choices[usize::try_from(place).unwrap_or(0)]
            }
            Sampling::Priorities { .. } => {
                let cpus = self.priorities.len() / 3;
                let place = |choice: &Choice| match choice.act {
                    Act::GoOn => choice.cpu * 2,
                    Act::Take(_) | Act::Arrive => choice.cpu * 2 + 1,
                    Act::Flush => cpus * 2 + choice.cpu,
                };
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

/// Makes those of `runs` runs for which `mine` is true. Each begins with what was known before the
/// first, so that it is the same whoever makes it. What is found is what the first run finds that
/// finds anything.
///
/// # Errors
/// [`SpecimenError`] if the host fails.
pub fn search(
    workers: &mut Workers<'_>,
    sampling: Sampling,
    seed: u64,
    runs: u64,
    mine: impl Fn(u64) -> bool + Sync,
) -> Result<SearchEnd, SpecimenError> {
    let known = workers.first().sharing.clone();
    let next = AtomicU64::new(0);
    // The first run that has found something, and what.
    let found: Mutex<Option<(u64, SearchEnd)>> = Mutex::new(None);
    let found = || found.lock().unwrap_or_else(PoisonError::into_inner);
    workers.begin();
    let ended = workers.do_together(&Alone, &|engine: &mut Engine<'_>, _: &Alone| {
        loop {
            let run = next.fetch_add(1, Ordering::Relaxed);
            let is_late = |(first, _): &(u64, SearchEnd)| *first < run;
            if run >= runs || engine.round.is_over() || found().as_ref().is_some_and(is_late) {
                return Ok(());
            }
            if !mine(run) {
                continue;
            }
            let end = single(engine, sampling, seed, run)?;
            engine.sharing.clone_from(&known);
            match end {
                Some(end @ SearchEnd::Stopped(_)) => return Err(Cut::End(end)),
                Some(end) => {
                    let mut found = found();
                    if found.as_ref().is_none_or(|(first, _)| run < *first) {
                        *found = Some((run, end));
                    }
                }
                None => {}
            }
        }
    });
    workers.gather();
    if let Some((_, end)) = found().take() {
        return Ok(end);
    }
    Ok(match workers.conclude(ended)? {
        Ended::In(end) => end,
        // A random search claims nothing about all orders, so that nothing can make it void.
        Ended::Void | Ended::Paused => SearchEnd::Complete,
    })
}

/// Makes one run, and learns from it.
///
/// # Errors
/// [`SpecimenError`] if the host fails.
pub fn single(
    engine: &mut Engine<'_>,
    sampling: Sampling,
    seed: u64,
    run: u64,
) -> Result<Option<SearchEnd>, SpecimenError> {
    // A stop that was passed over can still be tried in other runs, and a random search claims
    // nothing about all orders. So knowledge that has become void does no harm.
    if engine.sharing.is_void() {
        engine.sharing.begin_anew();
    }
    loop {
        let mut chooser = Chooser::new(sampling, seed, run, engine.system.cpus().len());
        let counts = engine.counts;
        let end = once(engine, LONGEST, |choices| chooser.choose(choices))?;
        // If the run wrote a page that was not saved, it may not have begun in the initial state,
        // and proves nothing. The page is saved from now on, and the run is repeated.
        if !engine.is_incomplete()? {
            return past(engine, end);
        }
        engine.found.drop_pending();
        (engine.counts.ends, engine.counts.schedules) = (counts.ends, counts.schedules);
    }
}

/// What a run that ended with `end` means for the search: if it goes on past breaches, a breach does
/// not end it.
fn past(
    engine: &mut Engine<'_>,
    end: Option<SearchEnd>,
) -> Result<Option<SearchEnd>, SpecimenError> {
    let end = match end {
        Some(SearchEnd::Broke(found)) if engine.found.wanted.keeps_going => {
            engine.note_breach(&found.turns, found.breach);
            engine.system.mend()?;
            None
        }
        end => end,
    };
    engine.found.confirm();
    Ok(match end {
        None if engine.found.is_over() => Some(SearchEnd::Stopped(StopReason::Reached)),
        end => end,
    })
}

/// Transitions after which a run is considered endless.
const LONGEST: usize = 100_000;

/// Makes some short random runs only to find out which pages the guest writes. These are saved from
/// then on.
///
/// # Errors
/// [`SpecimenError`] if the host fails.
pub fn touch_pages(engine: &mut Engine<'_>) -> Result<(), SpecimenError> {
    const RUNS: u64 = 16;
    const STEPS: usize = 1_000;
    for run in 0..RUNS {
        let mut chooser = Chooser::new(Sampling::Uniform, 1, run, engine.system.cpus().len());
        once(engine, STEPS, |choices| chooser.choose(choices))?;
        engine.found.drop_pending();
        engine.is_incomplete()?;
        engine.system.mend()?;
    }
    Ok(())
}

/// One run from the initial state to a final one, or to `longest` transitions, after which it is
/// considered endless.
///
/// # Errors
/// [`SpecimenError`] if the host fails.
pub fn once(
    engine: &mut Engine<'_>,
    longest: usize,
    mut choose: impl FnMut(&[Choice]) -> Choice,
) -> Result<Option<SearchEnd>, SpecimenError> {
    engine.system.follow_sharing(engine.sharing);
    engine.system.rewind();
    let mut turns = Vec::new();
    engine.note(false, &Vec::new);
    let breach = loop {
        let choices = engine.system.choices();
        if choices.is_empty() {
            engine.counts.ends += 1;
            engine.note_outcome();
            engine.note(true, &|| turns.clone());
            let breach = engine.system.judge()?;
            if breach.is_none() {
                engine.note_end(&turns);
            }
            break breach;
        }
        if turns.len() == longest {
            break Some(Breach::longest(longest));
        }
        let choice = choose(&choices);
        let moved = engine.advance(choice)?;
        turns.push(turn(engine.system, choice, moved.stops));
        if moved.breach.is_some() {
            break moved.breach;
        }
        engine.note(false, &|| turns.clone());
        match engine.check()? {
            Check::Stop(why) => return Ok(Some(SearchEnd::Stopped(why))),
            Check::Over => return Ok(None),
            Check::GoOn | Check::Void | Check::Pause => {}
        }
        engine.report(|| None);
    };
    engine.counts.schedules += 1;
    engine.counts.deepest = engine.counts.deepest.max(turns.len() as u64);
    Ok(breach.map(|breach| SearchEnd::Broke(Counterexample { turns, breach })))
}
