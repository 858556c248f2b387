//! `llist`: a descriptor for every pair of CPUs, and a lock-free list per target. Linux 3.9
//! (9a46ad6d6df3, Shaohua Li, 2013) with the lock-free list of 3.13 and the early unlock of 4.0:
//! the design of today.
//!
//! No CPU ever walks past another's calls, so no CPU can stand on an element that is reused, and
//! there are no references and no shared masks. The price is a descriptor per pair, which is kept
//! while its CPU is offline, as Linux has done since 2020.
//!
//! Only the push that finds a list empty sends an interrupt. A call that is not waited for unlocks
//! its descriptor *before* it runs: unlocked then means reusable, and no longer done.

use alloc::boxed::Box;

use kit::platform::{CpuId, Platform};
use kit::probe;
use kit::sync::atomic::{AtomicU32, Ordering};
use kit::sync::mask::{CpuMask, Targets};

use super::many_queue::ManyQueue;
use crate::ipi::csd::{Call, CallSingleData};
use crate::ipi::memory::NoMemory;
use crate::ipi::notifier::{HotplugEvent, Notifier};
use crate::machine::Machine;
use crate::oracle::Oracle;
use crate::vectors::MANY;

/// No descriptor: the end of a list.
const NONE: u32 = u32::MAX;

/// One CPU's call to one other.
#[derive(Debug)]
struct Pair {
    csd: CallSingleData,
    /// Next on the target's list, as an index into the pairs.
    next: AtomicU32,
    /// 1 if the caller waits (`CSD_TYPE_SYNC`).
    wait: AtomicU32,
}

#[derive(Debug)]
#[repr(align(64))]
struct Head(AtomicU32);

/// See the module's description.
#[derive(Debug)]
pub struct Llist {
    cpus: usize,
    /// By source, then target.
    pairs: Box<[Pair]>,
    /// By target: the newest descriptor on its list.
    heads: Box<[Head]>,
}

impl Llist {
    /// The lists of a machine with `cpus` CPUs.
    pub fn new(cpus: usize) -> Self {
        Self {
            cpus,
            pairs: (0..cpus * cpus)
                .map(|_| Pair {
                    csd: CallSingleData::new(),
                    next: AtomicU32::new(NONE),
                    wait: AtomicU32::new(0),
                })
                .collect(),
            heads: (0..cpus).map(|_| Head(AtomicU32::new(NONE))).collect(),
        }
    }

    fn index(&self, source: CpuId, target: CpuId) -> usize {
        source * self.cpus + target
    }

    /// Puts pair `index` on `target`'s list and says whether the list was empty (`llist_add`).
    fn push(&self, target: CpuId, index: usize) -> bool {
        let mut first = self.heads[target].0.load(Ordering::Relaxed);
        loop {
            self.pairs[index].next.store(first, Ordering::Relaxed);
            // Release publishes the descriptor; it pairs with the Acquire in `take`.
            match self.heads[target].0.compare_exchange_weak(
                first,
                index as u32,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return first == NONE,
                Err(now) => first = now,
            }
        }
    }

    /// Empties `target`'s list and returns its oldest descriptor, with the links reversed to follow
    /// the order of arrival (`llist_del_all`, `llist_reverse_order`).
    fn take(&self, target: CpuId) -> u32 {
        let mut newest = self.heads[target].0.swap(NONE, Ordering::AcqRel);
        let mut oldest = NONE;
        while newest != NONE {
            let next = &self.pairs[newest as usize].next;
            let older = next.load(Ordering::Relaxed);
            next.store(oldest, Ordering::Relaxed);
            oldest = newest;
            newest = older;
        }
        oldest
    }
}

/// No memory comes or goes with a CPU.
impl<P: Platform> Notifier<P> for Llist {
    fn notify(&self, _: &Machine<P>, _: HotplugEvent, _: CpuId) -> Result<(), NoMemory> {
        Ok(())
    }
}

impl<P: Platform> ManyQueue<P> for Llist {
    fn call(&self, machine: &Machine<P>, mask: &dyn Targets, call: Call, wait: bool) -> CpuMask {
        let me = machine.this_cpu();
        let targets = machine.others_online(mask);
        let mut to_interrupt = CpuMask::none(machine.cpus);
        for target in targets.iter() {
            let index = self.index(me, target);
            let pair = &self.pairs[index];
            pair.csd.lock(machine, call);
            pair.csd.carry(call);
            pair.wait.store(u32::from(wait), Ordering::Relaxed);
            probe!(machine.platform, "queue.insert", call.info);
            if self.push(target, index) {
                to_interrupt.insert(target);
            }
            probe!(machine.platform, "queue.inserted", call.info);
        }
        probe!(machine.platform, "many.ipi", call.info);
        machine.tell_all(&to_interrupt, MANY, call.info);
        if wait {
            probe!(machine.platform, "many.wait", call.info);
            for target in targets.iter() {
                self.pairs[self.index(me, target)].csd.wait(machine);
            }
        }
        targets
    }

    fn handle(&self, machine: &Machine<P>, run: &dyn Fn(Call)) -> usize {
        let mut served = 0;
        probe!(machine.platform, "queue.walk");
        let mut at = self.take(machine.this_cpu());
        while at != NONE {
            let pair = &self.pairs[at as usize];
            probe!(machine.platform, "queue.visit", pair.csd.call().info);
            // Read before the descriptor is unlocked, when its owner may queue it elsewhere.
            at = pair.next.load(Ordering::Relaxed);
            let call = pair.csd.call();
            let run = || {
                probe!(machine.platform, "queue.run", call.info);
                run(call);
            };
            if pair.wait.load(Ordering::Relaxed) != 0 {
                run();
                pair.csd.unlock(machine, call);
            } else {
                pair.csd.unlock(machine, call);
                run();
            }
            served += 1;
        }
        probe!(machine.platform, "queue.walked");
        served
    }

    fn read(&self, _: &mut [usize]) -> Option<usize> {
        None
    }

    fn audit(&self, machine: &Machine<P>) {
        for (index, pair) in self.pairs.iter().enumerate() {
            if pair.csd.is_locked() {
                machine.report(Oracle::LeftLocked, pair.csd.call().info, index as u64);
            }
        }
        for (cpu, head) in self.heads.iter().enumerate() {
            if head.0.load(Ordering::Relaxed) != NONE {
                machine.report(Oracle::BrokenQueue, 0, cpu as u64);
            }
        }
    }
}
