//! `workload=selftest`: every CPU calls every other, then random sets of them, then all at once.
//! On a large machine every CPU calls a sample of the others, and a sample of the CPUs calls sets
//! and all, unless `pairs=all` asks for everything. The calls are a function of the seed; the
//! ledger's oracles judge what became of them.

use core::iter;

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

/// The selftest of one machine.
#[derive(Debug)]
pub struct Selftest {
    barrier: Barrier,
    /// How many CPUs every CPU calls one by one.
    share: usize,
    /// The CPUs that call sets of CPUs, and all.
    callers: CpuMask,
    /// How many random sets each of those calls.
    calls: u32,
    seed: u64,
}

impl Selftest {
    /// The selftest that `options` ask for, on `cpus` CPUs.
    pub fn new(cpus: usize, options: &Options) -> Self {
        let share = amount::share(options.pairs, cpus);
        let mut callers = CpuMask::none(cpus);
        // Not the seed of CPU 0, which would draw the same numbers.
        let mut random = fastrand::Rng::with_seed(!options.seed);
        for cpu in sample(&[], share, cpus, &mut random) {
            callers.insert(cpu);
        }
        Self {
            barrier: Barrier::new(cpus),
            share,
            callers,
            calls: amount::random_calls(options.calls, cpus),
            seed: options.seed,
        }
    }

    /// This CPU's part. It returns when all CPUs have done theirs and all calls have run.
    pub fn run<P: Platform>(&self, ipi: &Ipi<P, LedgerFunctions>) {
        let platform = &ipi.machine.platform;
        let me = ipi.machine.this_cpu();
        let cpus = ipi.machine.cpus;
        let counters = ipi.machine.counters();
        let mut random = fastrand::Rng::with_seed(self.seed ^ (me as u64) << 32);

        let nestings = amount::nested(self.share, cpus);
        let calls_many = self.callers.contains(me);
        let to_many = if calls_many {
            self.calls as usize + 3
        } else {
            0
        };
        let planned = self.share + nestings + to_many;
        count(&counters.steps_planned, planned as u64);
        let step_done = || count(&counters.steps_done, 1);

        self.barrier.wait(platform);
        count(&counters.cpu_pairs, cpus as u64);
        // Itself and its neighbours, so that every CPU is called by some other.
        let always = [0, 1, cpus - 1];
        for step in sample(&always, self.share, cpus, &mut random) {
            pair(ipi, (me + step) % cpus);
            count(&counters.cpu_pairs_called, 1);
            step_done();
        }
        for step in 0..nestings {
            nested(ipi, (me + step) % cpus, &mut random);
            step_done();
        }
        self.barrier.wait(platform);
        if calls_many {
            count(&counters.many_callers, 1);
            for _ in 0..self.calls {
                random_many(ipi, &mut random);
                step_done();
            }
        }
        self.barrier.wait(platform);
        if calls_many {
            for wait in [false, true] {
                calls::all(ipi, Function::Plain, wait);
                step_done();
            }
            calls::each(ipi, Function::Other, true);
            step_done();
        }

        ipi.functions.settle(&ipi.machine);
        self.barrier.wait(platform);
        if me == 0 {
            ipi.audit();
        }
        self.barrier.wait(platform);
    }
}

/// `share` of the numbers below `cpus`, each once: those of `always` and random ones, or all in
/// order, for which nothing random is drawn.
fn sample(
    always: &[usize],
    share: usize,
    cpus: usize,
    random: &mut fastrand::Rng,
) -> impl Iterator<Item = usize> {
    let is_whole = share == cpus;
    let first = if is_whole { &[] } else { always };
    let mut in_order = 0..cpus;
    let others = iter::repeat_with(move || match is_whole {
        true => in_order.next().unwrap_or(0),
        false => random.usize(0..cpus),
    });
    let mut taken = CpuMask::none(cpus);
    first
        .iter()
        .copied()
        .chain(others)
        .filter(move |number| {
            let is_new = !taken.contains(*number);
            taken.insert(*number);
            is_new
        })
        .take(share)
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn drawn(share: usize, cpus: usize, seed: u64) -> Vec<usize> {
        let mut random = fastrand::Rng::with_seed(seed);
        sample(&[0, 1, cpus - 1], share, cpus, &mut random).collect()
    }

    #[test]
    fn all_are_drawn_in_order() {
        for cpus in [1, 2, 64, 255] {
            assert_eq!(drawn(cpus, cpus, 7), (0..cpus).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_sample_has_itself_the_neighbours_and_nobody_twice() {
        for (share, cpus) in [(63, 65), (32, 128), (16, 255), (16, 1024)] {
            let steps = drawn(share, cpus, 7);
            assert_eq!(steps[..3], [0, 1, cpus - 1]);
            let different: BTreeSet<_> = steps.iter().copied().collect();
            assert_eq!((steps.len(), different.len()), (share, share));
            assert!(steps.iter().all(|step| *step < cpus));
            assert_eq!(steps, drawn(share, cpus, 7));
            assert_ne!(steps, drawn(share, cpus, 8));
        }
    }
}
