//! Guest memory as one vCPU addresses it, through its page tables. A page that is not mapped ends the
//! access.

use std::ops::Range;

use kvm_bindings::{kvm_regs, kvm_sregs};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::page_size::PAGE_SIZE;

/// Memory as one vCPU addresses it.
pub(super) struct AddressSpace<'a> {
    fd: &'a VcpuFd,
    memory: &'a GuestMemoryMmap,
}

impl<'a> AddressSpace<'a> {
    /// The address space of the vCPU behind `fd`, whose page tables and code are in `memory`.
    pub fn new(fd: &'a VcpuFd, memory: &'a GuestMemoryMmap) -> Self {
        Self { fd, memory }
    }

    /// Up to `length` bytes at `address`, fewer if a page is missing.
    fn read(&self, address: u64, length: usize) -> Vec<u8> {
        self.read_by_page(address, length, |_, _| {})
    }

    /// As [`AddressSpace::read`]. `each` can change what was read of each page, of which it is told where
    /// that is in guest memory.
    pub fn read_by_page(
        &self,
        address: u64,
        length: usize,
        mut each: impl FnMut(u64, &mut [u8]),
    ) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let read = self.by_page(address, length, |physical, piece| {
            let piece = &mut bytes[piece];
            self.memory.read_slice(piece, GuestAddress(physical)).ok()?;
            each(physical, piece);
            Some(())
        });
        bytes.truncate(read);
        bytes
    }

    /// Up to `length` bytes at the instruction pointer, which is relative to the code segment
    /// outside long mode.
    pub fn code(&self, regs: &kvm_regs, sregs: &kvm_sregs, length: usize) -> Vec<u8> {
        self.read(sregs.cs.base.wrapping_add(regs.rip), length)
    }

    /// The eight bytes at `address`, if all can be read.
    pub fn word(&self, address: u64) -> Option<u64> {
        let bytes = self.read(address, 8).try_into();
        bytes.ok().map(u64::from_le_bytes)
    }

    /// The four bytes at `address`, if all can be read.
    pub fn half_word(&self, address: u64) -> Option<u32> {
        let bytes = self.read(address, 4).try_into();
        bytes.ok().map(u32::from_le_bytes)
    }

    /// Writes one byte, if there is memory.
    pub fn put_byte(&self, address: u64, byte: u8) {
        if let Some(physical) = self.translate(address) {
            // The address space can name what is no memory.
            let _ = self.memory.write_obj(byte, GuestAddress(physical));
        }
    }

    /// Writes `bytes` at `address`, as far as there is memory, and returns how many that were. Whether
    /// a page may be written to does not matter. `each` is told what was written to each page, and where
    /// that is in guest memory.
    pub fn write_by_page(
        &self,
        address: u64,
        bytes: &[u8],
        mut each: impl FnMut(u64, &[u8]),
    ) -> usize {
        self.by_page(address, bytes.len(), |physical, piece| {
            let piece = &bytes[piece];
            self.memory
                .write_slice(piece, GuestAddress(physical))
                .ok()?;
            each(physical, piece);
            Some(())
        })
    }

    /// Does something with `length` bytes at `address`, page by page, until a page is missing or it
    /// cannot be done. Returns with how many it was done.
    fn by_page(
        &self,
        address: u64,
        length: usize,
        mut does: impl FnMut(u64, Range<usize>) -> Option<()>,
    ) -> usize {
        let mut done = 0;
        while done < length {
            let at = address.checked_add(done as u64);
            let Some((at, physical)) = at.and_then(|at| Some((at, self.translate(at)?))) else {
                break;
            };
            let in_page = PAGE_SIZE - (at % PAGE_SIZE as u64) as usize;
            let end = length.min(done + in_page);
            if does(physical, done..end).is_none() {
                break;
            }
            done = end;
        }
        done
    }

    /// Where `address` is in guest memory, if it is mapped.
    pub fn translate(&self, address: u64) -> Option<u64> {
        self.fd
            .translate_gva(address)
            .ok()
            .filter(|translation| translation.valid != 0)
            .map(|translation| translation.physical_address)
    }
}
