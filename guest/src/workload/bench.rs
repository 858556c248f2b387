//! `workload=bench`: the same IPI, or the same call, from CPU 0 again and again, one at a time,
//! each waited for. The host counts what they cost, between the doorbell that ends the warm-up and
//! the one that ends the workload. How long each took is measured here, and written into the trace
//! if that is armed. With `classic=` it is a loop of calls instead, of which only the whole is
//! measured.

use alloc::boxed::Box;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use kit::declare;
use kit::manifest::Record;
use kit::platform::{CpuId, Platform};
use kit::probe;
use kit::specimen::Next;
use kit::sync::barrier::Barrier;
use kit::sync::mask::CpuMask;
use shared::manifest::PointRole;
use shared::ports::Doorbell;

use crate::ipi::Ipi;
use crate::machine::Machine;
use crate::options::Options;
use crate::vectors::MEASURED;
use crate::workload::amount;
use crate::workload::calls;
use crate::workload::classic::{self, Classic};
use crate::workload::functions::{Function, LedgerFunctions};
use crate::workload::round::{By, Receiver, Round, To};

declare! {
    Record::point("bench.start", PointRole::Start),
    Record::point("bench.round", PointRole::Round),
}

/// The measurement of one machine.
#[derive(Debug)]
pub struct Bench {
    round: Round,
    /// What is repeated instead of such rounds.
    classic: Option<Classic>,
    rounds: u32,
    barrier: Barrier,
    /// How many receivers have left the barrier, and send nothing more.
    ready: AtomicUsize,
    /// By CPU.
    executed: Box<[Executed]>,
    over: AtomicBool,
    measured: Measured,
}

/// What the rounds took, for the guest's own last words: a monitor without a lab has no other figures.
#[derive(Debug, Default)]
pub struct Measured {
    rounds: AtomicU64,
    least: AtomicU64,
    most: AtomicU64,
    sum: AtomicU64,
}

impl Measured {
    /// Adds a round that took so many cycles. Only CPU 0 does.
    fn add(&self, cycles: u64) {
        let rounds = self.rounds.load(Ordering::Relaxed);
        let least = match rounds {
            0 => cycles,
            _ => cycles.min(self.least.load(Ordering::Relaxed)),
        };
        let most = cycles.max(self.most.load(Ordering::Relaxed));
        let sum = self.sum.load(Ordering::Relaxed).saturating_add(cycles);
        self.rounds.store(rounds + 1, Ordering::Relaxed);
        self.least.store(least, Ordering::Relaxed);
        self.most.store(most, Ordering::Relaxed);
        self.sum.store(sum, Ordering::Relaxed);
    }
}

/// Nothing if nothing was measured.
impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [rounds, least, most, sum] =
            [&self.rounds, &self.least, &self.most, &self.sum].map(|it| it.load(Ordering::Relaxed));
        match rounds {
            0 => Ok(()),
            _ => write!(
                f,
                "; {rounds} rounds, each {least} cycles of the TSC or more, {} on average, {most} at most",
                sum / rounds
            ),
        }
    }
}

/// How many functions a receiver had run when it was last outside of its handlers.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Executed(AtomicU64);

/// How long a round took, in cycles of the TSC, as the point `bench.round` reports it.
#[derive(Clone, Copy, Debug, Default)]
struct RoundTime {
    /// Until the sender had sent.
    sent: u64,
    /// Until every target had received, and the sender had seen it.
    all: u64,
}

impl RoundTime {
    /// The time of the whole round in the low 32 bits, that of the sending in the high 32.
    fn detail(self) -> u64 {
        let half = |cycles: u64| cycles.min(u32::MAX.into());
        half(self.sent) << 32 | half(self.all)
    }
}

impl Bench {
    /// The measurement that `options` ask for, on `cpus` CPUs.
    pub fn new(cpus: usize, options: &Options) -> Self {
        Self {
            round: options.round,
            classic: options.classic,
            rounds: amount::rounds(options.calls),
            barrier: Barrier::new(cpus),
            ready: AtomicUsize::new(0),
            executed: (0..cpus).map(|_| Executed::default()).collect(),
            over: AtomicBool::new(false),
            measured: Measured::default(),
        }
    }

    /// What the rounds took so far.
    pub fn measured(&self) -> &Measured {
        &self.measured
    }

    /// This CPU's part. CPU 0 returns when all rounds are over; another is woken then.
    pub fn run<P: Platform>(&self, ipi: &Ipi<P, LedgerFunctions>) {
        let machine = &ipi.machine;
        self.barrier.wait(&machine.platform);
        if machine.this_cpu() == 0 {
            self.send(ipi);
            ipi.functions.settle(machine);
            // A caller returns before the handler that has released it has ended.
            let has_left =
                |cpu: CpuId| self.executed[cpu].0.load(Ordering::Acquire) == executed(machine, cpu);
            if self.round.receiver != Receiver::Stalled {
                machine.spin_until(|| (1..machine.cpus).all(has_left));
            }
            ipi.audit();
            self.over.store(true, Ordering::Release);
        } else {
            self.ready.fetch_add(1, Ordering::Release);
            self.receive(ipi);
        }
    }

