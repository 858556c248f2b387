//! Test machines on the host: CPUs are threads, and an interrupt is a bit that its CPU looks at
//! whenever it relaxes, idles or enables interrupts. Under `cfg(shuttle)` the threads are
//! shuttle's. The machine itself is not under test there, so accesses to its own state are no
//! points at which shuttle switches threads.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, RwLock};

#[cfg(shuttle)]
use shuttle::{thread, thread_local};
#[cfg(not(shuttle))]
use std::thread;

#[cfg(not(shuttle))]
use crate::lab::Lab;
use crate::platform::{CpuId, Doorbell, NotStarted, Platform, Point, Vector};
use crate::specimen::{Part, Specimen};
use crate::sync::mask::CpuMask;
use crate::vector::RANGE;

/// A machine of one CPU, for code that needs a CPU to run on but no other.
#[derive(Clone, Copy, Debug)]
pub struct Alone;

impl Platform for Alone {
    fn this_cpu(&self) -> CpuId {
        0
    }
    fn send_ipi(&self, _: CpuId, _: Vector) -> u64 {
        0
    }
    fn send_ipi_mask(&self, _: &CpuMask, _: Vector) -> u64 {
        0
    }
    fn ring(&self, _: Doorbell) {}
    fn reached(&self, _: &'static Point, _: u64, _: u64) {}
    fn irqs_enabled(&self) -> bool {
        true
    }
    fn irqs_disable(&self) {}
    fn irqs_enable(&self) {}
    fn relax(&self) {
        panic!("a lone CPU waits for nobody");
    }
    fn idle_unless(&self, _: &dyn Fn() -> bool) {}
    fn start_cpu(&self, _: CpuId) -> Result<(), NotStarted> {
        Err(NotStarted)
    }
    fn timestamp(&self) -> u64 {
        0
    }
    fn cycles_per_second(&self) -> u64 {
        1
    }
}

// Twice, because shuttle's macro does not know `const`.
#[cfg(not(shuttle))]
thread_local! {
    static THIS_CPU: Cell<CpuId> = const { Cell::new(0) };
}
#[cfg(shuttle)]
thread_local! {
    static THIS_CPU: Cell<CpuId> = Cell::new(0);
}

#[derive(Debug, Default)]
struct Cpu {
    /// A bit for each vector, that of the highest priority on top.
    pending: AtomicU16,
    irqs_on: AtomicBool,
    /// Set to start it again after it was parked.
    start: AtomicBool,
    /// Set once it runs; unparked when there is something for it to do.
    thread: OnceLock<thread::Thread>,
}

impl Cpu {
    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

type Handler = Arc<dyn Fn(Vector) + Send + Sync>;

/// A machine whose CPUs are threads of this process.
pub struct Threads {
    cpus: Vec<Cpu>,
    clock: AtomicU64,
    /// Set while the machine runs.
    handler: RwLock<Option<Handler>>,
    /// CPUs whose part of the run is over.
    finished: AtomicUsize,
    /// CPUs inside an interrupt handler.
    in_handler: AtomicUsize,
}

impl std::fmt::Debug for Threads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Threads")
            .field("cpus", &self.cpus)
            .finish_non_exhaustive()
    }
}

fn bit(vector: Vector) -> u16 {
    1 << vector.index()
}

impl Threads {
    /// A machine of `cpus` CPUs, none of them running.
    pub fn new(cpus: usize) -> Arc<Self> {
        Arc::new(Self {
            cpus: (0..cpus).map(|_| Cpu::default()).collect(),
            clock: AtomicU64::new(0),
            handler: RwLock::new(None),
            finished: AtomicUsize::new(0),
            in_handler: AtomicUsize::new(0),
        })
    }

    /// Runs `body` on every CPU, and `handler` for its interrupts, until `body` has returned on all
    /// CPUs and no interrupt is pending or being handled.
    pub fn run(
        self: &Arc<Self>,
        handler: impl Fn(Vector) + Send + Sync + 'static,
        body: impl Fn(CpuId) -> Part + Send + Sync + 'static,
    ) {
        *self.handler.write().unwrap() = Some(Arc::new(handler));
        let body = Arc::new(body);
        let cpus: Vec<_> = (0..self.cpus.len())
            .map(|cpu| {
                let (machine, body) = (self.clone(), body.clone());
                thread::spawn(move || {
                    THIS_CPU.with(|this| this.set(cpu));
                    machine.cpus[cpu].thread.get_or_init(thread::current);
                    machine.enable();
                    while body(cpu) == Part::Left {
                        if !machine.park(cpu) {
                            return;
                        }
                    }
                    machine.finished.fetch_add(1, Ordering::SeqCst);
                    machine.idle_until_quiet();
                })
            })
            .collect();
        for cpu in cpus {
            cpu.join().unwrap();
        }
        *self.handler.write().unwrap() = None;
    }

