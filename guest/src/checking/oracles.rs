//! That every oracle fires when its property is broken, and that the safeguards which can be left
//! out are needed. The programs here break a property without a race. The oracles of the ledger are
//! tested beside the ledger, and those that need a race in [`schedules`](super::schedules).

use std::cell::Cell as Flag;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::vec::Vec;

use kit::counters::count;
use kit::lab::Lab;
use kit::platform::Platform;
use kit::specimen::Part;
use kit::sync::mask::{AtomicCpuMask, CpuMask, Targets};
use kit::threads::{Alone, Threads};

use crate::ipi::Functions;
use crate::ipi::Ipi;
use crate::ipi::csd::Call;
use crate::ipi::element::{Element, Elements};
use crate::ipi::hotplug::HotplugError;
use crate::ipi::memory::{Cell, Pool};
use crate::ipi::notifier::HotplugEvent;
use crate::ipi::queue::QueueKind;
use crate::machine::Machine;
use crate::oracle::Oracle;
use crate::rules::{FailRate, HotplugMode};
use crate::summary::RunSummary;
use crate::workload::calls;
use crate::workload::functions::{Function, LedgerFunctions};

fn machine<P: Platform>(platform: P, cpus: usize) -> Machine<P> {
    Machine::new(platform, cpus, Lab::allocate(cpus as u32).unwrap())
}

/// The oracles that fired, in order.
fn fired(lab: Lab) -> Vec<Oracle> {
    lab.findings()
        .map(|finding| Oracle::try_from(finding.oracle).unwrap())
        .collect()
}

/// A mask that loses all its CPUs after it was first read, like that of an address space whose
/// threads exit (Linux 723aae25d5cd).
struct Shrinking(Flag<bool>);

impl Targets for Shrinking {
    fn load(&self, cpus: usize) -> CpuMask {
        if self.0.replace(true) {
            CpuMask::none(cpus)
        } else {
            CpuMask::all(cpus)
        }
    }
}

fn call_shrinking(queue: QueueKind, mask_check: bool) -> Vec<Oracle> {
    let mut machine = machine(Alone, 3);
    machine.rules.mask_check = mask_check;
    let ipi = Ipi::new(machine, queue, LedgerFunctions::new(3));
    let mask = Shrinking(Flag::new(false));
    calls::many(&ipi, &mask, &CpuMask::all(3), Function::Plain, false);
    ipi.audit();
    fired(ipi.machine.lab)
}

#[test]
fn a_call_whose_targets_have_gone_is_given_up() {
    for queue in QueueKind::ALL {
        assert_eq!(call_shrinking(queue, true), [], "{}", queue.name());
    }
}

#[test]
fn without_the_mask_check_its_element_stays_locked_and_queued() {
    let with_elements = QueueKind::ALL
        .into_iter()
        .filter(|queue| *queue != QueueKind::Llist);
    for queue in with_elements {
        let fired = call_shrinking(queue, false);
        assert!(fired.contains(&Oracle::BrokenQueue), "{}", queue.name());
        // An element from the heap belongs to no CPU, so no CPU waits for its lock.
        let left = if queue == QueueKind::Kmalloc {
            Oracle::Leak
        } else {
            Oracle::LeftLocked
        };
        assert!(fired.contains(&left), "{}: {fired:?}", queue.name());
    }
}

#[test]
fn a_waiting_call_with_interrupts_off_breaks_the_contract() {
    let platform = Threads::new(2);
    let ipi = Arc::new(Ipi::new(
        machine(platform.clone(), 2),
        QueueKind::Filo,
        LedgerFunctions::new(2),
    ));
    let (handler, caller) = (ipi.clone(), ipi.clone());
    platform.run(
        move |vector| handler.handle(vector),
        move |cpu| {
            if cpu == 0 {
                let ipi = &caller;
                ipi.machine.platform.irqs_disable();
                // It returns because the other CPU happens to have its interrupts on.
                assert_eq!(calls::single(ipi, 1, Function::Plain, true), Ok(()));
                ipi.machine.platform.irqs_enable();
            }
            Part::Done
        },
    );
    assert_eq!(fired(ipi.machine.lab), [Oracle::Contract]);
}

