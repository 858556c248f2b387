//! Compares every search that claims to try all orders that can matter with a plain enumeration of
//! all orders, on random programs for a machine of a few words: both must reach the same final
//! states. The enumeration shares no code with the searches: it makes every step of every CPU from
//! every state.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::{self, Write};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::sample::select;

use super::checkpoint::{Checkpoint, Keeper};
use super::found::Wanted;
use super::links::Links;
use super::livelock::confirm_complete;
use super::system::{Holding, TransitionSystem};
use super::workers::Workers;
use super::{Engine, Limits, SearchEnd, bounded, dpor, exhaustive};
use crate::explore::Shard;
use crate::explore::data_races::DataRaces;
use crate::explore::memory::Memory;
use crate::explore::sharing::{Sharing, SharingRecord};
use crate::explore::specimen::model::{Model, Op, Program};
use crate::explore::specimen::{Buffering, SpecimenError};
use crate::explore::stop_reason::StopReason;

const WORDS: usize = 3;

/// States after which the programs are too large to be enumerated.
const MOST: usize = 3_000;

/// The same of programs that are drawn. `make test` sets fewer, so that it draws more of them in its time.
fn most_drawn() -> usize {
    let set = std::env::var("MODEL_STATES").ok();
    set.map_or(MOST, |most| most.parse().expect("MODEL_STATES is a number"))
}

/// How memory and interrupts behave.
#[derive(Debug, Clone, Copy)]
struct Machine {
    memory: Memory,
    is_xapic: bool,
}

impl Machine {
    const SC: Self = Self::of(Memory::SequentiallyConsistent, false);
    const TSO: Self = Self::of(Memory::Tso, false);
    const ALL: [Self; 3] = [Self::SC, Self::TSO, Self::of(Memory::Tso, true)];

    const fn of(memory: Memory, is_xapic: bool) -> Self {
        Self { memory, is_xapic }
    }

    /// The machine with these programs. Without reductions, every store waits.
    fn model(self, programs: &[Program], reduces: bool) -> Model {
        let buffering = Buffering::new(self.memory, reduces);
        Model::new(programs.to_vec(), WORDS, buffering, self.is_xapic)
    }
}

/// How runs of a machine end.
#[derive(Debug, PartialEq, Eq)]
struct Ends {
    outcomes: BTreeSet<u128>,
    /// Whether it can run for ever.
    is_endless: bool,
    /// What can break. A breach is the end of its order.
    breaks: BTreeSet<String>,
    /// The conditions that are reached.
    reached: BTreeSet<usize>,
    /// The data races.
    races: BTreeSet<String>,
}

/// Whether each condition is about every state, and the numbers that words have to have.
type Conditions = [(bool, Vec<(usize, u64)>)];

/// The conditions that are `holding`.
fn held(holding: Holding) -> impl Iterator<Item = usize> {
    (0..64).filter(move |index| holding.holds >> index & 1 != 0)
}

/// Tries every order; `None` if there are too many states.
fn enumerate(programs: &[Program], machine: Machine, conditions: &Conditions) -> Option<Ends> {
    enumerate_up_to(MOST, programs, machine, conditions)
}

fn enumerate_up_to(
    most: usize,
    programs: &[Program],
    machine: Machine,
    conditions: &Conditions,
) -> Option<Ends> {
    let mut model = machine.model(programs, false);
    model.heed(conditions);
    let (mut breaks, mut reached) = (BTreeSet::new(), BTreeSet::new());
    let mut races = BTreeSet::new();
    let root = model.root().clone();
    let mut numbers = HashMap::from([(root.key(), 0)]);
    let mut states = vec![root];
    let mut from: Vec<Vec<usize>> = vec![Vec::new()];
    let mut ends = Vec::new();
    let mut outcomes = BTreeSet::new();
    let mut at = 0;
    while at < states.len() {
        if at > most {
            return None;
        }
        let state = states[at].clone();
        model.load(&state);
        let choices = model.choices();
        reached.extend(held(model.holding(choices.is_empty())));
        races.extend(model.data_races().into_iter().flat_map(|it| it.texts));
        if choices.is_empty() {
            outcomes.insert(model.outcome());
            ends.push(at);
        }
        for choice in choices {
            model.load(&state);
            model.step(choice);
            if let Some(number) = model.broken() {
                breaks.insert(number.to_string());
                ends.push(at);
                continue;
            }
            let next = model.save();
            let number = *numbers.entry(next.key()).or_insert(states.len());
            if number == states.len() {
                states.push(next);
                from.push(Vec::new());
            }
            from[number].push(at);
        }
        at += 1;
    }
    // The states from which a final state can be reached.
    let mut good: HashSet<_> = ends.iter().copied().collect();
    while let Some(state) = ends.pop() {
        let fresh: Vec<_> = (from[state].iter().copied())
            .filter(|before| good.insert(*before))
            .collect();
        ends.extend(fresh);
    }
    Some(Ends {
        outcomes,
        is_endless: good.len() < states.len(),
        breaks,
        reached,
        races,
    })
}

