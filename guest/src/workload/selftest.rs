//! `workload=selftest`: every CPU calls every other, then random sets of them, then all at once.
//! The calls are a function of the seed; the ledger's oracles judge what became of them.

use kit::platform::{CpuId, Platform};
use kit::sync::barrier::Barrier;
use kit::sync::mask::CpuMask;

use crate::ipi::Ipi;
use crate::options::Options;
use crate::oracle::Oracle;
use crate::workload::calls;
use crate::workload::functions::{Function, Workload};

/// Random calls of every CPU where nothing else is asked for. Their cost grows with the square of
/// the number of CPUs, and each brings as many walks of as long a queue.
fn default_calls(cpus: usize) -> u32 {
    (256 / cpus as u32).clamp(1, 16)
}

/// CPUs to which every CPU makes calls that make calls.
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
            calls: Self::calls(cpus, options),
            seed: options.seed,
        }
    }

    /// How many random calls each of `cpus` CPUs makes.
    pub fn calls(cpus: usize, options: &Options) -> u32 {
        options.calls.unwrap_or_else(|| default_calls(cpus))
    }

    /// This CPU's part. It returns when every CPU has done its own and all calls have run.
    pub fn run<P: Platform>(&self, ipi: &Ipi<P, Workload>) {
        let platform = &ipi.machine.platform;
        let me = ipi.machine.this_cpu();
        let mut random = fastrand::Rng::with_seed(self.seed ^ (me as u64) << 32);

        self.barrier.wait(platform);
        for step in 0..ipi.machine.cpus {
            pair(ipi, (me + step) % ipi.machine.cpus);
        }
        for step in 0..ipi.machine.cpus.min(NESTED) {
            nested(ipi, (me + step) % ipi.machine.cpus, &mut random);
        }
        self.barrier.wait(platform);
        for _ in 0..self.calls {
            random_many(ipi, &mut random);
        }
        self.barrier.wait(platform);
        for wait in [false, true] {
            calls::all(ipi, Function::Plain, wait);
        }
        calls::each(ipi, Function::Other, true);

        ipi.functions.settle(&ipi.machine);
        self.barrier.wait(platform);
        if me == 0 {
            ipi.audit();
        }
        self.barrier.wait(platform);
    }
}

/// One CPU: waiting, and not waiting.
fn pair<P: Platform>(ipi: &Ipi<P, Workload>, target: CpuId) {
    single(ipi, target, Function::Plain, true);
    single(ipi, target, Function::Other, false);
}

/// One CPU, with a function that makes a call of its own: to its own CPU, or one that travels on.
fn nested<P: Platform>(ipi: &Ipi<P, Workload>, target: CpuId, random: &mut fastrand::Rng) {
    if random.bool() {
        single(ipi, target, Function::Nested, true);
    } else {
        let onward = random.usize(0..ipi.machine.cpus);
        ipi.functions.prepare_relay(&ipi.machine, onward);
        single(ipi, target, Function::Relay, true);
    }
}

/// A call to one CPU. All are online here, so it is not refused.
fn single<P: Platform>(ipi: &Ipi<P, Workload>, target: CpuId, function: Function, wait: bool) {
    if calls::single(ipi, target, function, wait).is_err() {
        ipi.machine.report(Oracle::Contract, 0, target as u64);
    }
}

fn random_many<P: Platform>(ipi: &Ipi<P, Workload>, random: &mut fastrand::Rng) {
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

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::ipi::queue::QueueKind;
    use shared::exit::ExitCode;

    fn selftest(cpus: usize, options: &Options) -> crate::verdict::Verdict {
        crate::checking::run_guest(cpus, options)
    }

    #[test]
    fn selftest_passes_on_threads() {
        for cpus in [1, 2, 3, 5] {
            let verdict = selftest(cpus, &Options::default());
            assert_eq!(verdict.code(), ExitCode::Pass, "{cpus} CPUs: {verdict}");
        }
    }

    #[test]
    fn every_sound_queue_passes_on_threads() {
        let sound = QueueKind::ALL.into_iter().filter(|kind| !kind.is_broken());
        for queue in sound {
            let verdict = selftest(
                4,
                &Options {
                    queue,
                    ..Options::default()
                },
            );
            assert_eq!(
                verdict.code(),
                ExitCode::Pass,
                "{}: {verdict}",
                queue.name()
            );
        }
    }

    #[test]
    fn equal_seeds_make_equal_calls() {
        let run = |seed| {
            selftest(
                3,
                &Options {
                    seed,
                    ..Options::default()
                },
            )
            .to_string()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }
}
