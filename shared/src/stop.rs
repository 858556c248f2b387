//! Stops: the places at which an image that was built to be explored lets its monitor decide which
//! CPU goes on.
//!
//! Beside its named [points](crate::probe) such an image has one called [`NAME`], which every CPU
//! comes to before each access to memory that CPUs share. While the point is armed with
//! [`HELD`](crate::probe::HELD), for all CPUs at once, the doorbell rings there as at any other,
//! with an [`Access`] in RSI in place of a call. An image can let its monitor say at which accesses
//! it need not ring ([`passing`](crate::passing)).
//!
//! A loop that waits for other CPUs comes to a point [`RELAX`] in each of its turns, and such an
//! image counts, in [`Contexts::waits`](crate::lab::Contexts::waits), in how many of them a CPU is.
//! While a CPU is in such a loop, the monitor takes each of its accesses for part of a turn. It
//! keeps the CPU waiting until memory no longer holds what the turn read and wrote. So a turn must
//! change nothing else that could make the next turn differ, such as a count of turns in a
//! register. A loop that is not counted is never taken for one that waits.
//!
//! A CPU that rings at a point, this one or a named one, does so from a function that has read all
//! its arguments and returns nothing. So of its registers only RIP and those that functions
//! preserve (System V ABI: RBX, RBP, RSP, R12 to R15) still matter, and of its stack nothing below
//! RSP.

/// The name of the point.
pub const NAME: &str = "access";

/// The name of the point at which a CPU waits for an interrupt: with interrupts disabled, about to
/// enable them and to halt.
pub const IDLE: &str = "cpu.idle";

/// The name of the point in the body of every loop that waits for another CPU.
pub const RELAX: &str = "spin.relax";

/// The name of the point of a CPU that has gone offline, and goes on only if it is started again.
pub const LEFT: &str = "cpu.left";

/// What a CPU is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Read.
    Load = 1,
    /// Write.
    Store = 2,
    /// Read and write in one.
    ReadModifyWrite = 3,
    /// Take a lock. The word at the address is zero while the lock is free. The exchange that takes
    /// it follows, and is not announced by itself; those that follow if it fails are.
    Lock = 4,
    /// Disable interrupts. The address is zero.
    IrqsOff = 5,
    /// Write to ghost state in a way that commutes with other writes of this kind, as when each CPU
    /// sets a bit of its own.
    Mark = 6,
    /// Write to ghost state. No processor makes such an access: it takes effect at once, and no
    /// store buffer is drained for it.
    Change = 7,
    /// Drain the store buffer (`mfence`). The address is zero.
    Fence = 8,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Load,
        Self::Store,
        Self::ReadModifyWrite,
        Self::Lock,
        Self::IrqsOff,
        Self::Mark,
        Self::Change,
        Self::Fence,
    ];
}

/// An access that is about to happen, as one word: the address in the low 48 bits, the number of
/// bytes in the next 8, the kind in the high 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Access(u64);

const KIND_SHIFT: u32 = 56;
const ADDRESS_BITS: u32 = 48;

impl Access {
    /// `kind` at `address`, of this many bytes. Only the low 48 bits of the address and the low 8
    /// of the number are kept. The number counts only for a load and a store.
    #[inline(always)]
    pub const fn new(kind: Kind, address: u64, bytes: u64) -> Self {
        Self(
            address & ((1 << ADDRESS_BITS) - 1)
                | (bytes & 0xff) << ADDRESS_BITS
                | (kind as u64) << KIND_SHIFT,
        )
    }

    /// The word that the monitor is told.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// The kind, address and number of bytes in `word`, or `None` if it holds no access. A load or
    /// store is of 1, 2, 4 or 8 bytes, within one word of 8; other accesses count as 8.
    pub fn from_word(word: u64) -> Option<(Kind, u64, u8)> {
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| word >> KIND_SHIFT == *kind as u64)?;
        let address = word & ((1 << ADDRESS_BITS) - 1);
        let bytes = word.to_le_bytes()[6];
        match kind {
            Kind::Load | Kind::Store => {
                let is_within = bytes.is_power_of_two() && address % 8 + u64::from(bytes) <= 8;
                is_within.then_some((kind, address, bytes))
            }
            _ => (bytes == 0).then_some((kind, address, 8)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_gives_back_what_it_was_made_of() {
        for kind in Kind::ALL {
            let (address, is_sized) = (0x1234_5678_9abc, matches!(kind, Kind::Load | Kind::Store));
            let bytes = if is_sized { 4 } else { 0 };
            let word = Access::new(kind, address, bytes).word();
            let bytes = if is_sized { 4 } else { 8 };
            assert_eq!(Access::from_word(word), Some((kind, address, bytes)));
        }
        assert_eq!(Access::from_word(0), None);
        assert_eq!(Access::from_word(u64::MAX), None);
    }

    #[test]
    fn an_access_of_no_size_or_across_two_words_is_none() {
        for (kind, address, bytes) in [
            (Kind::Load, 8, 0),
            (Kind::Store, 8, 3),
            (Kind::Store, 12, 8),
            (Kind::Load, 15, 2),
            (Kind::Load, 8, 16),
            (Kind::Mark, 8, 4),
        ] {
            let word = Access::new(kind, address, bytes).word();
            assert_eq!(Access::from_word(word), None, "{kind:?} {address} {bytes}");
        }
    }
}
