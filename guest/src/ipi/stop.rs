//! Bringing every CPU to a stop (Linux `kernel/stop_machine.c`): all of them between two operations
//! of their tasks, with interrupts off and nothing pending, while one of them leaves.
//!
//! They go from state to state together; the last to reach one opens the next. A CPU that has come
//! to the first keeps its interrupts on, so that whoever still waits for it there gets what it
//! waits for. When all have come, nobody makes a call any more; each then turns its interrupts off
//! and runs what still waits for it. After that no element is on the queue and nobody stands on
//! one, whatever an interrupt takes to arrive on this hardware.

use kit::platform::{CpuId, Platform};
use kit::probe;
use kit::specimen::Fate;
use kit::sync::atomic::{AtomicU32, Ordering};
use kit::sync::mask::{AtomicCpuMask, CpuMask};

use crate::machine::Machine;

/// Nobody is to stop.
const NONE: u32 = 0;
/// Come, with interrupts on.
const PREPARE: u32 = 1;
/// Turn interrupts off, and serve what is pending.
const DISABLE_IRQS: u32 = 2;
/// The victim leaves.
const RUN: u32 = 3;
/// Go.
const EXIT: u32 = 4;

/// The stop under way, if any.
#[derive(Debug)]
pub(super) struct Stop {
    state: AtomicU32,
    /// CPUs that have yet to reach the state.
    missing: AtomicU32,
    /// CPUs that stop.
    members: AtomicCpuMask,
    count: AtomicU32,
    /// The CPU that leaves.
    victim: AtomicU32,
}

impl Stop {
    pub(super) fn new(cpus: usize) -> Self {
        Self {
            state: AtomicU32::new(NONE),
            missing: AtomicU32::new(0),
            members: AtomicCpuMask::none(cpus),
            count: AtomicU32::new(0),
            victim: AtomicU32::new(0),
        }
    }

    /// Asks `members` to stop while `victim`, one of them, leaves. No stop may be under way.
    pub(super) fn begin(&self, victim: CpuId, members: &CpuMask) {
        let count = members.len() as u32;
        self.victim.store(victim as u32, Ordering::Relaxed);
        self.count.store(count, Ordering::Relaxed);
        self.missing.store(count, Ordering::Relaxed);
        self.members.store(members, Ordering::Relaxed);
        // Release: who finds the stop finds the rest of it.
        self.state.store(PREPARE, Ordering::Release);
    }

    /// Whether `cpu` is to stop.
    pub(super) fn wants(&self, cpu: CpuId) -> bool {
        self.state.load(Ordering::Acquire) == PREPARE
            && self.members.contains(cpu, Ordering::Relaxed)
    }

    /// Whether everybody has gone on.
    pub(super) fn is_over(&self) -> bool {
        self.state.load(Ordering::Acquire) == NONE
    }

    /// This CPU has done what `state` asks for; the last one opens the next.
    fn acknowledge(&self, state: u32) {
        if self.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            let count = self.count.load(Ordering::Relaxed);
            self.missing.store(count, Ordering::Relaxed);
            let next = if state == EXIT { NONE } else { state + 1 };
            self.state.store(next, Ordering::Release);
        }
    }

    /// Goes through the stop's states with everybody else (`multi_cpu_stop`), and does at each what
    /// it asks for: `serve_pending` runs the calls that wait for this CPU, and `die` takes the CPU
    /// offline that leaves. That one comes back with interrupts off.
    pub(super) fn take_part<P: Platform>(
        &self,
        machine: &Machine<P>,
        serve_pending: impl Fn(),
        die: impl Fn(),
    ) -> Fate {
        let me = machine.this_cpu();
        let is_victim = self.victim.load(Ordering::Relaxed) as CpuId == me;
        for state in [PREPARE, DISABLE_IRQS, RUN, EXIT] {
            machine.spin_until(|| self.state.load(Ordering::Acquire) == state);
            match state {
                PREPARE => probe!(machine.platform, "stop.prepare"),
                DISABLE_IRQS => {
                    probe!(machine.platform, "stop.disable");
                    machine.platform.irqs_disable();
                    serve_pending();
                }
                RUN if is_victim => {
                    probe!(machine.platform, "stop.run");
                    die();
                }
                EXIT if !is_victim => {
                    probe!(machine.platform, "stop.exit");
                    machine.platform.irqs_enable();
                }
                _ => {}
            }
            self.acknowledge(state);
        }
        if is_victim { Fate::Leave } else { Fate::Stay }
    }
}
