//! The path itself: the calls that a CPU can make, and the handlers that serve them. How a call is
//! carried is left to [`single`](super::single) and to the designs under [`queue`](super::queue);
//! how CPUs leave and come back is in [`hotplug`](super::hotplug).

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;

use kit::counters::count;
use kit::declare;
use kit::handler;
use kit::manifest::Record;
use kit::platform::{CpuId, Platform, Vector};
use kit::probe;
use kit::sync::irq::irqs_off;
use kit::sync::mask::{CpuMask, Targets};

use super::csd::{Call, CallSingleData};
use super::hotplug_state::HotplugState;
use super::queue::{ManyQueue, QueueKind};
use super::single::Singles;
use super::stop::Stop;
use crate::machine::Machine;
use crate::oracle::Oracle;
use crate::vectors::{MANY, SINGLE};

declare!([2] Record::stretch("many.enter", "many.done", "call many"));

/// The functions that calls name. The maker of the calls supplies them.
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

/// No CPU that could take a call is online (`-ENXIO`); nothing was run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoneOnline;

impl fmt::Display for NoneOnline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("none of these CPUs is online")
    }
}

impl core::error::Error for NoneOnline {}

/// The generic-ipi path of one machine.
pub struct Ipi<P: Platform, F> {
    /// The machine it runs on.
    pub machine: Machine<P>,
    /// The functions that calls can name.
    pub functions: F,
    pub(super) singles: Arc<Singles>,
    pub(super) many: Box<dyn ManyQueue<P>>,
    pub(super) hotplug: HotplugState,
    pub(super) stop: Stop,
}

impl<P: Platform, F: fmt::Debug> fmt::Debug for Ipi<P, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ipi")
            .field("functions", &self.functions)
            .field("singles", &self.singles)
            .field("hotplug", &self.hotplug)
            .field("stop", &self.stop)
            .finish_non_exhaustive()
    }
}

