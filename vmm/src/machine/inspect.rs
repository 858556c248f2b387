//! A dump of a vCPU that is out of the guest: registers, pending interrupts, the code at the
//! instruction pointer and the backtrace. Reads only. Trusts nothing that the guest left in memory:
//! every walk is bounded.

use kvm_bindings::{
    KVM_MP_STATE_HALTED, KVM_MP_STATE_INIT_RECEIVED, KVM_MP_STATE_UNINITIALIZED, kvm_lapic_state,
    kvm_regs,
};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::errno;

use super::address_space::AddressSpace;
use super::lifecycle::Stall;
use super::vcpu::Vcpu;

/// Longest x86 instruction, in bytes.
const INSTRUCTION_MAX: usize = 15;
/// Most frames of a backtrace; a chain that is longer is a loop.
const DEPTH: usize = 32;
const INTERRUPT_FLAG: u64 = 1 << 9;
const IN_SERVICE: usize = 0x100;
const REQUESTED: usize = 0x200;

/// What a vCPU was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activity {
    /// Executing instructions.
    Running,
    /// Waiting in `hlt`.
    Halted,
    /// Waiting to be started by another CPU.
    NotStarted,
}

/// What one vCPU was doing, and where.
#[derive(Debug, Clone)]
pub struct VcpuDump {
    /// The vCPU.
    pub vcpu: u32,
    /// What it was doing, or would be doing if it were not stalled.
    pub activity: Activity,
    /// Why it is kept out of the guest, if it is.
    pub stalled: Option<Stall>,
    /// General registers.
    pub regs: kvm_regs,
    /// Address of the last page fault, CR2.
    pub fault_address: u64,
    /// Address of its page tables, CR3.
    pub page_tables: u64,
    /// Vectors accepted and not yet delivered.
    pub requested: Vec<u8>,
    /// Vectors delivered and not yet acknowledged.
    pub in_service: Vec<u8>,
    /// Bytes at the instruction pointer, as far as they can be read.
    pub code: Vec<u8>,
    /// Return addresses, innermost first.
    pub callers: Vec<u64>,
}

impl VcpuDump {
    /// Reads the state of `vcpu`.
    ///
    /// # Errors
    /// What KVM said when asked for the registers.
    pub fn of(vcpu: &Vcpu, memory: &GuestMemoryMmap) -> Result<Self, errno::Error> {
        // This comes first, because asking can change the registers.
        let activity = match vcpu.mp_state()? {
            KVM_MP_STATE_HALTED => Activity::Halted,
            // After INIT it waits in the same way, until it is told where to start.
            KVM_MP_STATE_UNINITIALIZED | KVM_MP_STATE_INIT_RECEIVED => Activity::NotStarted,
            _ => Activity::Running,
        };
        let regs = vcpu.fd().get_regs()?;
        let lapic = vcpu.fd().get_lapic()?;
        let space = AddressSpace::new(vcpu.fd(), memory);
        let sregs = vcpu.fd().get_sregs()?;
        Ok(Self {
            vcpu: vcpu.id(),
            activity,
            stalled: None,
            fault_address: sregs.cr2,
            page_tables: sregs.cr3,
            requested: requested(&lapic),
            in_service: vectors(&lapic, IN_SERVICE),
            code: space.code(&regs, &sregs, INSTRUCTION_MAX),
            callers: callers(regs.rbp, |address| space.word(address)),
            regs,
        })
    }

