//! Tail insertion made safe: an element is reused only after every walk that could stand on it has
//! ended. The alternatives Paul E. McKenney and Peter Zijlstra sketched in the thread, completed;
//! they differ in how walks are counted ([`Grace`]).
//!
//! With that rule nobody ever stands on an element that is being filled, so elements need no lock,
//! calls run in order, and a walk meets each element twice at most.
//!
//! The owner waits, before it fills its element, with interrupts on and no lock held. It cannot be
//! the last target that waits: it is inside a walk itself, and two of them would wait for each
//! other.

mod counters;
mod counting_rcu;
mod shared_refs;

pub use counters::Counters;
pub use counting_rcu::CountingRcu;
pub use shared_refs::SharedRefs;

use core::fmt;

use kit::platform::{CpuId, Platform};
use kit::probe;
use kit::sync::atomic::{Ordering, fence};
use kit::sync::irq::irqs_off;
use kit::sync::mask::{CpuMask, Targets};

use super::ManyQueue;
use crate::ipi::csd::Call;
use crate::ipi::element::Elements;
use crate::ipi::hotplug::{Event, Notifier};
use crate::ipi::list::End;
use crate::ipi::memory::NoMemory;
use crate::machine::Machine;
use crate::oracle::Oracle;
use crate::vectors::MANY;

/// A way to know that every walk that had begun is over.
pub trait Grace<P: Platform>: fmt::Debug + Send + Sync {
    /// What [`Grace::exit`] must know of the entry.
    type Entry;

    /// This CPU begins a walk. What it does next is ordered behind this.
    fn enter(&self, machine: &Machine<P>) -> Self::Entry;

    /// This CPU ends its walk.
    fn exit(&self, machine: &Machine<P>, entry: Self::Entry);

    /// Waits until every walk that had begun when this was called has ended. Interrupts are on, and
    /// this CPU is not inside a walk.
    fn wait(&self, machine: &Machine<P>);

    /// Reports what must not be when nobody walks.
    fn audit(&self, machine: &Machine<P>);
}

/// Calls to many, inserted at the tail, with elements that outlive every walk.
#[derive(Debug)]
pub struct Graced<G> {
    grace: G,
    elements: Elements,
}

impl<G> Graced<G> {
    /// The queue of a machine with `cpus` CPUs.
    pub fn new(cpus: usize, grace: G) -> Self {
        Self {
            grace,
            elements: Elements::new(cpus),
        }
    }
}

impl<P: Platform, G: Grace<P>> Notifier<P> for Graced<G> {
    fn notify(&self, machine: &Machine<P>, event: Event, cpu: CpuId) -> Result<(), NoMemory> {
        self.elements.notify(machine, event, cpu)
    }
}

impl<P: Platform, G: Grace<P>> ManyQueue<P> for Graced<G> {
    fn call(&self, machine: &Machine<P>, mask: &dyn Targets, call: Call, wait: bool) -> CpuMask {
        let me = machine.this_cpu();
        let element = &self.elements[me];
        element.csd.lock(machine, call);
        // It left the list before it was unlocked, so a walk that begins from here on cannot come
        // across it; wait out those that have begun.
        probe!(machine.platform, "grace.wait", call.info);
        self.grace.wait(machine);
        probe!(machine.platform, "grace.over", call.info);
        if let Some(walker) = self.elements.list.walker_on(me) {
            machine.report(Oracle::ReusedTooSoon, call.info, walker as u64);
        }

        let targets = machine.others_online(mask);
        if Elements::is_void(machine, &targets) {
            element.csd.unlock(machine, call);
            return targets;
        }
        element.csd.carry(call);
        element.mask(machine).store(&targets, Ordering::Relaxed);
        probe!(machine.platform, "many.masked", call.info);
        element.refs.store(targets.len() as u32, Ordering::Relaxed);
        probe!(machine.platform, "many.filled", call.info);
        irqs_off(&machine.platform, || {
            self.elements.list.insert(machine, me, End::Tail, call);
        });
        probe!(machine.platform, "many.ipi", call.info);
        machine.tell_all(&targets, MANY);
        if wait {
            probe!(machine.platform, "many.wait", call.info);
            element.csd.wait(machine);
        }
        targets
    }

    fn handle(&self, machine: &Machine<P>, run: &dyn Fn(Call)) -> usize {
        let me = machine.this_cpu();
        let mut served = 0;
        let entry = self.grace.enter(machine);
        probe!(machine.platform, "queue.walk");
        for at in self.elements.list.walk(machine) {
            let element = &self.elements[at];
            probe!(machine.platform, "queue.visit", element.csd.call().info);
            // Only this CPU clears its bit, and only the owner sets it, when nobody stands here.
            let mask = element.mask(machine);
            let is_mine = mask.contains(me, Ordering::Relaxed) && {
                probe!(machine.platform, "queue.claim", element.csd.call().info);
                mask.remove(me, Ordering::Relaxed)
            };
            if is_mine {
                let call = element.csd.call();
                probe!(machine.platform, "queue.claimed", call.info);
                probe!(machine.platform, "queue.run", call.info);
                run(call);
                probe!(machine.platform, "queue.refs", call.info);
                // AcqRel: the last to leave has seen what all others did, and the owner sees it
                // too.
                if element.refs.fetch_sub(1, Ordering::AcqRel) == 1 {
                    self.elements.list.remove(machine, at, call);
                    element.csd.unlock(machine, call);
                }
                served += 1;
            }
            probe!(machine.platform, "queue.next", element.csd.call().info);
        }
        probe!(machine.platform, "queue.walked");
        self.grace.exit(machine, entry);
        served
    }

    fn read(&self, found: &mut [usize]) -> Option<usize> {
        Some(self.elements.list.read(found))
    }

    fn audit(&self, machine: &Machine<P>) {
        self.grace.audit(machine);
        self.elements.audit(machine);
    }
}

/// The fence after a walk's announcement and before its first look at the list; and its twin
/// between the removal of an element and the look at the announcements. One of the two CPUs must
/// see the other (Dekker): a store and a later load of another place are what x86 does reorder.
fn announce() {
    fence(Ordering::SeqCst);
}
