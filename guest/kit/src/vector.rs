//! The vector of an interrupt between CPUs: which numbers one can have, and the two vectors that
//! every guest has. What a vector is for, and what the manifest says of it, is in
//! [`vectors`](crate::vectors).

use shared::mailbox::WAKE_VECTOR;

/// The vectors that a guest can have: the highest numbers, but for the last, which is the APIC's
/// spurious vector.
pub const RANGE: core::ops::Range<u8> = 0xf0..0xff;

/// The vector of an interrupt between CPUs. Of those that are pending, the one with the highest
/// number is taken first. A guest declares its own with
/// [`vectors!`](crate::vectors!).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Vector(u8);

impl Vector {
    /// Its handler does nothing. A CPU sends it to itself to learn that it has taken all that was
    /// pending. No vector of the guest may have a lower number, since that is a lower priority.
    pub const LAST: Self = Self::new(0xf1);

    /// Its handler does nothing, but the CPU leaves `hlt` (Linux: `RESCHEDULE_VECTOR`). CPUs wake
    /// each other with it, and never with another vector: one that is sent without need could hide
    /// the loss of one that was needed.
    pub const WAKE: Self = Self::new(WAKE_VECTOR);

    /// The vector with this number.
    ///
    /// # Panics
    /// When compiled, if the number is not in [`RANGE`].
    pub const fn new(number: u8) -> Self {
        assert!(RANGE.start <= number && number < RANGE.end);
        Self(number)
    }

    /// Its number.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Its place in [`RANGE`].
    pub const fn index(self) -> usize {
        (self.0 - RANGE.start) as usize
    }
}