impl<P: Platform, F: Functions<P>> Ipi<P, F> {
    /// The path on `machine`, with `queue` for calls to many.
    pub fn new(machine: Machine<P>, queue: QueueKind, functions: F) -> Self {
        let cpus = machine.cpus;
        let singles = Arc::new(Singles::new(cpus, queue.allocates_singles()));
        Self {
            many: queue.build(cpus, &singles),
            singles,
            hotplug: HotplugState::new(),
            stop: Stop::new(cpus),
            machine,
            functions,
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
        self.singles.call(&self.machine, target, call, wait);
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
        self.singles.call_with(&self.machine, target, csd, call);
        Ok(())
    }

    /// Has every other CPU of `mask` that is online run `call` (`smp_call_function_many`), and
    /// returns which those were. With `wait` it returns once all have run it. The calling CPU never
    /// runs it, even if `mask` names it.
    ///
    /// If `mask` changes meanwhile, the CPUs that were in it all the time run the call, and of the
    /// others perhaps some. A call to a single target goes the way of [`Ipi::call_single`], which
    /// is cheaper and has another vector, so that two calls of one CPU can overtake each other.
    pub fn call_many(&self, mask: &dyn Targets, call: Call, wait: bool) -> CpuMask {
        probe!(self.machine.platform, "many.enter", call.info);
        let targets = self.machine.others_online(mask);
        let mut cpus = targets.iter();
        let made_to = match (cpus.next(), cpus.next()) {
            (None, _) => targets,
            (Some(only), None) => {
                self.check_may_wait(call);
                self.singles.call(&self.machine, only, call, wait);
                targets
            }
            (Some(_), Some(_)) => {
                self.check_may_wait(call);
                probe!(self.machine.platform, "many.targets", call.info);
                self.many.call(&self.machine, mask, call, wait)
            }
        };
        probe!(self.machine.platform, "many.done", call.info);
        made_to
    }

    /// Has every other CPU that is online run `call` (`smp_call_function`), and returns which those
    /// were.
    pub fn call_all(&self, call: Call, wait: bool) -> CpuMask {
        self.call_many(&CpuMask::all(self.machine.cpus), call, wait)
    }

    /// Has every CPU that is online run `call`, this one included, and returns which those were
    /// (`on_each_cpu`). This one runs it with interrupts off: after the others have been told, or
    /// with `wait`, after they have run it.
    pub fn on_each_cpu(&self, call: Call, wait: bool) -> CpuMask {
        let mut ran = self.call_all(call, wait);
        self.run_here(call);
        ran.insert(self.machine.this_cpu());
        ran
    }

    /// Has every CPU of `mask` that is online and of which `holds` is true run `call`, this one too,
    /// and returns which those were (`on_each_cpu_cond`, as it was in Linux 3.4). `holds` is asked
    /// once of each, before any of them is called, so that it can have changed by then.
    pub fn on_each_cpu_cond(
        &self,
        mask: &CpuMask,
        holds: &dyn Fn(CpuId) -> bool,
        call: Call,
        wait: bool,
    ) -> CpuMask {
        let me = self.machine.this_cpu();
        let mut chosen = CpuMask::none(self.machine.cpus);
        let online = mask.iter().filter(|cpu| self.machine.is_online(*cpu));
        online
            .filter(|cpu| holds(*cpu))
            .for_each(|cpu| chosen.insert(cpu));
        let mut ran = self.call_many(&chosen, call, wait);
        if chosen.contains(me) {
            self.run_here(call);
            ran.insert(me);
        }
        ran
    }

    /// Has one CPU of `mask` run `call`, this one if it is among them, and returns which
    /// (`smp_call_function_any`).
    ///
    /// # Errors
    /// [`NoneOnline`] if no CPU of `mask` is online.
    pub fn call_any(&self, mask: &CpuMask, call: Call, wait: bool) -> Result<CpuId, NoneOnline> {
        let me = self.machine.this_cpu();
        if mask.contains(me) {
            self.run_here(call);
            return Ok(me);
        }
        // There are no NUMA nodes here, of which one could be the nearest.
        let target = self.machine.others_online(mask).first();
        let target = target.ok_or(NoneOnline)?;
        self.check_may_wait(call);
        self.singles.call(&self.machine, target, call, wait);
        Ok(target)
    }

    /// The interrupt handler of `vector`. Interrupts are off and stay off.
    pub fn handle(&self, vector: Vector) {
        let machine = &self.machine;
        handler::run(&machine.platform, &machine.lab, vector, || {
            self.serve(vector);
        });
    }

    /// What [`Ipi::handle`] does besides what every handler does.
    pub fn serve(&self, vector: Vector) {
        self.machine.quiescent();
        let served = match vector {
            SINGLE => Some(self.singles.handle(&self.machine, &|call| self.run(call))),
            MANY => Some(self.many.handle(&self.machine, &|call| self.run(call))),
            _ => None,
        };
        if served == Some(0) {
            count(&self.machine.counters().empty_received, 1);
        }
        // Another interrupt would have used the same stack.
        if self.machine.platform.irqs_enabled() {
            let vector = vector.number().into();
            self.machine.report(Oracle::InterruptsOn, 0, vector);
        }
    }

    /// Waits until there is memory for the next call. Calls themselves cannot wait for that, so a
    /// caller that can calls this before. All other CPUs must be able to pass quiescent states, by
    /// themselves or by an interrupt.
    pub fn wait_for_memory(&self) {
        if self.many.is_short_of_memory() {
            self.machine.synchronize();
        }
    }

    /// Reads the global queue: see [`ManyQueue::read`].
    pub fn read_queue(&self, found: &mut [usize]) -> Option<usize> {
        self.many.read(found)
    }

    /// Checks what must hold when nothing is in flight: every descriptor is unlocked, every queue
    /// empty. Only one CPU may call it, when all others are idle.
    pub fn audit(&self) {
        self.singles.audit(&self.machine);
        self.many.audit(&self.machine);
    }

    pub(super) fn run(&self, call: Call) {
        self.functions.run(self, call);
    }

    fn run_here(&self, call: Call) {
        irqs_off(&self.machine.platform, || self.run(call));
    }

    /// Reports a call that may wait with interrupts off. Two CPUs that wait for each other that
    /// way, or for each other's descriptors, wait for ever.
    fn check_may_wait(&self, call: Call) {
        if !self.machine.platform.irqs_enabled() {
            self.machine.report(Oracle::Contract, call.info, 0);
        }
    }
}
