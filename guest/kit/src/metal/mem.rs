//! The six functions that compiled code calls by name, and that a `core` built for an operating
//! system expects from the C library. They use `rep movs` and `rep stos`: no vector registers, and
//! few instructions.

use core::arch::asm;

/// Copies `len` bytes between buffers that do not overlap.
///
/// # Safety
/// As C's `memcpy`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: the caller's buffers have `len` bytes: eight at a time, and then those that are left.
    // The direction flag is clear, as the ABI demands.
    unsafe {
        asm!(
            "rep movsq",
            "mov ecx, {rest:e}",
            "rep movsb",
            rest = in(reg) len % 8,
            inout("rcx") len / 8 => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags),
        );
    }
    to
}

/// Copies `len` bytes between buffers that may overlap.
///
/// # Safety
/// As C's `memmove`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    if to.addr().wrapping_sub(from.addr()) >= len {
        // SAFETY: `to` does not start within `from`, so that a copy upwards reads every byte before
        // it overwrites it, eight at a time too.
        return unsafe { memcpy(to, from, len) };
    }
    // SAFETY: as in `memcpy`, from the last byte down; there is at least one, or `to` could not lie
    // within `from`. The direction flag is put back.
    unsafe {
        asm!(
            "std",
            "rep movsb",
            "cld",
            inout("rcx") len => _,
            inout("rsi") from.wrapping_add(len).wrapping_sub(1) => _,
            inout("rdi") to.wrapping_add(len).wrapping_sub(1) => _,
            options(nostack),
        );
    }
    to
}

/// Fills `len` bytes with the low byte of `value`.
///
/// # Safety
/// As C's `memset`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, len: usize) -> *mut u8 {
    let pattern = u64::from(value as u8) * 0x0101_0101_0101_0101;
    // SAFETY: as in `memcpy`.
    unsafe {
        asm!(
            "rep stosq",
            "mov ecx, {rest:e}",
            "rep stosb",
            rest = in(reg) len % 8,
            in("rax") pattern,
            inout("rcx") len / 8 => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags),
        );
    }
    to
}

/// Compares `len` bytes: negative or positive if the first byte that differs is less or more in
/// `left`, zero if none differs.
///
/// # Safety
/// As C's `memcmp`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, len: usize) -> i32 {
    // Volatile, or the compiler would see that this is `memcmp` and call it.
    // SAFETY: both buffers have `len` bytes.
    let byte = |of: *const u8, index| unsafe { of.wrapping_add(index).read_volatile() };
    for index in 0..len {
        let (left, right) = (byte(left, index), byte(right, index));
        if left != right {
            return i32::from(left) - i32::from(right);
        }
    }
    0
}

/// Compares `len` bytes for equality only.
///
/// # Safety
/// As BSD's `bcmp`.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, len: usize) -> i32 {
    // SAFETY: the caller's promise is the same.
    unsafe { memcmp(left, right, len) }
}

/// The number of bytes before the first zero.
///
/// # Safety
/// As C's `strlen`.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut len = 0;
    // Volatile, or the compiler would see that this is `strlen` and call it.
    // SAFETY: the caller's text goes up to a zero.
    while unsafe { text.wrapping_add(len).read_volatile() } != 0 {
        len += 1;
    }
    len
}