/// A search by some workers, and in some shards, one after the other.
#[derive(Debug, Clone, Copy)]
struct Division {
    workers: usize,
    shards: u64,
    breaks: Breaks,
}

/// How a search is interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Breaks {
    /// Not at all.
    None,
    /// It pauses, often at first.
    Pauses,
    /// It is stopped after this many steps of a worker, and others go on with what was kept: some
    /// times.
    Stops(u64),
    /// It is killed then. What was kept before that is what others go on with.
    Kills(u64),
}

/// How often a search is stopped or killed. Some searches keep nothing, and would never get on.
const LIVES: usize = 8;

thread_local! {
    /// How many searches of this test came to an end that had gone on from what was kept.
    static RESUMED: Cell<usize> = const { Cell::new(0) };
}

/// Keeps a search in memory.
#[derive(Debug)]
struct Memories {
    breaks: Breaks,
    kept: Option<Vec<u8>>,
    /// What it kept before.
    before: Option<Vec<u8>>,
    /// How often it has kept something.
    times: u32,
}

impl Keeper for Memories {
    fn due(&self) -> Instant {
        let now = Instant::now();
        match self.breaks {
            Breaks::None | Breaks::Stops(_) => now + Duration::from_secs(3600),
            // Ever less often: what is kept grows.
            Breaks::Pauses | Breaks::Kills(_) => {
                now + Duration::from_micros(1 << self.times.min(30))
            }
        }
    }

    fn keep(&mut self, write: &dyn Fn(&mut dyn Write) -> io::Result<()>) {
        let mut bytes = Vec::new();
        write(&mut bytes).expect("memory does not fail");
        self.before = self.kept.replace(bytes);
        self.times += 1;
    }
}

impl Division {
    const NONE: Self = Self::of(1, 1);
    const ALL: [Self; 3] = [Self::NONE, Self::of(3, 1), Self::of(2, 2)];
    const BROKEN: [Self; 7] = [
        Self::of(1, 1).with(Breaks::Pauses),
        Self::of(3, 1).with(Breaks::Pauses),
        Self::of(1, 1).with(Breaks::Stops(17)),
        Self::of(1, 1).with(Breaks::Stops(60)),
        Self::of(2, 1).with(Breaks::Stops(41)),
        Self::of(2, 2).with(Breaks::Stops(90)),
        Self::of(2, 1).with(Breaks::Kills(33)),
    ];

    const fn of(workers: usize, shards: u64) -> Self {
        let breaks = Breaks::None;
        Self {
            workers,
            shards,
            breaks,
        }
    }

    const fn with(self, breaks: Breaks) -> Self {
        Self { breaks, ..self }
    }
}

