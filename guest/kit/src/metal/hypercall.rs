//! The hypercalls of KVM that IPIs and ends of interrupts need. A host may advertise one and not
//! carry it out, so each is tried before it is relied on (Linux,
//! `Documentation/virt/kvm/x86/{hypercalls,msr}.rst`).

use core::arch::x86_64::__cpuid;
use core::arch::{global_asm, naked_asm};

use crate::platform::Vector;
use x86_64::instructions::interrupts;

use super::apic::{self, Command};

/// First leaf of a hypervisor: its signature in ebx, ecx and edx.
const LEAF_SIGNATURE: u32 = 0x4000_0000;
const KVM: [u8; 12] = *b"KVMKVMKVM\0\0\0";
/// Features of KVM, in eax.
const LEAF_FEATURES: u32 = 0x4000_0001;
const FEATURE_PV_EOI: u32 = 1 << 6;
const FEATURE_PV_SEND_IPI: u32 = 1 << 11;

const SEND_IPI: u64 = 10;

/// What a hypercall returns when the instruction is not one (KVM_ENOSYS).
pub const NO_SUCH_CALL: i64 = -1000;
/// Bytes of either instruction.
const LENGTH: u64 = 3;

/// The instruction that makes a hypercall. Which of the two it is depends on the maker of the
/// processor; the other one is an invalid opcode.
#[derive(Clone, Copy, Debug)]
pub enum Hypercall {
    /// Intel's.
    Vmcall,
    /// AMD's, and Hygon's.
    Vmmcall,
}

fn features() -> u32 {
    let leaf = __cpuid(LEAF_SIGNATURE);
    let mut signature = [0; 12];
    for (bytes, word) in signature
        .chunks_exact_mut(4)
        .zip([leaf.ebx, leaf.ecx, leaf.edx])
    {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    match signature {
        KVM => __cpuid(LEAF_FEATURES).eax,
        _ => 0,
    }
}

/// Whether KVM takes ends of interrupt from memory.
pub fn has_pv_eoi() -> bool {
    features() & FEATURE_PV_EOI != 0
}

impl Hypercall {
    fn of_this_processor() -> Self {
        match &__cpuid(0).ebx.to_le_bytes() {
            b"Auth" | b"Hygo" => Self::Vmmcall,
            _ => Self::Vmcall,
        }
    }

    /// The instruction by which IPIs can be sent, if KVM offers that and one was seen to arrive: an
    /// IPI to this CPU, which is taken when interrupts are next on. `apic_id` is this CPU's. The
    /// monitor must have told KVM not to patch hypercall instructions, where KVM can be told:
    /// otherwise a KVM that emulates this code would retry for ever.
    pub fn for_ipis(apic_id: u32) -> Option<Self> {
        if features() & FEATURE_PV_SEND_IPI == 0 {
            return None;
        }
        let call = Self::of_this_processor();
        let has_arrived = interrupts::without_interrupts(|| {
            let delivered = call.send_ipi(1, apic_id, Vector::LAST);
            delivered == 1 && apic::is_requested(Vector::LAST.number())
        });
        has_arrived.then_some(call)
    }

    /// Sends `vector` to the CPUs whose APIC ids are `first + n` for each bit `n` of `bits`.
    /// Returns to how many it went, or an error below zero.
    pub fn send_ipi(self, bits: u128, first: u32, vector: Vector) -> i64 {
        let (low, high) = (bits as u64, (bits >> 64) as u64);
        let command = u64::from(Command::Fixed(vector.number()).bits());
        let call = match self {
            Self::Vmcall => vmcall,
            Self::Vmmcall => vmmcall,
        };
        // Earlier stores of this CPU are visible to the handler: KVM sets the bit that requests the
        // interrupt by a locked instruction, on this processor.
        call(SEND_IPI, low, high, first.into(), command)
    }
}

macro_rules! hypercall {
    ($name:ident, $instruction:literal, $label:literal) => {
        /// Number in rax, arguments in rbx, rcx, rdx and rsi, result in rax.
        #[unsafe(naked)]
        extern "C" fn $name(number: u64, a0: u64, a1: u64, a2: u64, a3: u64) -> i64 {
            naked_asm!(
                "push rbx",
                "mov rax, rdi",
                "mov rbx, rsi",
                "xchg rcx, rdx", // a1 to rcx, a2 to rdx
                "mov rsi, r8",
                concat!(".globl ", $label),
                concat!($label, ":"),
                $instruction,
                "pop rbx",
                "ret",
            )
        }
    };
}

hypercall!(vmcall, "vmcall", "hypercall_vmcall");
hypercall!(vmmcall, "vmmcall", "hypercall_vmmcall");

// The handler of invalid opcodes compares with these addresses.
global_asm!(".hidden hypercall_vmcall", ".hidden hypercall_vmmcall");

/// The address after the instruction at `rip`, if the invalid opcode there is a hypercall that this
/// host does not know.
pub fn after_invalid(rip: u64) -> Option<u64> {
    unsafe extern "C" {
        static hypercall_vmcall: u8;
        static hypercall_vmmcall: u8;
    }
    let is_ours =
        rip == &raw const hypercall_vmcall as u64 || rip == &raw const hypercall_vmmcall as u64;
    is_ours.then_some(rip + LENGTH)
}