    /// Drops every interrupt that is pending at `cpu`, as no hardware does.
    #[cfg(not(shuttle))]
    pub fn lose_interrupts(&self, cpu: CpuId) {
        self.cpus[cpu].pending.store(0, Ordering::SeqCst);
    }

    /// Parks `cpu` until it is started again, or the machine has ended without it; returns whether
    /// it was started. Interrupts that come meanwhile are lost, as after INIT.
    fn park(&self, cpu: CpuId) -> bool {
        let cpu = &self.cpus[cpu];
        self.finished.fetch_add(1, Ordering::SeqCst);
        while !cpu.start.load(Ordering::SeqCst) {
            cpu.pending.store(0, Ordering::SeqCst);
            if self.is_quiet() {
                self.cpus.iter().for_each(Cpu::wake);
                return false;
            }
            thread::park();
        }
        self.finished.fetch_sub(1, Ordering::SeqCst);
        cpu.pending.store(0, Ordering::SeqCst);
        cpu.start.store(false, Ordering::SeqCst);
        true
    }

    fn idle_until_quiet(&self) {
        loop {
            self.take_interrupts();
            if self.is_quiet() {
                return self.cpus.iter().for_each(Cpu::wake);
            }
            thread::park();
        }
    }

    fn is_quiet(&self) -> bool {
        self.finished.load(Ordering::SeqCst) == self.cpus.len()
            && self.in_handler.load(Ordering::SeqCst) == 0
            && (self.cpus.iter()).all(|cpu| cpu.pending.load(Ordering::SeqCst) == 0)
            // Again: an interrupt may have been taken between the first look and that at its bit.
            && self.in_handler.load(Ordering::SeqCst) == 0
    }

    fn enable(&self) {
        self.me().irqs_on.store(true, Ordering::Relaxed);
        self.take_interrupts();
    }

    fn me(&self) -> &Cpu {
        &self.cpus[THIS_CPU.with(Cell::get)]
    }

    fn take_interrupts(&self) {
        let me = self.me();
        while me.irqs_on.load(Ordering::Relaxed) {
            let pending = me.pending.load(Ordering::SeqCst);
            let Some(highest) = pending.checked_ilog2() else {
                return;
            };
            let vector = Vector::new(RANGE.start + highest as u8);
            self.in_handler.fetch_add(1, Ordering::SeqCst);
            me.pending.fetch_and(!bit(vector), Ordering::SeqCst);
            me.irqs_on.store(false, Ordering::Relaxed);
            let handler = self.handler.read().unwrap().clone();
            handler.expect("the machine runs")(vector);
            me.irqs_on.store(true, Ordering::Relaxed);
            self.in_handler.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Runs `guest`, which was made on `machine`, to its end.
pub fn run<G: Specimen<Arc<Threads>> + Send>(machine: &Arc<Threads>, guest: &Arc<G>) {
    let (handler, body) = (guest.clone(), guest.clone());
    machine.run(
        move |vector| handler.handle(vector),
        move |_| body.run_cpu(),
    );
}

/// Runs the guest that `options` ask for on `cpus` threads, to its end.
#[cfg(not(shuttle))]
pub fn run_guest<G: Specimen<Arc<Threads>> + Send>(cpus: usize, options: &G::Options) -> Arc<G> {
    let machine = Threads::new(cpus);
    let lab = Lab::allocate(cpus as u32).unwrap();
    let guest = Arc::new(G::new(machine.clone(), options, lab));
    run(&machine, &guest);
    guest
}

impl Platform for Arc<Threads> {
    fn this_cpu(&self) -> CpuId {
        THIS_CPU.with(Cell::get)
    }
    fn send_ipi(&self, target: CpuId, vector: Vector) -> u64 {
        let target = &self.cpus[target];
        target.pending.fetch_or(bit(vector), Ordering::SeqCst);
        target.wake();
        1
    }
    fn send_ipi_mask(&self, targets: &CpuMask, vector: Vector) -> u64 {
        targets
            .iter()
            .map(|target| self.send_ipi(target, vector))
            .sum()
    }
    fn ring(&self, _: Doorbell) {}
    fn reached(&self, _: &'static Point, _: u64, _: u64) {}
    fn irqs_enabled(&self) -> bool {
        self.me().irqs_on.load(Ordering::Relaxed)
    }
    fn irqs_disable(&self) {
        self.me().irqs_on.store(false, Ordering::Relaxed);
    }
    fn irqs_enable(&self) {
        self.enable();
    }
    fn relax(&self) {
        self.take_interrupts();
        thread::yield_now();
    }
    fn idle_unless(&self, done: &dyn Fn() -> bool) {
        if !done() {
            self.enable();
            thread::yield_now();
        }
    }
    fn start_cpu(&self, cpu: CpuId) -> Result<(), NotStarted> {
        self.cpus[cpu].start.store(true, Ordering::SeqCst);
        self.cpus[cpu].wake();
        Ok(())
    }
    fn timestamp(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }
    fn cycles_per_second(&self) -> u64 {
        1_000_000
    }
}
