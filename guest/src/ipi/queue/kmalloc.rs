//! `kmalloc`: an element from the heap for every call, freed after a grace period. Linux 2.6.27
//! (3d4422332711, Jens Axboe) as repaired for 2.6.27 and 2.6.28 (cc7a486cac78, c2fc11985db3): what
//! the patch of the thread removes.
//!
//! No element is queued again before every walk that could stand on it is over, so insertion at the
//! tail loses nothing, and a CPU can have any number of calls under way.
//!
//! **It is sound while there is memory.** Without memory, the element is on the caller's stack, and
//! the call is waited for whether or not that was asked; a caller that holds what the function
//! waits for then hangs. A walker for another call may still stand on the element when all its
//! targets are done, so before the caller leaves that stack frame it has CPUs take an interrupt.
//! But only the *targets* do (c2fc11985db3; in the first version all CPUs did), and the walker need
//! not be one of them: **it reads, and may run, whatever the stack holds by then.**

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64 as PlainU64, Ordering as PlainOrdering};

use kit::platform::{CpuId, Platform, Vector};
use kit::probe;
use kit::sync::atomic::{AtomicU64, Ordering, fence};
use kit::sync::irq::irqs_off;
use kit::sync::mask::{CpuMask, Targets};
use kit::sync::rcu::GracePeriod;
use kit::sync::spin::SpinLock;

use super::many_queue::ManyQueue;
use crate::ipi::csd::Call;
use crate::ipi::element::{Element, Elements};
use crate::ipi::list::{ElementList, End};
use crate::ipi::memory::{Cell, NoMemory, Pool};
use crate::ipi::notifier::{HotplugEvent, Notifier};
use crate::ipi::single::Singles;
use crate::machine::Machine;
use crate::oracle::Oracle;
use crate::vectors::MANY;

/// Elements on the heap per CPU. Few are in use at a time, but many can wait for their grace
/// period.
const HEAP_PER_CPU: usize = 16;

/// See the module's description.
#[derive(Debug)]
pub struct Kmalloc {
    heap: Pool<Element>,
    /// By CPU: the element a caller has on its stack when there is no memory.
    stacks: Box<[Cell<Element>]>,
    /// The heap's elements, then the stacks'.
    list: ElementList,
    deferred: Deferred,
    singles: Arc<Singles>,
}

impl Kmalloc {
    /// The queue of a machine with `cpus` CPUs whose calls to one CPU go through `singles`.
    pub fn new(cpus: usize, singles: Arc<Singles>) -> Self {
        let elements = HEAP_PER_CPU * cpus;
        Self {
            heap: Pool::new(elements, |_| Element::new(cpus)),
            stacks: (0..cpus)
                .map(|_| Cell::free_for(Element::new(cpus)))
                .collect(),
            list: ElementList::new(elements + cpus, cpus),
            deferred: Deferred::new(elements),
            singles,
        }
    }

    /// The memory of element `at`.
    fn cell(&self, at: usize) -> &Cell<Element> {
        match at.checked_sub(self.heap.pieces()) {
            None => self.heap.cell(at),
            Some(cpu) => &self.stacks[cpu],
        }
    }

    /// An element from the heap, or this CPU's stack; and whether it is the former.
    fn allocate<P: Platform>(&self, machine: &Machine<P>, me: CpuId) -> (usize, bool) {
        self.reclaim(machine);
        match self.heap.allocate(machine) {
            Ok(at) => (at, true),
            Err(_) => {
                self.stacks[me].revive();
                (self.heap.pieces() + me, false)
            }
        }
    }

    /// Frees elements whose grace period is over; hurries the next grace period when many wait.
    fn reclaim<P: Platform>(&self, machine: &Machine<P>) {
        while let Some(at) = self.deferred.take(machine) {
            self.heap.free(machine, at);
        }
        if self.is_half_used() {
            // An interrupt is enough: by it, CPUs that sleep or make no calls pass a quiescent
            // state (Linux `force_quiescent_state`).
            let owing = machine.rcu.owing(machine.cpus);
            let others = machine.others_online(&owing);
            machine.platform.send_ipi_mask(&others, Vector::WAKE);
        }
    }

