//! The page tables after boot. They change only to unmap pages, so that stray accesses fault: page
//! 0, and the page below each stack. The tables themselves are in `boot`.

use alloc::alloc::{alloc, handle_alloc_error};
use core::alloc::Layout;
use core::sync::atomic::{AtomicU64, Ordering};

use x86_64::instructions::tlb;

use super::physical::{HUGE_PAGE, MEMORY, PAGE};

/// Entries of the page directories that map 4 GiB, one per large page.
pub const DIRECTORY_ENTRIES: usize = ((4 << 30) / HUGE_PAGE) as usize;
/// The first of them that maps uncached memory.
pub const UNCACHED_FROM: usize = (MEMORY.end / HUGE_PAGE) as usize;

/// Entries of a page table (SDM Vol. 3A 5.5).
const TABLE_ENTRIES: usize = 512;
/// An entry of a page directory that maps a large page instead of naming a page table.
const LARGE: u64 = 1 << 7;
/// The address in an entry that names a page table.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Flags of what points to a page table: present, writable, accessed.
const TO_TABLE: u64 = 0x23;
/// Flags of a small page: the same, and dirty.
const SMALL_PAGE: u64 = 0x63;

#[repr(C, align(4096))]
struct PageTable([AtomicU64; TABLE_ENTRIES]);

unsafe extern "C" {
    #[link_name = "page_directory"]
    static DIRECTORY: [AtomicU64; DIRECTORY_ENTRIES];
}

/// Unmaps the page at `address`: after the next [`flush`], an access to it faults. Only while no
/// other CPU runs.
///
/// # Safety
/// Nothing may use the page any more.
pub unsafe fn remove(address: u64) {
    // SAFETY: `boot` defines the symbol with this many entries.
    let directory = unsafe { &DIRECTORY };
    let entry = &directory[(address / HUGE_PAGE) as usize];
    let mut value = entry.load(Ordering::Relaxed);
    if value & LARGE != 0 {
        value = split(address - address % HUGE_PAGE) | TO_TABLE;
        entry.store(value, Ordering::Release);
    }
    // SAFETY: an entry without `LARGE` names a page table, which is identity-mapped and never
    // freed.
    let table = unsafe { &*((value & ADDRESS) as *const PageTable) };
    table.0[(address % HUGE_PAGE / PAGE) as usize].store(0, Ordering::Release);
}

/// Flushes this CPU's TLB, so that pages that were removed are unmapped. Once for all of them,
/// since this is expensive on a host that shadows the guest's page tables.
pub fn flush() {
    tlb::flush_all();
}

/// Makes a page table that maps the large page at `start` in small pages, and returns its address.
fn split(start: u64) -> u64 {
    let layout = Layout::new::<PageTable>();
    // SAFETY: a page table has a size.
    let table = unsafe { alloc(layout) }.cast::<u64>();
    if table.is_null() {
        handle_alloc_error(layout);
    }
    for index in 0..TABLE_ENTRIES {
        let page = start + index as u64 * PAGE;
        // SAFETY: within the table that was just allocated.
        unsafe { table.wrapping_add(index).write(page | SMALL_PAGE) };
    }
    table as u64
}
