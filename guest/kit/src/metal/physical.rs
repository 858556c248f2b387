//! Physical memory, as bytes. It is identity-mapped, so an address is a pointer. This module checks
//! that an address from a monitor's tables is mapped at all.

use core::ops::Range;
use core::slice;

use zerocopy::FromBytes;

/// Size of a small page.
pub const PAGE: u64 = 4096;
/// Size of a large page. Most memory is mapped in large pages.
pub const HUGE_PAGE: u64 = 2 << 20;

/// The addresses at which memory can be: mapped and cached. The registers of the APICs lie above.
/// Page 0 is included while the guest boots, since QEMU keeps the memory map there, except for
/// address 0, since no pointer may be null.
pub const MEMORY: Range<u64> = 1..3 << 30;

/// The `len` bytes at `address`, or `None` if they are not within [`MEMORY`].
pub fn bytes(address: u64, len: u64) -> Option<&'static [u8]> {
    let end = address.checked_add(len)?;
    if address < MEMORY.start || end > MEMORY.end {
        return None;
    }
    // SAFETY: the range is mapped. It holds what the monitor wrote before the guest started, and
    // the heap leaves it out (`start_info::free_memory`), so nothing writes it while it is read.
    Some(unsafe { slice::from_raw_parts(address as *const u8, len as usize) })
}

/// A copy of the `T` at `address`, or `None` if it is not within [`MEMORY`].
pub fn read<T: FromBytes>(address: u64) -> Option<T> {
    T::read_from_bytes(bytes(address, size_of::<T>() as u64)?).ok()
}

/// The bytes from `address` up to the first zero, at most `limit`; `None` if there is no zero.
pub fn c_string(address: u64, limit: u64) -> Option<&'static [u8]> {
    let limit = limit.min(MEMORY.end.checked_sub(address)?);
    let text = bytes(address, limit)?;
    Some(&text[..text.iter().position(|byte| *byte == 0)?])
}