/// One of the searches that claim to try all orders that can matter.
type Search = fn(&mut Workers<'_>, Shard, Option<Checkpoint>) -> Result<Covered, SpecimenError>;

/// What it came to: how it ended, and which states of those that all shards know lead to which.
type Covered = (SearchEnd, Vec<(u128, u128)>);

/// They, by name.
const SEARCHES: [(&str, Search); 3] = [
    ("races", |workers, shard, kept| {
        Ok((dpor::search(workers, shard, kept)?, Vec::new()))
    }),
    ("exhaustive", |workers, shard, kept| {
        let (end, states) = exhaustive::search(workers, shard, true, kept)?;
        Ok((end, states.across))
    }),
    (
        "bounded, with a bound that does not matter",
        |workers, shard, kept| {
            let ended = bounded::search(workers, 40, shard, kept)?;
            Ok((ended.end, ended.across))
        },
    ),
];

/// The result of a search that goes on past what breaks. If a shard has learnt something that another did not know, all begin
/// anew, as the results of shards are merged.
fn search(
    programs: &[Program],
    machine: Machine,
    conditions: &Conditions,
    by: Division,
    search: Search,
) -> Ends {
    let wanted = Wanted {
        keeps_going: true,
        witness: true,
        conditions: vec![("reach".to_owned(), false); conditions.len()],
        data_races: DataRaces::Reported,
    };
    let mut known = Sharing::new(programs.len());
    'anew: loop {
        let mut ends = Ends {
            outcomes: BTreeSet::new(),
            is_endless: false,
            breaks: BTreeSet::new(),
            reached: BTreeSet::new(),
            races: BTreeSet::new(),
        };
        let mut across = Vec::new();
        let mut learnt = vec![];
        for index in 0..by.shards {
            let of = by.shards;
            let shard = Shard { index, of };
            let mut sharings;
            let mut memories = Memories {
                breaks: by.breaks,
                kept: None,
                before: None,
                times: 0,
            };
            let mut lives = 0;
            let (end, outcomes, found) = loop {
                let mut model = machine.model(programs, true);
                model.heed(conditions);
                lives += 1;
                if let Breaks::Stops(steps) | Breaks::Kills(steps) = by.breaks
                    && lives < LIVES
                {
                    model.stop_after(steps);
                }
                let kept = memories.kept.take().map(|bytes| {
                    let read = Checkpoint::read(Box::new(io::Cursor::new(bytes.clone())));
                    memories.kept = Some(bytes);
                    read.expect("it was written")
                });
                let resumes = kept.is_some();
                sharings = vec![known.clone(); by.workers];
                if let Some(kept) = &kept {
                    let learnt = sharings[0].learn(&kept.so_far.sharing);
                    learnt.expect("as many CPUs");
                }
                let mut models = vec![model; by.workers];
                let engines = models.iter_mut().zip(&mut sharings);
                let mut engines = engines
                    .map(|(model, sharing)| Engine::new(model, sharing, Limits::default(), None));
                let first = engines.next().expect("a worker at least");
                let mut workers = Workers::new(first, engines);
                workers.note(&wanted);
                workers.keep_by(&mut memories);
                let is_part = by.shards > 1;
                let searched = search(&mut workers, shard, kept).and_then(|(end, across)| {
                    Ok((confirm_complete(&mut workers, end, is_part)?, across))
                });
                let (end, of_it) = match searched {
                    Err(SpecimenError::Ended(why)) => (SearchEnd::Stopped(why), Vec::new()),
                    other => other.expect("no host that can fail"),
                };
                if matches!(end, SearchEnd::Stopped(StopReason::Signal)) {
                    drop(workers);
                    // Who is killed keeps nothing at last.
                    if matches!(by.breaks, Breaks::Kills(_)) {
                        memories.kept = memories.before.take();
                    }
                    continue;
                }
                RESUMED.set(RESUMED.get() + usize::from(resumes));
                across.extend(of_it);
                workers.gather();
                let first = workers.first();
                let outcomes = std::mem::take(&mut first.outcomes);
                break (end, outcomes, std::mem::take(&mut first.found));
            };
            // A shard can have found an order before it began anew, of a part that it no longer has.
            let has_witness = found.witness.is_some();
            let is_explained = has_witness && by.shards > 1;
            assert!(
                has_witness != outcomes.is_empty() || is_explained,
                "{by:?} {has_witness}"
            );
            ends.outcomes.extend(outcomes);
            for breach in found.kinds.iter().map(|kept| &kept.order.breach) {
                if breach.is_livelock() {
                    ends.is_endless = true;
                } else if breach.is_data_race() {
                    ends.races.extend(breach.texts.clone());
                } else {
                    ends.breaks.insert(breach.texts[0].clone());
                }
            }
            let is_reached = |index: &usize| found.reached[*index].is_some();
            ends.reached
                .extend((0..conditions.len()).filter(is_reached));
            learnt.push(sharings.swap_remove(0).to_record());
            match end {
                SearchEnd::Complete => {}
                SearchEnd::Broke(found) => panic!("it keeps going: {found:?}"),
                // One alone decides whether the CPUs can run for ever.
                SearchEnd::Stopped(StopReason::Cycle) => {
                    return self::search(programs, machine, conditions, Division::NONE, search);
                }
                SearchEnd::Stopped(why) => panic!("{}", why.reason()),
            }
        }
        if by.shards == 1 {
            return ends;
        }
        let mut all = Sharing::new(programs.len());
        for record in &learnt {
            all.learn(record).expect("as many CPUs");
        }
        let agrees = |record: &SharingRecord| {
            let mut own = Sharing::new(programs.len());
            own.learn(record).expect("as many CPUs");
            own.contended() == all.contended()
        };
        if all.is_void() || !learnt.iter().all(agrees) {
            all.begin_anew();
            known = all;
            continue 'anew;
        }
        let (links, states) = Links::of(across);
        if links.has_cycle(states).unwrap() {
            return self::search(programs, machine, conditions, Division::NONE, search);
        }
        return ends;
    }
}

