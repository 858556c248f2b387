//! `workload=selftest`: every CPU calls every other, then random sets of them, then all at once.
//! The calls are a function of the seed; the ledger's oracles judge what became of them.

use kit::counters::count;
use kit::platform::{CpuId, Platform};
use kit::sync::barrier::Barrier;
use kit::sync::mask::CpuMask;

use crate::ipi::Ipi;
use crate::options::Options;
use crate::oracle::Oracle;
use crate::workload::amount;
use crate::workload::calls;
use crate::workload::functions::{Function, LedgerFunctions};

/// How many CPUs every CPU calls with functions that make calls themselves.
const NESTED: usize = 8;

/// The selftest of one machine.
#[derive(Debug)]
pub struct Selftest {
    barrier: Barrier,
    calls: u32,
    seed: u64,
}

impl Selftest {
    /// The selftest that `options` ask for, on `cpus` CPUs.
    pub fn new(cpus: usize, options: &Options) -> Self {
        Self {
            barrier: Barrier::new(cpus),
            calls: amount::random_calls(options.calls, cpus),
            seed: options.seed,
        }
    }

    /// This CPU's part. It returns when all CPUs have done theirs and all calls have run.
    pub fn run<P: Platform>(&self, ipi: &Ipi<P, LedgerFunctions>) {
        let platform = &ipi.machine.platform;
        let me = ipi.machine.this_cpu();
        let mut random = fastrand::Rng::with_seed(self.seed ^ (me as u64) << 32);

        let cpus = ipi.machine.cpus;
        let nestings = cpus.min(NESTED);
        let counters = ipi.machine.counters();
        let planned = cpus + nestings + self.calls as usize + 3;
        count(&counters.steps_planned, planned as u64);
        let step_done = || count(&counters.steps_done, 1);

        self.barrier.wait(platform);
        for step in 0..cpus {
            pair(ipi, (me + step) % cpus);
            step_done();
        }
        for step in 0..nestings {
            nested(ipi, (me + step) % cpus, &mut random);
            step_done();
        }
        self.barrier.wait(platform);
        for _ in 0..self.calls {
            random_many(ipi, &mut random);
            step_done();
        }
        self.barrier.wait(platform);
        for wait in [false, true] {
            calls::all(ipi, Function::Plain, wait);
            step_done();
        }
        calls::each(ipi, Function::Other, true);
        step_done();

        ipi.functions.settle(&ipi.machine);
        self.barrier.wait(platform);
        if me == 0 {
            ipi.audit();
        }
        self.barrier.wait(platform);
    }
}

/// Two calls to one CPU: waiting, and not waiting.
fn pair<P: Platform>(ipi: &Ipi<P, LedgerFunctions>, target: CpuId) {
    single(ipi, target, Function::Plain, true);
    single(ipi, target, Function::Other, false);
}

/// A call to one CPU, with a function that makes a further call: to its own CPU, or one that was
/// prepared.
fn nested<P: Platform>(ipi: &Ipi<P, LedgerFunctions>, target: CpuId, random: &mut fastrand::Rng) {
    if random.bool() {
        single(ipi, target, Function::Nested, true);
    } else {
        let onward = random.usize(0..ipi.machine.cpus);
        ipi.functions.prepare_relay(&ipi.machine, onward);
        single(ipi, target, Function::Relay, true);
    }
}

/// A call to one CPU. All are online here, so it is not refused.
fn single<P: Platform>(
    ipi: &Ipi<P, LedgerFunctions>,
    target: CpuId,
    function: Function,
    wait: bool,
) {
    if calls::single(ipi, target, function, wait).is_err() {
        ipi.machine.report(Oracle::Contract, 0, target as u64);
    }
}

fn random_many<P: Platform>(ipi: &Ipi<P, LedgerFunctions>, random: &mut fastrand::Rng) {
    let mut mask = CpuMask::all(ipi.machine.cpus);
    mask.filter_words(|| random.u64(..));
    let function = if random.u8(0..8) == 0 {
        Function::Nested
    } else {
        Function::Other
    };
    if !ipi.machine.others_online(&mask).is_empty() {
        calls::many(ipi, &mask, &mask, function, random.bool());
    }
}
