//! A throw-away machine of one vCPU that causes each kind of event a known number of times. Each
//! counter is read before and after; one that has not moved is blind on this host, and its zero
//! means nothing.

use std::arch::global_asm;

use kvm_bindings::kvm_regs;
use kvm_ioctls::{VcpuExit, VcpuFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::errno;

use crate::machine::boot;
use crate::machine::vm::{HostError, Vm};
use crate::stats::tracepoints::events::{X2APIC_EOI, X2APIC_ICR};

/// How often each event is caused. At up to 50 µs per exit where ring 0 is emulated, this takes
/// less than a tenth of a second.
pub const TIMES: u64 = 500;

/// The vector of the IPIs, by which they are told from others.
pub const VECTOR: u8 = 0x99;

/// How often each event is caused that takes more than one exit.
pub const FEW: u64 = 100;

/// Instructions of the guest that a KVM which emulates ring 0 executes in [`Step::Mmio`].
pub const INSTRUCTIONS_OF_MMIO: u64 = 3 * FEW + 3;

const MEMORY: usize = 1 << 20;
const START: u64 = 0x1000;
/// A null descriptor and two segments, which interrupts need to find the code.
const GDT: u64 = 0x4000;
const IDT: u64 = 0x5000;
/// The top of the stack. Interrupts push there; the handlers never return.
const STACK: u64 = 0x8000;
/// Pages from here on are touched for the first time by [`Step::Touch`].
const FRESH: u64 = 0x2_0000;
/// An address without memory or device.
const NOWHERE: u64 = 0xd000_0000;
/// A port without a device.
const NO_PORT: u16 = 0x4f0;
/// A port at which each write ends a step.
const PORT: u16 = 0xf4;

/// What the guest does between two samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Instructions that leave the guest on any processor.
    Cpuid,
    /// Start-up IPIs to itself, by the ICR of an x2APIC. No hardware sends these without KVM, and a
    /// running CPU ignores them.
    Ipi,
    /// Writes of the EOI register without an interrupt in service. Hardware may handle them without
    /// an exit.
    Eoi,
    /// Writes to a port that only the VMM can have.
    Port,
    /// Writes to an address without memory, which KVM has to emulate on any host.
    Mmio,
    /// First accesses to pages of memory.
    Touch,
    /// Halts, each ended by an interrupt that the CPU has sent itself.
    Halt,
}

impl Step {
    /// In the order in which they are done.
    pub const ALL: [Self; 7] = [
        Self::Cpuid,
        Self::Ipi,
        Self::Eoi,
        Self::Port,
        Self::Mmio,
        Self::Touch,
        Self::Halt,
    ];

    /// What it is, in words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Cpuid => "cpuid instructions",
            Self::Ipi => "start-up IPIs",
            Self::Eoi => "ends of interrupt",
            Self::Port => "writes to a port",
            Self::Mmio => "writes to no memory",
            Self::Touch => "first accesses to a page",
            Self::Halt => "halts",
        }
    }

    /// How often it is done.
    pub fn times(self) -> u64 {
        match self {
            Self::Cpuid | Self::Ipi | Self::Eoi => TIMES,
            Self::Port | Self::Mmio | Self::Touch | Self::Halt => FEW,
        }
    }
}

