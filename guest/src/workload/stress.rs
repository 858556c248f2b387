//! `workload=stress`: every CPU does random operations, drawn from all that the path offers, while
//! CPUs leave and come back. It goes on for a number of operations per CPU, or for a time.
//!
//! What each CPU draws is a function of the seed; how the operations of different CPUs overlap is
//! not. The oracles judge, as in the selftest.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use fastrand::Rng;
use kit::counters::count;
use kit::platform::{CpuId, Platform};
use kit::specimen::Next;
use kit::sync::atomic::Ordering as SharedOrdering;
use kit::sync::irq::irqs_off;
use kit::sync::mask::{AtomicCpuMask, CpuMask};

use super::amount;
use super::calls;
use super::deeds::Verb;
use super::functions::{Function, LedgerFunctions};
use crate::ipi::Ipi;
use crate::ipi::hotplug::HotplugError;
use crate::options::Options;

/// One operation in so many takes a CPU down or brings one up.
const HOTPLUG_ONE_IN: u8 = 64;

/// How often a CPU is asked to come back at the end, if memory is refused.
const LAST_TRIES: u32 = 100;

/// Turns of the longest loop with interrupts off.
const MOST_TURNS_IRQS_OFF: u32 = 200;

/// How far a CPU is in its part. It is kept while the CPU is offline.
#[derive(Debug)]
#[repr(align(64))]
struct Progress {
    operations: AtomicU64,
    random: AtomicU64,
    /// The last [`Stage`] it has come to.
    reached: AtomicU32,
}

/// The stages of the end of the run, through which all CPUs go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Working,
    /// Every call of this CPU's has run.
    Done,
    /// Every CPU's calls have run, and no handler that began before is still running on this one.
    Quiet,
    Over,
}

/// The stress of one machine.
#[derive(Debug)]
pub struct Stress {
    operations: Option<u64>,
    /// Milliseconds, and when they began, in cycles; 0 until they have.
    time: Option<u64>,
    begun: AtomicU64,
    progress: Box<[Progress]>,
    /// CPUs join and leave this set while others call those in it, as with the CPUs of an address
    /// space.
    users: AtomicCpuMask,
    /// The [`Stage`] that CPUs are to come to; CPU 0 sets it.
    stage: AtomicU32,
}

impl Stress {
    /// The stress that `options` ask for, on `cpus` CPUs.
    pub fn new(cpus: usize, options: &Options) -> Self {
        Self {
            operations: amount::operations(options.calls, options.milliseconds, cpus),
            time: options.milliseconds,
            begun: AtomicU64::new(0),
            progress: (0..cpus)
                .map(|cpu| Progress {
                    operations: AtomicU64::new(0),
                    random: AtomicU64::new(options.seed ^ (cpu as u64) << 32),
                    reached: AtomicU32::new(Stage::Working as u32),
                })
                .collect(),
            users: AtomicCpuMask::none(cpus),
            stage: AtomicU32::new(Stage::Done as u32),
        }
    }

    /// This CPU's part. If the CPU had gone offline, it continues where it was. It returns when the
    /// run is over, or when the CPU goes offline.
    pub fn run<P: Platform>(&self, ipi: &Ipi<P, LedgerFunctions>) -> Next {
        let machine = &ipi.machine;
        let me = machine.this_cpu();
        let progress = &self.progress[me];
        let now = machine.platform.timestamp();
        let _ = self
            .begun
            .compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);

