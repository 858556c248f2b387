//! Probes: named points in the guest's code at which the VMM can hold a CPU.
//!
//! Each probe is a [`Point`] in the image's section [`SECTION`], where the VMM finds it without
//! running anything. A guest that comes to a point tests [`Point::armed`] and goes on if that is
//! zero. With [`TRACED`] it writes a record of the [`trace`](crate::trace). With [`HELD`], and if
//! the point is armed for the CPU it runs on ([`Arms`]), it rings the doorbell with
//! [`Doorbell::Reached`](crate::ports::Doorbell::Reached), the address of the point in RDI and the
//! call at hand, or 0, in RSI. These are in registers, not in memory, because a CPU can be
//! interrupted between two stores, and the handler can come to a point of its own. Nothing that
//! follows the point has begun while the doorbell rings.

use core::sync::atomic::AtomicU32;

/// The section of the image that holds every [`Point`], one after the other and nothing else.
pub const SECTION: &str = ".probes";

/// Most points an image can have.
pub const MAX_POINTS: usize = 256;

/// In [`Point::armed`]: some CPU is to be held here.
pub const HELD: u32 = 1;

/// In [`Point::armed`]: every CPU that comes here writes a trace record.
pub const TRACED: u32 = 2;

/// Bytes of a name, of which unused ones are zero.
pub const NAME_LEN: usize = 32;

/// Bytes of the path of a source file, of which unused ones are zero. Of a longer path the end is
/// kept.
pub const FILE_LEN: usize = 64;

/// One point. Several may have the same name: the same step in different designs.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct Point {
    /// Its name, such as `queue.visit`, in UTF-8.
    pub name: [u8; NAME_LEN],
    /// The source file it stands in, in UTF-8.
    pub file: [u8; FILE_LEN],
    /// The line in that file, from 1.
    pub line: u32,
    /// [`HELD`] and [`TRACED`], or zero while it is not armed. Written by the VMM.
    pub armed: AtomicU32,
    /// Room for more.
    pub reserved: [u32; 6],
}

const _: () = assert!(size_of::<Point>() == 128);

impl Point {
    /// A point that is not armed.
    ///
    /// # Panics
    /// When compiled, if the name is empty or longer than [`NAME_LEN`].
    pub const fn new(name: &str, file: &str, line: u32) -> Self {
        assert!(!name.is_empty() && name.len() <= NAME_LEN);
        Self {
            name: end_of(name),
            file: end_of(file),
            line,
            armed: AtomicU32::new(0),
            reserved: [0; 6],
        }
    }

    /// What it is armed for: [`HELD`], [`TRACED`], both, or zero.
    ///
    /// The writer is outside of the guest's program, which is what volatile accesses are for. An
    /// atomic load would do as well, but compilers do not make it an operand of the comparison, and
    /// where every instruction is emulated, one more in every probe is expensive.
    #[inline(always)]
    pub fn armed(&self) -> u32 {
        // SAFETY: a word of `self`, aligned, which any bit pattern may fill.
        unsafe { self.armed.as_ptr().read_volatile() }
    }
}

/// The last `N` bytes of `text`.
const fn end_of<const N: usize>(text: &str) -> [u8; N] {
    let bytes = text.as_bytes();
    let skip = bytes.len().saturating_sub(N);
    let mut end = [0; N];
    let mut at = skip;
    while at < bytes.len() {
        end[at - skip] = bytes[at];
        at += 1;
    }
    end
}

/// For one CPU, a bit for each point of the image, in the order of [`SECTION`]: set while the point
/// is armed for it. Written by the VMM.
pub type Arms = [u64; MAX_POINTS / 64];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_kept_from_the_end() {
        let point = Point::new("queue.visit", &"x".repeat(FILE_LEN + 3), 7);
        assert_eq!(&point.name[..12], b"queue.visit\0");
        assert_eq!(point.file, [b'x'; FILE_LEN]);
        assert_eq!(end_of::<4>("guest/a.rs"), *b"a.rs");
        assert_eq!(point.armed(), 0);
    }
}
