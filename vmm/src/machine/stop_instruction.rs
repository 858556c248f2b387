//! Breakpoints of a debugger that need no help of the processor: an instruction that exits is written over
//! the first two bytes of the one before which vCPUs are to stop. It works on hosts whose KVM has no
//! breakpoints that fire. An instruction of one byte cannot be replaced so: the one behind it can be
//! the target of a jump.
//!
//! Only writes to memory and to the instruction pointer. Memory is written while no vCPU is in the guest.

use iced_x86::{Decoder, DecoderOptions};
use kvm_bindings::kvm_sregs;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::errno;

use super::vcpu::Vcpu;

/// The port that the instruction writes to.
pub const PORT: u16 = 0xf6;
/// `out 0xf6, al` (SDM Vol. 2B, `OUT`).
const STOP: [u8; 2] = [0xe6, PORT as u8];
/// EFER.LMA (SDM Vol. 4, Table 2-2).
const LONG_MODE: u64 = 1 << 10;

/// Why an instruction cannot be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StopError {
    /// There is no memory.
    #[error("{0:#x} is not mapped there, and in no segment of the guest image")]
    Unmapped(u64),
    /// It is too short.
    #[error(
        "the instruction at {0:#x} has one byte, and one that exits needs two; break at the next one, at \
         {next:#x}",
        next = .0.wrapping_add(1)
    )]
    OneByte(u64),
    /// It is none.
    #[error("there is no instruction at {0:#x}")]
    NoInstruction(u64),
}

/// An instruction that is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopInstruction {
    /// Its address.
    pub address: u64,
    /// Where its first two bytes are in guest memory. They can be in two pages.
    at: [u64; 2],
    /// What they were.
    was: [u8; 2],
}

impl StopInstruction {
    /// Replaces the instruction at `address`, of code of so many `bits`. `translate` says where in guest
    /// memory an address is.
    ///
    /// # Errors
    /// [`StopError`] if it cannot be replaced.
    pub fn put(
        address: u64,
        bits: u32,
        memory: &GuestMemoryMmap,
        translate: impl Fn(u64) -> Option<u64>,
    ) -> Result<Self, StopError> {
        const LONGEST: u64 = 15;
        let physical: Vec<u64> = (0..LONGEST)
            .map_while(|offset| translate(address.wrapping_add(offset)))
            .collect();
        let byte = |at: &u64| memory.read_obj::<u8>(GuestAddress(*at)).ok();
        let code: Vec<u8> = physical.iter().map_while(byte).collect();
        if code.is_empty() {
            return Err(StopError::Unmapped(address));
        }
        let mut decoder = Decoder::with_ip(bits, &code, address, DecoderOptions::NONE);
        let instruction = decoder.decode();
        match instruction.len() {
            _ if instruction.is_invalid() => Err(StopError::NoInstruction(address)),
            1 => Err(StopError::OneByte(address)),
            _ => {
                let it = Self {
                    address,
                    at: [physical[0], physical[1]],
                    was: [code[0], code[1]],
                };
                it.write(STOP, memory);
                Ok(it)
            }
        }
    }

    /// Puts back what was there, unless the guest has written something else since.
    pub fn remove(&self, memory: &GuestMemoryMmap) {
        let byte = |at| memory.read_obj::<u8>(GuestAddress(at)).ok();
        if self.at.map(byte) == STOP.map(Some) {
            self.write(self.was, memory);
        }
    }

    /// Shows `bytes`, which were read at `start` in guest memory, as if it had not been replaced.
    pub fn hide(&self, start: u64, bytes: &mut [u8]) {
        for (at, was) in self.at.into_iter().zip(self.was) {
            let offset = at
                .checked_sub(start)
                .and_then(|it| usize::try_from(it).ok());
            if let Some(byte) = offset.and_then(|it| bytes.get_mut(it)) {
                *byte = was;
            }
        }
    }

    fn write(&self, bytes: [u8; 2], memory: &GuestMemoryMmap) {
        for (at, byte) in self.at.into_iter().zip(bytes) {
            // It was read from there.
            let _ = memory.write_obj(byte, GuestAddress(at));
        }
    }
}

/// Of how many bits the code is that a vCPU with these registers executes (SDM Vol. 3A, 3.4.5).
pub fn bits_of_code(sregs: &kvm_sregs) -> u32 {
    match (sregs.efer & LONG_MODE != 0 && sregs.cs.l != 0, sregs.cs.db) {
        (true, _) => 64,
        (false, 0) => 16,
        (false, _) => 32,
    }
}

