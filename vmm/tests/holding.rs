//! Holding a vCPU of a real machine where it says it has come, where it is to stop, and after
//! steps. The guest counts on its way round, so that what it has executed is seen in memory.

mod machine;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use shared::ports::{DOORBELL, Dispatch, Doorbell, WIRE};
use tests::image::{Code, Image as File};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm::machine::Machine;
use vmm::machine::breakpoints::{self, BreakpointError};
use vmm::machine::lifecycle::{Holder, Stall, State};
use vmm::machine::message::HeldBy;
use vmm::machine::message::{Message, OnMessage, Reaction};
use vmm::machine::pause_error::PauseError;
use vmm::machine::threads::VcpuThreads;
use vmm::machine::vm::Vm;

const HELD: State = State::Stalled(Stall::Held);
const SOON: Duration = Duration::from_secs(60);
/// Where the guest counts, before and behind the point.
const COUNTS: u64 = 0x5000;
const POINT: u32 = 0x1234;
const CALL: u32 = 0x77;
const IPI: Dispatch = Dispatch::fixed(5, 0xfc);

/// Counts, comes to a point, counts, sends an IPI, and so on.
fn guest() -> File {
    use iced_x86::code_asm::{dword_ptr, edi, esi};
    Code::image(|code| {
        code.for_ever(|code| {
            code.emit(|asm| {
                asm.inc(dword_ptr(COUNTS))?;
                asm.mov(edi, POINT)?;
                asm.mov(esi, CALL)
            });
            code.out(DOORBELL, Doorbell::Reached as u32);
            code.emit(|asm| asm.inc(dword_ptr(COUNTS + 4)));
            code.out(WIRE, u32::from(IPI));
        });
    })
}

struct Bench {
    threads: VcpuThreads,
    _vm: Vm,
    memory: GuestMemoryMmap,
    /// Times that the guest may pass its point before it is held there.
    passes: Arc<AtomicU64>,
    /// IPIs that were handed over.
    ipis: Arc<AtomicU64>,
    /// While this is locked, the vCPU stays between reaching its point and being held there.
    gate: Arc<Mutex<()>>,
    /// Times that it has reached the gate.
    arrivals: Arc<AtomicU64>,
}

impl Bench {
    /// A machine whose vCPU is held at its point after so many passes, if this host has a KVM.
    fn new(passes: u64) -> Option<Self> {
        if tests::open_kvm().is_err() {
            tests::skip("holding a real vCPU: no /dev/kvm");
            return None;
        }
        let Machine {
            vcpus,
            vm,
            devices,
            memory,
        } = machine::build(&guest(), 1);
        let passes = Arc::new(AtomicU64::new(passes));
        let ipis = Arc::<AtomicU64>::default();
        let gate = Arc::<Mutex<()>>::default();
        let arrivals = Arc::<AtomicU64>::default();
        let on_message: Arc<OnMessage> = Arc::new({
            let (passes, ipis) = (passes.clone(), ipis.clone());
            let (gate, arrivals) = (gate.clone(), arrivals.clone());
            move |vcpu, message| {
                assert_eq!(vcpu, 0);
                match message {
                    Message::Dispatch { dispatch: IPI, .. } => {
                        ipis.fetch_add(1, Ordering::Relaxed);
                        Reaction::GoOn
                    }
                    Message::Reached { .. } => {
                        let left = |left: u64| left.checked_sub(1);
                        match passes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left) {
                            Ok(_) => Reaction::GoOn,
                            Err(_) => {
                                arrivals.fetch_add(1, Ordering::Release);
                                drop(gate.lock().unwrap());
                                Reaction::Hold(Holder::Operator)
                            }
                        }
                    }
                    Message::Stopped(_) => Reaction::Hold(Holder::Operator),
                    other => panic!("{other:?}"),
                }
            }
        });
        let threads = VcpuThreads::new(vcpus, &devices, &memory, &on_message, None).unwrap();
        threads.run();
        Some(Self {
            threads,
            _vm: vm,
            memory,
            passes,
            ipis,
            gate,
            arrivals,
        })
    }

    #[track_caller]
    fn wait_held(&self) -> Option<HeldBy> {
        wait_until("is held", || self.threads.state(0).unwrap().0 == HELD);
        self.threads.held_by(0)
    }

    #[track_caller]
    fn wait_counted(&self, counts: [u32; 2]) {
        wait_until(&format!("has counted {counts:?}"), || {
            self.counts() == counts
        });
    }

    fn counts(&self) -> [u32; 2] {
        [0, 4].map(|offset| self.memory.read_obj(GuestAddress(COUNTS + offset)).unwrap())
    }

    fn rip(&self) -> u64 {
        let dump = self.threads.dump(0).unwrap().unwrap();
        dump.regs.rip
    }
}

/// Waits until something is so of the vCPU.
#[track_caller]
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: it {what}");
        thread::yield_now();
    }
}

