//! A throw-away machine of one vCPU that does what must be counted, a known number of times. Whoever counts
//! looks before and behind; a counter that has not moved is blind on this host, and its zero means nothing.

use std::arch::global_asm;

use kvm_bindings::kvm_regs;
use kvm_ioctls::{VcpuExit, VcpuFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::errno;

use crate::machine::boot;
use crate::machine::vm::{HostError, Vm};
use crate::stats::tracepoints::events::{X2APIC_EOI, X2APIC_ICR};

/// Times each thing is done. At up to 50 µs an exit in an emulated host, it takes less than a tenth of a second.
pub const TIMES: u64 = 500;

/// The vector of the IPIs, by which they are told from others.
pub const VECTOR: u8 = 0x99;

const MEMORY: usize = 64 << 10;
const START: u64 = 0x1000;
/// Any port: what is written there ends a step.
const PORT: u16 = 0xf4;

/// What is done between two looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Instructions that leave the guest on any processor.
    Cpuid,
    /// Start-up IPIs to itself, by the ICR of an x2APIC. No hardware sends one without KVM, and a CPU that runs
    /// ignores it.
    Ipi,
    /// Ends of interrupts, although there is none. Hardware may take them.
    Eoi,
}

impl Step {
    /// In the order in which they are done.
    pub const ALL: [Self; 3] = [Self::Cpuid, Self::Ipi, Self::Eoi];

    /// What it is, in words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Cpuid => "cpuid instructions",
            Self::Ipi => "start-up IPIs",
            Self::Eoi => "ends of interrupt",
        }
    }
}

// In flat 32-bit mode, without paging or interrupts. Each write to the port lets the host look.
global_asm!(
    ".pushsection .rodata.canary, \"a\"",
    // Whoever refers to them may be compiled into another object.
    ".globl canary_guest, canary_guest_end",
    ".hidden canary_guest, canary_guest_end",
    ".code32",
    "canary_guest:",
    // The mode of the x2APIC, by bits 10 and 11 of IA32_APIC_BASE, and enabled in software by bit 8 of its
    // spurious vector (SDM Vol. 3A, 11.12.1, 11.9).
    "mov ecx, 0x1b",
    "rdmsr",
    "or eax, 0xc00",
    "wrmsr",
    "mov ecx, 0x80f",
    "mov eax, 0x1ff",
    "xor edx, edx",
    "wrmsr",
    // What is executed for the first time costs exits of its own.
    "xor eax, eax",
    "cpuid",
    "out {port}, al",

    "mov esi, {times}",
    "2:",
    "xor eax, eax",
    "cpuid",
    "dec esi",
    "jnz 2b",
    "out {port}, al",

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
    "canary_guest_end:",
    ".code64",
    ".popsection",
    port = const PORT,
    times = const TIMES,
    icr = const X2APIC_ICR,
    eoi = const X2APIC_EOI,
    // Start-up, level asserted, to the physical id 0 (SDM Vol. 3A, 11.6.1).
    startup = const (0x4600 | VECTOR as u32),
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

/// Why the canary does not sing.
#[derive(Debug, thiserror::Error)]
pub enum CanaryError {
    /// No memory.
    #[error("this host does not give a guest 64 KiB of memory")]
    Memory,
    /// No VM.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A vCPU that cannot be set up or run.
    #[error("KVM refused to {0}")]
    Vcpu(&'static str, #[source] errno::Error),
    /// It ended otherwise than by the port.
    #[error("its vCPU came out of the guest unexpectedly ({0})")]
    Unexpected(String),
}

/// The machine. It is run on the calling thread.
#[derive(Debug)]
pub struct Canary {
    // Before the memory that KVM has mapped.
    vcpu: VcpuFd,
    _vm: Vm,
    _memory: GuestMemoryMmap,
}

impl Canary {
    /// Builds it, and runs it up to its first step.
    ///
    /// # Errors
    /// [`CanaryError`] says what this host does not do.
    pub fn new() -> Result<Self, CanaryError> {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)])
            .map_err(|_| CanaryError::Memory)?;
        memory
            .write_slice(guest(), GuestAddress(START))
            .map_err(|_| CanaryError::Memory)?;
        let vm = Vm::new(1, &memory)?;
        let vcpu = vm.create_vcpu(0)?;
        let refused = |what| move |error| CanaryError::Vcpu(what, error);
        vcpu.set_cpuid2(&vm.supported_cpuid()?)
            .map_err(refused("set a CPUID table"))?;
        let mut sregs = vcpu
            .get_sregs()
            .map_err(refused("read segment registers"))?;
        boot::protected_mode(&mut sregs);
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

    /// Its vCPU, for whoever counts what becomes of it.
    pub fn vcpu(&self) -> &VcpuFd {
        &self.vcpu
    }

    /// Does the next of [`Step::ALL`].
    ///
    /// # Errors
    /// [`CanaryError`] if it does not come to its end.
    pub fn step(&mut self) -> Result<(), CanaryError> {
        loop {
            match self.vcpu.run() {
                Ok(VcpuExit::IoOut(PORT, _)) => return Ok(()),
                Ok(VcpuExit::Intr) => {}
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
        }
        let end = START + guest().len() as u64;
        assert_eq!(canary.vcpu().get_regs().unwrap().rip, end);
    }
}