/// The address of the instruction that has just written to [`PORT`]. Whether it counts as executed by
/// then depends on KVM.
///
/// # Errors
/// What KVM said when it was asked for registers.
pub(super) fn reached(vcpu: &Vcpu, memory: &GuestMemoryMmap) -> Result<u64, errno::Error> {
    let (regs, sregs) = (vcpu.fd().get_regs()?, vcpu.fd().get_sregs()?);
    let space = super::address_space::AddressSpace::new(vcpu.fd(), memory);
    Ok(match space.code(&regs, &sregs, STOP.len()) == STOP {
        true => regs.rip,
        false => regs.rip.wrapping_sub(STOP.len() as u64),
    })
}

/// Takes a vCPU, which has just written to [`PORT`], back to the instruction at `address`.
///
/// # Errors
/// What KVM said.
pub(super) fn take_back(vcpu: &mut Vcpu, address: u64) -> Result<(), errno::Error> {
    // KVM completes the instruction at the next entry; afterwards it has nothing half done. The kick that
    // this sets is cleared when the vCPU's thread next asks what is wanted.
    vcpu.immediate_exit().set(true);
    let entered = vcpu.fd_mut().run().map(|_| ());
    match entered {
        Err(error) if ![libc::EINTR, libc::EAGAIN].contains(&error.errno()) => return Err(error),
        _ => {}
    }
    let mut regs = vcpu.fd().get_regs()?;
    regs.rip = address;
    vcpu.fd().set_regs(&regs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: u64 = 0xffe;

    /// Three pages, of which those at 0 and 0x1000 are addressed in the opposite order.
    fn translate(address: u64) -> Option<u64> {
        match address {
            ..0x1000 => Some(address + 0x1000),
            0x1000..0x2000 => Some(address - 0x1000),
            _ => None,
        }
    }

    fn with(code: &[u8]) -> GuestMemoryMmap {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x3000)]).unwrap();
        for (address, byte) in (AT..).zip(code) {
            let at = translate(address).unwrap();
            memory.write_obj(*byte, GuestAddress(at)).unwrap();
        }
        memory
    }

    fn read(memory: &GuestMemoryMmap, length: u64) -> Vec<u8> {
        let at = (AT..AT + length).map(|address| translate(address).unwrap());
        at.map(|at| memory.read_obj(GuestAddress(at)).unwrap())
            .collect()
    }

    #[test]
    fn an_instruction_is_replaced_and_put_back_across_pages() {
        // mov rax, rbx; nop
        let code = [0x48, 0x89, 0xd8, 0x90];
        let memory = with(&code);
        let put = |address| StopInstruction::put(address, 64, &memory, translate);
        let stop = put(AT).unwrap();
        assert_eq!(read(&memory, 4), [0xe6, 0xf6, 0xd8, 0x90]);
        let mut seen = [0xe6, 0xf6, 0, 0];
        stop.hide(0x1ffe, &mut seen);
        assert_eq!(seen, [0x48, 0x89, 0, 0]);
        stop.remove(&memory);
        assert_eq!(read(&memory, 4), code);
        // From its second byte on it is another instruction, across the two pages.
        let stop = put(AT + 1).unwrap();
        assert_eq!(read(&memory, 4), [0x48, 0xe6, 0xf6, 0x90]);
        // What the guest does there itself is its own.
        memory.write_obj(0xcc_u8, GuestAddress(0)).unwrap();
        stop.remove(&memory);
        assert_eq!(read(&memory, 4), [0x48, 0xe6, 0xcc, 0x90]);
    }

    #[test]
    fn the_mode_says_how_code_is_decoded() {
        let mut sregs = kvm_sregs::default();
        assert_eq!(bits_of_code(&sregs), 16);
        sregs.cs.db = 1;
        assert_eq!(bits_of_code(&sregs), 32);
        (sregs.efer, sregs.cs.l, sregs.cs.db) = (LONG_MODE, 1, 0);
        assert_eq!(bits_of_code(&sregs), 64);
    }

    #[test]
    fn what_cannot_be_replaced_is_refused() {
        let memory = with(&[0x90, 0x55, 0x06]);
        let put = |address| StopInstruction::put(address, 64, &memory, translate);
        assert_eq!(put(AT), Err(StopError::OneByte(AT)));
        assert_eq!(put(AT + 1), Err(StopError::OneByte(AT + 1)));
        assert_eq!(put(AT + 2), Err(StopError::NoInstruction(AT + 2)));
        assert_eq!(put(0x2000), Err(StopError::Unmapped(0x2000)));
        assert_eq!(read(&memory, 3), [0x90, 0x55, 0x06]);
        // The last byte that is mapped, of an instruction that is longer.
        memory.write_obj(0x48_u8, GuestAddress(0xfff)).unwrap();
        assert_eq!(put(0x1fff), Err(StopError::NoInstruction(0x1fff)));
    }
}