const AT_POINT: Option<HeldBy> = Some(HeldBy::Point {
    point: POINT as u64,
    call: CALL as u64,
});

#[test]
fn a_vcpu_is_held_where_it_says_it_has_come() {
    let Some(bench) = Bench::new(2) else { return };
    assert_eq!(bench.wait_held(), AT_POINT);
    assert_eq!(bench.counts(), [3, 2], "the third time, and no further");
    assert_eq!(bench.ipis.load(Ordering::Relaxed), 2);
    // Another hold on top of it, undone, leaves it where it is.
    assert_eq!(bench.threads.pause(0), Ok(HELD));
    bench.threads.resume(0).unwrap();
    assert_eq!(bench.threads.state(0).unwrap().0, HELD);
    // Its own hold, undone, lets it go on to the next time.
    bench.threads.resume(0).unwrap();
    assert_eq!(bench.wait_held(), AT_POINT);
    assert_eq!(bench.counts(), [4, 3]);
    bench.passes.store(u64::MAX, Ordering::Relaxed);
    bench.threads.resume(0).unwrap();
    assert_eq!(bench.threads.resume(0), Err(PauseError::NotPaused(0)));
    let looked = bench.threads.with_stalled(0, |_| ());
    assert_eq!(looked, Err(PauseError::NotStalled(0)));
    // It can also be dropped while it runs.
}

#[test]
fn a_held_vcpu_takes_as_many_steps_as_it_is_told() {
    let Some(bench) = Bench::new(0) else { return };
    bench.wait_held();
    let before = bench.rip();
    assert_eq!(bench.counts(), [1, 0]);
    bench.threads.step(0, 1).unwrap();
    assert_eq!(bench.wait_held(), Some(HeldBy::Steps));
    assert_eq!(bench.counts(), [1, 1]);
    assert!(bench.rip() > before);
    // mov, mov, out, jmp, inc
    bench.threads.step(0, 5).unwrap();
    assert_eq!(bench.wait_held(), Some(HeldBy::Steps));
    assert_eq!(bench.counts(), [2, 1]);
    assert_eq!(bench.ipis.load(Ordering::Relaxed), 1);
    // Resumed without steps, it runs to its point.
    bench.threads.resume(0).unwrap();
    assert_eq!(bench.wait_held(), AT_POINT);
    assert_eq!(bench.counts(), [2, 1]);
}

/// Where the vCPU has its stack once an interrupt has begun.
const STACK: u64 = 0x9000;

/// Has an interrupt begin at the vCPU, which is held: it is delivered at the next entry. Its handler
/// counts, for ever.
fn begin_an_interrupt(bench: &Bench) {
    const VECTOR: u8 = 0x30;
    const CODE: u16 = 8;
    const IDT: u64 = 0x6000;
    const GDT: u64 = 0x7000;
    const HANDLER: u64 = 0x7800;
    // An interrupt gate: the handler's address in two parts, around the code segment and its type.
    let gate = HANDLER | u64::from(CODE) << 16 | 0x8e00 << 32;
    let flat_code = 0x00cf_9b00_0000_ffff_u64;
    let put = |at: u64, what: &[u8]| bench.memory.write_slice(what, GuestAddress(at)).unwrap();
    put(IDT + 8 * u64::from(VECTOR), &gate.to_le_bytes());
    put(GDT + u64::from(CODE), &flat_code.to_le_bytes());
    // inc dword [COUNTS]; jmp back
    put(HANDLER, &[0xff, 0x05, 0x00, 0x50, 0x00, 0x00, 0xeb, 0xf8]);
    let begun = bench.threads.with_stalled(0, |vcpu| {
        let fd = vcpu.fd();
        let (mut regs, mut sregs) = (fd.get_regs()?, fd.get_sregs()?);
        regs.rsp = STACK;
        (sregs.idt.base, sregs.idt.limit) = (IDT, 0x7ff);
        (sregs.gdt.base, sregs.gdt.limit) = (GDT, 0xf);
        fd.set_regs(&regs)?;
        fd.set_sregs(&sregs)?;
        let mut events = fd.get_vcpu_events()?;
        events.interrupt.injected = 1;
        events.interrupt.nr = VECTOR;
        fd.set_vcpu_events(&events)
    });
    begun.unwrap().unwrap();
}

#[test]
fn an_interrupt_that_had_begun_before_a_step_saves_no_trap_flag() {
    let Some(bench) = Bench::new(0) else { return };
    bench.wait_held();
    let interrupted = bench.rip();
    begin_an_interrupt(&bench);
    bench.threads.step(0, 1).unwrap();
    assert_eq!(bench.wait_held(), Some(HeldBy::Steps));
    assert_eq!(bench.counts(), [2, 0], "the handler has counted");
    let saved = |words: u64| -> u32 {
        let at = GuestAddress(STACK - 4 * words);
        bench.memory.read_obj(at).unwrap()
    };
    assert_eq!(u64::from(saved(3)), interrupted);
    assert_eq!(saved(1) & 0x100, 0, "RFLAGS.TF");
}