    /// Whether more than half of the heap is in use, or waits for its grace period.
    fn is_half_used(&self) -> bool {
        self.heap.live() as usize > self.heap.pieces() / 2
    }

    /// Has each CPU of `targets` take an interrupt, one after another, before a stack frame is
    /// left: a walk is over when its CPU takes the next interrupt.
    fn quiesce<P: Platform>(&self, machine: &Machine<P>, targets: &CpuMask) {
        for target in targets.iter() {
            self.singles.call(machine, target, Call::NOTHING, true);
        }
    }

    /// Drops this CPU's reference. The last CPU takes the element off the list, unlocks it, and has
    /// the memory freed when no walker can stand on it any more.
    fn release<P: Platform>(&self, machine: &Machine<P>, at: usize, element: &Element, call: Call) {
        let me = machine.this_cpu();
        probe!(machine.platform, "queue.claim", call.info);
        let before = element.lock.with(&machine.platform, || {
            element.mask(machine).remove(me, Ordering::Relaxed);
            probe!(machine.platform, "queue.claimed", call.info);
            probe!(machine.platform, "queue.refs", call.info);
            let before = element.refs.load(Ordering::Relaxed);
            element
                .refs
                .store(before.wrapping_sub(1), Ordering::Relaxed);
            before
        });
        match before {
            0 => machine.report(Oracle::BadRefs, call.info, at as u64),
            1 => {
                self.list.remove(machine, at, call);
                let on_heap = at < self.heap.pieces();
                element.csd.unlock(machine, call);
                if on_heap {
                    self.deferred.add(machine, at);
                }
            }
            _ => {}
        }
    }
}

/// No memory comes or goes with a CPU: a call of a CPU that has left is on the heap, and is freed
/// by its last target like any other.
impl<P: Platform> Notifier<P> for Kmalloc {
    fn notify(&self, _: &Machine<P>, _: HotplugEvent, _: CpuId) -> Result<(), NoMemory> {
        Ok(())
    }
}

impl<P: Platform> ManyQueue<P> for Kmalloc {
    fn call(&self, machine: &Machine<P>, mask: &dyn Targets, call: Call, wait: bool) -> CpuMask {
        let me = machine.this_cpu();
        let targets = machine.others_online(mask);
        if Elements::is_void(machine, &targets) {
            return targets;
        }
        // The caller polls the element, so it must not be freed before the caller has seen it
        // unlocked.
        machine.rcu.read(&machine.platform, || {
            let (at, on_heap) = self.allocate(machine, me);
            let element = self.cell(at).get(machine, || call.info);
            element.csd.lock(machine, call);
            element.csd.carry(call);
            element.mask(machine).store(&targets, Ordering::Relaxed);
            probe!(machine.platform, "many.masked", call.info);
            element.refs.store(targets.len() as u32, Ordering::Relaxed);
            probe!(machine.platform, "many.filled", call.info);
            irqs_off(&machine.platform, || {
                self.list.insert(machine, at, End::Tail, call);
            });
            probe!(machine.platform, "many.ipi", call.info);
            machine.tell_all(&targets, MANY, call.info);
            if wait || !on_heap {
                probe!(machine.platform, "many.wait", call.info);
                element.csd.wait(machine);
            }
            if !on_heap {
                probe!(machine.platform, "many.quiesce", call.info);
                self.quiesce(machine, &targets);
                self.stacks[me].free(machine);
                probe!(machine.platform, "many.left", call.info);
            }
        });
        targets
    }

