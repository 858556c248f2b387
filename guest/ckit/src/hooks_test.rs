//! That each hook announces what it should, and that those of atomics do what they should.

use std::vec::Vec;

use super::*;
use crate::announce::heard;
use crate::intended;
use crate::memory::{lab_memcmp, lab_memcpy, lab_memmove, lab_memset};

/// What is announced of an access in one piece.
fn one(kind: Kind, address: usize, bytes: usize, manner: Manner) -> Access {
    Access {
        kind,
        address,
        bytes,
        manner,
        is_piece: false,
    }
}

fn piece(kind: Kind, address: usize, bytes: usize) -> Access {
    Access {
        is_piece: true,
        ..one(kind, address, bytes, Manner::Plain)
    }
}

#[test]
fn each_hook_announces_kind_address_and_size_and_how_the_source_makes_it() {
    type Hook = extern "C" fn(usize);
    let hooks: [(Hook, Kind, usize, Manner); 28] = [
        (__tsan_read1, Kind::Load, 1, Manner::Plain),
        (__tsan_read2, Kind::Load, 2, Manner::Plain),
        (__tsan_read4, Kind::Load, 4, Manner::Plain),
        (__tsan_read8, Kind::Load, 8, Manner::Plain),
        (__tsan_write1, Kind::Store, 1, Manner::Plain),
        (__tsan_write2, Kind::Store, 2, Manner::Plain),
        (__tsan_write4, Kind::Store, 4, Manner::Plain),
        (__tsan_write8, Kind::Store, 8, Manner::Plain),
        (__tsan_unaligned_read2, Kind::Load, 2, Manner::Plain),
        (__tsan_unaligned_read4, Kind::Load, 4, Manner::Plain),
        (__tsan_unaligned_read8, Kind::Load, 8, Manner::Plain),
        (__tsan_unaligned_write2, Kind::Store, 2, Manner::Plain),
        (__tsan_unaligned_write4, Kind::Store, 4, Manner::Plain),
        (__tsan_unaligned_write8, Kind::Store, 8, Manner::Plain),
        (__tsan_volatile_read1, Kind::Load, 1, Manner::Volatile),
        (__tsan_volatile_read2, Kind::Load, 2, Manner::Volatile),
        (__tsan_volatile_read4, Kind::Load, 4, Manner::Volatile),
        (__tsan_volatile_read8, Kind::Load, 8, Manner::Volatile),
        (__tsan_volatile_write1, Kind::Store, 1, Manner::Volatile),
        (__tsan_volatile_write2, Kind::Store, 2, Manner::Volatile),
        (__tsan_volatile_write4, Kind::Store, 4, Manner::Volatile),
        (__tsan_volatile_write8, Kind::Store, 8, Manner::Volatile),
        (
            __tsan_unaligned_volatile_read2,
            Kind::Load,
            2,
            Manner::Volatile,
        ),
        (
            __tsan_unaligned_volatile_read4,
            Kind::Load,
            4,
            Manner::Volatile,
        ),
        (
            __tsan_unaligned_volatile_read8,
            Kind::Load,
            8,
            Manner::Volatile,
        ),
        (
            __tsan_unaligned_volatile_write2,
            Kind::Store,
            2,
            Manner::Volatile,
        ),
        (
            __tsan_unaligned_volatile_write4,
            Kind::Store,
            4,
            Manner::Volatile,
        ),
        (
            __tsan_unaligned_volatile_write8,
            Kind::Store,
            8,
            Manner::Volatile,
        ),
    ];
    for (hook, kind, bytes, manner) in hooks {
        assert_eq!(heard(|| hook(0x1230)), [one(kind, 0x1230, bytes, manner)]);
    }
    for silent in [
        __tsan_init,
        __tsan_func_entry,
        __tsan_func_exit,
        __tsan_atomic_signal_fence,
    ] {
        assert_eq!(heard(|| silent()), []);
    }
}

#[test]
fn what_is_larger_than_a_word_or_lies_across_two_is_announced_in_pieces() {
    let (load, store) = (Kind::Load, Kind::Store);
    assert_eq!(
        heard(|| __tsan_read16(0x10)),
        [piece(load, 0x10, 8), piece(load, 0x18, 8)]
    );
    assert_eq!(
        heard(|| __tsan_unaligned_write8(0x15)),
        [
            piece(store, 0x15, 2),
            piece(store, 0x17, 1),
            piece(store, 0x18, 4),
            piece(store, 0x1c, 1)
        ]
    );
    // Within one word no instruction crosses anything.
    assert_eq!(
        heard(|| __tsan_unaligned_read4(0x12)),
        [one(load, 0x12, 4, Manner::Plain)]
    );
    assert_eq!(
        heard(|| __tsan_read_range(0x10, 8)),
        [one(load, 0x10, 8, Manner::Plain)]
    );
    assert_eq!(
        heard(|| __tsan_write_range(0x10, 3)),
        [piece(store, 0x10, 2), piece(store, 0x12, 1)]
    );
    assert_eq!(heard(|| __tsan_read_range(0x10, 0)), []);
    assert_eq!(heard(|| lab_late_write4(0x10)), [piece(store, 0x10, 4)]);
    // The pieces are all that is accessed, once, whatever that is.
    for (start, bytes) in (0..8).flat_map(|start| (0..40).map(move |bytes| (start, bytes))) {
        let mut next = start;
        for access in heard(|| __tsan_write_range(start, bytes)) {
            assert_eq!((access.address, access.kind), (next, store));
            assert!(access.bytes.is_power_of_two() && next % 8 + access.bytes <= 8);
            next += access.bytes;
        }
        assert_eq!(next, start + bytes);
    }
}

