//! The memory orderings of the path under loom, which runs every execution that C11's memory model
//! allows, far more than x86 does. Each test is a few accesses of the real code, since loom tries
//! all executions.
//!
//! Two of the designs' mistakes show only here. On x86 no store passes an earlier store and no load
//! an earlier load (SDM Vol. 3A 9.2.2), so there only a compiler barrier is missing in them. What
//! x86 does reorder, a store and a later load from another address, is the mistake of
//! `counters-nofence`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use kit::lab::Lab;
use kit::platform::{CpuId, Doorbell, NotStarted, Platform, Point, Vector};
use kit::sync::atomic::{AtomicU32, Ordering, fence};
use kit::sync::mask::CpuMask;
use loom::sync::Arc;
use loom::thread;

use crate::ipi::csd::{Call, CallSingleData};
use crate::ipi::list::{ElementList, End};
use crate::ipi::queue::grace::{Counters, Grace};
use crate::ipi::queue::lockless::{Lockless, Stage};
use crate::machine::Machine;

/// A machine whose CPUs are loom's threads. They send no interrupts: a test calls the handlers
/// itself.
#[derive(Debug)]
struct Model;

loom::thread_local! {
    static THIS_CPU: std::cell::Cell<CpuId> = std::cell::Cell::new(0);
}

impl Platform for Model {
    fn this_cpu(&self) -> CpuId {
        THIS_CPU.with(std::cell::Cell::get)
    }
    fn send_ipi(&self, _: CpuId, _: Vector) -> u64 {
        0
    }
    fn send_ipi_mask(&self, _: &CpuMask, _: Vector) -> u64 {
        0
    }
    fn irqs_enabled(&self) -> bool {
        true
    }
    fn irqs_disable(&self) {}
    fn irqs_enable(&self) {}
    fn relax(&self) {
        thread::yield_now();
    }
    fn ring(&self, _: Doorbell) {}
    fn reached(&self, _: &'static Point, _: u64, _: u64) {}
    fn idle_unless(&self, _: &dyn Fn() -> bool) {}
    fn start_cpu(&self, _: CpuId) -> Result<(), NotStarted> {
        Err(NotStarted)
    }
    fn timestamp(&self) -> u64 {
        0
    }
    fn cycles_per_second(&self) -> u64 {
        1
    }
}

const CPUS: usize = 2;
const OLD: Call = Call { func: 0, info: 0 };
const NEW: Call = Call { func: 1, info: 1 };

std::thread_local! {
    static LAB: Lab = Lab::allocate(CPUS as u32).unwrap();
}

fn machine() -> Machine<Model> {
    Machine::new(Model, CPUS, LAB.with(|lab| *lab))
}

/// Runs `first` on CPU 0 and `second` on CPU 1, in every execution, on what `make` returns.
fn model<T: Send + Sync + 'static>(
    make: impl Fn() -> T + Send + Sync + 'static,
    first: impl Fn(&T) + Copy + Send + Sync + 'static,
    second: impl Fn(&T) + Copy + Send + Sync + 'static,
) {
    loom::model(move || {
        let shared = Arc::new(make());
        let other = shared.clone();
        let second = thread::spawn(move || {
            THIS_CPU.with(|cpu| cpu.set(1));
            second(&other);
        });
        first(&shared);
        second.join().unwrap();
    });
}

/// Whether some execution of `test` panics.
fn fails(test: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(test)).is_err()
}

/// The question of the thread: a CPU that sees the payload of the next call must see the descriptor
/// locked.
fn lock_and_fill(barrier: bool) {
    model(
        move || {
            let mut machine = machine();
            machine.rules.csd_barrier = barrier;
            (machine, CallSingleData::new())
        },
        |(machine, csd)| {
            csd.lock(machine, NEW);
            csd.carry(NEW);
        },
        |(_, csd)| {
            if csd.call().info == NEW.info {
                fence(Ordering::Acquire);
                assert!(csd.is_locked());
            }
        },
    );
}