/// Compares every search with the enumeration of `programs`, on every machine. Returns on how many
/// of them there were not too many states for that.
fn compare(programs: &[Program]) -> Result<usize, TestCaseError> {
    let mut compared = 0;
    for machine in Machine::ALL {
        compared += usize::from(compare_on(
            programs,
            machine,
            &[],
            &[Division::NONE, Division::of(2, 2)],
        )?);
    }
    Ok(compared)
}

/// The same on one machine, with searches that are divided in these ways. Returns whether there were
/// not too many states.
fn compare_on(
    programs: &[Program],
    machine: Machine,
    conditions: &Conditions,
    ways: &[Division],
) -> Result<bool, TestCaseError> {
    compare_up_to(MOST, programs, machine, conditions, ways)
}

/// The same of programs that are drawn.
fn compare_drawn(
    programs: &[Program],
    machine: Machine,
    conditions: &Conditions,
    ways: &[Division],
) -> Result<bool, TestCaseError> {
    compare_up_to(most_drawn(), programs, machine, conditions, ways)
}

fn compare_up_to(
    most: usize,
    programs: &[Program],
    machine: Machine,
    conditions: &Conditions,
    ways: &[Division],
) -> Result<bool, TestCaseError> {
    let Some(all) = enumerate_up_to(most, programs, machine, conditions) else {
        return Ok(false);
    };
    for (name, way) in SEARCHES {
        for by in ways.iter().copied() {
            let ends = search(programs, machine, conditions, by, way);
            let what = format!("{name} {machine:?} {by:?}");
            prop_assert_eq!(ends.is_endless, all.is_endless, "{}", what);
            let counts = (ends.outcomes.len(), all.outcomes.len());
            prop_assert_eq!(counts.0, counts.1, "{}", what);
            prop_assert_eq!(&ends.outcomes, &all.outcomes, "{}", what);
            prop_assert_eq!(&ends.breaks, &all.breaks, "{}", what);
            prop_assert_eq!(&ends.races, &all.races, "{}", what);
            for (index, (on_the_way, _)) in conditions.iter().enumerate() {
                let (it, whole) = (ends.reached.contains(&index), all.reached.contains(&index));
                if !on_the_way {
                    prop_assert_eq!(it, whole, "{}, condition {}", what, index);
                } else if machine.memory == Memory::SequentiallyConsistent {
                    // States on the way may be left out, but none that is not there is found.
                    prop_assert!(!it || whole, "{}, condition {}", what, index);
                }
            }
        }
    }
    Ok(true)
}

/// Programs with these tasks, and no handlers.
fn tasks(tasks: &[&[Op]]) -> Vec<Program> {
    let program = |task: &&[Op]| Program {
        task: task.to_vec(),
        ..Program::default()
    };
    tasks.iter().map(program).collect()
}

#[test]
fn a_livelock_is_seen_beside_cpus_that_need_not_wait() {
    let spins: &[Op] = &[Op::Spin(0, 1)];
    for programs in [tasks(&[&[], spins]), tasks(&[spins, spins])] {
        for machine in Machine::ALL {
            assert!(enumerate(&programs, machine, &[]).is_some_and(|ends| ends.is_endless));
        }
        assert_eq!(compare(&programs).unwrap(), 3);
    }
}

