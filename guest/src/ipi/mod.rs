//! The generic-ipi path: functions that one CPU has others run (Linux `kernel/smp.c`, 2.6.30).
//!
//! Written from the behaviour of that code, not from its text. Calls to one CPU travel through that
//! CPU's own queue ([`single`]); calls to many through one of the designs under [`queue`].

pub mod csd;
pub mod element;
pub mod list;
pub mod queue;
pub mod single;

use alloc::boxed::Box;
use core::fmt;

use shared::lab::Oracle;

use crate::lab::count;
use crate::machine::Machine;
use crate::platform::{CpuId, Platform, Vector};
use crate::sync::irq::irqs_off;
use crate::sync::mask::CpuMask;
use csd::{Call, CallSingleData};
use queue::{ManyQueue, QueueKind};
use single::SingleQueue;

/// The functions that calls name, kept by whoever makes the calls.
pub trait Functions<P: Platform>: Sized + Sync {
    /// Runs `call` on this CPU, with interrupts off. It may use `ipi`, within the contract of an
    /// interrupt handler: calls to itself, and [`Ipi::call_single_async`] with a descriptor that is
    /// not in use.
    fn run(&self, ipi: &Ipi<P, Self>, call: Call);
}

/// The target of a call is not online (`-ENXIO`); nothing was run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offline(
    /// The CPU asked for.
    pub CpuId,
);

impl fmt::Display for Offline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CPU {} is not online", self.0)
    }
}

impl core::error::Error for Offline {}

/// What the path keeps for one CPU.
#[derive(Debug)]
#[repr(align(64))]
struct PerCpu {
    /// Carries this CPU's calls to one other that it does not wait for (`csd_data`).
    csd: CallSingleData,
    /// Calls other CPUs made to this one (`call_single_queue`).
    queue: SingleQueue,
}

/// The generic-ipi path of one machine.
pub struct Ipi<P: Platform, F> {
    /// What it stands on.
    pub machine: Machine<P>,
    /// What calls can run.
    pub functions: F,
    per_cpu: Box<[PerCpu]>,
    many: Box<dyn ManyQueue<P>>,
}

impl<P: Platform, F: fmt::Debug> fmt::Debug for Ipi<P, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ipi")
            .field("functions", &self.functions)
            .field("per_cpu", &self.per_cpu)
            .finish_non_exhaustive()
    }
}

impl<P: Platform, F: Functions<P>> Ipi<P, F> {
    /// The path on `machine`, with `queue` for calls to many.
    pub fn new(machine: Machine<P>, queue: QueueKind, functions: F) -> Self {
        let per_cpu = (0..machine.cpus)
            .map(|_| PerCpu {
                csd: CallSingleData::new(),
                queue: SingleQueue::new(),
            })
            .collect();
        let many = queue.build(machine.cpus);
        Self {
            machine,
            functions,
            per_cpu,
            many,
        }
    }

    /// Has `target` run `call` (`smp_call_function_single`). With `wait` it returns once the
    /// function has run; without, once the call is queued, but it may first wait for this CPU's
    /// previous such call to have run.
    ///
    /// A call to the calling CPU runs at once, with interrupts off.
    ///
    /// # Errors
    /// [`Offline`] if there is no such CPU, or it is not online.
    pub fn call_single(&self, target: CpuId, call: Call, wait: bool) -> Result<(), Offline> {
        let me = self.machine.this_cpu();
        if target == me {
            self.run_here(call);
            return Ok(());
        }
        if !self.machine.is_online(target) {
            return Err(Offline(target));
        }
        self.check_may_wait(call);
        if wait {
            // On the stack, as in the kernel: it must not be left before the target let it go.
            let csd = CallSingleData::new();
            csd.lock(&self.machine);
            csd.fill(call);
            // SAFETY: the wait below does not return before the target has unlocked the descriptor,
            // which is the last time it is touched, so it outlives its stay on the queue.
            unsafe { self.enqueue(target, &csd) };
            csd.wait(&self.machine);
        } else {
            let csd = &self.per_cpu[me].csd;
            csd.lock(&self.machine);
            csd.fill(call);
            // SAFETY: the descriptor is part of `self.per_cpu`, which is never dropped while other
            // CPUs run, and `lock` has just made sure that it is on no queue.
            unsafe { self.enqueue(target, csd) };
        }
        Ok(())
    }