#[test]
fn a_function_that_runs_with_interrupts_on_is_found() {
    let ipi = Ipi::new(machine(Alone, 1), QueueKind::Filo, LedgerFunctions::new(1));
    let here = CpuMask::only(0, 1);
    let call = (ipi.functions).enter(&ipi.machine, Function::Plain, &here, false);
    ipi.functions.run(&ipi, call);
    assert_eq!(fired(ipi.machine.lab), [Oracle::InterruptsOn]);
}

#[test]
fn references_without_targets_are_found() {
    let machine = machine(Alone, 2);
    let element = Element::new(2);
    element.audit(&machine, 0);
    assert_eq!(fired(machine.lab), []);
    element
        .refs
        .fetch_add(1, kit::sync::atomic::Ordering::Relaxed);
    element.audit(&machine, 0);
    assert_eq!(fired(machine.lab), [Oracle::BadRefs]);
}

#[test]
fn calls_that_do_not_add_up_are_found() {
    let machine = machine(Alone, 1);
    count(&machine.tally().calls_expected, 1);
    let _ = RunSummary::of(machine.lab, 0);
    assert_eq!(fired(machine.lab), [Oracle::Accounting]);
}

#[test]
fn memory_is_not_used_or_freed_twice_unseen() {
    let machine = machine(Alone, 2);
    let cell = Cell::free_for(AtomicCpuMask::none(2));
    assert_eq!(cell.allocate(&machine), Ok(()));
    assert!(cell.get(&machine, || 0).is_empty());
    cell.free(&machine);
    assert_eq!(fired(machine.lab), []);
    assert!(!cell.get(&machine, || 0).is_empty(), "it holds poison");
    cell.free(&machine);
    assert_eq!(fired(machine.lab), [Oracle::UseAfterFree; 2]);
}

#[test]
fn a_pool_gives_out_what_it_has_and_no_more() {
    let machine = machine(Alone, 2);
    let pool = Pool::new(3, |_| AtomicCpuMask::none(2));
    let all: Vec<_> = (0..3).map(|_| pool.allocate(&machine).unwrap()).collect();
    assert!(pool.allocate(&machine).is_err());
    pool.free(&machine, all[1]);
    assert_eq!(pool.allocate(&machine), Ok(all[1]));
    assert_eq!((pool.live(), fired(machine.lab)), (3, Vec::new()));
}

#[test]
fn memory_is_refused_as_often_as_asked_for() {
    let mut machine = machine(Alone, 2);
    machine.rules.alloc_fail = Some(FailRate { refused: 1, of: 3 });
    let pool = Pool::new(3, |_| AtomicCpuMask::none(2));
    let granted = |_| pool.allocate(&machine).is_ok();
    // The fifth is granted, to a pool that has no more.
    assert_eq!(
        (0..5).map(granted).collect::<Vec<_>>(),
        [true, true, false, true, false]
    );
}

#[test]
fn a_mask_that_outlives_its_cpu_is_a_leak() {
    let machine = machine(Alone, 2);
    let elements = Elements::new(2);
    elements.audit(&machine);
    assert_eq!(fired(machine.lab), []);
    machine.set_online(1, false);
    elements.audit(&machine);
    assert_eq!(fired(machine.lab), [Oracle::Leak]);
    assert_eq!(elements.notify(&machine, HotplugEvent::Dead, 1), Ok(()));
    elements.audit(&machine);
    assert_eq!(fired(machine.lab), [Oracle::Leak]);
}

