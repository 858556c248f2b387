//! The vector of an interrupt between CPUs: which numbers one can have, and the two vectors that
//! every guest has. What a vector is for, and what the manifest says of it, is in
//! [`vectors`](crate::vectors).

use shared::mailbox::WAKE_VECTOR;

/// The vectors that a guest can have: those with the highest numbers but the last, at which an APIC
/// says that there was nothing.
pub const RANGE: core::ops::Range<u8> = 0xf0..0xff;

/// The vector of an interrupt between CPUs. Of those that are pending, the one with the highest
/// number is taken first. A guest declares its own with
/// [`vectors!`](crate::vectors!).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Vector(u8);

impl Vector {
    /// Nothing to do. A CPU sends it to itself to learn that it has taken everything that was
    /// pending: no vector of the guest may have a lower number, since that means a lower priority.
    pub const LAST: Self = Self::new(0xfa);

    /// Nothing to do but leave `hlt` (Linux: `RESCHEDULE_VECTOR`). It wakes CPUs that wait for each
    /// other, so that no other vector is ever sent without a reason, which could hide a lost one.
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
