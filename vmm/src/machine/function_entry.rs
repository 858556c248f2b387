//! The entry of a kernel function, at which vCPUs exit while it is armed. Compilers leave five bytes
//! at the entry of each function that can be traced (`-mfentry`), which Linux makes a no-op at boot
//! (`arch/x86/kernel/ftrace.c`). Here it becomes one instruction of the same length that exits, so that
//! it makes no difference where a CPU stands when that is written or undone. It works on hosts whose
//! KVM has no breakpoints that fire.
//!
//! Only writes to memory, which no vCPU may execute meanwhile.

use kvm_bindings::{kvm_regs, kvm_sregs};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::address_space::AddressSpace;
use super::symbols::Symbols;

/// The port that is written to at an armed entry.
pub const PORT: u16 = 0xf5;

/// `nopl 0(%rax,%rax,1)`, the no-op of five bytes (SDM Vol. 2B, `NOP`).
const NOP: [u8; 5] = [0x0f, 0x1f, 0x44, 0, 0];
/// `out 0xf5, eax` with three prefixes that mean nothing to it.
const EXITING: [u8; 5] = [0x2e, 0x2e, 0x2e, 0xe7, 0xf5];
/// `endbr64`, with which functions begin where the kernel tracks indirect branches.
const ENDBR: [u8; 4] = 0xfa1e_0ff3_u32.to_le_bytes();

/// Why a function cannot be armed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Its address is in no segment of the image.
    #[error(
        "{0:#x} lies in no segment of the guest image, so it is not known where that is in memory; \
         modules and what a kernel has moved (KASLR) cannot be held at"
    )]
    Outside(u64),
    /// It does not begin as a function that can be traced.
    #[error(
        "the function at {0:#x} does not begin with the five-byte no-op of a function that can be \
         traced; it is inlined, excluded from tracing (notrace), is being traced by the guest \
         itself, or the kernel has not come to ftrace_init() yet"
    )]
    NoNop(u64),
}

/// The entry of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FunctionEntry {
    /// Where the five bytes are, as the kernel addresses them.
    pub address: u64,
    physical: u64,
}

impl FunctionEntry {
    /// The entry of the function at `address`, of the image with these symbols, as it is in `memory`
    /// now.
    ///
    /// # Errors
    /// [`EntryError`] if it cannot be armed.
    pub fn of(
        address: u64,
        symbols: &Symbols,
        memory: &GuestMemoryMmap,
    ) -> Result<Self, EntryError> {
        let physical = symbols.physical(address);
        let physical = physical.ok_or(EntryError::Outside(address))?;
        let mut begins = [0; ENDBR.len() + NOP.len()];
        memory
            .read_slice(&mut begins, GuestAddress(physical))
            .map_err(|_| EntryError::Outside(address))?;
        let skipped = if begins.starts_with(&ENDBR) {
            ENDBR.len()
        } else {
            0
        };
        if !begins[skipped..].starts_with(&NOP) {
            return Err(EntryError::NoNop(address));
        }
        Ok(Self {
            address: address + skipped as u64,
            physical: physical + skipped as u64,
        })
    }

    /// Has vCPUs exit here.
    pub fn arm(&self, memory: &GuestMemoryMmap) {
        self.put(EXITING, memory);
    }

    /// Whether it is that of the function at `address`, which can begin before it.
    pub fn is_of(&self, address: u64) -> bool {
        [Some(address), address.checked_add(ENDBR.len() as u64)].contains(&Some(self.address))
    }

    /// Whether vCPUs exit here: the guest can have written something else since.
    pub fn is_armed(&self, memory: &GuestMemoryMmap) -> bool {
        let mut now = [0; NOP.len()];
        let read = memory.read_slice(&mut now, GuestAddress(self.physical));
        read.is_ok() && now == EXITING
    }

    /// Undoes [`FunctionEntry::arm`], unless the guest has written something else there since.
    pub fn disarm(&self, memory: &GuestMemoryMmap) {
        if self.is_armed(memory) {
            self.put(NOP, memory);
        }
    }

    fn put(&self, bytes: [u8; 5], memory: &GuestMemoryMmap) {
        // `of` has read there.
        let _ = memory.write_slice(&bytes, GuestAddress(self.physical));
    }
}

/// The entry at which a vCPU with these registers has exited. Whether its instruction counts as
/// executed by then depends on KVM.
pub(super) fn reached(space: &AddressSpace<'_>, regs: &kvm_regs, sregs: &kvm_sregs) -> u64 {
    match space.code(regs, sregs, EXITING.len()) == EXITING {
        true => regs.rip,
        false => regs.rip.wrapping_sub(EXITING.len() as u64),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const AT: u64 = 0x10_0000;

    /// Memory with `code` in it, and an image that says that it is there.
    fn with(code: &[u8]) -> (Symbols, GuestMemoryMmap) {
        let segment = ::tests::image::Segment::load(AT, code);
        let image: Arc<[u8]> = ::tests::image::elf(&[segment]).into();
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 2 << 20)]).unwrap();
        memory.write_slice(code, GuestAddress(AT)).unwrap();
        (Symbols::of(&image), memory)
    }

    fn bytes(memory: &GuestMemoryMmap, at: u64) -> [u8; 5] {
        memory.read_obj(GuestAddress(at)).unwrap()
    }

    #[test]
    fn an_entry_is_armed_and_put_back() {
        for before in [&[][..], &ENDBR] {
            let code = [before, &NOP, &[0x55; 20]].concat();
            let (symbols, memory) = with(&code);
            let entry = FunctionEntry::of(AT, &symbols, &memory).unwrap();
            assert_eq!(entry.address, AT + before.len() as u64);
            entry.arm(&memory);
            assert_eq!(bytes(&memory, entry.address), EXITING);
            entry.disarm(&memory);
            assert_eq!(bytes(&memory, entry.address), NOP);
            // What the guest does there itself is its own.
            memory
                .write_obj(0xcc_u8, GuestAddress(entry.address))
                .unwrap();
            entry.disarm(&memory);
            assert_eq!(bytes(&memory, entry.address)[0], 0xcc);
        }
    }

    #[test]
    fn another_function_is_refused() {
        let (symbols, memory) = with(&[0x55; 20]);
        let refused = |at| FunctionEntry::of(at, &symbols, &memory).unwrap_err();
        assert_eq!(refused(AT), EntryError::NoNop(AT));
        assert_eq!(refused(AT + 100), EntryError::Outside(AT + 100));
        assert_eq!(refused(u64::MAX), EntryError::Outside(u64::MAX));
    }
}
