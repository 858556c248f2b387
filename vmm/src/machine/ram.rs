//! Guest RAM as plain memory, for code that knows that no vCPU is in the guest: then nothing but
//! that code changes it. Also knows which pages the guest has written, if KVM's dirty log is on.

use kvm_bindings::KVM_MEM_LOG_DIRTY_PAGES;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};
use vmm_sys_util::errno;

use super::vm::{HostError, Vm, setup};
use crate::page_size::PAGE_SIZE;

/// One page.
pub type Page = [u8; PAGE_SIZE];

/// The RAM of a machine below the gap.
#[derive(Debug)]
pub struct Ram {
    base: *mut u8,
    pages: usize,
    /// One bit per page: whether it was written since [`Ram::watch`] or [`Ram::forget_written`].
    written: Vec<u64>,
    /// Keeps the mapping that `base` points to.
    memory: GuestMemoryMmap,
}

// SAFETY: `base` points into the mapping that `memory` keeps, which is no thread's own. Only this
// value uses that pointer, and only through references to itself.
unsafe impl Send for Ram {}

impl Ram {
    /// The RAM of `memory`, which begins at address 0.
    ///
    /// # Safety
    /// While memory is borrowed from the returned value, nothing else may write that memory: no
    /// vCPU may be in the guest, and nothing may be written through another clone of `memory`.
    pub unsafe fn of(memory: &GuestMemoryMmap) -> Option<Self> {
        let region = memory.iter().next()?;
        let base = memory.get_host_address(GuestAddress(0)).ok()?;
        let pages = usize::try_from(region.len()).ok()? / PAGE_SIZE;
        Some(Self {
            base,
            pages,
            written: vec![0; pages.div_ceil(64)],
            memory: memory.clone(),
        })
    }

    /// Number of pages.
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// The memory that it is a part of, to be read as a vCPU addresses it.
    pub(super) fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// Page `number`.
    ///
    /// # Panics
    /// If there is no such page.
    pub fn page(&self, number: usize) -> &Page {
        assert!(number < self.pages, "page {number} of {}", self.pages);
        // SAFETY: within the mapping, which this value keeps. Nothing writes the page while it is
        // borrowed, as the caller of `Ram::of` has promised.
        unsafe { &*self.base.wrapping_add(number * PAGE_SIZE).cast() }
    }

    /// Page `number`, to write.
    ///
    /// # Panics
    /// If there is no such page.
    pub fn page_mut(&mut self, number: usize) -> &mut Page {
        assert!(number < self.pages, "page {number} of {}", self.pages);
        // SAFETY: as in `page`, and borrowed from a unique reference.
        unsafe { &mut *self.base.wrapping_add(number * PAGE_SIZE).cast() }
    }

    /// The eight bytes at `address`, or `None` where there is no RAM or the address is no multiple
    /// of eight.
    pub fn word(&self, address: u64) -> Option<u64> {
        let address = usize::try_from(address).ok()?;
        let (number, offset) = (address / PAGE_SIZE, address % PAGE_SIZE);
        (number < self.pages && address.is_multiple_of(8)).then(|| {
            let bytes = &self.page(number)[offset..offset + 8];
            u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
        })
    }

    /// Writes `word` to the eight bytes at `address`, if there is RAM, and the address is a multiple
    /// of eight.
    pub fn set_word(&mut self, address: u64, word: u64) {
        let Ok(address) = usize::try_from(address) else {
            return;
        };
        let (number, offset) = (address / PAGE_SIZE, address % PAGE_SIZE);
        if number < self.pages && address.is_multiple_of(8) {
            self.page_mut(number)[offset..offset + 8].copy_from_slice(&word.to_le_bytes());
        }
    }

    /// Turns KVM's dirty log on: from now on it records which pages the guest writes.
    ///
    /// # Errors
    /// If KVM refuses.
    pub fn watch(vm: &Vm, memory: &GuestMemoryMmap) -> Result<(), HostError> {
        vm.map(memory, KVM_MEM_LOG_DIRTY_PAGES)
            .map_err(setup("keep which pages the guest writes"))
    }

    /// Forgets which pages the guest has written, so that each counts as new when it is written
    /// again.
    ///
    /// # Errors
    /// What KVM said.
    pub fn forget_written(&mut self, vm: &Vm) -> Result<(), errno::Error> {
        // Reading the dirty log also clears it.
        vm.fd().get_dirty_log(0, self.pages * PAGE_SIZE)?;
        self.written.fill(0);
        Ok(())
    }

    /// Returns the pages that the guest has written and that were not returned since
    /// [`Ram::forget_written`]. Pages that this VMM writes are not among them.
    ///
    /// # Errors
    /// What KVM said.
    pub fn newly_written(&mut self, vm: &Vm) -> Result<Vec<usize>, errno::Error> {
        let log = vm.fd().get_dirty_log(0, self.pages * PAGE_SIZE)?;
        let mut fresh = Vec::new();
        for (index, (known, now)) in self.written.iter_mut().zip(log).enumerate() {
            let mut new = now & !*known;
            *known |= now;
            while new != 0 {
                fresh.push(index * 64 + new.trailing_zeros() as usize);
                new &= new - 1;
            }
        }
        Ok(fresh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Addresses come from the guest: every one that a word can straddle something at, and the largest.
    #[test]
    fn a_word_is_somewhere_or_nowhere() {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 3 * PAGE_SIZE)]).unwrap();
        // SAFETY: nothing else uses the memory.
        let mut ram = unsafe { Ram::of(&memory) }.unwrap();
        let end = 3 * PAGE_SIZE as u64;
        for address in 0..end + 64 {
            let is_there = address % 8 == 0 && address < end;
            ram.set_word(address, !address);
            assert_eq!(
                ram.word(address),
                is_there.then_some(!address),
                "{address:#x}"
            );
        }
        for address in (u64::MAX - 64..=u64::MAX).chain((32..64).map(|bit| 1 << bit)) {
            ram.set_word(address, 1);
            assert_eq!(ram.word(address), None, "{address:#x}");
        }
        for address in (0..end).step_by(8) {
            assert_eq!(
                ram.word(address),
                Some(!address),
                "no other word was written"
            );
        }
    }
}