#[test]
fn a_fence_is_announced_if_it_is_an_instruction() {
    for order in 0..5 {
        assert_eq!(heard(|| __tsan_atomic_thread_fence(order)), []);
    }
    let fence = one(Kind::Fence, 0, 0, Manner::Atomic(5));
    assert_eq!(heard(|| __tsan_atomic_thread_fence(5)), [fence]);
}

/// Each hook of atomics of one size, on a variable of its own.
macro_rules! atomics_of {
    (
        $name:ident, $value:ty, $load:ident $store:ident $swap:ident $add:ident $sub:ident $and:ident $or:ident
        $xor:ident $nand:ident $strong:ident $weak:ident $val:ident
    ) => {
        #[test]
        fn $name() {
            type Operation = unsafe extern "C" fn(*mut $value, $value, i32) -> $value;
            let bytes = size_of::<$value>();
            let mut place: $value = 12;
            let at = &raw mut place;
            let address = at.addr();
            for order in 0..6 {
                let manner = Manner::Atomic(order);
                // SAFETY: here and below, variables of this function.
                let told = heard(|| assert_eq!(unsafe { $load(at, order) }, 12));
                assert_eq!(told, [one(Kind::Load, address, bytes, manner)]);
                // SAFETY: as above.
                let told = heard(|| unsafe { $store(at, 12, order) });
                let kind = match order {
                    0 | 3 => Kind::Store,
                    _ => Kind::ReadModifyWrite,
                };
                assert_eq!(told, [one(kind, address, bytes, manner)]);
                let operations: [(Operation, $value); 7] = [
                    ($swap, 10),
                    ($add, 22),
                    ($sub, 2),
                    ($and, 8),
                    ($or, 14),
                    ($xor, 6),
                    ($nand, !8),
                ];
                for (operation, after) in operations {
                    // SAFETY: as above.
                    let told = heard(|| assert_eq!(unsafe { operation(at, 10, order) }, 12));
                    assert_eq!(told, [one(Kind::ReadModifyWrite, address, bytes, manner)]);
                    assert_eq!(place, after);
                    // SAFETY: as above.
                    unsafe { at.write(12) };
                }
            }
            for exchange in [$strong, $weak] {
                let mut expected: $value = 12;
                let wants = &raw mut expected;
                let mut told = Vec::new();
                for done in [true, false] {
                    // SAFETY: as above.
                    let said = heard(|| assert_eq!(unsafe { exchange(at, wants, 7, 4, 2) }, done));
                    told.extend(said.into_iter().map(|it| (it.kind, it.address, it.manner)));
                }
                let (of_expected, plain) = (wants.addr(), Manner::Plain);
                assert_eq!(
                    told,
                    [
                        (Kind::Load, of_expected, plain),
                        (Kind::ReadModifyWrite, address, Manner::Atomic(4)),
                        (Kind::Load, of_expected, plain),
                        (Kind::ReadModifyWrite, address, Manner::Atomic(4)),
                        (Kind::Store, of_expected, plain),
                    ]
                );
                assert_eq!((place, expected), (7, 7));
                // SAFETY: as above.
                unsafe { at.write(12) };
            }
            // SAFETY: as above.
            let told = heard(|| assert_eq!(unsafe { $val(at, 11, 1, 5, 5) }, 12));
            assert_eq!(
                told,
                [one(
                    Kind::ReadModifyWrite,
                    address,
                    bytes,
                    Manner::Atomic(5)
                )]
            );
        }
    };
}

