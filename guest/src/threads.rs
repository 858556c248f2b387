//! Test machines on the host: CPUs are threads, and an interrupt is a bit that its CPU looks at
//! whenever it relaxes, idles or enables interrupts.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use crate::platform::{CpuId, Platform, Vector};
use crate::sync::mask::CpuMask;

/// A machine of one CPU, for code that only needs to be somewhere.
#[derive(Clone, Copy, Debug)]
pub struct Alone;

impl Platform for Alone {
    fn this_cpu(&self) -> CpuId {
        0
    }
    fn send_ipi(&self, _: &CpuMask, _: Vector) {}
    fn irqs_enabled(&self) -> bool {
        true
    }
    fn irqs_disable(&self) {}
    fn irqs_enable(&self) {}
    fn relax(&self) {
        panic!("a lone CPU waits for nobody");
    }
    fn idle_unless(&self, _: &dyn Fn() -> bool) {}
    fn timestamp(&self) -> u64 {
        0
    }
}

thread_local! {
    static THIS_CPU: Cell<CpuId> = const { Cell::new(0) };
}

#[derive(Debug, Default)]
struct Cpu {
    pending: AtomicU8,
    irqs_on: AtomicBool,
}

/// A machine whose CPUs are threads of this process.
pub struct Threads {
    cpus: Vec<Cpu>,
    clock: AtomicU64,
    handler: OnceLock<Box<dyn Fn(Vector) + Send + Sync>>,
}

/// Highest priority first.
const VECTORS: [Vector; 3] = [Vector::Wake, Vector::Many, Vector::Single];

fn bit(vector: Vector) -> u8 {
    1 << (vector as u8 - 0xf8)
}

impl std::fmt::Debug for Threads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Threads")
            .field("cpus", &self.cpus)
            .finish_non_exhaustive()
    }
}

impl Threads {
    /// A machine of `cpus` CPUs, none of them running.
    pub fn new(cpus: usize) -> &'static Self {
        Box::leak(Box::new(Self {
            cpus: (0..cpus).map(|_| Cpu::default()).collect(),
            clock: AtomicU64::new(0),
            handler: OnceLock::new(),
        }))
    }

    /// Starts every CPU: sets the interrupt handler and runs `body` on each, to the end.
    pub fn run(
        &self,
        handler: impl Fn(Vector) + Send + Sync + 'static,
        body: impl Fn() + Send + Sync,
    ) {
        assert!(self.handler.set(Box::new(handler)).is_ok());
        std::thread::scope(|scope| {
            for cpu in 0..self.cpus.len() {
                let body = &body;
                scope.spawn(move || {
                    THIS_CPU.set(cpu);
                    self.irqs_enable();
                    body();
                });
            }
        });
    }

    fn irqs_enable(&self) {
        self.me().irqs_on.store(true, Ordering::Relaxed);
        self.take_interrupts();
    }

    fn me(&self) -> &Cpu {
        &self.cpus[THIS_CPU.get()]
    }

    fn take_interrupts(&self) {
        let me = self.me();
        while me.irqs_on.load(Ordering::Relaxed) {
            let pending = me.pending.load(Ordering::Acquire);
            let Some(vector) = VECTORS
                .into_iter()
                .find(|vector| pending & bit(*vector) != 0)
            else {
                return;
            };
            me.pending.fetch_and(!bit(vector), Ordering::AcqRel);
            me.irqs_on.store(false, Ordering::Relaxed);
            self.handler.get().expect("the machine runs")(vector);
            me.irqs_on.store(true, Ordering::Relaxed);
        }
    }
}

impl Platform for &'static Threads {
    fn this_cpu(&self) -> CpuId {
        THIS_CPU.get()
    }
    fn send_ipi(&self, targets: &CpuMask, vector: Vector) {
        for target in targets.iter() {
            self.cpus[target]
                .pending
                .fetch_or(bit(vector), Ordering::SeqCst);
        }
    }
    fn irqs_enabled(&self) -> bool {
        self.me().irqs_on.load(Ordering::Relaxed)
    }
    fn irqs_disable(&self) {
        self.me().irqs_on.store(false, Ordering::Relaxed);
    }
    fn irqs_enable(&self) {
        Threads::irqs_enable(self);
    }
    fn relax(&self) {
        self.take_interrupts();
        std::thread::yield_now();
    }
    fn idle_unless(&self, done: &dyn Fn() -> bool) {
        if !done() {
            self.relax();
        }
    }
    fn timestamp(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }
}

mod tests {
    use super::*;
    use crate::Guest;
    use crate::lab::Lab;
    use crate::options::Options;
    use shared::exit::ExitCode;

    fn selftest(cpus: usize, options: &Options) -> crate::verdict::Verdict {
        let machine = Threads::new(cpus);
        let lab = Lab::allocate(cpus as u32).unwrap();
        let guest: &'static _ = Box::leak(Box::new(Guest::new(machine, options, lab)));
        machine.run(|vector| guest.handle(vector), || guest.run_cpu());
        guest.verdict()
    }

    #[test]
    fn selftest_passes_on_threads() {
        for cpus in [1, 2, 3, 5] {
            let verdict = selftest(cpus, &Options::default());
            assert_eq!(verdict.code(), ExitCode::Pass, "{cpus} CPUs: {verdict}");
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