    /// The general registers by name, in the usual order.
    pub fn registers(&self) -> [(&'static str, u64); 18] {
        let regs = &self.regs;
        [
            ("rax", regs.rax),
            ("rbx", regs.rbx),
            ("rcx", regs.rcx),
            ("rdx", regs.rdx),
            ("rsi", regs.rsi),
            ("rdi", regs.rdi),
            ("rbp", regs.rbp),
            ("rsp", regs.rsp),
            ("r8", regs.r8),
            ("r9", regs.r9),
            ("r10", regs.r10),
            ("r11", regs.r11),
            ("r12", regs.r12),
            ("r13", regs.r13),
            ("r14", regs.r14),
            ("r15", regs.r15),
            ("rip", regs.rip),
            ("rflags", regs.rflags),
        ]
    }

    /// Whether its interrupts are enabled (RFLAGS.IF).
    pub fn interrupts_on(&self) -> bool {
        self.regs.rflags & INTERRUPT_FLAG != 0
    }
}

/// The return addresses along the chain of frame pointers that begins with `frame`, innermost
/// first, at most [`DEPTH`]. The chain ends where it does not lead upwards. `word` reads eight
/// bytes of guest memory, or returns `None` where there are none.
pub fn callers(mut frame: u64, word: impl Fn(u64) -> Option<u64>) -> Vec<u64> {
    let mut callers = Vec::new();
    while callers.len() < DEPTH && frame != 0 && frame.is_multiple_of(8) {
        let (Some(next), Some(caller)) = (word(frame), word(frame.wrapping_add(8))) else {
            break;
        };
        if caller == 0 {
            break;
        }
        callers.push(caller);
        if next <= frame {
            break;
        }
        frame = next;
    }
    callers
}

/// Vectors accepted and not yet delivered.
pub(super) fn requested(lapic: &kvm_lapic_state) -> Vec<u8> {
    vectors(lapic, REQUESTED)
}

/// Whether software has enabled the local APIC (SDM Vol. 3A, "Spurious Interrupt").
pub fn is_enabled(lapic: &kvm_lapic_state) -> bool {
    const SPURIOUS_VECTOR_REGISTER: usize = 0xf0;
    // Bit 8 of the register.
    lapic.regs[SPURIOUS_VECTOR_REGISTER + 1] & 1 != 0
}

/// The vectors set in one of the LAPIC's 256-bit registers: eight words, 16 bytes apart.
fn vectors(lapic: &kvm_lapic_state, register: usize) -> Vec<u8> {
    (0..=u8::MAX)
        .filter(|vector| {
            let byte = register + usize::from(vector / 32) * 16 + usize::from(vector % 32 / 8);
            lapic.regs[byte].cast_unsigned() >> (vector % 8) & 1 != 0
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_vectors_are_read_from_the_right_bits() {
        let mut lapic = kvm_lapic_state::default();
        lapic.regs[REQUESTED + 0x70 + 3] = i8::MIN;
        lapic.regs[REQUESTED + 0x10] = 1;
        lapic.regs[IN_SERVICE] = 2;
        assert_eq!(vectors(&lapic, REQUESTED), [32, 255]);
        assert_eq!(vectors(&lapic, IN_SERVICE), [1]);
    }

    #[test]
    fn frames_are_followed_upwards_and_no_further_than_memory_goes() {
        // Frames of two words: where the next one is, and where its function returns to.
        let stack = |words: &[u64], frame: u64| {
            callers(frame, |address| {
                words.get(usize::try_from(address / 8).unwrap()).copied()
            })
        };
        assert_eq!(stack(&[9, 9, 32, 7, 64, 8, 9, 9, 0, 9], 16), [7, 8, 9]);
        assert_eq!(stack(&[9, 9, 32, 7, 48, 8], 16), [7, 8]);
        // A loop, a chain that leads downwards, the bottom of the stack, and addresses at which no
        // frame can be.
        assert_eq!(stack(&[9, 9, 16, 7], 16), [7]);
        assert_eq!(stack(&[9, 9, 0, 7], 16), [7]);
        assert_eq!(stack(&[9, 9, 32, 0, 0, 8], 16), [0; 0]);
        assert_eq!(stack(&[9, 9, 32, 7], 17), [0; 0]);
        assert_eq!(stack(&[9, 9, 32, 7], u64::MAX - 7), [0; 0]);
        let endless = callers(8, |address| Some(address + 16));
        assert_eq!(endless.len(), DEPTH);
    }
}
