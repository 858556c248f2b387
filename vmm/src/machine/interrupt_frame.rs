//! Keeps the trap flag of a step out of what an interrupt saves. An interrupt that KVM had begun to
//! deliver when the vCPU left the guest is delivered at the next entry, even if that is a step, which
//! blocks all others (`kvm_vcpu_events.interrupt.injected`, KVM's api.rst). The flags that it saves
//! have the trap flag then, and its `iret` would restore that after the last step. Changes one word
//! of the guest's memory, and nothing else.

use kvm_bindings::{kvm_regs, kvm_sregs};
use kvm_ioctls::VcpuFd;
use vm_memory::GuestMemoryMmap;

use super::address_space::AddressSpace;

/// RFLAGS.TF (SDM Vol. 1, 3.4.3.3).
const TRAP_FLAG: u64 = 1 << 8;
/// EFER.LMA (SDM Vol. 4, Table 2-2).
const LONG_MODE: u64 = 1 << 10;

/// Where an event that is about to be delivered saves what it interrupts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InterruptFrame {
    rip: u64,
    /// The address at which the flags are saved.
    flags_at: u64,
    /// Bytes of each saved word: 8 in long mode, 4 elsewhere.
    size: u64,
}

impl InterruptFrame {
    /// The frame of the event that KVM has begun to deliver to this vCPU, if there is one, and its
    /// stack is known. Outside of long mode that is the one in use, and so not in an event that
    /// changes the privilege level.
    pub fn of_injected(fd: &VcpuFd, memory: &GuestMemoryMmap) -> Option<Self> {
        Self::of(injected(fd)?, fd, memory)
    }

    /// The frame of an event of this vector, if it were delivered now, as [`InterruptFrame::of_injected`].
    pub fn of(vector: u8, fd: &VcpuFd, memory: &GuestMemoryMmap) -> Option<Self> {
        let (regs, sregs) = (fd.get_regs().ok()?, fd.get_sregs().ok()?);
        let space = AddressSpace::new(fd, memory);
        // In long mode SS and RSP are saved first, always.
        let (stack, words, size) = match sregs.efer & LONG_MODE {
            0 => (sregs.ss.base.wrapping_add(regs.rsp), 1, 4),
            _ => (stack_in_long_mode(vector, &regs, &sregs, &space)?, 3, 8),
        };
        Some(Self {
            rip: regs.rip,
            flags_at: stack.wrapping_sub(words * size),
            size,
        })
    }

    /// Removes the trap flag from the frame, if the event has been delivered, and the frame is still
    /// there. Returns whether it was.
    pub fn remove_trap_flag(&self, fd: &VcpuFd, memory: &GuestMemoryMmap) -> bool {
        if injected(fd).is_some() {
            return false;
        }
        let space = AddressSpace::new(fd, memory);
        let word = |at| match self.size {
            8 => space.word(at),
            _ => space.half_word(at).map(u64::from),
        };
        // Behind the flags lie CS and RIP.
        let rip = word(self.flags_at.wrapping_sub(2 * self.size));
        let flags = word(self.flags_at);
        let flags = flags.filter(|flags| rip == Some(self.rip) && flags & TRAP_FLAG != 0);
        if let Some(flags) = flags {
            space.put_byte(self.flags_at + 1, ((flags & !TRAP_FLAG) >> 8) as u8);
        }
        flags.is_some()
    }
}

/// The vector of the event that KVM has begun to deliver.
fn injected(fd: &VcpuFd) -> Option<u8> {
    const NMI: u8 = 2;
    let events = fd.get_vcpu_events().ok()?;
    let interrupt = (events.interrupt.injected != 0).then_some(events.interrupt.nr);
    let nmi = (events.nmi.injected != 0).then_some(NMI);
    let exception = (events.exception.injected != 0).then_some(events.exception.nr);
    interrupt.or(nmi).or(exception)
}

/// The address above the first word that an event of this vector saves in long mode (SDM Vol. 3A,
/// 7.14.2 to 7.14.5, the 64-bit TSS, and Figure 9-11).
fn stack_in_long_mode(
    vector: u8,
    regs: &kvm_regs,
    sregs: &kvm_sregs,
    space: &AddressSpace,
) -> Option<u64> {
    const GATE: u64 = 16;
    const RSP0: u64 = 4;
    const IST1: u64 = 36;
    let gate = space.word(sregs.idt.base + GATE * u64::from(vector))?;
    let stack = match gate >> 32 & 7 {
        0 if sregs.cs.dpl == 0 => regs.rsp,
        0 => space.word(sregs.tr.base + RSP0)?,
        ist => space.word(sregs.tr.base + IST1 + 8 * (ist - 1))?,
    };
    Some(stack & !0xf)
}
