//! `classic=`: a row of the benchmark by which kernel and hypervisor developers have compared calls
//! since 2017 (Yury Norov, "IPI performance benchmark"): a loop of calls of one kind, each waited
//! for, and how long the loop took. The rows are defined as there; what each call adds here is that
//! it is entered in the ledger, in the dry run too.

use kit::manifest::Record;
use kit::platform::Platform;
use kit::specimen::Next;
use kit::sync::mask::CpuMask;
use kit::{declare, declare_values};
use shared::manifest::{Measure, PointRole};

use super::amount::BY_CASE;
use super::calls;
use super::functions::{Function, LedgerFunctions};
use crate::ipi::Ipi;

declare! {
    Record::word("classic", "What the loop of the bench repeats, instead of rounds one by one.")
        .without_effect_in_search()
        .because(BY_CASE)
        .measured_as(Measure::Classic),
    Record::point("bench.delivered", PointRole::Delivered),
    Record::point("bench.total", PointRole::Total),
}
declare_values!("classic", Classic);

/// What the loop repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Classic {
    /// Everything but a call: one to nobody is entered in the ledger.
    DryRun,
    /// A call to the sender itself, which runs it at once and without an IPI.
    Own,
    /// A call to one other CPU.
    Normal,
    /// A call to all others.
    Broadcast,
    /// A call to all others, whose function takes a lock and lets it go.
    BroadcastLock,
}

impl Classic {
    /// Every row.
    pub const ALL: [Self; 5] = [
        Self::DryRun,
        Self::Own,
        Self::Normal,
        Self::Broadcast,
        Self::BroadcastLock,
    ];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DryRun => "dry-run",
            Self::Own => "self",
            Self::Normal => "normal",
            Self::Broadcast => "broadcast",
            Self::BroadcastLock => "broadcast-lock",
        }
    }
}

/// How long a loop took, in cycles of the TSC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoopTimes {
    /// From just before each call to the beginning of its function, over all calls; 0 of a
    /// broadcast, of which the functions take no time.
    pub delivered: u64,
    /// From the first call to the return of the last.
    pub total: u64,
}

/// Makes `rounds` calls of the kind `row`.
pub fn repeat<P: Platform>(ipi: &Ipi<P, LedgerFunctions>, row: Classic, rounds: u32) -> LoopTimes {
    let platform = &ipi.machine.platform;
    let start = platform.timestamp();
    let delivered = (0..rounds).map(|_| once(ipi, row)).sum();
    LoopTimes {
        delivered,
        total: platform.timestamp() - start,
    }
}

/// Makes one call, and returns how long it took until its function began, if it says so.
fn once<P: Platform>(ipi: &Ipi<P, LedgerFunctions>, row: Classic) -> u64 {
    let machine = &ipi.machine;
    let (me, cpus) = (machine.this_cpu(), machine.cpus);
    // As between any two calls of a task.
    if ipi.cond_resched() == Next::Leave {
        unreachable!("no CPU is taken down here");
    }
    ipi.wait_for_memory();
    let nobody = CpuMask::none(cpus);
    let mut others = CpuMask::all(cpus);
    others.remove(me);
    let broadcast = |function| {
        calls::many(ipi, &others, &others, function, true);
        0
    };
    match row {
        Classic::DryRun => {
            calls::entered(ipi, &nobody, Function::Plain, true, |_| nobody);
            0
        }
        Classic::Own | Classic::Normal => {
            let first = others.first().filter(|_| row == Classic::Normal);
            ipi.functions.stopwatch.start(machine.platform.timestamp());
            // All are online here.
            let _ = calls::single(ipi, first.unwrap_or(me), Function::Timed, true);
            ipi.functions.stopwatch.took()
        }
        Classic::Broadcast => broadcast(Function::Plain),
        Classic::BroadcastLock => broadcast(Function::Locking),
    }
}
