//! [`Platform`] on bare metal.

use core::arch::naked_asm;
use core::hint::spin_loop;
use core::iter::once;
use core::ptr;
#[cfg(feature = "explore")]
use core::sync::atomic::Ordering;

use crate::declare;
use crate::lab::Lab;
use crate::log;
use crate::manifest::Record;
use crate::options::ApicMode;
use crate::platform::{CpuId, Doorbell, NotStarted, Platform, Point, Vector};
use crate::probe;
use crate::route::{Operation, Router, operations};
use crate::sync::mask::CpuMask;
use crate::sync::waiting;
use shared::lab::Transport;
use shared::manifest::PointRole;
use shared::ports::{DOORBELL, Dispatch};
use shared::probe::{HELD, TRACED};
use x86_64::instructions::interrupts;
use x86_64::instructions::port::Port;

#[cfg(feature = "explore")]
use super::access;
use super::apic::{self, Command, Destination};
use super::clock::{self, Deadline};
use super::cpu::Cpu;
use super::hypercall::Hypercall;
use super::smp::{self, Starting};
use super::wire::hand_over;

declare!(Record::point("ipi.send", PointRole::Send));

/// The machine under the portable guest.
#[derive(Clone, Copy, Debug)]
pub struct Metal {
    /// How IPIs to others leave.
    pub router: Router,
    /// The mode the APICs are in.
    pub mode: ApicMode,
    /// The hypercall that sends IPIs, where it works.
    pub hypercall: Option<Hypercall>,
    /// Whether there is a fence before each write of the x2APIC's ICR.
    pub icr_fence: bool,
    /// APIC ids by CPU.
    pub apic_ids: &'static [u32],
    /// The lab in which IPIs are counted.
    pub lab: Lab,
    /// Whether the monitor supplied that lab, and so listens at the doorbell.
    pub has_doorbell: bool,
    /// Cycles of the TSC in a second.
    pub hz: u64,
    /// Whether IPIs to oneself go by the wire.
    pub self_ipi_by_wire: bool,
    /// Whether the clock stands still.
    pub clock_stopped: bool,
    /// How other CPUs are started.
    pub starting: Starting,
}

unsafe extern "C" {
    /// The first of the image's points, which the linker script puts in front of the others.
    static probes_start: Point;
}

impl Metal {
    /// Sends `vector` to `cpus` by `transport` because of `call`, if that is not 0. Counts that,
    /// and returns how many operations it took.
    fn send(
        &self,
        vector: Vector,
        transport: Transport,
        cpus: impl Iterator<Item = CpuId>,
        call: u64,
    ) -> u64 {
        let mut targets = 0;
        let ids = cpus.inspect(|_| targets += 1).map(|cpu| self.apic_ids[cpu]);
        let mut sent = 0;
        for operation in operations(transport, ids) {
            self.perform(operation, vector, transport, call);
            sent += 1;
        }
        self.lab
            .counters(self.this_cpu())
            .count_ipi(transport, sent, targets);
        sent
    }

    fn perform(&self, operation: Operation, vector: Vector, transport: Transport, call: u64) {
        let own = self.apic_ids[self.this_cpu()];
        let dispatch = |target| Dispatch::fixed(target, vector.number());
        probe!(
            *self,
            "ipi.send",
            for target in operation.targets(self.apic_ids, own) => call,
            u32::from(dispatch(target)).into()
        );
        let destination = match operation {
            Operation::Physical(target) if transport == Transport::Wire => {
                // Earlier stores are visible before the port is written (SDM Vol. 3A 9.2.2, 9.3). To
                // a search the port stands for the ICR, which does not see to that in an x2APIC.
                #[cfg(feature = "explore")]
                if self.icr_fence && self.mode == ApicMode::X2apic {
                    crate::sync::stops::before_drain();
                }
                hand_over(dispatch(target).into(), call);
                return;
            }
            Operation::Window { first, bits } => {
                let hypercall = self.hypercall.expect("chosen only where it works");
                let delivered = hypercall.send_ipi(bits, first, vector);
                assert!(
                    delivered >= 0,
                    "KVM_HC_SEND_IPI worked once, and now fails: {delivered}"
                );
                return;
            }
            Operation::Physical(target) => Destination::Physical(target),
            Operation::Cluster { cluster, members } => {
                Destination::Logical(Operation::logical_id(cluster, members))
            }
            Operation::AllButSelf => Destination::AllButSelf,
        };
        apic::send(Command::Fixed(vector.number()), destination, self.icr_fence);
    }

    /// Waits for at most `micros` microseconds until `done`, and says whether it was.
    ///
    /// If the clock stands still, a wait that has a limit can be over at any moment: it is over at
    /// once, and the order of this CPU's steps and those of others decides what it has found by
    /// then. The last of the waits for a CPU has none.
    fn wait(&self, micros: u64, done: &dyn Fn() -> bool) -> bool {
        if !self.clock_stopped {
            return Deadline::after_micros(micros, self.hz).spin_until(done);
        }
        if micros < self.starting.limit_micros {
            return done();
        }
        waiting::spin_until(self, &self.lab, done);
        true
    }

    /// The transport for an IPI to `targets`, which do not include this CPU.
    fn transport(&self, targets: &CpuMask) -> Transport {
        let ids = targets.iter().map(|cpu| self.apic_ids[cpu]);
        let are_all = || targets.len() + 1 == self.apic_ids.len();
        self.router.transport(&ids, are_all)
    }
}

