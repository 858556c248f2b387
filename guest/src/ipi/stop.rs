//! Bringing every CPU to a stop (Linux `kernel/stop_machine.c`): all of them between two operations
//! of their tasks, with interrupts off and nothing pending, while one of them goes offline.
//!
//! They go from state to state together. Each says in a word of its own which state it has reached,
//! and the one that has asked for the stop opens the next when all have. Linux counts, and the last
//! CPU to arrive opens the next: then each order of arrivals is one that a search has to try, and
//! none of them makes a difference to a call. A CPU in the first state keeps its interrupts on, so that CPUs which still wait for it are served. When all
//! CPUs have reached it, none makes a call any more. Each then turns its interrupts off and runs
//! the calls that still wait for it. After that no element is on the queue and no CPU stands on
//! one, however long an interrupt takes to arrive on this hardware.

use alloc::boxed::Box;

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
    /// By CPU: the state that it has reached.
    reached: Box<[Reached]>,
    /// The CPUs that stop.
    members: AtomicCpuMask,
    /// The CPU that goes offline.
    victim: AtomicU32,
}

#[derive(Debug)]
#[repr(align(64))]
struct Reached(AtomicU32);

impl Stop {
    pub(super) fn new(cpus: usize) -> Self {
        Self {
            state: AtomicU32::new(NONE),
            reached: (0..cpus).map(|_| Reached(AtomicU32::new(NONE))).collect(),
            members: AtomicCpuMask::none(cpus),
            victim: AtomicU32::new(0),
        }
    }

    /// Asks `members` to stop while `victim`, one of them, goes offline. No stop may be under way.
    pub(super) fn begin(&self, victim: CpuId, members: &CpuMask) {
        self.victim.store(victim as u32, Ordering::Relaxed);
        self.members.store(members, Ordering::Relaxed);
        // Release: a CPU that sees this state sees the rest of the stop.
        self.state.store(PREPARE, Ordering::Release);
    }

    /// Whether `cpu` is to stop.
    pub(super) fn wants(&self, cpu: CpuId) -> bool {
        self.state.load(Ordering::Acquire) == PREPARE
            && self.members.contains(cpu, Ordering::Relaxed)
    }

    /// This CPU, `me`, has done what `state` asks for.
    fn acknowledge(&self, me: CpuId, state: u32) {
        // Release: who sees it sees what was done.
        self.reached[me].0.store(state, Ordering::Release);
    }

    /// Opens the state behind `state` when all have reached that. Only the CPU calls it that has
    /// asked for the stop.
    fn open_next<P: Platform>(&self, machine: &Machine<P>, members: &CpuMask, state: u32) {
        for cpu in members.iter() {
            machine.spin_until(|| self.reached[cpu].0.load(Ordering::Acquire) == state);
        }
        let next = if state == EXIT { NONE } else { state + 1 };
        self.state.store(next, Ordering::Release);
    }

    /// Goes through the states with all other CPUs (`multi_cpu_stop`), and does in each what it
    /// asks for. The CPU that has asked for the stop gives the `members`. `serve_pending` must run
    /// the calls that wait for this CPU. `die` must take it offline; only the victim calls that, and
    /// returns from here with interrupts off.
    pub(super) fn take_part<P: Platform>(
        &self,
        machine: &Machine<P>,
        members: Option<&CpuMask>,
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
            self.acknowledge(me, state);
            if let Some(members) = members {
                self.open_next(machine, members, state);
            }
        }
        if is_victim { Next::Leave } else { Next::Stay }
    }
}