        let counters = machine.counters();
        // Not again by a CPU that has come back, and not at all if a time ends it.
        if progress.operations.load(Ordering::Relaxed) == 0 && self.time.is_none() {
            count(&counters.steps_planned, self.operations.unwrap_or(0));
        }
        let mut random = Rng::with_seed(progress.random.load(Ordering::Relaxed));
        while !self.has_done_its_part(ipi, progress) {
            self.operate(ipi, &mut random);
            progress.operations.fetch_add(1, Ordering::Relaxed);
            count(&counters.steps_done, 1);
            if ipi.cond_resched() == Next::Leave {
                progress.random.store(random.get_seed(), Ordering::Relaxed);
                return Next::Leave;
            }
        }
        ipi.functions.settle(machine);
        if me == 0 {
            return self.end(ipi);
        }
        for stage in [Stage::Done, Stage::Quiet, Stage::Over] {
            let may_go = || self.stage.load(Ordering::Acquire) >= stage as u32;
            if ipi.idle_until(may_go) == Next::Leave {
                progress.random.store(random.get_seed(), Ordering::Relaxed);
                return Next::Leave;
            }
            if stage == Stage::Quiet {
                // Functions that ran here since have made calls of their own.
                ipi.functions.settle(machine);
            }
            progress.reached.store(stage as u32, Ordering::Release);
            ipi.wake(&CpuMask::only(0, machine.cpus));
        }
        Next::Stay
    }

    fn has_done_its_part<P: Platform>(
        &self,
        ipi: &Ipi<P, LedgerFunctions>,
        progress: &Progress,
    ) -> bool {
        let made = progress.operations.load(Ordering::Relaxed);
        let platform = &ipi.machine.platform;
        let elapsed = || {
            let begun = self.begun.load(Ordering::Relaxed);
            platform.timestamp().wrapping_sub(begun) / (platform.cycles_per_second() / 1000).max(1)
        };
        self.operations.is_some_and(|limit| made >= limit)
            || self.time.is_some_and(|limit| elapsed() >= limit)
    }

    /// CPU 0 ends the run: it opens one stage after the other, brings back CPUs that left before
    /// they had done their part, and judges.
    fn end<P: Platform>(&self, ipi: &Ipi<P, LedgerFunctions>) -> Next {
        let others = 1..ipi.machine.cpus;
        for cpu in others.clone() {
            while !self.has_reached(cpu, Stage::Done) {
                let away = || !ipi.machine.is_online(cpu);
                let _stays = ipi.idle_until(|| self.has_reached(cpu, Stage::Done) || away());
                self.bring_back(ipi, cpu);
            }
        }
        // From here on no CPU leaves.
        others.for_each(|cpu| self.bring_back(ipi, cpu));
        self.open(ipi, Stage::Quiet);
        for cpu in ipi.machine.online().iter().skip(1) {
            let _stays = ipi.idle_until(|| self.has_reached(cpu, Stage::Quiet));
        }
        ipi.functions.settle(&ipi.machine);
        ipi.audit();
        ipi.functions.audit(&ipi.machine);
        self.open(ipi, Stage::Over);
        Next::Stay
    }

    /// Brings `cpu` up if it is offline. If memory for it is refused again and again, it cannot do
    /// its part. Its calls have run, and their records are closed for it.
    fn bring_back<P: Platform>(&self, ipi: &Ipi<P, LedgerFunctions>, cpu: CpuId) {
        let vetoed = || ipi.cpu_up(cpu) == Err(HotplugError::Vetoed);
        if (0..LAST_TRIES).all(|_| vetoed()) {
            ipi.functions.settle_for(&ipi.machine, cpu);
            let reached = &self.progress[cpu].reached;
            reached.store(Stage::Done as u32, Ordering::Release);
        }
    }

    fn has_reached(&self, cpu: CpuId, stage: Stage) -> bool {
        self.progress[cpu].reached.load(Ordering::Acquire) >= stage as u32
    }

    fn open<P: Platform>(&self, ipi: &Ipi<P, LedgerFunctions>, stage: Stage) {
        self.stage.store(stage as u32, Ordering::Release);
        ipi.wake(&ipi.machine.others_online(&CpuMask::all(ipi.machine.cpus)));
    }

    /// One operation.
    fn operate<P: Platform>(&self, ipi: &Ipi<P, LedgerFunctions>, random: &mut Rng) {
        let machine = &ipi.machine;
        let me = machine.this_cpu();
        let cpus = machine.cpus;
        if random.u8(0..HOTPLUG_ONE_IN) == 0 {
            return toggle(ipi, random.usize(0..cpus));
        }
        let function = [Function::Plain, Function::Other, Function::Nested][random.usize(0..3)];
        let wait = random.bool();
        let mut mask = CpuMask::all(cpus);
        mask.filter_words(|| random.u64(..));
        // A call to a CPU that is offline is refused, and is not made.
        match random.u8(0..16) {
            0..4 => drop(calls::single(ipi, random.usize(0..cpus), function, wait)),
            4 => {
                let onward = random.usize(0..cpus);
                ipi.functions.prepare_relay(machine, onward);
                let relayed = calls::single(ipi, random.usize(0..cpus), Function::Relay, true);
                if relayed.is_err() {
                    ipi.functions.cancel_relay(machine);
                }
            }
            5..9 => calls::many(ipi, &mask, &mask, function, wait),
            9 => calls::many(ipi, &self.users, &CpuMask::all(cpus), function, wait),
            10 => calls::all(ipi, function, wait),
            11 => calls::each(ipi, function, wait),
            12 => drop(calls::any(ipi, &mask, function, wait)),
            13 => self.users.insert(me, SharedOrdering::Relaxed),
            14 => drop(self.users.remove(me, SharedOrdering::Relaxed)),
            _ => irqs_off(&machine.platform, || {
                (0..random.u32(0..MOST_TURNS_IRQS_OFF)).for_each(|_| core::hint::spin_loop());
            }),
        }
    }
}

/// Takes `cpu` down, or brings it up if it is offline. A CPU that cannot leave, or has no memory to
/// come, stays as it is.
fn toggle<P: Platform>(ipi: &Ipi<P, LedgerFunctions>, cpu: CpuId) {
    let (machine, functions) = (&ipi.machine, &ipi.functions);
    let _ = if machine.is_online(cpu) {
        functions.enter_deed(machine, Verb::Offline, cpu);
        ipi.cpu_down(cpu)
    } else {
        functions.enter_deed(machine, Verb::Online, cpu);
        ipi.cpu_up(cpu)
    };
}
