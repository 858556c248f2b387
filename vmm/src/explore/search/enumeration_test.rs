//! Every search that claims to try all that can matter, held against a plain enumeration of every
//! order, on programs drawn at random for a machine of a few words: both must come to the same
//! ends. The enumeration shares nothing with the searches: it makes every step of every CPU from
//! every state, and passes over none.

use std::collections::{BTreeSet, HashMap, HashSet};

use proptest::prelude::*;
use proptest::sample::select;

use super::livelock::confirm_complete;
use super::seen::Seen;
use super::system::TransitionSystem;
use super::{Counts, Engine, Limits, SearchEnd, bounded, dpor, exhaustive};
use crate::explore::Shard;
use crate::explore::sharing::Sharing;
use crate::explore::specimen::SpecimenError;
use crate::explore::specimen::model::{Model, Op, Program};

const WORDS: usize = 3;

/// States after which a program is too large to be enumerated.
const MOST: usize = 3_000;

/// What becomes of a machine.
#[derive(Debug, PartialEq, Eq)]
struct Ends {
    outcomes: BTreeSet<u128>,
    /// Whether it can go on for ever.
    is_endless: bool,
}

/// Every order. Nothing if there are too many.
fn enumerate(programs: &[Program]) -> Option<Ends> {
    let mut model = Model::new(programs.to_vec(), WORDS);
    let root = model.root().clone();
    let mut numbers = HashMap::from([(root.key(), 0)]);
    let mut states = vec![root];
    let mut from: Vec<Vec<usize>> = vec![Vec::new()];
    let mut ends = Vec::new();
    let mut outcomes = BTreeSet::new();
    let mut at = 0;
    while at < states.len() {
        if at > MOST {
            return None;
        }
        let state = states[at].clone();
        model.load(&state);
        let choices = model.choices();
        if choices.is_empty() {
            outcomes.insert(model.outcome());
            ends.push(at);
        }
        for choice in choices {
            model.load(&state);
            model.step(choice);
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
    // Those from which an end can be reached.
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
    })
}