/// CPU 1 makes a call to CPUs 2 and 3 and is taken down before the interrupt has arrived at CPU 2,
/// which then takes part in a stop if there is one.
fn take_down_under_a_call(queue: QueueKind, mode: HotplugMode) -> Vec<Oracle> {
    let platform = Threads::new(4);
    let mut machine = machine(platform.clone(), 4);
    machine.rules.hotplug = mode;
    let ipi = Arc::new(Ipi::new(machine, queue, LedgerFunctions::new(4)));
    let [ready, called, gone] = [const { AtomicBool::new(false) }; 3];
    let (handler, cpus) = (ipi.clone(), ipi.clone());
    platform.run(
        move |vector| handler.handle(vector),
        move |cpu| {
            let ipi = &cpus;
            let wait_for = |what: &AtomicBool| {
                // Without `relax`, which would take interrupts.
                while !what.load(Ordering::Acquire) {
                    std::thread::yield_now();
                }
            };
            if cpu == 2 {
                ready.store(true, Ordering::Release);
            }
            match cpu {
                0 => {
                    wait_for(&called);
                    ipi.cpu_down(1).unwrap();
                    gone.store(true, Ordering::Release);
                    Part::Done
                }
                1 => {
                    wait_for(&ready);
                    let mut mask = CpuMask::all(4);
                    mask.remove(0);
                    calls::many(ipi, &mask, &mask, Function::Plain, false);
                    called.store(true, Ordering::Release);
                    ipi.idle_until(|| false).into()
                }
                2 if mode == HotplugMode::NoStop => {
                    wait_for(&gone);
                    Part::Done
                }
                _ => {
                    wait_for(&called);
                    ipi.idle_until(|| gone.load(Ordering::Acquire)).into()
                }
            }
        },
    );
    fired(ipi.machine.lab)
}

#[test]
fn a_cpu_that_leaves_takes_nothing_with_it() {
    for queue in QueueKind::ALL {
        for mode in [HotplugMode::Stop, HotplugMode::Keep] {
            let fired = take_down_under_a_call(queue, mode);
            assert_eq!(fired, [], "{} {}", queue.name(), mode.name());
        }
    }
}

#[test]
fn without_the_stop_its_mask_is_freed_under_those_who_read_it() {
    for queue in [QueueKind::Filo, QueueKind::Counters, QueueKind::Fixed2011] {
        let fired = take_down_under_a_call(queue, HotplugMode::NoStop);
        assert!(fired.contains(&Oracle::UseAfterFree), "{}", queue.name());
    }
}

#[test]
fn who_cannot_leave_stays() {
    let ipi = Ipi::new(machine(Alone, 2), QueueKind::Filo, LedgerFunctions::new(2));
    for cpu in [0, 2] {
        assert_eq!(ipi.cpu_down(cpu), Err(HotplugError::Invalid));
    }
    assert_eq!(ipi.cpu_up(1), Err(HotplugError::Invalid));
    assert_eq!(ipi.cpu_up(2), Err(HotplugError::Invalid));
}

#[test]
fn a_cpu_that_does_not_start_gives_its_memory_back() {
    let ipi = Ipi::new(machine(Alone, 2), QueueKind::Filo, LedgerFunctions::new(2));
    ipi.machine.set_online(1, false);
    let audit = || {
        ipi.audit();
        fired(ipi.machine.lab).len()
    };
    assert_eq!(audit(), 1, "the mask of a CPU that never left in order");
    // The mask is there already, and is freed when the CPU does not come.
    assert_eq!(ipi.cpu_up(1), Err(HotplugError::NotStarted));
    assert_eq!(audit(), 1);
}

#[test]
fn a_call_to_one_that_has_left_is_refused() {
    let ipi = Ipi::new(machine(Alone, 2), QueueKind::Filo, LedgerFunctions::new(2));
    ipi.machine.set_online(1, false);
    assert!(calls::single(&ipi, 1, Function::Plain, true).is_err());
    assert!(calls::any(&ipi, &CpuMask::only(1, 2), Function::Plain, true).is_err());
    calls::all(&ipi, Function::Plain, true);
    calls::each(&ipi, Function::Plain, true);
    let nothing = Call::NOTHING;
    assert_eq!(ipi.call_all(nothing, true), CpuMask::none(2));
    ipi.functions.settle(&ipi.machine);
    ipi.functions.audit(&ipi.machine);
    assert!(!fired(ipi.machine.lab).contains(&Oracle::Lost));
}