    fn handle(&self, machine: &Machine<P>, run: &dyn Fn(Call)) -> usize {
        let me = machine.this_cpu();
        let mut served = 0;
        fence(Ordering::SeqCst);
        probe!(machine.platform, "queue.walk");
        for at in self.list.walk(machine) {
            let cell = self.cell(at);
            probe!(machine.platform, "queue.visit", cell.peek().csd.call().info);
            let element = cell.get(machine, || 0);
            // Without the lock: only this CPU clears its bit, and no element is filled while
            // another CPU can stand on it. So the design says; of elements on a stack it is not
            // true.
            if element.mask(machine).contains(me, Ordering::Relaxed) {
                let call = element.csd.call();
                probe!(machine.platform, "queue.run", call.info);
                run(call);
                self.release(machine, at, element, call);
                served += 1;
            }
            probe!(machine.platform, "queue.next", cell.peek().csd.call().info);
            // The `next` link is in the element's memory too.
            cell.get(machine, || 0);
        }
        probe!(machine.platform, "queue.walked");
        served
    }

    fn read(&self, found: &mut [usize]) -> Option<usize> {
        Some(self.list.read(found))
    }

    fn is_short_of_memory(&self) -> bool {
        self.is_half_used()
    }

    fn audit(&self, machine: &Machine<P>) {
        self.list.audit(machine);
        // What is still allocated either waits for its grace period or has leaked.
        let leaked = self.heap.live() - self.deferred.len(machine);
        if leaked != 0 {
            machine.report(Oracle::Leak, 0, leaked);
        }
        for (cpu, stack) in self.stacks.iter().enumerate() {
            if stack.is_live() {
                machine.report(Oracle::LeftLocked, 0, cpu as u64);
            }
        }
    }
}

/// Elements in the order in which their grace periods end (`call_rcu`). The kernel has such a list
/// per CPU; there are few enough of them here for one.
#[derive(Debug)]
#[repr(C, align(64))]
struct Deferred {
    lock: SpinLock,
    /// A ring with room for every element: where it is, and the grace period it waits for.
    entries: Box<[(PlainU64, PlainU64)]>,
    /// Entries ever taken.
    taken: AtomicU64,
    /// Entries ever added.
    added: AtomicU64,
}

impl Deferred {
    fn new(elements: usize) -> Self {
        Self {
            lock: SpinLock::new(),
            entries: (0..elements).map(|_| Default::default()).collect(),
            taken: AtomicU64::new(0),
            added: AtomicU64::new(0),
        }
    }

    /// Adds `at`, which is off the list, to wait for a grace period that begins after now.
    fn add<P: Platform>(&self, machine: &Machine<P>, at: usize) {
        let platform = &machine.platform;
        irqs_off(platform, || {
            self.lock.with(platform, || {
                let period = machine.rcu.grace_period(platform, || machine.online());
                let added = self.added.load(Ordering::Relaxed);
                let (element, ends) = &self.entries[added as usize % self.entries.len()];
                element.store(at as u64, PlainOrdering::Relaxed);
                ends.store(period.number(), PlainOrdering::Relaxed);
                self.added.store(added + 1, Ordering::Relaxed);
            });
        });
    }

    /// The first element, if its grace period is over.
    fn take<P: Platform>(&self, machine: &Machine<P>) -> Option<usize> {
        let platform = &machine.platform;
        irqs_off(platform, || {
            self.lock.with(platform, || {
                let taken = self.taken.load(Ordering::Relaxed);
                if taken == self.added.load(Ordering::Relaxed) {
                    return None;
                }
                let (element, ends) = &self.entries[taken as usize % self.entries.len()];
                let period = GracePeriod::from_number(ends.load(PlainOrdering::Relaxed));
                machine.rcu.is_over(period).then(|| {
                    self.taken.store(taken + 1, Ordering::Relaxed);
                    element.load(PlainOrdering::Relaxed) as usize
                })
            })
        })
    }

    /// Number of elements that wait.
    fn len<P: Platform>(&self, machine: &Machine<P>) -> u64 {
        irqs_off(&machine.platform, || {
            self.lock.with(&machine.platform, || {
                let added = self.added.load(Ordering::Relaxed);
                added - self.taken.load(Ordering::Relaxed)
            })
        })
    }
}
