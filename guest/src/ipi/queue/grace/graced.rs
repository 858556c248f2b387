//! The queue that all designs with a grace period have in common: the owner of an element waits
//! until every walk that could stand on it has ended, and then fills it.

use kit::platform::{CpuId, Platform};
use kit::probe;
use kit::sync::atomic::Ordering;
use kit::sync::irq::irqs_off;
use kit::sync::mask::{CpuMask, Targets};

use super::walks::Grace;
use crate::ipi::csd::Call;
use crate::ipi::element::Elements;
use crate::ipi::list::End;
use crate::ipi::memory::NoMemory;
use crate::ipi::notifier::{HotplugEvent, Notifier};
use crate::ipi::queue::many_queue::ManyQueue;
use crate::machine::Machine;
use crate::oracle::Oracle;
use crate::vectors::MANY;

/// Calls to many, inserted at the tail, with elements that are reused only after every walk.
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
    fn notify(
        &self,
        machine: &Machine<P>,
        event: HotplugEvent,
        cpu: CpuId,
    ) -> Result<(), NoMemory> {
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
        let entry = self.grace.enter(machine);
        probe!(machine.platform, "queue.walk");
        for at in self.elements.list.walk(machine) {
            let element = &self.elements[at];
            probe!(machine.platform, "queue.visit", element.csd.call().info);
            // Only this CPU clears its bit, and only the owner sets it, when no CPU stands here.
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