impl Platform for Metal {
    fn this_cpu(&self) -> CpuId {
        Cpu::current().index
    }

    fn send_ipi(&self, target: CpuId, vector: Vector) -> u64 {
        self.announce(target, vector, 0)
    }

    fn send_ipi_mask(&self, targets: &CpuMask, vector: Vector) -> u64 {
        self.announce_all(targets, vector, 0)
    }

    fn announce(&self, target: CpuId, vector: Vector, call: u64) -> u64 {
        let transport = if target == self.this_cpu() {
            if self.self_ipi_by_wire {
                Transport::Wire
            } else {
                self.mode.transport()
            }
        } else {
            let are_all = || self.apic_ids.len() == 2;
            let id = once(self.apic_ids[target]);
            self.router.transport(&id, are_all)
        };
        self.send(vector, transport, once(target), call)
    }

    fn announce_all(&self, targets: &CpuMask, vector: Vector, call: u64) -> u64 {
        self.send(vector, self.transport(targets), targets.iter(), call)
    }

    fn irqs_enabled(&self) -> bool {
        let are_enabled = interrupts::are_enabled();
        // To a search the other flags are no part of a state, so the compiler may not keep all of
        // them until it needs this one.
        #[cfg(feature = "explore")]
        let are_enabled = core::hint::black_box(are_enabled);
        are_enabled
    }

    fn irqs_disable(&self) {
        #[cfg(feature = "explore")]
        if interrupts::are_enabled() {
            crate::sync::stops::before_irqs_off();
        }
        interrupts::disable();
    }

    fn irqs_enable(&self) {
        #[cfg(feature = "explore")]
        access::stop_before_next_of_handler();
        interrupts::enable();
    }

    fn relax(&self) {
        spin_loop();
    }

    #[cfg(feature = "explore")]
    #[inline(always)]
    fn wait_begins(&self) {
        // A load and a store: handlers leave it as they find it.
        let waits = self.lab.waits(self.this_cpu());
        waits.store(waits.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        access::stop_before_next();
    }

    #[cfg(feature = "explore")]
    #[inline(always)]
    fn wait_ends(&self) {
        let waits = self.lab.waits(self.this_cpu());
        waits.store(waits.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
    }

    fn ring(&self, doorbell: Doorbell) {
        if self.has_doorbell {
            // SAFETY: the port is the monitor's, which offered a lab and so listens; a write to it
            // changes no memory.
            unsafe { Port::<u32>::new(DOORBELL).write(doorbell as u32) };
        }
    }

    fn reached(&self, point: &'static Point, call: u64, detail: u64) {
        let now = self.timestamp();
        let cpu = self.this_cpu();
        let first = &raw const probes_start;
        let index = (ptr::from_ref(point).addr() - first.addr()) / size_of::<Point>();
        let armed = point.armed();
        if armed & TRACED != 0 {
            self.lab.ring(cpu).append(now, index, call, detail);
        }
        if armed & HELD != 0 && self.has_doorbell && self.lab.is_armed(cpu, index) {
            ring_at(point, call);
        }
    }

    fn idle_unless(&self, done: &dyn Fn() -> bool) {
        idle_unless(|| {
            done() || {
                probe!(*self, "cpu.idle");
                false
            }
        });
    }

    fn start_cpu(&self, cpu: CpuId) -> Result<(), NotStarted> {
        let mut wait = |micros, done: &dyn Fn() -> bool| self.wait(micros, done);
        let started = smp::start_one(cpu, self.apic_ids[cpu], self.starting, &mut wait);
        let was_online = started.map_err(|missing| {
            log!("{missing}");
            NotStarted
        })?;
        if !was_online {
            self.lab.count_cpu_online();
        }
        Ok(())
    }

    fn timestamp(&self) -> u64 {
        // Not zero, which in the ledger means that something has not happened yet.
        if self.clock_stopped { 1 } else { clock::now() }
    }

    fn cycles_per_second(&self) -> u64 {
        self.hz
    }
}

/// Rings the doorbell at `point`, with the call at hand. It is a function of its own, so that
/// meanwhile only those registers matter that functions preserve ([`shared::stop`]). The port is
/// the monitor's, which has supplied a lab, or it could not have armed a point; the write itself
/// changes no memory.
#[unsafe(naked)]
pub(super) extern "C" fn ring_at(_point: &'static Point, _call: u64) {
    naked_asm!(
        "mov edx, {port}",
        "mov eax, {reached}",
        "out dx, eax",
        "ret",
        port = const DOORBELL as u32,
        reached = const Doorbell::Reached as u32,
    )
}

/// [`Platform::idle_unless`], for a CPU on which no guest runs yet.
pub fn idle_unless(done: impl Fn() -> bool) {
    interrupts::disable();
    if done() {
        interrupts::enable();
    } else {
        // `sti` takes effect after the next instruction, so an interrupt that arrives after the
        // test ends the `hlt`.
        enable_and_halt();
    }
}

/// Halts until an interrupt has been handled, with interrupts on from here.
#[unsafe(naked)]
extern "C" fn enable_and_halt() {
    naked_asm!(
        "push rbp", // a frame, so that a backtrace finds what is idle
        "mov rbp, rsp",
        "sti",
        ".globl idle_hlt",
        "idle_hlt:",
        "hlt",
        "pop rbp",
        "ret",
    )
}
