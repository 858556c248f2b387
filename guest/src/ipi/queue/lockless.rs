//! `lockless`, `lockless-2011a` and `fixed-2011`: the element without its lock. Linux 2.6.32
//! (54fdade1c333, Xiao Guangrong) to 3.8, in three stages of repair.
//!
//! The lock went because "after `csd_lock` returns, the element is off the list, so nobody races".
//! But a CPU may *stand* on it, late, while its owner fills it for the next call:
//!
//! * `lockless` (2.6.32): **broken.** The straggler finds its bit in the new mask, runs the new
//!   call before it is queued, and takes a reference from a count that is not yet there. The count
//!   falls below zero; or stays above it for ever; or reaches zero while another target has not
//!   run, which ends a waiting call early and loses it there; or the element is deleted before it
//!   is added.
//! * `lockless-2011a` (6dc19899958e, Anton Blanchard, 2.6.38): **broken.** A walker skips an
//!   element without references, which saves all but the last: the references are set *before* the
//!   element is queued, so that it can still be deleted before it is added.
//! * `fixed-2011` (e6cd1e07a185 and 45a5791920ae, Milton Miller, 723aae25d5cd, Mike Galbraith;
//!   2.6.39): the references are set under the list's lock, after the insertion. An element that
//!   has any is on the list. Correct; like `filo`, newest first and without a bound on walks.

use kit::platform::{CpuId, Platform};
use kit::probe;
use kit::sync::atomic::{Ordering, fence};
use kit::sync::irq::irqs_off;
use kit::sync::mask::{CpuMask, Targets};

use super::many_queue::ManyQueue;
use crate::ipi::csd::Call;
use crate::ipi::element::Elements;
use crate::ipi::list::End;
use crate::ipi::memory::NoMemory;
use crate::ipi::notifier::{HotplugEvent, Notifier};
use crate::machine::Machine;
use crate::oracle::Oracle;
use crate::vectors::MANY;

/// The stages of the design.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Linux 2.6.32.
    AsOf2009,
    /// Linux 2.6.38.
    FirstRepair,
    /// Linux 2.6.39.
    Fixed,
}

/// See the module's description.
#[derive(Debug)]
pub struct Lockless {
    stage: Stage,
    elements: Elements,
}

impl Lockless {
    /// The queue of a machine with `cpus` CPUs, as it was at `stage`.
    pub fn new(cpus: usize, stage: Stage) -> Self {
        Self {
            stage,
            elements: Elements::new(cpus),
        }
    }

    /// Fills and queues this CPU's element, by the rules of the stage.
    pub(crate) fn publish<P: Platform>(&self, machine: &Machine<P>, targets: &CpuMask, call: Call) {
        let me = machine.this_cpu();
        let element = &self.elements[me];
        let mask = element.mask(machine);
        let insert = |then: &dyn Fn()| {
            irqs_off(&machine.platform, || {
                self.elements
                    .list
                    .insert_then(machine, me, End::Head, call, then);
            });
        };
        let set_refs = |refs: usize| element.refs.store(refs as u32, Ordering::Relaxed);
        match self.stage {
            Stage::AsOf2009 => {
                element.csd.carry(call);
                mask.store(targets, Ordering::Relaxed);
                probe!(machine.platform, "many.masked", call.info);
                // The mask is read back, as it was there: a straggler may have removed itself
                // already.
                let weight = mask.load(machine.cpus).len();
                probe!(machine.platform, "many.weighed", call.info);
                set_refs(weight);
                probe!(machine.platform, "many.filled", call.info);
                insert(&|| {});
            }
            Stage::FirstRepair => {
                element.csd.carry(call);
                mask.store(targets, Ordering::Relaxed);
                probe!(machine.platform, "many.masked", call.info);
                fence(Ordering::Release);
                let weight = targets.len();
                probe!(machine.platform, "many.weighed", call.info);
                set_refs(weight);
                probe!(machine.platform, "many.filled", call.info);
                insert(&|| {});
            }
            Stage::Fixed => {
                // The zero was written by another CPU. Written again by the owner, it is ordered
                // before the mask for all CPUs (45a5791920ae).
                set_refs(0);
                element.csd.carry(call);
                fence(Ordering::Release);
                mask.store(targets, Ordering::Relaxed);
                probe!(machine.platform, "many.masked", call.info);
                let weight = targets.len();
                probe!(machine.platform, "many.weighed", call.info);
                insert(&|| set_refs(weight));
            }
        }
    }

    /// The call for `me` on the element of `owner`, if there is one; from the first repair on, only
    /// if it has references.
    pub(crate) fn call_for<P: Platform>(
        &self,
        machine: &Machine<P>,
        me: CpuId,
        owner: CpuId,
    ) -> Option<Call> {
        let element = &self.elements[owner];
        let is_for_me = element.mask(machine).contains(me, Ordering::Acquire)
            && (self.stage == Stage::AsOf2009 || element.refs.load(Ordering::Acquire) != 0);
        is_for_me.then(|| element.csd.call())
    }

    /// Drops this CPU's reference; the last CPU takes the element off the list.
    fn release<P: Platform>(&self, machine: &Machine<P>, at: usize, call: Call) {
        let element = &self.elements[at];
        probe!(machine.platform, "queue.refs", call.info);
        let before = element.refs.fetch_sub(1, Ordering::AcqRel);
        if before == 0 {
            machine.report(Oracle::BadRefs, call.info, at as u64);
        }
        if before == 1 {
            self.elements.list.remove(machine, at, call);
            element.csd.unlock(machine, call);
        }
    }
}

impl<P: Platform> Notifier<P> for Lockless {
    fn notify(
        &self,
        machine: &Machine<P>,
        event: HotplugEvent,
        cpu: CpuId,
    ) -> Result<(), NoMemory> {
        self.elements.notify(machine, event, cpu)
    }
}

impl<P: Platform> ManyQueue<P> for Lockless {
    fn call(&self, machine: &Machine<P>, mask: &dyn Targets, call: Call, wait: bool) -> CpuMask {
        let element = &self.elements[machine.this_cpu()];
        element.csd.lock(machine, call);
        let targets = machine.others_online(mask);
        if Elements::is_void(machine, &targets) {
            element.csd.unlock(machine, call);
            return targets;
        }
        self.publish(machine, &targets, call);
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
        fence(Ordering::SeqCst);
        probe!(machine.platform, "queue.walk");
        for at in self.elements.list.walk(machine) {
            let element = &self.elements[at];
            probe!(machine.platform, "queue.visit", element.csd.call().info);
            if let Some(call) = self.call_for(machine, me, at) {
                // At first the bit was cleared before the function ran, later after it, to touch
                // the element once less (225c8e010f2d); the function keeps interrupts off, so there
                // is no second visit in between.
                let claim = || {
                    probe!(machine.platform, "queue.claim", call.info);
                    let was_in = element.mask(machine).remove(me, Ordering::AcqRel);
                    probe!(machine.platform, "queue.claimed", call.info);
                    was_in
                };
                let run = || {
                    probe!(machine.platform, "queue.run", call.info);
                    run(call);
                };
                let mine = if self.stage == Stage::AsOf2009 {
                    claim().then(run).is_some()
                } else {
                    run();
                    claim()
                };
                if mine {
                    self.release(machine, at, call);
                    served += 1;
                }
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