#[test]
fn a_locked_descriptor_is_seen_locked() {
    lock_and_fill(true);
}

#[test]
fn without_the_barrier_it_can_look_free() {
    assert!(fails(|| lock_and_fill(false)));
}

#[test]
fn who_waited_sees_what_the_function_did() {
    model(
        || {
            let (machine, csd) = (machine(), CallSingleData::new());
            csd.lock(&machine, OLD);
            (machine, csd, AtomicU32::new(0))
        },
        |(machine, csd, effect)| {
            csd.wait(machine);
            assert_eq!(effect.load(Ordering::Relaxed), 1);
        },
        |(machine, csd, effect)| {
            effect.store(1, Ordering::Relaxed);
            csd.unlock(machine, OLD);
        },
    );
}

#[test]
fn who_finds_an_element_on_the_list_finds_it_complete() {
    for end in [End::Head, End::Tail] {
        model(
            || (machine(), ElementList::new(1, CPUS), CallSingleData::new()),
            move |(machine, list, csd)| {
                csd.carry(NEW);
                list.insert(machine, 0, end, NEW);
            },
            |(machine, list, csd)| {
                if list.walk(machine).next().is_some() {
                    assert_eq!(csd.call(), NEW);
                }
            },
        );
    }
}

#[test]
fn who_stands_on_an_element_that_is_taken_out_finds_the_next() {
    model(
        || {
            let (machine, list) = (machine(), ElementList::new(2, CPUS));
            list.insert(&machine, 0, End::Tail, OLD);
            list.insert(&machine, 1, End::Tail, OLD);
            (machine, list)
        },
        |(machine, list)| list.remove(machine, 0, OLD),
        |(machine, list)| assert_eq!(list.walk(machine).last(), Some(1)),
    );
}

/// A straggler stands on an element while its owner fills it, without a lock, with a call to the
/// straggler. If that takes the element to be for itself, it must find the new call there.
fn fill_under_a_straggler(stage: Stage) {
    model(
        move || (machine(), Lockless::new(CPUS, stage)),
        |(machine, queue)| queue.publish(machine, &CpuMask::only(1, CPUS), NEW),
        |(machine, queue)| {
            if let Some(call) = queue.call_for(machine, 1, 0) {
                assert_eq!(call, NEW);
            }
        },
    );
}

#[test]
fn references_and_mask_are_seen_after_the_call() {
    fill_under_a_straggler(Stage::FirstRepair);
    fill_under_a_straggler(Stage::Fixed);
}

#[test]
fn in_2009_a_straggler_could_run_the_wrong_function() {
    assert!(fails(|| fill_under_a_straggler(Stage::AsOf2009)));
}

/// The walker announces itself and reads the list. The owner takes its element off the list and
/// reads the announcements. One must see the other: x86 needs this fence as well.
fn announce_and_look(fence_on_entry: bool) {
    model(
        move || {
            let (machine, list) = (machine(), ElementList::new(1, CPUS));
            list.insert(&machine, 0, End::Tail, OLD);
            let inside = AtomicU32::new(0);
            (machine, list, Counters::new(CPUS, fence_on_entry), inside)
        },
        |(machine, list, counters, inside)| {
            list.remove(machine, 0, OLD);
            counters.wait(machine);
            assert_eq!(
                inside.load(Ordering::Relaxed),
                0,
                "a walker is on the element"
            );
        },
        |(machine, list, counters, inside)| {
            let entry = counters.enter(machine);
            if list.walk(machine).next().is_some() {
                inside.store(1, Ordering::Relaxed);
                inside.store(0, Ordering::Relaxed);
            }
            counters.exit(machine, entry);
        },
    );
}

#[test]
fn an_announced_walker_is_waited_for() {
    announce_and_look(true);
}

#[test]
fn without_the_fence_it_can_be_overlooked() {
    assert!(fails(|| announce_and_look(false)));
}