#[test]
fn a_loop_that_another_cpu_ends_is_no_livelock() {
    let programs = tasks(&[
        &[Op::Spin(0, 1), Op::Store(1, 1)],
        &[Op::Spin(1, 1)],
        &[Op::Store(0, 1)],
    ]);
    for machine in Machine::ALL {
        assert!(enumerate(&programs, machine, &[]).is_some_and(|ends| !ends.is_endless));
    }
    assert_eq!(compare(&programs).unwrap(), 3);
}

/// Each of the searches goes on from what was kept, and not from the beginning.
#[test]
fn a_search_that_was_stopped_goes_on() {
    let adds = &[Op::Add(0), Op::Add(1)];
    let programs = tasks(&[adds, adds, &[Op::Load(1), Op::IfSet, Op::Store(2, 1)]]);
    for breaks in [Breaks::Stops(17), Breaks::Stops(20), Breaks::Kills(17)] {
        let before = RESUMED.get();
        let by = Division::NONE.with(breaks);
        assert!(compare_on(&programs, Machine::SC, &[], &[by]).unwrap());
        assert_eq!(RESUMED.get() - before, SEARCHES.len(), "{breaks:?}");
    }
}

/// Searches once left out ends of these: what an INIT leaves behind of what its target passed over, and
/// a store that overtook the release that waited before it. They were drawn at random.
#[test]
fn searches_reach_every_end_where_locks_meet_inits_and_plain_stores() {
    let lock = &[Op::Lock(2), Op::Store(0, 0), Op::Unlock(2)][..];
    let mut in_handler = tasks(&[&[Op::Send(0, 0)], &[Op::Add(2), Op::Init(0)]]);
    in_handler[0].handlers[0] = lock.to_vec();
    let sends = &[Op::Load(1), Op::IfSet, Op::Send(0, 0), Op::Init(1)];
    let held = tasks(&[sends, &[Op::Lock(2), Op::Store(1, 1), Op::Unlock(2)]]);
    let stores = &[Op::IrqsOff, Op::Store(2, 1), Op::Load(2), Op::IrqsOn];
    let written = tasks(&[&[lock, stores].concat(), &[Op::Load(0)]]);
    let failed: Vec<_> = [in_handler, held, written]
        .iter()
        .filter_map(|programs| compare(programs).err())
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

/// How many final states there are on each of the machines.
fn ends(programs: &[Program]) -> [usize; 3] {
    assert_eq!(compare(programs).unwrap(), 3);
    Machine::ALL.map(|machine| {
        let ends = enumerate(programs, machine, &[]);
        ends.expect("it was compared").outcomes.len()
    })
}

/// Store buffering: both loads can go ahead of both stores, unless there is a fence or a locked
/// instruction between them on both CPUs.
#[test]
fn a_load_goes_ahead_of_an_earlier_store_until_something_drains_the_buffer() {
    let of = |between: &[Op], other: &[Op]| {
        let first = [&[Op::Store(0, 1)], between, &[Op::Load(1)]].concat();
        let second = [&[Op::Store(1, 1)], other, &[Op::Load(0)]].concat();
        ends(&tasks(&[&first, &second]))
    };
    let (fence, locked) = (&[Op::Fence][..], &[Op::Add(2)][..]);
    assert_eq!(of(&[], &[]), [3, 4, 4]);
    assert_eq!(of(fence, &[]), [3, 4, 4]);
    assert_eq!(of(fence, fence), [3, 3, 3]);
    // The word of the locked instructions has one value more.
    assert_eq!(of(locked, fence), [3, 3, 3]);
    assert_eq!(of(&[Op::Store(2, 1)], &[]), [3, 4, 4]);
    assert_eq!(of(&[Op::Load(0)], &[Op::Load(1)]), [3, 4, 4]);
}

/// Message passing by an interrupt: the IPI of an x2APIC overtakes the store, and that of an xAPIC
/// does not.
#[test]
fn an_interrupt_overtakes_a_store_on_an_x2apic_that_is_not_fenced() {
    let of = |sends: &[Op]| {
        let mut programs = tasks(&[sends, &[]]);
        // The handler leaves in a word of its own what it has read.
        programs[1].handlers[0] = vec![Op::Load(0), Op::IfSet, Op::Store(1, 1)];
        ends(&programs)
    };
    assert_eq!(of(&[Op::Store(0, 1), Op::Send(1, 0)]), [1, 2, 1]);
    assert_eq!(of(&[Op::Store(0, 1), Op::Fence, Op::Send(1, 0)]), [1, 1, 1]);
    assert_eq!(of(&[Op::Send(1, 0), Op::Store(0, 1)]), [2, 2, 2]);
}

/// What is recorded in a word comes after what its CPU has stored there, though it waits for nothing
/// else.
#[test]
fn a_mark_comes_after_an_own_store_to_its_word() {
    let programs = tasks(&[&[Op::Store(0, 1), Op::Load(0), Op::Mark(0)], &[]]);
    assert_eq!(ends(&programs), [1, 1, 1]);
    let programs = tasks(&[&[Op::Store(0, 1), Op::Mark(1), Op::Load(1)], &[Op::Load(0)]]);
    assert_eq!(ends(&programs), [2, 2, 2]);
}

/// A handler is entered, and left, with an empty store buffer.
#[test]
fn a_handler_drains_the_buffer_when_it_is_entered_and_left() {
    let mut programs = tasks(&[
        &[Op::Send(0, 0), Op::Load(1)],
        &[&[Op::Store(1, 1)], &[Op::Fence][..], &[Op::Load(0)]].concat(),
    ]);
    programs[0].handlers[0] = vec![Op::Store(0, 1)];
    let [sc, tso, xapic] = ends(&programs);
    assert_eq!((tso, xapic), (sc, sc));
}

/// CPU 1 is about to take the lock that CPU 0 holds, and has a pending interrupt. A search that
/// only lets CPU 1 take the interrupt there, and never lets CPU 0 go first, misses the final state
/// in which the interrupt arrives after CPU 1 has released the lock.
#[test]
fn a_cpu_that_waits_for_a_lock_can_take_its_interrupt_before_or_after() {
    let locks = [Op::Lock(2), Op::Store(0, 0), Op::Unlock(2)];
    let sends = [Op::Load(2), Op::IfSet, Op::Send(1, 0)];
    let mut programs = tasks(&[&locks, &[&sends[..], &locks].concat()]);
    programs[1].handlers[0] = vec![Op::Add(2)];
    assert_eq!(compare(&programs).unwrap(), 3);
}

/// CPU 2 releases a lock that CPU 0 holds, and CPU 1 takes it. What CPUs 0 and 1 do under the lock
/// can then happen in any order.
#[test]
fn a_lock_that_another_cpu_releases_does_not_order_what_is_done_under_it() {
    let sets = |number| [Op::Lock(2), Op::Store(1, number), Op::Unlock(2)];
    let breaks = [Op::Load(2), Op::IfSet, Op::Store(2, 0)];
    let programs = tasks(&[&sets(1), &sets(2), &breaks]);
    assert_eq!(compare(&programs).unwrap(), 3);
    let mut interrupted = tasks(&[
        &sets(0),
        &[&[Op::Store(0, 1)], &sets(1)[..]].concat(),
        &[&breaks[..], &[Op::Send(0, 1)]].concat(),
    ]);
    interrupted[0].handlers[1] = vec![Op::Store(0, 0)];
    // It has thousands of states.
    for machine in [Machine::SC, Machine::TSO] {
        assert!(compare_on(&interrupted, machine, &[], &[Division::NONE]).unwrap());
    }
}

/// An INIT puts an end to what its target does, at each moment; and what is sent to the target before
/// it is started is lost.
#[test]
fn a_cpu_is_reset_between_any_two_of_its_steps() {
    let mut programs = tasks(&[
        &[Op::Init(1), Op::StartUp(1), Op::StartUp(1)],
        &[Op::Store(1, 1), Op::Store(2, 1)],
    ]);
    // Nobody else accesses these words.
    programs[1].second = vec![Op::Load(1), Op::IfSet, Op::Load(2), Op::Store(0, 1)];
    assert_eq!(ends(&programs), [3, 3, 3]);
    let mut programs = tasks(&[&[Op::Init(1), Op::Send(1, 0), Op::StartUp(1)], &[]]);
    programs[1].handlers[0] = vec![Op::Add(0)];
    assert_eq!(ends(&programs), [2, 2, 2]);
    // It stays in reset, with or without what it has done before, and without the lock's release.
    let programs = tasks(&[
        &[Op::Init(1)],
        &[Op::Lock(2), Op::Store(0, 1), Op::Unlock(2)],
    ]);
    assert_eq!(ends(&programs), [4, 4, 4]);
}

/// The IPIs by which a CPU is started arrive in the order in which they were sent. Those of an xAPIC
/// stay behind earlier stores, and those of an x2APIC do not.
#[test]
fn a_cpu_that_is_started_finds_what_was_stored_before_if_there_was_a_fence() {
    let of = |before: &[Op]| {
        let starts = [Op::Init(1), Op::StartUp(1)];
        let mut programs = tasks(&[&[before, &starts].concat(), &[]]);
        programs[1].second = vec![Op::Load(0)];
        ends(&programs)
    };
    assert_eq!(of(&[Op::Store(0, 1)]), [1, 2, 1]);
    assert_eq!(of(&[Op::Store(0, 1), Op::Fence]), [1, 1, 1]);
}

/// Some instructions of a task, or of the handler of an interrupt. A handler does not wait in
/// loops, but can wait for a lock. It sends only interrupts above its own, so that handlers do not
/// send interrupts for ever.
fn op(cpus: usize, handler: Option<usize>) -> impl Strategy<Value = Vec<Op>> {
    let word = 0..WORDS;
    let interrupts = handler.map_or(0, |handler| 1.max(handler))..2_usize;
    let simple = prop_oneof![
        4 => word.clone().prop_map(|word| vec![Op::Load(word)]),
        4 => (word.clone(), 0..3_u64).prop_map(|(word, number)| vec![Op::Store(word, number)]),
        1 => word.clone().prop_map(|word| vec![Op::Add(word)]),
        1 => word.clone().prop_map(|word| vec![Op::Mark(word)]),
        1 => Just(vec![Op::Fence]),
        2 => (word.clone(), word.clone(), 0..3_u64).prop_map(|(read, written, number)| {
            vec![Op::Load(read), Op::IfSet, Op::Store(written, number)]
        }),
        2 => (word.clone(), 0..3_u64).prop_map(|(word, number)| {
            // The last word is the lock.
            vec![
                Op::Lock(WORDS - 1),
                Op::Store(word % (WORDS - 1), number),
                Op::Unlock(WORDS - 1),
            ]
        }),
    ];
    let sends = (
        proptest::option::of(word.clone()),
        0..cpus,
        interrupts.clone(),
    )
        .prop_map(|(read, target, interrupt)| {
            let send = Op::Send(target, interrupt);
            match read {
                Some(read) => vec![Op::Load(read), Op::IfSet, send],
                None => vec![send],
            }
        });
    let sends = sends.boxed();
    let starts = (0..cpus, proptest::option::of(Just(Op::Fence)), 0..3_usize).prop_map(
        |(target, fence, starts)| {
            let ipis = [Op::Init(target), Op::StartUp(target), Op::StartUp(target)];
            fence
                .into_iter()
                .chain(ipis.into_iter().take(1 + starts))
                .collect::<Vec<_>>()
        },
    );
    let waits = prop_oneof![
        3 => (word.clone(), 1..3_u64).prop_map(|(word, number)| vec![Op::Wait(word, number)]),
        1 => (word.clone(), 1..3_u64).prop_map(|(word, number)| vec![Op::Spin(word, number)]),
    ];
    let masked = (word, 0..3_u64).prop_map(|(word, number)| {
        vec![
            Op::IrqsOff,
            Op::Store(word, number),
            Op::Load(word),
            Op::IrqsOn,
        ]
    });
    match handler {
        Some(1) => simple.boxed(),
        Some(_) => prop_oneof![4 => simple, 1 => sends].boxed(),
        None => prop_oneof![4 => simple, 2 => sends, 1 => waits, 1 => masked, 1 => starts].boxed(),
    }
}

fn ops(cpus: usize, handler: Option<usize>, most: usize) -> impl Strategy<Value = Vec<Op>> {
    proptest::collection::vec(op(cpus, handler), 0..=most).prop_map(|ops| ops.concat())
}

fn programs() -> impl Strategy<Value = Vec<Program>> {
    select(vec![2_usize, 3, 3]).prop_flat_map(|cpus| {
        let handler = |it| ops(cpus, Some(it), 2);
        let second = proptest::collection::vec(op(cpus, Some(0)), 0..=2);
        let second = second.prop_map(|ops| ops.concat());
        let parts = (ops(cpus, None, 3), second, handler(0), handler(1));
        let program = parts.prop_map(|(task, second, one, other)| Program {
            task,
            second,
            handlers: [one, other],
        });
        proptest::collection::vec(program, cpus)
    })
}

/// The same programs, with something that breaks wherever it is put in.
fn breaking() -> impl Strategy<Value = Vec<Program>> {
    let place = (0..3_usize, 0..3_usize, 0..12_usize);
    let places = proptest::collection::vec(place, 0..=3);
    (programs(), places).prop_map(|(mut programs, places)| {
        for (number, (cpu, context, place)) in (0..).zip(places) {
            let cpus = programs.len();
            let program = &mut programs[cpu % cpus];
            let ops = match context {
                0 => &mut program.task,
                handler => &mut program.handlers[handler - 1],
            };
            ops.insert(place.min(ops.len()), Op::Break(number));
        }
        programs
    })
}

/// Conditions about ends and about all states.
fn conditions() -> impl Strategy<Value = Vec<(bool, Vec<(usize, u64)>)>> {
    let words = proptest::collection::vec((0..WORDS, 0..3_u64), 1..=2);
    proptest::collection::vec((any::<bool>(), words), 4)
}

/// A breach cuts off what comes after it. Here CPU 0's cuts off what CPU 1 does after it has seen
/// that CPU 0 has begun, and a search that goes on past it must still find that, though CPU 0 comes
/// to its breach without a stop in between.
#[test]
fn a_breach_hides_no_other_one() {
    // What is passed over on the way to the breach.
    let begins = [Op::Store(0, 1), Op::Load(2), Op::Load(2), Op::Break(1)];
    let sees = [Op::Load(1), Op::Load(0), Op::IfSet, Op::Break(2)];
    let programs = tasks(&[&begins, &sees]);
    for machine in Machine::ALL {
        let all = enumerate(&programs, machine, &[]).unwrap();
        assert_eq!(all.breaks.len(), 2);
    }
    assert_eq!(compare(&programs).unwrap(), 3);
    // The other one needs a step of CPU 1 before CPU 0 begins, and races only behind that.
    let begins = [Op::Store(0, 1), Op::Break(1)];
    let sees = [
        Op::Add(1),
        Op::Load(0),
        Op::IfSet,
        Op::Store(1, 0),
        Op::Break(2),
    ];
    assert_eq!(compare(&tasks(&[&begins, &sees])).unwrap(), 3);
    let third = [Op::Load(1), Op::IfSet, Op::Break(3)];
    assert_eq!(compare(&tasks(&[&begins, &sees, &third])).unwrap(), 3);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 8,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn searches_reach_every_final_state(
        programs in programs(),
        machine in select(Machine::ALL.to_vec()),
        divided in select(Division::ALL[1..].to_vec()),
    ) {
        prop_assume!(compare_drawn(&programs, machine, &[], &[Division::NONE, divided])?);
    }

    #[test]
    fn searches_that_keep_going_find_all_that_breaks_and_all_that_is_reached(
        programs in breaking(),
        machine in select(Machine::ALL.to_vec()),
        divided in select(Division::ALL[1..].to_vec()),
        conditions in conditions(),
    ) {
        prop_assume!(compare_drawn(&programs, machine, &conditions, &[Division::NONE, divided])?);
    }
}

proptest! {
    // Each of them is searched several times over.
    #![proptest_config(ProptestConfig {
        cases: 4,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn searches_that_are_interrupted_reach_every_final_state(
        programs in programs(),
        machine in select(Machine::ALL.to_vec()),
        broken in select(Division::BROKEN.to_vec()),
    ) {
        prop_assume!(compare_drawn(&programs, machine, &[], &[broken])?);
    }

    #[test]
    fn searches_that_are_interrupted_find_all_that_breaks(
        programs in breaking(),
        machine in select(Machine::ALL.to_vec()),
        broken in select(Division::BROKEN.to_vec()),
        conditions in conditions(),
    ) {
        prop_assume!(compare_drawn(&programs, machine, &conditions, &[broken])?);
    }
}
