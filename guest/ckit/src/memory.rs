//! The functions of the C library that copy, fill and compare memory, as C files of an image to be
//! explored call them: `guest/ckit/build` gives their calls these names. They announce each piece
//! right before they access it, so that other CPUs can get in between, as they can on a processor.

use crate::announce::{Kind, Manner};
use crate::hooks::touch;

/// How many of `rest` bytes one instruction can access at both addresses within one word.
fn step(one: usize, other: usize, rest: usize) -> usize {
    [8, 4, 2, 1]
        .into_iter()
        .find(|bytes| *bytes <= rest && one.is_multiple_of(*bytes) && other.is_multiple_of(*bytes))
        .unwrap_or(1)
}

/// A number of this type from memory.
macro_rules! load {
    ($type:ty, $at:expr) => {{
        touch(Kind::Load, $at.addr(), size_of::<$type>(), Manner::Plain);
        // SAFETY: the caller's memory has these bytes, aligned by `step`.
        unsafe { $at.cast::<$type>().read_volatile() }
    }};
}

/// Such a number to memory.
macro_rules! store {
    ($type:ty, $at:expr, $value:expr) => {{
        touch(Kind::Store, $at.addr(), size_of::<$type>(), Manner::Plain);
        // SAFETY: the caller's memory has these bytes, aligned by `step`.
        unsafe { $at.cast::<$type>().write_volatile($value) }
    }};
}

fn copy_step(to: *mut u8, from: *const u8, bytes: usize) {
    match bytes {
        8 => {
            let value = load!(u64, from);
            store!(u64, to, value);
        }
        4 => {
            let value = load!(u32, from);
            store!(u32, to, value);
        }
        2 => {
            let value = load!(u16, from);
            store!(u16, to, value);
        }
        _ => {
            let value = load!(u8, from);
            store!(u8, to, value);
        }
    }
}

/// As C's `memcpy`.
///
/// # Safety
/// As C's.
// SAFETY: the one definition of a name that only `guest/ckit/build` gives.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lab_memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    let mut at = 0;
    while at < len {
        let (to, from) = (to.wrapping_add(at), from.wrapping_add(at));
        let bytes = step(to.addr(), from.addr(), len - at);
        copy_step(to, from, bytes);
        at += bytes;
    }
    to
}

/// As C's `memmove`.
///
/// # Safety
/// As C's.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lab_memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    if to.addr().wrapping_sub(from.addr()) >= len {
        // SAFETY: `to` does not begin within `from`, so that a copy upwards reads every byte before
        // it overwrites it: each step reads first, and no step is larger than their distance, since
        // both ends of it are aligned to its size.
        return unsafe { lab_memcpy(to, from, len) };
    }
    let mut rest = len;
    while rest > 0 {
        // From the last byte down, in steps that end where the rest does.
        let ends = (to.addr().wrapping_add(rest), from.addr().wrapping_add(rest));
        let bytes = step(ends.0, ends.1, rest);
        rest -= bytes;
        copy_step(to.wrapping_add(rest), from.wrapping_add(rest), bytes);
    }
    to
}

/// As C's `memset`.
///
/// # Safety
/// As C's.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lab_memset(to: *mut u8, value: i32, len: usize) -> *mut u8 {
    let pattern = u64::from(value as u8) * 0x0101_0101_0101_0101;
    let mut at = 0;
    while at < len {
        let to = to.wrapping_add(at);
        let bytes = step(to.addr(), to.addr(), len - at);
        match bytes {
            8 => store!(u64, to, pattern),
            4 => store!(u32, to, pattern as u32),
            2 => store!(u16, to, pattern as u16),
            _ => store!(u8, to, pattern as u8),
        }
        at += bytes;
    }
    to
}

/// As C's `memcmp`.
///
/// # Safety
/// As C's.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lab_memcmp(left: *const u8, right: *const u8, len: usize) -> i32 {
    for at in 0..len {
        let (left, right) = (left.wrapping_add(at), right.wrapping_add(at));
        let (left, right) = (load!(u8, left), load!(u8, right));
        if left != right {
            return i32::from(left) - i32::from(right);
        }
    }
    0
}