/// What a search comes to.
fn search(
    programs: &[Program],
    search: impl FnOnce(&mut Engine<'_>) -> Result<SearchEnd, SpecimenError>,
) -> Ends {
    let mut model = Model::new(programs.to_vec(), WORDS);
    let mut sharing = Sharing::new(programs.len());
    let mut on_progress = |_: &Counts| {};
    let mut engine = Engine::new(
        &mut model,
        &mut sharing,
        Limits::default(),
        &mut on_progress,
    );
    let end = search(&mut engine).and_then(|end| confirm_complete(&mut engine, end, false));
    let end = end.expect("no host that can fail");
    Ends {
        is_endless: match end {
            SearchEnd::Complete => false,
            SearchEnd::Broke(found) => found.breach.is_livelock(),
            SearchEnd::Stopped(why) => panic!("{}", why.reason()),
        },
        outcomes: engine.outcomes,
    }
}

/// Holds every search against the enumeration of `programs`. Whether that was not too large.
fn hold(programs: &[Program]) -> Result<bool, TestCaseError> {
    let Some(all) = enumerate(programs) else {
        return Ok(false);
    };
    let searches: [(&str, Ends); 3] = [
        ("races", search(programs, dpor::search)),
        (
            "exhaustive",
            search(programs, |engine| {
                exhaustive::search(engine, &mut Seen::default(), Shard::WHOLE)
            }),
        ),
        (
            "bounded, with a bound that does not matter",
            search(programs, |engine| Ok(bounded::search(engine, 40)?.0)),
        ),
    ];
    for (name, ends) in searches {
        prop_assert_eq!(ends.is_endless, all.is_endless, "{}", name);
        // A search ends with the first round that has no end.
        if !all.is_endless {
            prop_assert_eq!(ends.outcomes.len(), all.outcomes.len(), "{}", name);
            prop_assert_eq!(&ends.outcomes, &all.outcomes, "{}", name);
        }
    }
    Ok(true)
}

/// CPUs whose tasks are these.
fn tasks(tasks: &[&[Op]]) -> Vec<Program> {
    let program = |task: &&[Op]| Program {
        task: task.to_vec(),
        ..Program::default()
    };
    tasks.iter().map(program).collect()
}

#[test]
fn who_goes_round_for_ever_is_seen_beside_others_that_need_not_wait() {
    let spins: &[Op] = &[Op::Spin(0, 1)];
    for programs in [tasks(&[&[], spins]), tasks(&[spins, spins])] {
        assert!(enumerate(&programs).is_some_and(|ends| ends.is_endless));
        assert!(hold(&programs).is_ok_and(|is_held| is_held));
    }
}

#[test]
fn who_goes_round_until_another_lets_it_go_comes_to_an_end() {
    let programs = tasks(&[
        &[Op::Spin(0, 1), Op::Store(1, 1)],
        &[Op::Spin(1, 1)],
        &[Op::Store(0, 1)],
    ]);
    assert!(enumerate(&programs).is_some_and(|ends| !ends.is_endless));
    assert!(hold(&programs).is_ok_and(|is_held| is_held));
}

/// CPU 1 is about to take the lock that CPU 0 holds, and pending an interrupt. A search that has it
/// take that there, and does not let CPU 0 go first, misses the end at which the interrupt comes
/// once CPU 1 has let the lock go again.
#[test]
fn who_waits_for_a_lock_that_an_interrupt_of_its_own_can_change_is_let_go_on_by_others() {
    let locks = [Op::Lock(2), Op::Store(0, 0), Op::Unlock(2)];
    let sends = [Op::Load(2), Op::IfSet, Op::Send(1, 0)];
    let mut programs = tasks(&[&locks, &[&sends[..], &locks].concat()]);
    programs[1].handlers[0] = vec![Op::Add(2)];
    hold(&programs).unwrap();
}

/// CPU 2 lets a lock go that CPU 0 holds, and CPU 1 takes it: what both do under it can be done in
/// any order.
#[test]
fn a_lock_that_somebody_else_lets_go_does_not_keep_apart_what_is_done_under_it() {
    let sets = |number| [Op::Lock(2), Op::Store(1, number), Op::Unlock(2)];
    let breaks = [Op::Load(2), Op::IfSet, Op::Store(2, 0)];
    let programs = tasks(&[&sets(1), &sets(2), &breaks]);
    assert!(hold(&programs).is_ok_and(|is_held| is_held));
    let mut interrupted = tasks(&[
        &sets(0),
        &[&[Op::Store(0, 1)], &sets(1)[..]].concat(),
        &[&breaks[..], &[Op::Send(0, 1)]].concat(),
    ]);
    interrupted[0].handlers[1] = vec![Op::Store(0, 0)];
    assert!(hold(&interrupted).is_ok_and(|is_held| is_held));
}

/// What a task does, or the handler of an interrupt. A handler waits for nobody, but can want a
/// lock; and it sends only the interrupt behind its own, so that there is an end to what handlers
/// send.
fn op(cpus: usize, handler: Option<usize>) -> impl Strategy<Value = Vec<Op>> {
    let word = 0..WORDS;
    let interrupts = handler.map_or(0, |handler| 1.max(handler))..2_usize;
    let simple = prop_oneof![
        4 => word.clone().prop_map(|word| vec![Op::Load(word)]),
        4 => (word.clone(), 0..3_u64).prop_map(|(word, number)| vec![Op::Store(word, number)]),
        1 => word.clone().prop_map(|word| vec![Op::Add(word)]),
        1 => word.clone().prop_map(|word| vec![Op::Mark(word)]),
        2 => (word.clone(), word.clone(), 0..3_u64).prop_map(|(read, written, number)| {
            vec![Op::Load(read), Op::IfSet, Op::Store(written, number)]
        }),
        2 => (word.clone(), 0..3_u64).prop_map(|(word, number)| {
            // The last word is a lock, where it is one.
            vec![Op::Lock(WORDS - 1), Op::Store(word % (WORDS - 1), number), Op::Unlock(WORDS - 1)]
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
        None => prop_oneof![4 => simple, 2 => sends, 1 => waits, 1 => masked].boxed(),
    }
}

fn ops(cpus: usize, handler: Option<usize>, most: usize) -> impl Strategy<Value = Vec<Op>> {
    proptest::collection::vec(op(cpus, handler), 0..=most).prop_map(|ops| ops.concat())
}

fn programs() -> impl Strategy<Value = Vec<Program>> {
    select(vec![2_usize, 3, 3]).prop_flat_map(|cpus| {
        let handler = |it| ops(cpus, Some(it), 2);
        let program =
            (ops(cpus, None, 3), handler(0), handler(1)).prop_map(|(task, one, other)| Program {
                task,
                handlers: [one, other],
            });
        proptest::collection::vec(program, cpus)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn searches_come_to_every_end_there_is(programs in programs()) {
        prop_assume!(hold(&programs)?);
    }
}