    fn send<P: Platform>(&self, ipi: &Ipi<P, LedgerFunctions>) {
        let machine = &ipi.machine;
        let me = machine.this_cpu();
        let targets = self.round.to.mask(me, machine.cpus);
        let others = machine.cpus - 1;
        machine.spin_until(|| self.ready.load(Ordering::Acquire) == others);
        if let Some(row) = self.classic {
            return self.repeat(ipi, row);
        }
        for _ in 0..self.rounds / 8 {
            self.once(ipi, &targets);
        }
        probe!(machine.platform, "bench.start");
        machine.platform.ring(Doorbell::WarmedUp);
        for _ in 0..self.rounds {
            let took = self.once(ipi, &targets);
            self.measured.add(took.all);
            probe!(machine.platform, "bench.round", 0, took.detail());
        }
    }

    fn repeat<P: Platform>(&self, ipi: &Ipi<P, LedgerFunctions>, row: Classic) {
        let platform = &ipi.machine.platform;
        classic::repeat(ipi, row, self.rounds / 8);
        probe!(*platform, "bench.start");
        platform.ring(Doorbell::WarmedUp);
        let times = classic::repeat(ipi, row, self.rounds);
        probe!(*platform, "bench.delivered", 0, times.delivered);
        probe!(*platform, "bench.total", 0, times.total);
    }

    fn once<P: Platform>(&self, ipi: &Ipi<P, LedgerFunctions>, targets: &CpuMask) -> RoundTime {
        let machine = &ipi.machine;
        let platform = &machine.platform;
        let me = machine.this_cpu();
        if self.round.by == By::Call {
            // As between any two calls of a task: without it the CPU would hold up every grace
            // period.
            if ipi.cond_resched() == Next::Leave {
                unreachable!("no CPU is taken down here");
            }
            ipi.wait_for_memory();
            let start = platform.timestamp();
            match self.round.to {
                To::Nobody => {}
                To::Own | To::One => {
                    let target = targets.first().unwrap_or(me);
                    // All are online here.
                    let _ = calls::single(ipi, target, Function::Plain, true);
                }
                To::Some | To::All => calls::many(ipi, targets, targets, Function::Plain, true),
            }
            let all = platform.timestamp() - start;
            return RoundTime { sent: 0, all };
        }
        let received = |cpu| {
            let counters = machine.lab.counters(cpu);
            counters.received(MEASURED).load(Ordering::Acquire)
        };
        // Every target receives one IPI in each round, so the count of the first is that of all.
        let first = match self.round.to {
            To::Own => Some(me),
            _ => targets.first(),
        };
        let before = first.map_or(0, received);
        let start = platform.timestamp();
        match self.round.to {
            To::Nobody => 0,
            To::Own => platform.send_ipi(me, MEASURED),
            To::One | To::Some | To::All => platform.send_ipi_mask(targets, MEASURED),
        };
        let sent = platform.timestamp() - start;
        let has_come = |cpu| received(cpu) != before;
        if self.round.receiver != Receiver::Stalled {
            machine.spin_until(|| first.is_none_or(has_come) && targets.iter().all(has_come));
        }
        let all = platform.timestamp() - start;
        RoundTime { sent, all }
    }

    fn receive<P: Platform>(&self, ipi: &Ipi<P, LedgerFunctions>) {
        let machine = &ipi.machine;
        let me = machine.this_cpu();
        let is_over = || {
            // Release: a CPU that sees this sees what the handlers of those functions did after
            // them.
            self.executed[me]
                .0
                .store(executed(machine, me), Ordering::Release);
            self.over.load(Ordering::Acquire)
        };
        if self.round.receiver == Receiver::Running {
            while !is_over() {
                machine.platform.relax();
            }
        } else if ipi.idle_until(is_over) == Next::Leave {
            unreachable!("no CPU is taken down here");
        }
    }
}

/// Functions that `cpu` has run because of calls.
fn executed<P: Platform>(machine: &Machine<P>, cpu: CpuId) -> u64 {
    let tally = machine.lab.tally(cpu);
    tally.calls_executed.load(Ordering::Acquire)
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_is_summed_up() {
        let measured = Measured::default();
        assert_eq!(measured.to_string(), "");
        for cycles in [30, 10, 20] {
            measured.add(cycles);
        }
        let said = "; 3 rounds, each 10 cycles of the TSC or more, 20 on average, 30 at most";
        assert_eq!(measured.to_string(), said);
    }

    #[test]
    fn long_times_do_not_spill_into_the_other_half() {
        let took = RoundTime {
            sent: u64::MAX,
            all: 7,
        };
        assert_eq!(took.detail(), 0xffff_ffff_0000_0007);
    }
}