    /// Has `target` run `call`, carried by the caller's own descriptor, without waiting
    /// (`__smp_call_function_single` with `wait == 0`). With a descriptor that is not in use it
    /// waits for nothing, and may be called with interrupts off, from a function too.
    ///
    /// The descriptor is unlocked after the function has run, and may not be used before.
    ///
    /// # Errors
    /// [`Offline`] if there is no such CPU, or it is not online.
    pub fn call_single_async(
        &self,
        target: CpuId,
        csd: &'static CallSingleData,
        call: Call,
    ) -> Result<(), Offline> {
        if target == self.machine.this_cpu() {
            self.run_here(call);
            return Ok(());
        }
        if !self.machine.is_online(target) {
            return Err(Offline(target));
        }
        if csd.is_locked() {
            self.check_may_wait(call);
        }
        csd.lock(&self.machine);
        csd.fill(call);
        // SAFETY: the descriptor lives for ever, and `lock` has just made sure that it is on no
        // queue.
        unsafe { self.enqueue(target, csd) };
        Ok(())
    }

    /// Has every other CPU of `mask` that is online run `call` (`smp_call_function_many`). With
    /// `wait` it returns once all have. The calling CPU never runs it, even if `mask` names it.
    ///
    /// A single target is served by [`Ipi::call_single`], which is cheaper, and by another vector:
    /// two calls of one CPU can so overtake each other.
    pub fn call_many(&self, mask: &CpuMask, call: Call, wait: bool) {
        let targets = self.machine.others_online(mask);
        let mut cpus = targets.iter();
        let (first, second) = (cpus.next(), cpus.next());
        match (first, second) {
            (None, _) => {}
            (Some(only), None) => self
                .call_single(only, call, wait)
                .expect("a CPU of the online mask is online"),
            (Some(_), Some(_)) => {
                self.check_may_wait(call);
                self.many.call(&self.machine, mask, call, wait);
            }
        }
    }

    /// The interrupt handler of `vector`. Interrupts are off and stay off.
    pub fn handle(&self, vector: Vector) {
        self.machine.counters().count_received(vector);
        let served = match vector {
            Vector::Single => self.handle_single(),
            Vector::Many => self.many.handle(&self.machine, &|call| self.run(call)),
            Vector::Wake => return,
        };
        if served == 0 {
            count(&self.machine.counters().empty_received, 1);
        }
    }

    /// Judges what must hold when nothing is in flight: every descriptor unlocked, every queue
    /// empty. Only one CPU may call it, when all others are idle.
    pub fn audit(&self) {
        for (cpu, per_cpu) in self.per_cpu.iter().enumerate() {
            if per_cpu.csd.is_locked() {
                self.machine.report(Oracle::LeftLocked, 0, cpu as u64);
            }
            if !per_cpu.queue.is_empty() {
                self.machine.report(Oracle::BrokenQueue, 0, cpu as u64);
            }
        }
        self.many.audit(&self.machine);
    }

    /// Queues a filled descriptor for `target`, and interrupts it if its queue was empty: whoever
    /// found it so owes the interrupt that will drain it, for all who come after.
    ///
    /// # Safety
    /// `csd` must stay where it is until its lock is released, and be on no queue.
    unsafe fn enqueue(&self, target: CpuId, csd: &CallSingleData) {
        let queue = &self.per_cpu[target].queue;
        // SAFETY: the caller's promise is the one `push` asks for.
        let was_empty = irqs_off(&self.machine.platform, || unsafe {
            queue.push(&self.machine.platform, csd)
        });
        if was_empty {
            self.machine.platform.send_ipi(target, Vector::Single);
        }
    }

    /// `generic_smp_call_function_single_interrupt`; returns how many calls it ran.
    fn handle_single(&self) -> usize {
        let mine = &self.per_cpu[self.machine.this_cpu()].queue;
        let mut served = 0;
        for csd in mine.drain(&self.machine.platform) {
            // The lock is sampled first: without it the descriptor is the function's to reuse.
            let locked = csd.is_locked();
            self.run(csd.call());
            if locked {
                csd.unlock();
            }
            served += 1;
        }
        served
    }

    fn run(&self, call: Call) {
        self.functions.run(self, call);
    }

    fn run_here(&self, call: Call) {
        irqs_off(&self.machine.platform, || self.run(call));
    }

    /// With interrupts off, a CPU that waits for another while that one waits for it waits for
    /// ever; so would two that wait for each other's descriptors.
    fn check_may_wait(&self, call: Call) {
        if !self.machine.platform.irqs_enabled() {
            self.machine.report(Oracle::Contract, call.info, 0);
        }
    }
}
