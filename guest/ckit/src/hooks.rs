//! The hooks that GCC and Clang call before every access where they are given `-fsanitize=thread`.
//! Each announces the access; those of atomics make it as well, as the compilers expect it. Names
//! and signatures are those of the compilers' own runtime (LLVM's
//! `compiler-rt/include/sanitizer/tsan_interface_atomic.h` and GCC's `gcc/sanitizer.def`).
//!
//! There are none for 16 bytes at once in one instruction (`__tsan_atomic128_…`): not every host can
//! execute `cmpxchg16b`. A C file that needs one is not linked.

use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

use crate::announce::{Access, Kind, Manner, announce};
use crate::intended::is_intended;

/// Announces an access to `bytes` bytes at `address`, which is made behind the hook. One to several
/// words, or to a number of bytes that no instruction has, is announced in pieces.
#[inline(always)]
pub(crate) fn touch(kind: Kind, address: usize, bytes: usize, manner: Manner) {
    let manner = intended(manner);
    if is_one(address, bytes) {
        announce(Access {
            kind,
            address,
            bytes,
            manner,
            is_piece: false,
        });
    } else {
        touch_in_pieces(kind, address, bytes, manner);
    }
}

/// What is made in this `manner`, as far as the source does not say that it may race.
#[inline(always)]
fn intended(manner: Manner) -> Manner {
    match manner {
        Manner::Plain if is_intended() => Manner::Intended,
        manner => manner,
    }
}

/// Whether one instruction can make the access, and within one word.
fn is_one(address: usize, bytes: usize) -> bool {
    bytes.is_power_of_two() && address % 8 + bytes <= 8
}

#[cold]
#[inline(never)]
fn touch_in_pieces(kind: Kind, address: usize, bytes: usize, manner: Manner) {
    let (mut address, mut rest) = (address, bytes);
    while rest != 0 {
        let bytes = [8, 4, 2, 1]
            .into_iter()
            .find(|bytes| *bytes <= rest && is_one(address, *bytes))
            .unwrap_or(1);
        announce(Access {
            kind,
            address,
            bytes,
            manner,
            is_piece: true,
        });
        address = address.wrapping_add(bytes);
        rest -= bytes;
    }
}

/// Hooks of accesses that are made behind them.
macro_rules! hooks {
    ($($name:ident: $kind:ident of $bytes:literal, $manner:ident;)+) => {
        $(
            /// Before an access.
            // SAFETY: the compilers call it by this name and with this signature.
            #[unsafe(no_mangle)]
            pub extern "C" fn $name(address: usize) {
                touch(Kind::$kind, address, $bytes, Manner::$manner);
            }
        )+
    };
}

hooks! {
    __tsan_read1: Load of 1, Plain;
    __tsan_read2: Load of 2, Plain;
    __tsan_read4: Load of 4, Plain;
    __tsan_read8: Load of 8, Plain;
    __tsan_read16: Load of 16, Plain;
    __tsan_write1: Store of 1, Plain;
    __tsan_write2: Store of 2, Plain;
    __tsan_write4: Store of 4, Plain;
    __tsan_write8: Store of 8, Plain;
    __tsan_write16: Store of 16, Plain;
    __tsan_unaligned_read2: Load of 2, Plain;
    __tsan_unaligned_read4: Load of 4, Plain;
    __tsan_unaligned_read8: Load of 8, Plain;
    __tsan_unaligned_read16: Load of 16, Plain;
    __tsan_unaligned_write2: Store of 2, Plain;
    __tsan_unaligned_write4: Store of 4, Plain;
    __tsan_unaligned_write8: Store of 8, Plain;
    __tsan_unaligned_write16: Store of 16, Plain;
    __tsan_volatile_read1: Load of 1, Volatile;
    __tsan_volatile_read2: Load of 2, Volatile;
    __tsan_volatile_read4: Load of 4, Volatile;
    __tsan_volatile_read8: Load of 8, Volatile;
    __tsan_volatile_read16: Load of 16, Volatile;
    __tsan_volatile_write1: Store of 1, Volatile;
    __tsan_volatile_write2: Store of 2, Volatile;
    __tsan_volatile_write4: Store of 4, Volatile;
    __tsan_volatile_write8: Store of 8, Volatile;
    __tsan_volatile_write16: Store of 16, Volatile;
    __tsan_unaligned_volatile_read2: Load of 2, Volatile;
    __tsan_unaligned_volatile_read4: Load of 4, Volatile;
    __tsan_unaligned_volatile_read8: Load of 8, Volatile;
    __tsan_unaligned_volatile_read16: Load of 16, Volatile;
    __tsan_unaligned_volatile_write2: Store of 2, Volatile;
    __tsan_unaligned_volatile_write4: Store of 4, Volatile;
    __tsan_unaligned_volatile_write8: Store of 8, Volatile;
    __tsan_unaligned_volatile_write16: Store of 16, Volatile;
}