#[test]
fn a_vcpu_is_held_before_an_instruction_once() {
    let Some(bench) = Bench::new(0) else { return };
    bench.wait_held();
    let behind_the_point = bench.rip();
    if let Err(error) = breakpoints::check() {
        assert!(matches!(error, BreakpointError::None), "{error}");
        let refused = bench.threads.set_breakpoint(0, behind_the_point);
        assert!(matches!(refused, Err(BreakpointError::None)));
        return;
    }
    bench.passes.store(3, Ordering::Relaxed);
    bench.threads.step(0, 1).unwrap();
    bench.wait_held();
    bench.threads.set_breakpoint(0, behind_the_point).unwrap();
    bench.threads.resume(0).unwrap();
    assert_eq!(bench.wait_held(), Some(HeldBy::Address(behind_the_point)));
    assert_eq!(bench.counts(), [2, 1], "one round, and not the instruction");
    assert_eq!(bench.rip(), behind_the_point);
    bench.threads.resume(0).unwrap();
    assert_eq!(bench.wait_held(), AT_POINT, "it is not held there again");
    assert_eq!(bench.counts(), [5, 4]);
    // Nor is it held where the breakpoint has been cleared.
    bench.passes.store(2, Ordering::Relaxed);
    bench.threads.set_breakpoint(0, behind_the_point).unwrap();
    bench.threads.clear_stops(0).unwrap();
    bench.threads.resume(0).unwrap();
    assert_eq!(bench.wait_held(), AT_POINT);
    assert_eq!(bench.counts(), [8, 7]);
}

#[test]
fn what_was_planned_is_not_the_operators_to_undo() {
    let Some(bench) = Bench::new(0) else { return };
    let threads = &bench.threads;
    bench.wait_held();
    threads.hold(0, Holder::Plan).unwrap();
    threads.resume(0).unwrap();
    assert_eq!(threads.state(0).unwrap().0, HELD);
    assert_eq!(threads.resume(0), Err(PauseError::NotPaused(0)));
    threads.resume_all().unwrap();
    let stepped = threads.step(0, 1);
    assert!(
        matches!(
            stepped,
            Err(BreakpointError::Pause(PauseError::NotPaused(0)))
        ),
        "{stepped:?}"
    );
    // However often the operator holds it, it goes on once the operator has let it go and the plan
    // has released it.
    threads.pause(0).unwrap();
    threads.pause(0).unwrap();
    threads.let_go(0).unwrap();
    assert_eq!(bench.counts(), [1, 0]);
    threads.release(0, Holder::Plan).unwrap();
    let unplanned = threads.release(0, Holder::Plan);
    assert_eq!(unplanned, Err(PauseError::NotPaused(0)));
    bench.wait_counted([2, 1]);
    assert_eq!(bench.wait_held(), AT_POINT);
}

#[test]
fn a_vcpu_on_its_way_into_a_hold_is_let_go_with_the_others() {
    let Some(bench) = Bench::new(0) else { return };
    let threads = &bench.threads;
    bench.wait_held();
    let gate = bench.gate.lock().unwrap();
    threads.resume(0).unwrap();
    wait_until("comes to its point", || {
        bench.arrivals.load(Ordering::Acquire) >= 2
    });
    // It has reached its point and is not held yet, so that there is nothing to undo.
    assert_eq!(threads.resume(0), Err(PauseError::NotPaused(0)));
    thread::scope(|scope| {
        let letting_go = scope.spawn(|| {
            threads.clear_stops(0).unwrap();
            threads.let_go(0).unwrap();
        });
        // The thread has to wait until the vCPU is held.
        thread::sleep(Duration::from_millis(20));
        assert!(!letting_go.is_finished());
        bench.passes.store(1, Ordering::Relaxed);
        drop(gate);
    });
    bench.wait_counted([4, 3]);
    assert_eq!(bench.wait_held(), AT_POINT);
}

/// Two threads pause and resume the vCPU while it is held at its point again and again: no hold is
/// lost, and none is left over.
#[test]
fn holds_from_everywhere_add_up() {
    const TIMES: u32 = 500;
    let Some(bench) = Bench::new(0) else { return };
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..TIMES {
                    bench.threads.pause(0).unwrap();
                    bench.threads.resume(0).unwrap();
                }
            });
        }
        for round in 0..TIMES {
            bench.wait_held();
            assert_eq!(bench.counts(), [round + 1, round]);
            bench.threads.resume(0).unwrap();
            wait_until("goes on", || bench.counts()[0] != round + 1);
        }
    });
    bench.wait_held();
    bench.threads.resume(0).unwrap();
    assert_eq!(bench.wait_held(), AT_POINT);
    assert_eq!(bench.counts(), [TIMES + 2, TIMES + 1]);
}