// The guest runs in flat 32-bit mode without paging. Interrupts are on only in the halts. At each
// write to the port the host reads the counters.
global_asm!(
    ".pushsection .rodata.canary, \"a\"",
    // The Rust code that refers to them may be compiled into another object.
    ".globl canary_guest, canary_guest_end",
    ".hidden canary_guest, canary_guest_end",
    ".code32",
    "canary_guest:",
    // Enable x2APIC mode by bits 10 and 11 of IA32_APIC_BASE, and the APIC itself by bit 8 of the
    // spurious-interrupt vector register (SDM Vol. 3A, 11.12.1, 11.9).
    "mov ecx, 0x1b",
    "rdmsr",
    "or eax, 0xc00",
    "wrmsr",
    "mov ecx, 0x80f",
    "mov eax, 0x1ff",
    "xor edx, edx",
    "wrmsr",
    // The first execution of an instruction can cost exits of its own.
    "xor eax, eax",
    "cpuid",
    "out {port}, al",

    // Repeated if the host answers so at the port.
    "3:",
    "mov esi, {times}",
    "2:",
    "xor eax, eax",
    "cpuid",
    "dec esi",
    "jnz 2b",
    "out {port}, al",
    "in al, {port}",
    "test al, al",
    "jnz 3b",

    "mov esi, {times}",
    "mov ecx, {icr}",
    "mov eax, {startup}",
    "xor edx, edx",
    "2:",
    "wrmsr",
    "dec esi",
    "jnz 2b",
    "out {port}, al",

    "mov esi, {times}",
    "mov ecx, {eoi}",
    "xor eax, eax",
    "xor edx, edx",
    "2:",
    "wrmsr",
    "dec esi",
    "jnz 2b",
    "out {port}, al",

    "mov esi, {few}",
    "mov edx, {no_port}",
    "2:",
    "out dx, al",
    "dec esi",
    "jnz 2b",
    "out {port}, al",

    "mov esi, {few}",
    "mov ebx, {nowhere}",
    "2:",
    "mov [ebx], eax",
    "dec esi",
    "jnz 2b",
    "out {port}, al",

    "mov esi, {few}",
    "mov ebx, {fresh}",
    "2:",
    "mov [ebx], eax",
    "add ebx, 0x1000",
    "dec esi",
    "jnz 2b",
    "out {port}, al",

    // The interrupt is pending when the CPU halts, and is taken right after the `hlt`.
    "mov esi, {few}",
    "2:",
    "mov esp, {stack}",
    "mov ecx, {icr}",
    "mov eax, {fixed}",
    "xor edx, edx",
    "wrmsr",
    "sti",
    "hlt",
    "ud2",
    "canary_guest_handler:",
    "mov ecx, {eoi}",
    "xor eax, eax",
    "xor edx, edx",
    "wrmsr",
    "dec esi",
    "jnz 2b",
    "out {port}, al",
    "canary_guest_end:",
    ".code64",
    ".popsection",
    port = const PORT,
    times = const TIMES,
    icr = const X2APIC_ICR,
    eoi = const X2APIC_EOI,
    // Start-up, level asserted, to the physical id 0 (SDM Vol. 3A, 11.6.1).
    startup = const (0x4600 | VECTOR as u32),
    // Fixed, to the same.
    fixed = const (0x4000 | VECTOR as u32),
    few = const FEW,
    no_port = const NO_PORT,
    nowhere = const NOWHERE,
    fresh = const FRESH,
    stack = const STACK,
);

/// The guest's instructions.
fn guest() -> &'static [u8] {
    unsafe extern "C" {
        #[link_name = "canary_guest"]
        static BEGIN: u8;
        #[link_name = "canary_guest_end"]
        static END: u8;
    }
    let (begin, end) = (&raw const BEGIN, &raw const END);
    // SAFETY: these are the two ends of one piece of read-only data, which lives for ever.
    unsafe { std::slice::from_raw_parts(begin, end.addr() - begin.addr()) }
}

/// The address of its interrupt handler.
fn handler() -> u64 {
    unsafe extern "C" {
        #[link_name = "canary_guest_handler"]
        static HANDLER: u8;
    }
    START + ((&raw const HANDLER).addr() - guest().as_ptr().addr()) as u64
}

