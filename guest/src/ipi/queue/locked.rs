//! `fifo` and `filo`: one element per CPU, each with a lock. The patch of the thread ("generic-ipi:
//! remove kmalloc()", Peter Zijlstra, Feb 2009), inserting at the tail as first posted, or at the
//! head as merged for Linux 2.6.30 (8969a5ede0f9).
//!
//! An element is reused as soon as its last target is done, while other CPUs may still stand on it.
//!
//! **At the tail this loses calls** (Paul E. McKenney's reply). CPU 2 stands on CPU 0's element on
//! its way to CPU 1's behind it; the element is finished, taken out and queued again, now *behind*
//! CPU 1's; CPU 2 steps on, to the end of the list, and has never seen CPU 1's. Its interrupt is
//! spent.
//!
//! **At the head it cannot.** Everything that was queued before stays behind what is inserted, so
//! the `next` link of a reused element leads to all that a walker has yet to see. The walker may
//! meet an element twice, which the element's lock makes harmless: it sees either the old call,
//! with its own bit clear, or the whole new one. The price: calls run newest first, and a walk has
//! no bound, since two CPUs that call in turn can bring a third back to the front again and again.

use kit::platform::{CpuId, Platform};
use kit::probe;
use kit::sync::atomic::{Ordering, fence};
use kit::sync::irq::irqs_off;
use kit::sync::mask::{CpuMask, Targets};

use super::many_queue::ManyQueue;
use crate::ipi::csd::Call;
use crate::ipi::element::{Element, Elements};
use crate::ipi::list::End;
use crate::ipi::memory::NoMemory;
use crate::ipi::notifier::{HotplugEvent, Notifier};
use crate::machine::Machine;
use crate::oracle::Oracle;
use crate::vectors::MANY;

/// See the module's description.
#[derive(Debug)]
pub struct Locked {
    /// Where a call is inserted: the only difference between the two designs.
    end: End,
    elements: Elements,
}

impl Locked {
    /// The queue of a machine with `cpus` CPUs, with calls inserted at `end`.
    pub fn new(cpus: usize, end: End) -> Self {
        Self {
            end,
            elements: Elements::new(cpus),
        }
    }

    /// Takes `me` out of the element's targets, if it is one that has not begun.
    ///
    /// Before the function runs, not after: a second visit must find nothing to do.
    fn claim<P: Platform>(&self, machine: &Machine<P>, element: &Element, me: CpuId) -> bool {
        element.lock.with(&machine.platform, || {
            let mask = element.mask(machine);
            mask.contains(me, Ordering::Relaxed) && {
                probe!(machine.platform, "queue.claim", element.csd.call().info);
                mask.remove(me, Ordering::Relaxed)
            }
        })
    }

    /// Drops this CPU's reference. The last CPU takes the element off the list, and only then
    /// unlocks it for its owner.
    fn release<P: Platform>(&self, machine: &Machine<P>, at: usize, call: Call) {
        let element = &self.elements[at];
        probe!(machine.platform, "queue.refs", call.info);
        let last = element.lock.with(&machine.platform, || {
            let refs = element.refs.load(Ordering::Relaxed);
            if refs == 0 {
                machine.report(Oracle::BadRefs, call.info, at as u64);
                return false;
            }
            element.refs.store(refs - 1, Ordering::Relaxed);
            // Lock order everywhere: the element's, then the list's.
            if refs == 1 {
                self.elements.list.remove(machine, at, call);
            }
            refs == 1
        });
        if last {
            element.csd.unlock(machine, call);
        }
    }
}

impl<P: Platform> Notifier<P> for Locked {
    fn notify(
        &self,
        machine: &Machine<P>,
        event: HotplugEvent,
        cpu: CpuId,
    ) -> Result<(), NoMemory> {
        self.elements.notify(machine, event, cpu)
    }
}

impl<P: Platform> ManyQueue<P> for Locked {
    fn call(&self, machine: &Machine<P>, mask: &dyn Targets, call: Call, wait: bool) -> CpuMask {
        let me = machine.this_cpu();
        let element = &self.elements[me];
        element.csd.lock(machine, call);
        let targets = irqs_off(&machine.platform, || {
            element.lock.with(&machine.platform, || {
                let targets = machine.others_online(mask);
                if !Elements::is_void(machine, &targets) {
                    element.csd.carry(call);
                    element.mask(machine).store(&targets, Ordering::Relaxed);
                    probe!(machine.platform, "many.masked", call.info);
                    element.refs.store(targets.len() as u32, Ordering::Relaxed);
                    probe!(machine.platform, "many.filled", call.info);
                    self.elements.list.insert(machine, me, self.end, call);
                }
                targets
            })
        });
        if Elements::is_void(machine, &targets) {
            element.csd.unlock(machine, call);
            return targets;
        }
        // The platform orders the interrupt after the insertion.
        probe!(machine.platform, "many.ipi", call.info);
        machine.tell_all(&targets, MANY, call.info);
        if wait {
            probe!(machine.platform, "many.wait", call.info);
            element.csd.wait(machine);
        }
        targets
    }

    fn handle(&self, machine: &Machine<P>, run: &dyn Fn(Call)) -> usize {
        let me = machine.this_cpu();
        let mut served = 0;
        // What was written before the interrupt was sent must be visible after it has arrived
        // (Linux 15d0d3b33712).
        fence(Ordering::SeqCst);
        probe!(machine.platform, "queue.walk");
        for at in self.elements.list.walk(machine) {
            let element = &self.elements[at];
            probe!(machine.platform, "queue.visit", element.csd.call().info);
            if self.claim(machine, element, me) {
                let call = element.csd.call();
                probe!(machine.platform, "queue.claimed", call.info);
                probe!(machine.platform, "queue.run", call.info);
                run(call);
                self.release(machine, at, call);
                served += 1;
            }
            probe!(machine.platform, "queue.next", element.csd.call().info);
        }
        probe!(machine.platform, "queue.walked");
        served
    }

    fn read(&self, found: &mut [usize]) -> Option<usize> {
        Some(self.elements.list.read(found))
    }

    fn audit(&self, machine: &Machine<P>) {
        self.elements.audit(machine);
    }
}
