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
    /// Another one is in the way.
    #[error(
        "the instruction at {0:#x} shares bytes with the one at {1:#x}, which is replaced; at most one of \
         them begins there"
    )]
    Overlaps(u64, u64),
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
    /// Replaces the instruction at `address`, of code of so many `bits`, where `others` are replaced already.
    /// `translate` says where in guest memory an address is.
    ///
    /// # Errors
    /// [`StopError`] if it cannot be replaced.
    pub fn put(
        address: u64,
        bits: u32,
        others: &[Self],
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
        let is_shared = |other: &&Self| physical.iter().take(2).any(|at| other.at.contains(at));
        if let Some(other) = others.iter().find(is_shared) {
            return Err(StopError::Overlaps(address, other.address));
        }
        // What is behind it is decoded as it was.
        let code = code.into_iter().zip(&physical);
        let code: Vec<u8> = code
            .map(|(now, at)| was_there(others, *at).unwrap_or(now))
            .collect();
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

    /// Shows `bytes`, which were read at `start` in guest memory, as if it had not been replaced. What the
    /// guest has written there since stays.
    pub fn hide(&self, start: u64, bytes: &mut [u8]) {
        for ((at, was), stop) in self.at.into_iter().zip(self.was).zip(STOP) {
            let byte = place_of(at, start).and_then(|it| bytes.get_mut(it));
            if let Some(byte) = byte.filter(|byte| **byte == stop) {
                *byte = was;
            }
        }
    }

    /// Takes note that `bytes` were written at `start` in guest memory: of what it has replaced, they are what
    /// was there, and it is written over them again. It is not if the guest had written something else
    /// there.
    pub fn keep(&mut self, start: u64, bytes: &[u8], memory: &GuestMemoryMmap) {
        let written = |at| place_of(at, start).and_then(|it| bytes.get(it)).copied();
        let now = self.at.map(written);
        let is_there = |(at, stop): (u64, u8)| {
            written(at).is_some() || memory.read_obj::<u8>(GuestAddress(at)).ok() == Some(stop)
        };
        let is_concerned = now.iter().any(Option::is_some);
        if !is_concerned || !self.at.into_iter().zip(STOP).all(is_there) {
            return;
        }
        for (was, now) in self.was.iter_mut().zip(now) {
            *was = now.unwrap_or(*was);
        }
        self.write(STOP, memory);
    }

    fn write(&self, bytes: [u8; 2], memory: &GuestMemoryMmap) {
        for (at, byte) in self.at.into_iter().zip(bytes) {
            // It was read from there.
            let _ = memory.write_obj(byte, GuestAddress(at));
        }
    }
}

/// How far behind `start` the byte at `at` is.
fn place_of(at: u64, start: u64) -> Option<usize> {
    at.checked_sub(start)
        .and_then(|it| usize::try_from(it).ok())
}

/// What was at `at` in guest memory, if one of `replaced` is there.
fn was_there(replaced: &[StopInstruction], at: u64) -> Option<u8> {
    let bytes = replaced.iter().flat_map(|it| it.at.into_iter().zip(it.was));
    bytes
        .into_iter()
        .find(|(place, _)| *place == at)
        .map(|(_, was)| was)
}

/// Of how many bits the code is that a vCPU with these registers executes (SDM Vol. 3A, 3.4.5).
pub fn bits_of_code(sregs: &kvm_sregs) -> u32 {
    match (sregs.efer & LONG_MODE != 0 && sregs.cs.l != 0, sregs.cs.db) {
        (true, _) => 64,
        (false, 0) => 16,
        (false, _) => 32,
    }
}

/// The address of the instruction by which a vCPU has just written to [`PORT`], which is completed.
///
/// # Errors
/// What KVM said.
pub(super) fn reached(vcpu: &mut Vcpu) -> Result<u64, errno::Error> {
    // Whether RIP is behind it by now depends on KVM, which completes it at the next entry. Afterwards it
    // has nothing half done. The kick that this sets is cleared when the vCPU's thread next asks what is
    // wanted.
    vcpu.immediate_exit().set(true);
    let entered = vcpu.fd_mut().run().map(|_| ());
    match entered {
        Err(error) if ![libc::EINTR, libc::EAGAIN].contains(&error.errno()) => return Err(error),
        _ => {}
    }
    let rip = vcpu.fd().get_regs()?.rip;
    Ok(rip.wrapping_sub(STOP.len() as u64))
}

/// Takes a vCPU back to the instruction at `address`.
///
/// # Errors
/// What KVM said.
pub(super) fn take_back(vcpu: &Vcpu, address: u64) -> Result<(), errno::Error> {
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
        let put = |address| StopInstruction::put(address, 64, &[], &memory, translate);
        let stop = put(AT).unwrap();
        assert_eq!(read(&memory, 4), [0xe6, 0xf6, 0xd8, 0x90]);
        let mut seen = [0xe6, 0xf6, 0, 0];
        stop.hide(0x1ffe, &mut seen);
        assert_eq!(seen, [0x48, 0x89, 0, 0]);
        stop.remove(&memory);
        assert_eq!(read(&memory, 4), code);
        // From its second byte on it is another instruction, across the two pages.
        let mut stop = put(AT + 1).unwrap();
        assert_eq!(read(&memory, 4), [0x48, 0xe6, 0xf6, 0x90]);
        // What is written there is what was there.
        let write = |byte: u8| memory.write_obj(byte, GuestAddress(0)).unwrap();
        write(0xd9);
        stop.keep(0, &[0xd9, 0x90], &memory);
        stop.keep(1, &[0x33], &memory);
        assert_eq!(read(&memory, 4), [0x48, 0xe6, 0xf6, 0x90]);
        stop.remove(&memory);
        assert_eq!(read(&memory, 4), [0x48, 0x89, 0xd9, 0x90]);
        // What the guest does there itself is its own.
        let mut stop = put(AT + 1).unwrap();
        write(0xcc);
        let (mut first, mut second) = ([0xe6], [0xcc]);
        stop.hide(0x1fff, &mut first);
        stop.hide(0, &mut second);
        assert_eq!((first, second), ([0x89], [0xcc]));
        stop.keep(0x1fff, &[0xe6], &memory);
        stop.remove(&memory);
        assert_eq!(read(&memory, 4), [0x48, 0xe6, 0xcc, 0x90]);
    }

    #[test]
    fn two_beside_each_other_are_two_and_one_within_another_is_refused() {
        // xor eax, eax; mov rbx, rax
        let memory = with(&[0x31, 0xc0, 0x48, 0x89, 0xc3]);
        let put =
            |address, others: &[_]| StopInstruction::put(address, 64, others, &memory, translate);
        let first = put(AT, &[]).unwrap();
        let second = put(AT + 2, &[first]).unwrap();
        assert_eq!(read(&memory, 5), [0xe6, 0xf6, 0xe6, 0xf6, 0xc3]);
        assert_eq!(
            put(AT + 1, &[first, second]),
            Err(StopError::Overlaps(AT + 1, AT))
        );
        first.remove(&memory);
        // The one behind it is decoded as it was.
        assert_eq!(put(AT, &[second]).unwrap(), first);
        second.remove(&memory);
        first.remove(&memory);
        assert_eq!(read(&memory, 5), [0x31, 0xc0, 0x48, 0x89, 0xc3]);
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
        let put = |address| StopInstruction::put(address, 64, &[], &memory, translate);
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