/// The descriptors of flat code and data (SDM Vol. 3A, 3.4.5), and of an interrupt gate (6.11) to
/// the handler.
const FLAT: [u64; 3] = [0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
const CODE: u64 = 8;

fn gate(handler: u64) -> u64 {
    const PRESENT_INTERRUPT_32: u64 = 0x8e00;
    (handler >> 16 << 48) | PRESENT_INTERRUPT_32 << 32 | CODE << 16 | (handler & 0xffff)
}

/// Why the canary could not be run.
#[derive(Debug, thiserror::Error)]
pub enum CanaryError {
    /// There is no memory for it.
    #[error("this host does not give a guest 64 KiB of memory")]
    Memory,
    /// There is no VM for it.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Its vCPU cannot be set up or run.
    #[error("KVM refused to {0}")]
    Vcpu(&'static str, #[source] errno::Error),
    /// It exited for something other than the port.
    #[error("its vCPU came out of the guest unexpectedly ({0})")]
    Unexpected(String),
}

/// The machine. It is run on the calling thread.
#[derive(Debug)]
pub struct Canary {
    // Dropped before the memory that KVM has mapped.
    vcpu: VcpuFd,
    _vm: Vm,
    _memory: GuestMemoryMmap,
}

impl Canary {
    /// Builds it, and runs it up to its first step.
    ///
    /// # Errors
    /// [`CanaryError`] says what the host refused.
    pub fn new() -> Result<Self, CanaryError> {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)])
            .map_err(|_| CanaryError::Memory)?;
        memory
            .write_slice(guest(), GuestAddress(START))
            .map_err(|_| CanaryError::Memory)?;
        let tables = (FLAT.into_iter().zip((GDT..).step_by(8)))
            .chain([(gate(handler()), IDT + 8 * u64::from(VECTOR))]);
        for (descriptor, address) in tables {
            memory
                .write_obj(descriptor, GuestAddress(address))
                .map_err(|_| CanaryError::Memory)?;
        }
        let vm = Vm::new(1, &memory)?;
        let vcpu = vm.create_vcpu(0)?;
        let refused = |what| move |error| CanaryError::Vcpu(what, error);
        vcpu.set_cpuid2(&vm.supported_cpuid()?)
            .map_err(refused("set a CPUID table"))?;
        let mut sregs = vcpu
            .get_sregs()
            .map_err(refused("read segment registers"))?;
        boot::protected_mode(&mut sregs);
        (sregs.gdt.base, sregs.gdt.limit) = (GDT, size_of_val(&FLAT) as u16 - 1);
        (sregs.idt.base, sregs.idt.limit) = (IDT, 8 * (u16::from(VECTOR) + 1) - 1);
        vcpu.set_sregs(&sregs)
            .map_err(refused("set segment registers"))?;
        let regs = kvm_regs {
            rip: START,
            rflags: 2,
            ..kvm_regs::default()
        };
        vcpu.set_regs(&regs).map_err(refused("set registers"))?;
        let mut canary = Self {
            vcpu,
            _vm: vm,
            _memory: memory,
        };
        canary.step()?;
        Ok(canary)
    }

    /// Its vCPU, to open counters on.
    pub fn vcpu(&self) -> &VcpuFd {
        &self.vcpu
    }

    /// Does the next of [`Step::ALL`].
    ///
    /// # Errors
    /// [`CanaryError`] if the step does not end.
    pub fn step(&mut self) -> Result<(), CanaryError> {
        self.run(false)
    }

    /// Repeats [`Step::Cpuid`], right after it.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub fn again(&mut self) -> Result<(), CanaryError> {
        self.run(true)
    }

    fn run(&mut self, again: bool) -> Result<(), CanaryError> {
        loop {
            match self.vcpu.run() {
                Ok(VcpuExit::IoOut(PORT, _)) => return Ok(()),
                Ok(VcpuExit::IoIn(PORT, answer)) => answer.fill(again.into()),
                Ok(VcpuExit::IoOut(NO_PORT, _) | VcpuExit::MmioWrite(..) | VcpuExit::Intr) => {}
                Ok(other) => return Err(CanaryError::Unexpected(format!("{other:?}"))),
                Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {}
                Err(error) => return Err(CanaryError::Vcpu("run a vCPU", error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_does_every_step_and_then_no_more() {
        if ::tests::open_kvm().is_err() {
            ::tests::skip("the canary of what counts: no /dev/kvm");
            return;
        }
        let mut canary = Canary::new().unwrap();
        for step in Step::ALL {
            canary
                .step()
                .unwrap_or_else(|error| panic!("{step:?}: {error}"));
            if step == Step::Cpuid {
                canary.again().unwrap();
            }
        }
        let end = START + guest().len() as u64;
        assert_eq!(canary.vcpu().get_regs().unwrap().rip, end);
    }
}