/// Before a read of `bytes` bytes.
// SAFETY: the compilers call it by this name and with this signature.
#[unsafe(no_mangle)]
pub extern "C" fn __tsan_read_range(address: usize, bytes: usize) {
    touch(Kind::Load, address, bytes, Manner::Plain);
}

/// Before a write of `bytes` bytes.
// SAFETY: likewise.
#[unsafe(no_mangle)]
pub extern "C" fn __tsan_write_range(address: usize, bytes: usize) {
    touch(Kind::Store, address, bytes, Manner::Plain);
}

/// Where `guest/ckit/build` has found that an access is made only behind the next hook, as the store
/// is where a small structure is copied, it has one of these called in place of the hook.
macro_rules! late {
    ($($name:ident: $kind:ident of $bytes:literal, $manner:ident;)+) => {
        $(
            /// Before an access that is made behind the next hook.
            // SAFETY: `guest/ckit/build` puts it in the place of a hook with this signature.
            #[unsafe(no_mangle)]
            pub extern "C" fn $name(address: usize) {
                touch_in_pieces(Kind::$kind, address, $bytes, intended(Manner::$manner));
            }
        )+
    };
}

late! {
    lab_late_read1: Load of 1, Plain;
    lab_late_read2: Load of 2, Plain;
    lab_late_read4: Load of 4, Plain;
    lab_late_read8: Load of 8, Plain;
    lab_late_write1: Store of 1, Plain;
    lab_late_write2: Store of 2, Plain;
    lab_late_write4: Store of 4, Plain;
    lab_late_write8: Store of 8, Plain;
    lab_late_volatile_read1: Load of 1, Volatile;
    lab_late_volatile_read2: Load of 2, Volatile;
    lab_late_volatile_read4: Load of 4, Volatile;
    lab_late_volatile_read8: Load of 8, Volatile;
    lab_late_volatile_write1: Store of 1, Volatile;
    lab_late_volatile_write2: Store of 2, Volatile;
    lab_late_volatile_write4: Store of 4, Volatile;
    lab_late_volatile_write8: Store of 8, Volatile;
}

/// Hooks that say nothing of an access.
macro_rules! silent {
    ($($name:ident)+) => {
        $(
            /// Nothing to tell.
            // SAFETY: the compilers call it by this name, with an argument or without.
            #[unsafe(no_mangle)]
            pub extern "C" fn $name() {}
        )+
    };
}

silent!(__tsan_init __tsan_func_entry __tsan_func_exit __tsan_atomic_signal_fence);

/// A fence. On x86 only one that is sequentially consistent is an instruction.
// SAFETY: the compilers call it by this name and with this signature.
#[unsafe(no_mangle)]
pub extern "C" fn __tsan_atomic_thread_fence(order: i32) {
    if ordering(order) == Ordering::SeqCst {
        announce(Access {
            kind: Kind::Fence,
            address: 0,
            bytes: 0,
            manner: Manner::Atomic(order),
            is_piece: false,
        });
        fence(Ordering::SeqCst);
    }
}

/// The order with this number in C. Bits above say that a lock could be elided (GCC, "x86 specific
/// memory model extensions"), which no processor of today does. What is no order is the strongest.
fn ordering(order: i32) -> Ordering {
    match order & 0xffff {
        0 => Ordering::Relaxed,
        1 | 2 => Ordering::Acquire,
        3 => Ordering::Release,
        4 => Ordering::AcqRel,
        _ => Ordering::SeqCst,
    }
}

/// That of a load.
fn of_load(order: i32) -> Ordering {
    match ordering(order) {
        Ordering::Release | Ordering::AcqRel => Ordering::SeqCst,
        order => order,
    }
}

/// Announces an atomic access.
#[inline(always)]
fn atomically<T>(kind: Kind, address: *const T, order: i32) {
    touch(kind, address.addr(), size_of::<T>(), Manner::Atomic(order));
}

