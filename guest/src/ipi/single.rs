//! Calls to one CPU: the queue each CPU has for them (`call_single_queue`), and the descriptors
//! that carry them. The queue is a list in order of arrival, and a lock; any CPU pushes, only the
//! CPU it belongs to takes, all at once.
//!
//! A call that is waited for is carried by a descriptor on its caller's stack. One that is not is
//! carried by the calling CPU's own descriptor, for which the next such call waits (Linux 2.6.30).
//! Before the patch of the thread it was carried by a descriptor from the heap, and if there was no
//! memory by one on the stack, which turned it into a call that is waited for (2.6.27).

use alloc::boxed::Box;
use core::ptr;

use kit::declare;
use kit::manifest::Record;
use kit::platform::{CpuId, Platform};
use kit::probe;
use kit::sync::atomic::{AtomicPtr, Ordering};
use kit::sync::irq::irqs_off;
use kit::sync::spin::SpinLock;
use shared::manifest::PointRole;

use super::csd::{Call, CallSingleData};
use super::memory::Pool;
use crate::machine::Machine;
use crate::oracle::Oracle;
use crate::vectors::SINGLE;

declare!([2] Record::stretch("single.enter", "single.done", "call single"));
declare!(Record::point("single.run", PointRole::Run));

/// Descriptors on the heap per CPU, in the design that has them.
const HEAP_PER_CPU: usize = 16;

/// What calls to one CPU go through.
#[derive(Debug)]
pub struct Singles {
    per_cpu: Box<[PerCpu]>,
    heap: Option<Pool<CallSingleData>>,
}

#[derive(Debug)]
#[repr(align(64))]
struct PerCpu {
    /// Carries the calls for which this CPU does not wait (`csd_data`), unless they are on the
    /// heap.
    csd: CallSingleData,
    /// Calls other CPUs made to this one.
    queue: SingleQueue,
}

impl Singles {
    /// The queues of `cpus` CPUs, all empty, with descriptors `on_heap` or without.
    pub fn new(cpus: usize, on_heap: bool) -> Self {
        let per_cpu = |_| PerCpu {
            csd: CallSingleData::new(),
            queue: SingleQueue::new(),
        };
        Self {
            per_cpu: (0..cpus).map(per_cpu).collect(),
            heap: on_heap.then(|| Pool::new(HEAP_PER_CPU * cpus, CallSingleData::in_pool)),
        }
    }

    /// Has `target`, which is another CPU and online, run `call`.
    pub fn call<P: Platform>(&self, machine: &Machine<P>, target: CpuId, call: Call, wait: bool) {
        probe!(machine.platform, "single.enter", call.info);
        self.carry(machine, target, call, wait);
        probe!(machine.platform, "single.done", call.info);
    }

    fn carry<P: Platform>(&self, machine: &Machine<P>, target: CpuId, call: Call, wait: bool) {
        let heap = self.heap.as_ref().filter(|_| !wait);
        let csd = match heap.map(|pool| (pool, pool.allocate(machine))) {
            None if wait => return self.call_and_wait(machine, target, call),
            None => &self.per_cpu[machine.this_cpu()].csd,
            Some((_, Err(_))) => return self.call_and_wait(machine, target, call),
            Some((pool, Ok(place))) => pool.cell(place).get(machine, || call.info),
        };
        csd.lock(machine, call);
        csd.carry(call);
        // SAFETY: the descriptor is part of `self`, which is never dropped while other CPUs run,
        // and `lock` has just made sure that it is on no queue.
        unsafe { self.enqueue(machine, target, csd, call) };
    }

    fn call_and_wait<P: Platform>(&self, machine: &Machine<P>, target: CpuId, call: Call) {
        // On the stack, as in the kernel: this function must not return before the target has
        // unlocked it.
        let csd = CallSingleData::new();
        csd.lock(machine, call);
        csd.carry(call);
        // SAFETY: the wait below does not return before the target has unlocked the descriptor,
        // which is the last time it is touched, so it outlives its stay on the queue.
        unsafe { self.enqueue(machine, target, &csd, call) };
        csd.wait(machine);
    }

    /// As [`Singles::call`] without waiting, carried by the caller's own descriptor.
    pub fn call_with<P: Platform>(
        &self,
        machine: &Machine<P>,
        target: CpuId,
        csd: &'static CallSingleData,
        call: Call,
    ) {
        probe!(machine.platform, "single.enter", call.info);
        csd.lock(machine, call);
        csd.carry(call);
        // SAFETY: the descriptor lives for ever, and `lock` has just made sure that it is on no
        // queue.
        unsafe { self.enqueue(machine, target, csd, call) };
        probe!(machine.platform, "single.done", call.info);
    }

