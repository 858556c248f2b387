//! Bringing every CPU to a stop (Linux `kernel/stop_machine.c`): all of them between two operations
//! of their tasks, with interrupts off and nothing pending, while one of them goes offline.
//!
//! They go from state to state together; the last CPU to reach one opens the next. A CPU in the
//! first state keeps its interrupts on, so that CPUs which still wait for it are served. When all
//! CPUs have reached it, none makes a call any more. Each then turns its interrupts off and runs
//! the calls that still wait for it. After that no element is on the queue and no CPU stands on
//! one, however long an interrupt takes to arrive on this hardware.

use kit::platform::{CpuId, Platform};
use kit::probe;
use kit::specimen::Next;
use kit::sync::atomic::{AtomicU32, Ordering};
use kit::sync::mask::{AtomicCpuMask, CpuMask};

use crate::machine::Machine;

/// No stop is under way.
const NONE: u32 = 0;
/// Stop, with interrupts on.
const PREPARE: u32 = 1;
/// Turn interrupts off, and serve what is pending.
const DISABLE_IRQS: u32 = 2;
/// The victim goes offline.
const RUN: u32 = 3;
/// Go on.
const EXIT: u32 = 4;

/// The stop under way, if any.
#[derive(Debug)]
pub(super) struct Stop {
    state: AtomicU32,
    /// How many CPUs have yet to reach the state.
    missing: AtomicU32,
    /// The CPUs that stop.
    members: AtomicCpuMask,
    count: AtomicU32,
    /// The CPU that goes offline.
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

    /// Asks `members` to stop while `victim`, one of them, goes offline. No stop may be under way.
    pub(super) fn begin(&self, victim: CpuId, members: &CpuMask) {
        let count = members.len() as u32;
        self.victim.store(victim as u32, Ordering::Relaxed);
        self.count.store(count, Ordering::Relaxed);
        self.missing.store(count, Ordering::Relaxed);
        self.members.store(members, Ordering::Relaxed);
        // Release: a CPU that sees this state sees the rest of the stop.
        self.state.store(PREPARE, Ordering::Release);
    }

    /// Whether `cpu` is to stop.
    pub(super) fn wants(&self, cpu: CpuId) -> bool {
        self.state.load(Ordering::Acquire) == PREPARE
            && self.members.contains(cpu, Ordering::Relaxed)
    }

    /// Whether all CPUs have gone on.
    pub(super) fn is_over(&self) -> bool {
        self.state.load(Ordering::Acquire) == NONE
    }

    /// This CPU has done what `state` asks for. The last CPU opens the next state.
    fn acknowledge(&self, state: u32) {
        if self.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            let count = self.count.load(Ordering::Relaxed);
            self.missing.store(count, Ordering::Relaxed);
            let next = if state == EXIT { NONE } else { state + 1 };
            self.state.store(next, Ordering::Release);
        }
    }

    /// Goes through the states with all other CPUs (`multi_cpu_stop`), and does in each what it
    /// asks for. `serve_pending` must run the calls that wait for this CPU. `die` must take it
    /// offline; only the victim calls that, and returns from here with interrupts off.
    pub(super) fn take_part<P: Platform>(
        &self,
        machine: &Machine<P>,
        serve_pending: impl Fn(),
        die: impl Fn(),
    ) -> Next {
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
        if is_victim { Next::Leave } else { Next::Stay }
    }
}
