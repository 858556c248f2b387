//! Every queue under shuttle: the same few calls in thousands of schedules, sequentially
//! consistent, chosen with stalls, at random, and by PCT (Burckhardt et al., ASPLOS 2010). In each
//! broken design an oracle must fire that fits what is wrong with it; in the sound ones none may.

use std::sync::Arc;

use kit::lab::Lab;
use kit::specimen::{Part, Specimen};
use kit::sync::mask::CpuMask;
use kit::threads::{self, Threads};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};

use super::search::{Stalls, judge, search};
use crate::Guest;
use crate::ipi::csd::Call;
use crate::ipi::queue::QueueKind;
use crate::ipi::single::Singles;
use crate::ledger::Ledger;
use crate::machine::Machine;
use crate::options::{Options, Workload};
use crate::oracle::Oracle;
use crate::rules::FailRate;
use crate::vectors::SINGLE;
use crate::workload::round::{By, Receiver, Round, To};

const CPUS: usize = 4;

/// By CPU: the targets of its calls, which it does not wait for. The calls go straight into the
/// queue, where the path would turn one with a single target into a call to one CPU. So fewer CPUs
/// suffice.
type Calls = [&'static [usize]; CPUS];

/// The calls of the 2009 mail: CPU 0 reuses its element while CPU 1's call to CPU 2 is queued.
const MAIL: Calls = [&[1, 1], &[2], &[], &[]];

/// The calls of 2011: CPU 2, on its way to CPU 1's call, stands on CPU 0's element when that is
/// filled with a call to CPU 2 itself.
const STRAGGLER: Calls = [&[1, 2], &[2], &[], &[]];

/// What is run in many schedules.
#[derive(Clone, Copy, Debug)]
struct Trial {
    queue: QueueKind,
    calls: Calls,
    /// Whether every request for memory is refused.
    out_of_memory: bool,
}

impl Trial {
    const fn new(queue: QueueKind, calls: Calls) -> Self {
        Self {
            queue,
            calls,
            out_of_memory: false,
        }
    }
}

/// As in the mail, with a CPU 3 whose own call waits for walkers in between.
const TWO_FLIPS: Calls = [&[3, 3], &[2], &[], &[0]];

std::thread_local! {
    static LAB: Lab = Lab::allocate(CPUS as u32).unwrap();
}

/// Runs one schedule.
fn run(
    Trial {
        queue,
        calls,
        out_of_memory,
    }: Trial,
) {
    let lab = LAB.with(|lab| *lab);
    lab.clear();
    let platform = Threads::new(CPUS);
    let mut machine = Machine::new(platform.clone(), CPUS, lab);
    let all = FailRate { refused: 1, of: 1 };
    machine.rules.alloc_fail = out_of_memory.then_some(all);
    let singles = Arc::new(Singles::new(CPUS, queue.allocates_singles()));
    let cpus = Arc::new((machine, queue.build(CPUS, &singles), Ledger::new(CPUS)));
    let (walker, caller) = (cpus.clone(), cpus.clone());
    platform.run(
        move |vector| {
            let (machine, queue, ledger) = &*walker;
            machine.quiescent();
            let run = |call| {
                ledger.ran(machine, call);
            };
            match vector {
                SINGLE => singles.handle(machine, &run),
                _ => queue.handle(machine, &run),
            };
        },
        move |cpu| {
            let (machine, queue, ledger) = &*caller;
            for target in calls[cpu] {
                let mask = CpuMask::only(*target, CPUS);
                let id = ledger.open(machine, 0, &mask, false);
                let call = Call {
                    func: 0,
                    info: id.raw(),
                };
                let made = queue.call(machine, &mask, call, false);
                ledger.returned(machine, id, &made);
            }
            Part::Done
        },
    );
    let (machine, queue, ledger) = &*cpus;
    queue.audit(machine);
    ledger.audit(machine);
    judge(lab);
}

/// Runs one schedule of a bench of calls to all others, which judges while they are idle.
fn measure(queue: QueueKind) {
    let lab = LAB.with(|lab| *lab);
    lab.clear();
    let options = Options {
        workload: Workload::Bench,
        calls: Some(2),
        queue,
        round: Round {
            to: To::All,
            by: By::Call,
            receiver: Receiver::Halted,
        },
        ..Options::default()
    };
    let platform = Threads::new(CPUS);
    let guest = Arc::new(Guest::new(platform.clone(), &options, lab));
    threads::run(&platform, &guest);
    judge(lab);
}

/// Fixed, so that a failure can be reproduced.
const SEED: u64 = 0x2009_0217;

#[track_caller]
fn must_be_caught(
    what: &str,
    program: impl Fn() + Send + Sync + 'static,
    schedules: usize,
    by: &[Oracle],
) {
    let searched = search(Stalls::new(SEED, schedules), None, program);
    let caught = searched
        .broke
        .unwrap_or_else(|| panic!("{what} survived {schedules} schedules"));
    println!(
        "{what}: caught by {caught:?} in schedule {}",
        searched.schedules
    );
    assert!(
        caught.iter().any(|oracle| by.contains(oracle)),
        "{what} was caught by {caught:?}, not by one of {by:?}"
    );
}

#[track_caller]
fn survives(scheduler: impl Scheduler + 'static, program: impl Fn() + Send + Sync + 'static) {
    assert_eq!(search(scheduler, None, program).broke, None);
}

#[track_caller]
fn must_survive(program: impl Fn() + Copy + Send + Sync + 'static) {
    let percent: usize = std::env::var("SCHEDULES").map_or(100, |percent| {
        percent.parse().expect("SCHEDULES is a number of per cent")
    });
    let [stalls, pct, random] = [20_000, 5_000, 1_000].map(|all| all * percent / 100);
    survives(Stalls::new(SEED, stalls), program);
    survives(PctScheduler::new_from_seed(SEED, 3, pct), program);
    survives(RandomScheduler::new_from_seed(SEED, random), program);
}

#[track_caller]
fn queue_must_survive(queue: QueueKind) {
    for calls in [MAIL, STRAGGLER, TWO_FLIPS] {
        must_survive(move || run(Trial::new(queue, calls)));
    }
}

#[test]
fn fifo_loses_a_call() {
    let fifo = || run(Trial::new(QueueKind::Fifo, MAIL));
    must_be_caught("fifo", fifo, 1_000_000, &[Oracle::Lost]);
}

#[test]
fn lockless_miscounts() {
    let by = [Oracle::BadRefs, Oracle::BrokenQueue];
    let lockless = || run(Trial::new(QueueKind::Lockless, STRAGGLER));
    must_be_caught("lockless", lockless, 1_000_000, &by);
}

#[test]
fn lockless_2011a_deletes_before_it_adds() {
    let by = [Oracle::BrokenQueue];
    let lockless = || run(Trial::new(QueueKind::Lockless2011a, STRAGGLER));
    must_be_caught("lockless-2011a", lockless, 1_000_000, &by);
}

#[test]
fn shared_refs_naive_reuses_too_soon() {
    let naive = || run(Trial::new(QueueKind::SharedRefsNaive, TWO_FLIPS));
    let by = [Oracle::ReusedTooSoon];
    must_be_caught("shared-refs-naive", naive, 1_000_000, &by);
}

#[test]
fn kmalloc_is_sound_while_there_is_memory() {
    queue_must_survive(QueueKind::Kmalloc);
}

#[test]
fn kmalloc_without_memory_leaves_a_stack_too_soon() {
    let stacks = || {
        run(Trial {
            out_of_memory: true,
            ..Trial::new(QueueKind::Kmalloc, MAIL)
        });
    };
    must_be_caught("kmalloc", stacks, 1_000_000, &[Oracle::UseAfterFree]);
}

#[test]
fn filo_is_sound() {
    queue_must_survive(QueueKind::Filo);
}

#[test]
fn counters_is_sound() {
    queue_must_survive(QueueKind::Counters);
}

#[test]
fn shared_refs_is_sound() {
    queue_must_survive(QueueKind::SharedRefs);
}

#[test]
fn counting_rcu_is_sound() {
    queue_must_survive(QueueKind::CountingRcu);
}

#[test]
fn fixed_2011_is_sound() {
    queue_must_survive(QueueKind::Fixed2011);
}

#[test]
fn llist_is_sound() {
    queue_must_survive(QueueKind::Llist);
}

#[test]
fn a_measurement_judges_when_the_last_handler_is_through() {
    survives(Stalls::new(SEED, 5_000), || measure(QueueKind::Kmalloc));
}

#[test]
fn who_waits_for_grace_periods_sees_them_end() {
    let wait = || {
        let lab = LAB.with(|lab| *lab);
        lab.clear();
        let platform = Threads::new(CPUS);
        let machine = Arc::new(Machine::new(platform.clone(), CPUS, lab));
        let handler = machine.clone();
        platform.run(
            move |_| handler.quiescent(),
            move |cpu| {
                if cpu == 0 {
                    // One grace period is under way when it begins to wait, and another has to
                    // follow.
                    (machine.rcu).grace_period(&machine.platform, || machine.online());
                    machine.synchronize();
                }
                Part::Done
            },
        );
    };
    survives(Stalls::new(SEED, 5_000), wait);
}