    /// Queues a descriptor that carries `call` for `target`, and interrupts it if its queue was
    /// empty: only the CPU that finds the queue empty sends the interrupt, for all that follow.
    ///
    /// # Safety
    /// `csd` must stay where it is until its lock is released, and be on no queue.
    unsafe fn enqueue<P: Platform>(
        &self,
        machine: &Machine<P>,
        target: CpuId,
        csd: &CallSingleData,
        call: Call,
    ) {
        let queue = &self.per_cpu[target].queue;
        // SAFETY: the caller's promise is the one `push` asks for.
        let was_empty = irqs_off(&machine.platform, || unsafe {
            queue.push(&machine.platform, csd)
        });
        probe!(machine.platform, "single.queued", call.info);
        if was_empty {
            probe!(machine.platform, "single.ipi", call.info);
            machine.tell(target, SINGLE, call.info);
        }
    }

    /// The handler of [`SINGLE`], interrupts off (`generic_smp_call_function_single_interrupt`):
    /// gives `run` every call that waits for this CPU, and returns how many there were.
    pub fn handle<P: Platform>(&self, machine: &Machine<P>, run: &dyn Fn(Call)) -> usize {
        let mine = &self.per_cpu[machine.this_cpu()].queue;
        let mut served = 0;
        for csd in mine.drain(&machine.platform) {
            // The place in the pool is read first: a descriptor on a stack is gone once it is
            // unlocked.
            let place = csd.place;
            let call = csd.call();
            if call != Call::NOTHING {
                probe!(machine.platform, "single.run", call.info);
                run(call);
            }
            csd.unlock(machine, call);
            if let (Some(place), Some(heap)) = (place, &self.heap) {
                heap.free(machine, place);
            }
            served += 1;
        }
        served
    }

    /// Reports what must not be when nothing is in flight.
    pub fn audit<P: Platform>(&self, machine: &Machine<P>) {
        for (cpu, per_cpu) in self.per_cpu.iter().enumerate() {
            if per_cpu.csd.is_locked() {
                let Call { info, .. } = per_cpu.csd.call();
                machine.report(Oracle::LeftLocked, info, cpu as u64);
            }
            if !per_cpu.queue.is_empty() {
                machine.report(Oracle::BrokenQueue, 0, cpu as u64);
            }
        }
        let live = self.heap.as_ref().map_or(0, Pool::live);
        if live != 0 {
            machine.report(Oracle::Leak, 0, live);
        }
    }
}

/// One CPU's queue. `head` and `tail` change only under `lock`, which orders everything here.
#[derive(Debug)]
struct SingleQueue {
    lock: SpinLock,
    head: AtomicPtr<CallSingleData>,
    tail: AtomicPtr<CallSingleData>,
}

impl SingleQueue {
    /// An empty queue.
    fn new() -> Self {
        Self {
            lock: SpinLock::new(),
            head: AtomicPtr::new(ptr::null_mut()),
            tail: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Appends `csd` and says whether the queue was empty. Interrupts must be off.
    ///
    /// # Safety
    /// `csd` must be on no queue, and stay where it is until its lock is released after it has run.
    unsafe fn push<P: Platform>(&self, platform: &P, csd: &CallSingleData) -> bool {
        csd.next.store(ptr::null_mut(), Ordering::Relaxed);
        let new = ptr::from_ref(csd).cast_mut();
        self.lock.with(platform, || {
            let tail = self.tail.load(Ordering::Relaxed);
            // SAFETY: a descriptor reached from the queue is alive by the promise under which it
            // was pushed: it is unlocked only after `drain` has taken it off.
            match unsafe { tail.as_ref() } {
                Some(tail) => tail.next.store(new, Ordering::Relaxed),
                None => self.head.store(new, Ordering::Relaxed),
            }
            self.tail.store(new, Ordering::Relaxed);
            tail.is_null()
        })
    }

    /// Takes everything off the queue. Only the CPU that owns the queue may do this, with
    /// interrupts off.
    ///
    /// The queue is emptied under its lock even if it looks empty without: a read without the lock
    /// can return a value older than the interrupt that is being served (Linux 15d0d3b33712).
    fn drain<P: Platform>(&self, platform: &P) -> Drained {
        let next = self.lock.with(platform, || {
            let head = self.head.load(Ordering::Relaxed);
            self.head.store(ptr::null_mut(), Ordering::Relaxed);
            self.tail.store(ptr::null_mut(), Ordering::Relaxed);
            head
        });
        Drained { next }
    }

    /// Whether nothing is queued, at a time when no CPU pushes.
    fn is_empty(&self) -> bool {
        self.head.load(Ordering::Relaxed).is_null()
    }
}

/// The descriptors that were taken off a queue, oldest first. Each belongs to the draining CPU from
/// when it is yielded until that CPU unlocks it.
#[derive(Debug)]
struct Drained {
    next: *mut CallSingleData,
}

impl Iterator for Drained {
    type Item = &'static CallSingleData;

    /// The next descriptor. Its successor is read here, before the caller can unlock it and its
    /// owner can free it. The lifetime is `'static` because the owner's promise to `push` cannot be
    /// expressed in types; it really ends at the unlock.
    fn next(&mut self) -> Option<Self::Item> {
        // SAFETY: the chain was pushed under the promise that each descriptor stays until its lock
        // is released, and this iterator alone can reach a descriptor until it yields it.
        let csd = unsafe { self.next.as_ref() }?;
        self.next = csd.next.load(Ordering::Relaxed);
        Some(csd)
    }
}