/// The hooks of atomics of one size, which make the access themselves.
macro_rules! atomics {
    (
        $atomic:ident, $value:ty: $load:ident $store:ident
        [$($operation:ident = $method:ident)+]
        [$($exchange:ident)+] $exchange_val:ident
    ) => {
        /// An atomic load.
        ///
        /// # Safety
        /// As of all hooks of atomics: `place` is a variable of this size, aligned.
        // SAFETY: the compilers call it by this name and with this signature; so those below.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $load(place: *const $value, order: i32) -> $value {
            atomically(Kind::Load, place, order);
            // SAFETY: by the caller's promise.
            unsafe { $atomic::from_ptr(place.cast_mut()) }.load(of_load(order))
        }

        /// An atomic store. On x86 one that is sequentially consistent is an exchange.
        ///
        /// # Safety
        /// As above.
        // SAFETY: as above.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $store(place: *mut $value, value: $value, order: i32) {
            // SAFETY: by the caller's promise.
            let atomic = unsafe { $atomic::from_ptr(place) };
            match ordering(order) {
                Ordering::Relaxed => {
                    atomically(Kind::Store, place, order);
                    atomic.store(value, Ordering::Relaxed);
                }
                Ordering::Release => {
                    atomically(Kind::Store, place, order);
                    atomic.store(value, Ordering::Release);
                }
                _ => {
                    atomically(Kind::ReadModifyWrite, place, order);
                    atomic.swap(value, Ordering::SeqCst);
                }
            }
        }

        $(
            /// An atomic read-modify-write, which returns the old value.
            ///
            /// # Safety
            /// As above.
            // SAFETY: as above.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $operation(
                place: *mut $value,
                value: $value,
                order: i32,
            ) -> $value {
                atomically(Kind::ReadModifyWrite, place, order);
                // SAFETY: by the caller's promise.
                unsafe { $atomic::from_ptr(place) }.$method(value, ordering(order))
            }
        )+

        $(
            /// An atomic compare-and-exchange: says whether it did, and writes what it found to
            /// `expected` if not. It never fails without cause.
            ///
            /// # Safety
            /// As above; `expected` is a variable too.
            // SAFETY: as above.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $exchange(
                place: *mut $value,
                expected: *mut $value,
                value: $value,
                order: i32,
                failure: i32,
            ) -> bool {
                let bytes = size_of::<$value>();
                touch(Kind::Load, expected.addr(), bytes, Manner::Plain);
                // SAFETY: by the caller's promise.
                let old = unsafe { expected.read() };
                // SAFETY: likewise.
                let found = unsafe { $exchange_val(place, old, value, order, failure) };
                if found != old {
                    touch(Kind::Store, expected.addr(), bytes, Manner::Plain);
                    // SAFETY: likewise.
                    unsafe { expected.write(found) };
                }
                found == old
            }
        )+

        /// The same, which returns what it found.
        ///
        /// # Safety
        /// As above.
        // SAFETY: as above.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $exchange_val(
            place: *mut $value,
            expected: $value,
            value: $value,
            order: i32,
            failure: i32,
        ) -> $value {
            atomically(Kind::ReadModifyWrite, place, order);
            // SAFETY: by the caller's promise.
            let atomic = unsafe { $atomic::from_ptr(place) };
            let done =
                atomic.compare_exchange(expected, value, ordering(order), of_load(failure));
            done.unwrap_or_else(|found| found)
        }
    };
}

atomics! {
    AtomicU8, u8: __tsan_atomic8_load __tsan_atomic8_store
    [
        __tsan_atomic8_exchange = swap
        __tsan_atomic8_fetch_add = fetch_add
        __tsan_atomic8_fetch_sub = fetch_sub
        __tsan_atomic8_fetch_and = fetch_and
        __tsan_atomic8_fetch_or = fetch_or
        __tsan_atomic8_fetch_xor = fetch_xor
        __tsan_atomic8_fetch_nand = fetch_nand
    ]
    [__tsan_atomic8_compare_exchange_strong __tsan_atomic8_compare_exchange_weak]
    __tsan_atomic8_compare_exchange_val
}

atomics! {
    AtomicU16, u16: __tsan_atomic16_load __tsan_atomic16_store
    [
        __tsan_atomic16_exchange = swap
        __tsan_atomic16_fetch_add = fetch_add
        __tsan_atomic16_fetch_sub = fetch_sub
        __tsan_atomic16_fetch_and = fetch_and
        __tsan_atomic16_fetch_or = fetch_or
        __tsan_atomic16_fetch_xor = fetch_xor
        __tsan_atomic16_fetch_nand = fetch_nand
    ]
    [__tsan_atomic16_compare_exchange_strong __tsan_atomic16_compare_exchange_weak]
    __tsan_atomic16_compare_exchange_val
}

atomics! {
    AtomicU32, u32: __tsan_atomic32_load __tsan_atomic32_store
    [
        __tsan_atomic32_exchange = swap
        __tsan_atomic32_fetch_add = fetch_add
        __tsan_atomic32_fetch_sub = fetch_sub
        __tsan_atomic32_fetch_and = fetch_and
        __tsan_atomic32_fetch_or = fetch_or
        __tsan_atomic32_fetch_xor = fetch_xor
        __tsan_atomic32_fetch_nand = fetch_nand
    ]
    [__tsan_atomic32_compare_exchange_strong __tsan_atomic32_compare_exchange_weak]
    __tsan_atomic32_compare_exchange_val
}

atomics! {
    AtomicU64, u64: __tsan_atomic64_load __tsan_atomic64_store
    [
        __tsan_atomic64_exchange = swap
        __tsan_atomic64_fetch_add = fetch_add
        __tsan_atomic64_fetch_sub = fetch_sub
        __tsan_atomic64_fetch_and = fetch_and
        __tsan_atomic64_fetch_or = fetch_or
        __tsan_atomic64_fetch_xor = fetch_xor
        __tsan_atomic64_fetch_nand = fetch_nand
    ]
    [__tsan_atomic64_compare_exchange_strong __tsan_atomic64_compare_exchange_weak]
    __tsan_atomic64_compare_exchange_val
}

#[cfg(all(test, not(feature = "explore")))]
#[path = "hooks_test.rs"]
mod tests;
