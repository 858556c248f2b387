//! The point before every access to memory that CPUs share, and the functions by which an image
//! that stops there announces accesses ([`crate::sync::stops`]). They look up at which accesses the
//! monitor has no choice to make ([`shared::passing`]), and ring at all others. In assembler: there
//! are many accesses, and a host that emulates them pays for each instruction.

use core::arch::naked_asm;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering};

use shared::passing::{EVERY, HANDLER, Head, SIZE, SLOT_MASK, Way};
use shared::stop::{Access, Kind, Manner};

use super::platform::ring_at;
use crate::platform::Point;

// SAFETY: the section holds points and nothing else.
#[unsafe(link_section = ".probes")]
static POINT: Point = Point::new(shared::stop::NAME, file!(), line!());

#[repr(C, align(4096))]
struct Section([AtomicU64; SIZE / 8]);

// SAFETY: the linker script makes it the section of the image in which the monitor writes. It is
// made of atomics, and any bits are valid in it.
#[unsafe(link_section = ".bss.passing")]
static PASSING: Section = Section([const { AtomicU64::new(0) }; SIZE / 8]);

const _: () = assert!(offset_of!(Head, situation) == 0);

fn situation() -> &'static AtomicU64 {
    &PASSING.0[0]
}

/// Has this CPU ring before its next access. A load and a store: no other CPU runs meanwhile, and
/// handlers do the same.
pub fn stop_before_next() {
    let situation = situation();
    situation.store(situation.load(Ordering::Relaxed) | EVERY, Ordering::Relaxed);
}

/// The same, if a handler runs.
pub fn stop_before_next_of_handler() {
    if situation().load(Ordering::Relaxed) & HANDLER != 0 {
        stop_before_next();
    }
}

/// The same as [`stop_before_next`], for portable code.
// SAFETY: the one definition of what the portable code declares, with the same signature.
#[unsafe(no_mangle)]
extern "C" fn stop_before_any() {
    stop_before_next();
}

/// Rings, if the point is armed. RSI has the word that the monitor is told.
#[unsafe(naked)]
extern "C" fn ring() {
    naked_asm!(
        "cmp dword ptr [rip + {point} + {armed}], 0",
        "je 2f",
        "lea rdi, [rip + {point}]",
        "jmp {ring_at}",
        "2:",
        "ret",
        point = sym POINT,
        armed = const offset_of!(Point, armed),
        ring_at = sym ring_at,
    )
}

/// An access of this kind to so many bytes, at an address that is still to come.
const fn access(kind: Kind, bytes: u64) -> Access {
    Access::new(kind, 0, bytes)
}

/// A function that announces an access, with what it does first and last if it does not ring.
macro_rules! stop_before {
    (
        $name:ident, $access:expr, $way:expr,
        first [$($first:literal)*], last [$($last:literal)*]
    ) => {
        // SAFETY: the one definition of what the portable code declares, with the same signature.
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        extern "C" fn $name(_address: usize) {
            naked_asm!(
                $($first,)*
                "mov rcx, [rip + {passing}]",
                "xor rcx, rdi", // the key
                "mov edx, ecx",
                "and edx, {mask}",
                "cmp rcx, [rdx * 2 + {passing} + {keys}]",
                "jne 3f",
                "dec dword ptr [rip + {passing} + {left}]",
                "js 3f",
                $($last,)*
                "ret",
                "3:",
                "mov rsi, {access}",
                "or rsi, rdi",
                "jmp {ring}",
                // Not all of these use all of them.
                "/* {nexts} */",
                passing = sym PASSING,
                mask = const SLOT_MASK,
                keys = const $way.keys(),
                nexts = const match $way.nexts() { Some(nexts) => nexts, None => 0 },
                left = const offset_of!(Head, left),
                access = const $access.word(),
                ring = sym ring,
            )
        }
    };
    ($name:ident, $kind:expr, $bytes:literal) => {
        stop_before!($name, access($kind, $bytes), Way::Of($kind));
    };
    ($name:ident, $access:expr, $way:expr) => {
        stop_before!($name, $access, $way, first [], last []);
    };
}

/// Such functions for accesses of one size, each with the manner in which they are made if it is said.
macro_rules! stops_before {
    ($($name:ident: $kind:ident of $bytes:literal $(, $manner:ident)?;)+) => {
        $(stop_before!(
            $name,
            access(Kind::$kind, $bytes)$(.made(Manner::$manner))?,
            Way::$kind($bytes)
        );)+
    };
}

stops_before! {
    stop_before_load_1: Load of 1;
    stop_before_load_2: Load of 2;
    stop_before_load_4: Load of 4;
    stop_before_load_8: Load of 8;
    stop_before_store_1: Store of 1;
    stop_before_store_2: Store of 2;
    stop_before_store_4: Store of 4;
    stop_before_store_8: Store of 8;
    stop_before_plain_load_1: Load of 1, Plain;
    stop_before_plain_load_2: Load of 2, Plain;
    stop_before_plain_load_4: Load of 4, Plain;
    stop_before_plain_load_8: Load of 8, Plain;
    stop_before_plain_store_1: Store of 1, Plain;
    stop_before_plain_store_2: Store of 2, Plain;
    stop_before_plain_store_4: Store of 4, Plain;
    stop_before_plain_store_8: Store of 8, Plain;
    stop_before_read_modify_write_1: ReadModifyWrite of 1;
    stop_before_read_modify_write_2: ReadModifyWrite of 2;
    stop_before_read_modify_write_4: ReadModifyWrite of 4;
    stop_before_read_modify_write_8: ReadModifyWrite of 8;
}

stop_before!(stop_before_change, Kind::Change, 1);
stop_before!(stop_before_mark, Kind::Mark, 1);
stop_before!(stop_before_fence, Kind::Fence, 0);
stop_before!(stop_before_irqs_off, Kind::IrqsOff, 0);
stop_before!(
    stop_before_lock,
    access(Kind::Lock, 4),
    Way::Of(Kind::Lock),
    first [],
    last [
        "mov rcx, [rdx * 2 + {passing} + {nexts}]"
        "mov [rip + {passing}], rcx"
    ]
);
stop_before!(
    stop_before_release,
    access(Kind::Store, 4),
    Way::Release,
    first [
        // With interrupts enabled it always rings.
        "pushfq"
        "pop rax"
        "test ah, 2"
        "jnz 3f"
    ],
    last [
        "mov rcx, [rdx * 2 + {passing} + {nexts}]"
        "mov [rip + {passing}], rcx"
    ]
);

/// Rings with this word. What is announced by it is never passed over: pieces, and accesses that are
/// intended to race, are few.
// SAFETY: the one definition of what the portable code declares, with the same signature.
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn stop_before_access(_access: u64) {
    naked_asm!("mov rsi, rdi", "jmp {ring}", ring = sym ring)
}
