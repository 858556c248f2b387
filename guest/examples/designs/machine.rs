//! A machine whose CPUs take turns on one thread. An interrupt stays pending until a CPU waits
//! ([`Platform::relax`]) or the census says so, and then every CPU takes what it was sent, in
//! order. So a run is the same every time, and what it does can be counted.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use guest::vectors::{MANY, SINGLE};
use kit::platform::{CpuId, Doorbell, NotStarted, Platform, Point, Vector};
use kit::sync::event::Event;
use kit::sync::listener::listen;
use kit::sync::mask::CpuMask;

use crate::coherence::Coherence;
use crate::linux;

/// Number of CPUs.
pub const CPUS: usize = 16;

/// What has happened on all CPUs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// IPIs, one for each CPU they were sent to.
    pub ipis: u64,
    /// Spin locks taken.
    pub locks: u64,
    /// Atomic read-modify-writes, those that take a lock included.
    pub read_modify_writes: u64,
    /// Full fences.
    pub fences: u64,
    /// Cache lines that came from another CPU, to code that calls.
    pub lines_to_callers: u64,
    /// The same, to handlers.
    pub lines_to_targets: u64,
}

type Handler = Rc<dyn Fn(Vector)>;

#[derive(Default)]
struct State {
    this_cpu: Cell<CpuId>,
    in_handler: Cell<bool>,
    irqs_off: [Cell<bool>; CPUS],
    /// By CPU and, highest priority first, vector.
    pending: [[Cell<bool>; VECTORS.len()]; CPUS],
    handler: RefCell<Option<Handler>>,
    lines: RefCell<Coherence>,
    tally: Cell<Tally>,
}

const VECTORS: [Vector; 5] = [Vector::WAKE, MANY, SINGLE, linux::CALL, Vector::LAST];

thread_local! {
    static STATE: State = State::default();
}

fn count(change: impl FnOnce(&mut Tally)) {
    STATE.with(|state| {
        let mut tally = state.tally.get();
        change(&mut tally);
        state.tally.set(tally);
    });
}

/// A CPU is about to do this.
pub fn heard(event: Event) {
    match event {
        Event::Load(address, _) => touch(address, false),
        Event::Store(address, _) => touch(address, true),
        Event::ReadModifyWrite(address, _) => {
            count(|tally| tally.read_modify_writes += 1);
            touch(address, true);
        }
        Event::Exchange(address, _) => {
            touch(address, true);
            count(|tally| tally.fences += 1);
        }
        Event::Fence => count(|tally| tally.fences += 1),
        // Matters only to an explorer.
        Event::Change(_) | Event::Mark(_) => {}
        Event::Lock(address) => {
            count(|tally| tally.locks += 1);
            heard(Event::ReadModifyWrite(address, 4));
        }
        Event::Release(address) => touch(address, true),
    }
}

fn touch(address: usize, writes: bool) {
    STATE.with(|state| {
        let cpu = state.this_cpu.get();
        if !state.lines.borrow_mut().touch(cpu, address, writes) {
            return;
        }
        count(|tally| {
            if state.in_handler.get() {
                tally.lines_to_targets += 1;
            } else {
                tally.lines_to_callers += 1;
            }
        });
    });
}

/// Restarts the machine, with `handler` for its interrupts, empty caches and all counts at zero.
pub fn boot(handler: impl Fn(Vector) + 'static) {
    STATE.with(|state| {
        state.handler.replace(Some(Rc::new(handler)));
        state.lines.take();
    });
    clear_tally();
    listen(heard);
}

/// Stops listening to accesses, and drops the handler and the cache lines.
pub fn shut_down() {
    listen(|_| ());
    STATE.with(|state| {
        state.handler.take();
        state.lines.take();
    });
}

/// Sets all counts to zero.
pub fn clear_tally() {
    STATE.with(|state| state.tally.take());
}

/// What was counted.
pub fn tally() -> Tally {
    STATE.with(|state| state.tally.get())
}

/// Runs `body` as `cpu`.
pub fn on<R>(cpu: CpuId, body: impl FnOnce() -> R) -> R {
    STATE.with(|state| {
        let before = state.this_cpu.replace(cpu);
        let result = body();
        state.this_cpu.set(before);
        result
    })
}

/// Whether the code that runs is an interrupt handler's.
pub fn is_in_handler() -> bool {
    STATE.with(|state| state.in_handler.get())
}

/// Has every CPU take the interrupts that are pending at it, CPU 0 first.
pub fn take_interrupts() {
    (0..CPUS).for_each(|cpu| {
        take_those_of(cpu);
    });
}

/// Returns how many there were.
fn take_those_of(cpu: CpuId) -> usize {
    STATE.with(|state| {
        let mut taken = 0;
        while !state.irqs_off[cpu].get() {
            let place = state.pending[cpu].iter().position(Cell::take);
            let Some(place) = place else {
                break;
            };
            taken += 1;
            let handler = state.handler.borrow().clone().expect("booted");
            state.irqs_off[cpu].set(true);
            let was_in_handler = state.in_handler.replace(true);
            on(cpu, || handler(VECTORS[place]));
            state.in_handler.set(was_in_handler);
            state.irqs_off[cpu].set(false);
        }
        taken
    })
}

/// The machine, as the path sees it.
#[derive(Clone, Copy, Debug)]
pub struct OneThread;

impl Platform for OneThread {
    fn this_cpu(&self) -> CpuId {
        STATE.with(|state| state.this_cpu.get())
    }
    fn send_ipi(&self, target: CpuId, vector: Vector) -> u64 {
        count(|tally| tally.ipis += 1);
        let place = VECTORS.iter().position(|known| *known == vector);
        STATE.with(|state| state.pending[target][place.expect("all are known")].set(true));
        1
    }
    fn send_ipi_mask(&self, targets: &CpuMask, vector: Vector) -> u64 {
        targets
            .iter()
            .map(|target| self.send_ipi(target, vector))
            .sum()
    }
    fn irqs_enabled(&self) -> bool {
        STATE.with(|state| !state.irqs_off[self.this_cpu()].get())
    }
    fn irqs_disable(&self) {
        STATE.with(|state| state.irqs_off[self.this_cpu()].set(true));
    }
    fn irqs_enable(&self) {
        STATE.with(|state| state.irqs_off[self.this_cpu()].set(false));
    }
    fn relax(&self) {
        let me = self.this_cpu();
        let others = (0..CPUS).filter(|cpu| *cpu != me);
        let taken: usize = others.map(take_those_of).sum();
        assert!(
            taken != 0,
            "CPU {me} waits, and nothing is on its way to anybody"
        );
    }
    fn ring(&self, _: Doorbell) {}
    fn reached(&self, _: &'static Point, _: u64, _: u64) {}
    fn idle_unless(&self, done: &dyn Fn() -> bool) {
        if !done() {
            self.relax();
        }
    }
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