atomics_of!(
    atomics_of_one_byte, u8, __tsan_atomic8_load __tsan_atomic8_store __tsan_atomic8_exchange
    __tsan_atomic8_fetch_add __tsan_atomic8_fetch_sub __tsan_atomic8_fetch_and __tsan_atomic8_fetch_or
    __tsan_atomic8_fetch_xor __tsan_atomic8_fetch_nand __tsan_atomic8_compare_exchange_strong
    __tsan_atomic8_compare_exchange_weak __tsan_atomic8_compare_exchange_val
);
atomics_of!(
    atomics_of_two_bytes, u16, __tsan_atomic16_load __tsan_atomic16_store __tsan_atomic16_exchange
    __tsan_atomic16_fetch_add __tsan_atomic16_fetch_sub __tsan_atomic16_fetch_and __tsan_atomic16_fetch_or
    __tsan_atomic16_fetch_xor __tsan_atomic16_fetch_nand __tsan_atomic16_compare_exchange_strong
    __tsan_atomic16_compare_exchange_weak __tsan_atomic16_compare_exchange_val
);
atomics_of!(
    atomics_of_four_bytes, u32, __tsan_atomic32_load __tsan_atomic32_store __tsan_atomic32_exchange
    __tsan_atomic32_fetch_add __tsan_atomic32_fetch_sub __tsan_atomic32_fetch_and __tsan_atomic32_fetch_or
    __tsan_atomic32_fetch_xor __tsan_atomic32_fetch_nand __tsan_atomic32_compare_exchange_strong
    __tsan_atomic32_compare_exchange_weak __tsan_atomic32_compare_exchange_val
);
atomics_of!(
    atomics_of_eight_bytes, u64, __tsan_atomic64_load __tsan_atomic64_store __tsan_atomic64_exchange
    __tsan_atomic64_fetch_add __tsan_atomic64_fetch_sub __tsan_atomic64_fetch_and __tsan_atomic64_fetch_or
    __tsan_atomic64_fetch_xor __tsan_atomic64_fetch_nand __tsan_atomic64_compare_exchange_strong
    __tsan_atomic64_compare_exchange_weak __tsan_atomic64_compare_exchange_val
);

#[test]
fn what_the_source_says_may_race_is_not_plain() {
    let read = |manner| [one(Kind::Load, 8, 4, manner)];
    assert_eq!(heard(|| __tsan_read4(8)), read(Manner::Plain));
    intended::begin();
    intended::begin();
    intended::end();
    assert_eq!(heard(|| __tsan_read4(8)), read(Manner::Intended));
    assert_eq!(heard(|| __tsan_volatile_read4(8)), read(Manner::Volatile));
    let late = heard(|| lab_late_write4(8));
    assert_eq!(late[0].manner, Manner::Intended);
    intended::end();
    assert_eq!(heard(|| __tsan_read4(8)), read(Manner::Plain));
    let late = heard(|| lab_late_volatile_write4(8));
    assert_eq!(late[0].manner, Manner::Volatile);
}

#[test]
fn copies_are_announced_step_by_step_and_copy() {
    #[repr(align(8))]
    struct Aligned([u8; 32]);
    for (to, from, len) in [(0, 0, 24), (1, 1, 20), (3, 8, 7), (8, 2, 17), (0, 0, 0)] {
        let source = Aligned(core::array::from_fn(|at| at as u8 + 1));
        let mut target = Aligned([0; 32]);
        let (into, out) = (&mut target.0[to..], &source.0[from..]);
        // SAFETY: both have as many bytes.
        let told = heard(|| _ = unsafe { lab_memcpy(into.as_mut_ptr(), out.as_ptr(), len) });
        assert_eq!(target.0[to..to + len], source.0[from..from + len]);
        for pair in told.chunks(2) {
            assert_eq!((pair[0].kind, pair[1].kind), (Kind::Load, Kind::Store));
            assert!(
                pair.iter()
                    .all(|it| !it.is_piece && it.address % it.bytes == 0)
            );
        }
        let copied: usize = told.iter().map(|it| it.bytes).sum();
        assert_eq!(copied, 2 * len);
    }
    for (to, from, len) in [(0, 8, 24), (8, 0, 24), (1, 0, 31), (0, 3, 29), (5, 5, 9)] {
        let mut moved = Aligned(core::array::from_fn(|at| at as u8));
        let mut same = moved.0;
        same.copy_within(from..from + len, to);
        let all = moved.0.as_mut_ptr();
        // SAFETY: within one array.
        let _ = unsafe { lab_memmove(all.wrapping_add(to), all.wrapping_add(from), len) };
        assert_eq!(moved.0, same, "{to} {from} {len}");
    }
    let mut filled = Aligned([0; 32]);
    let told = heard(|| {
        let from = filled.0.as_mut_ptr().wrapping_add(3);
        // SAFETY: within the array.
        let _ = unsafe { lab_memset(from, 0x1a7, 14) };
    });
    assert!(filled.0[3..17].iter().all(|byte| *byte == 0xa7));
    assert_eq!((filled.0[2], filled.0[17]), (0, 0));
    assert_eq!(
        told.iter().map(|it| it.bytes).collect::<Vec<_>>(),
        [1, 4, 8, 1]
    );
    let compare = |left: &[u8], right: &[u8]| {
        // SAFETY: the shorter has as many.
        unsafe { lab_memcmp(left.as_ptr(), right.as_ptr(), left.len().min(right.len())) }.signum()
    };
    assert_eq!(compare(b"abc", b"abd"), -1);
    assert_eq!(compare(b"abc", b"abc"), 0);
    assert_eq!(compare(b"\xff", b"a"), 1);
}
