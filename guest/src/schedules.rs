//! Every queue under shuttle: the same small story in thousands of schedules, sequentially
//! consistent, chosen at random and by PCT (Burckhardt et al., ASPLOS 2010). The broken designs must
//! be caught, each by an oracle that fits what is wrong with it; the sound ones must not.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use shared::lab::Oracle;
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, MaxSteps, Runner};

use crate::ipi::csd::Call;
use crate::ipi::hotplug::Fate;
use crate::ipi::queue::QueueKind;
use crate::ipi::single::Singles;
use crate::lab::Lab;
use crate::ledger::Ledger;
use crate::machine::Machine;
use crate::platform::Vector;
use crate::sync::mask::CpuMask;
use crate::threads::Threads;

const CPUS: usize = 4;

/// Who calls whom, without waiting, by CPU. The calls go straight into the queue, where the path would
/// make a single call of one target: fewer CPUs then tell the same story.
type Story = [&'static [usize]; CPUS];

/// The cast of the 2009 mail: CPU 0 reuses its element while CPU 1's call to CPU 2 is queued.
const MAIL: Story = [&[1, 1], &[2], &[], &[]];

/// The cast of 2011: CPU 2, on its way to CPU 1's call, stands on CPU 0's element when that is filled
/// with a call to CPU 2 itself.
const STRAGGLER: Story = [&[1, 2], &[2], &[], &[]];

/// As the mail's, with a CPU 3 whose own call makes it wait for walkers in between.
const TWO_FLIPS: Story = [&[3, 3], &[2], &[], &[0]];

/// Steps after which a schedule is taken for a hang; a finished one takes a few thousand.
const MAX_STEPS: usize = 200_000;

std::thread_local! {
    static LAB: Lab = Lab::allocate(CPUS as u32).unwrap();
    static CAUGHT: RefCell<BTreeSet<u32>> = const { RefCell::new(BTreeSet::new()) };
}

/// One schedule. Panics, and leaves the oracles in `CAUGHT`, if anything was found.
fn play(queue: QueueKind, story: Story) {
    let lab = LAB.with(|lab| *lab);
    lab.clear();
    let platform = Threads::new(CPUS);
    let singles = Arc::new(Singles::new(CPUS, queue.allocates_singles()));
    let cpus = Arc::new((
        Machine::new(platform.clone(), CPUS, lab),
        queue.build(CPUS, &singles),
        Ledger::new(CPUS),
    ));
    let (walker, caller) = (cpus.clone(), cpus.clone());
    platform.run(
        move |vector| {
            let (machine, queue, ledger) = &*walker;
            machine.quiescent();
            let run = |call| {
                ledger.ran(machine, call);
            };
            match vector {
                Vector::Single => singles.handle(machine, &run),
                _ => queue.handle(machine, &run),
            };
        },
        move |cpu| {
            let (machine, queue, ledger) = &*caller;
            for target in story[cpu] {
                let mask = CpuMask::only(*target, CPUS);
                let id = ledger.open(machine, 0, &mask, false);
                let call = Call {
                    func: 0,
                    info: id.raw(),
                };
                let made = queue.call(machine, &mask, call, false);
                ledger.returned(machine, id, &made);
            }
            Fate::Stay
        },
    );
    let (machine, queue, ledger) = &*cpus;
    queue.audit(machine);
    ledger.audit(machine);
    let found: BTreeSet<u32> = lab.findings().map(|finding| finding.oracle).collect();
    if !found.is_empty() {
        CAUGHT.with_borrow_mut(|caught| *caught = found);
        panic!("an oracle fired");
    }
}

/// What a search found: nothing, or the oracles of the first bad schedule, or none for a hang.
fn search(
    queue: QueueKind,
    story: Story,
    scheduler: impl Scheduler + 'static,
) -> Option<Vec<Oracle>> {
    let mut config = Config::new();
    config.max_steps = MaxSteps::FailAfter(MAX_STEPS);
    config.failure_persistence = shuttle::FailurePersistence::None;
    CAUGHT.with_borrow_mut(BTreeSet::clear);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        Runner::new(scheduler, config).run(move || play(queue, story));
    }));
    outcome.err().map(|_| {
        CAUGHT.with_borrow(|caught| {
            let oracles = caught
                .iter()
                .map(|number| Oracle::try_from(*number).unwrap());
            oracles.collect()
        })
    })
}

/// Fixed, so that a failure can be had again.
const SEED: u64 = 0x2009_0217;

#[track_caller]
fn must_be_caught(
    queue: QueueKind,
    story: Story,
    (depth, schedules): (usize, usize),
    by: &[Oracle],
) {
    let caught = search(
        queue,
        story,
        PctScheduler::new_from_seed(SEED, depth, schedules),
    )
    .unwrap_or_else(|| panic!("{} survived {schedules} schedules", queue.name()));
    println!("{}: caught by {caught:?}", queue.name());
    assert!(
        caught.iter().any(|oracle| by.contains(oracle)),
        "{} was caught by {caught:?}, not by one of {by:?}",
        queue.name()
    );
}

#[track_caller]
fn must_survive(queue: QueueKind) {
    for story in [MAIL, STRAGGLER, TWO_FLIPS] {
        let (pct, random) = (10_000, 2_000);
        let pct = PctScheduler::new_from_seed(SEED, 3, pct);
        assert_eq!(search(queue, story, pct), None);
        let random = RandomScheduler::new_from_seed(SEED, random);
        assert_eq!(search(queue, story, random), None);
    }
}

#[test]
fn fifo_loses_a_call() {
    must_be_caught(QueueKind::Fifo, MAIL, (3, 10_000), &[Oracle::Lost]);
}

#[test]
fn lockless_miscounts() {
    let by = [Oracle::BadRefs, Oracle::BrokenQueue];
    must_be_caught(QueueKind::Lockless, STRAGGLER, (3, 100_000), &by);
}

#[test]
fn lockless_2011a_deletes_before_it_adds() {
    let by = [Oracle::BrokenQueue];
    must_be_caught(QueueKind::Lockless2011a, STRAGGLER, (3, 100_000), &by);
}

#[test]
fn filo_is_sound() {
    must_survive(QueueKind::Filo);
}

#[test]
fn counters_is_sound() {
    must_survive(QueueKind::Counters);
}

#[test]
fn shared_refs_is_sound() {
    must_survive(QueueKind::SharedRefs);
}

#[test]
fn counting_rcu_is_sound() {
    must_survive(QueueKind::CountingRcu);
}

#[test]
fn fixed_2011_is_sound() {
    must_survive(QueueKind::Fixed2011);
}

#[test]
fn llist_is_sound() {
    must_survive(QueueKind::Llist);
}
