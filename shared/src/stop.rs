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

/// How the source makes an access. To a processor it is the same; what a data race is depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Manner {
    /// Atomically, or as to a `volatile` variable. An image that says nothing of it says this.
    #[default]
    Marked = 0,
    /// As to an ordinary variable.
    Plain = 1,
    /// So too, but the source says that it may race.
    Intended = 2,
}

impl Manner {
    const ALL: [Self; 3] = [Self::Marked, Self::Plain, Self::Intended];
}

/// An access that is about to happen, as one word: the address in the low 48 bits, the number of
/// bytes in the next 5, the [`Manner`] in the next 2, [`PIECE`], the kind in the high 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Access(u64);

/// In an [`Access`]: it is a piece of an access to more than one word, which is announced word by
/// word and then made as a whole, behind the last of them.
pub const PIECE: u64 = 1 << 55;

const KIND_SHIFT: u32 = 56;
const ADDRESS_BITS: u32 = 48;
const BYTES: u64 = 0x1f;
const MANNER_SHIFT: u32 = 53;

/// What an [`Access`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announced {
    /// What the CPU is about to do.
    pub kind: Kind,
    /// Where.
    pub address: u64,
    /// With how many bytes, from 1 to 8 within one word of 8; 0 of a fence and where interrupts are
    /// disabled.
    pub bytes: u8,
    /// Whether it is a [`PIECE`].
    pub is_piece: bool,
    /// How it is made.
    pub manner: Manner,
}

impl Access {
    /// `kind` at `address`, of this many bytes. Only the low 48 bits of the address and the low 5
    /// of the number are kept.
    #[inline(always)]
    pub const fn new(kind: Kind, address: u64, bytes: u64) -> Self {
        Self(
            address & ((1 << ADDRESS_BITS) - 1)
                | (bytes & BYTES) << ADDRESS_BITS
                | (kind as u64) << KIND_SHIFT,
        )
    }

    /// The same as a [`PIECE`].
    #[inline(always)]
    pub const fn piece(self) -> Self {
        Self(self.0 | PIECE)
    }

    /// The same, made in this manner, which was not said before.
    #[inline(always)]
    pub const fn made(self, manner: Manner) -> Self {
        Self(self.0 | (manner as u64) << MANNER_SHIFT)
    }

    /// The word that the monitor is told.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// What `word` says, or `None` if it holds no access. The number of bytes is 1, 2, 4 or 8, and
    /// they lie within one word of 8. Where it is 0, an access that is no load and no store is to
    /// all that follow in the word.
    pub fn from_word(word: u64) -> Option<Announced> {
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| word >> KIND_SHIFT == *kind as u64)?;
        let address = word & ((1 << ADDRESS_BITS) - 1);
        let bytes = (word >> ADDRESS_BITS & BYTES) as u8;
        let rest = (8 - address % 8) as u8;
        let (bytes, is_rest) = match kind {
            Kind::Fence | Kind::IrqsOff if bytes != 0 => return None,
            Kind::Load | Kind::Store if bytes == 0 => return None,
            Kind::Fence | Kind::IrqsOff | Kind::Load | Kind::Store => (bytes, false),
            _ if bytes == 0 => (rest, true),
            _ => (bytes, false),
        };
        let number = word >> MANNER_SHIFT & 3;
        let manner = Manner::ALL.into_iter().find(|it| *it as u64 == number)?;
        let is_size = matches!(bytes, 0 | 1 | 2 | 4 | 8) || is_rest;
        (is_size && bytes <= rest).then_some(Announced {
            kind,
            address,
            bytes,
            is_piece: word & PIECE != 0,
            manner,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_gives_back_what_it_was_made_of() {
        for kind in Kind::ALL {
            let has_bytes = !matches!(kind, Kind::Fence | Kind::IrqsOff);
            let announced = Announced {
                kind,
                address: 0x1234_5678_9abc,
                bytes: if has_bytes { 4 } else { 0 },
                is_piece: false,
                manner: Manner::Marked,
            };
            let access = Access::new(kind, announced.address, announced.bytes.into());
            assert_eq!(Access::from_word(access.word()), Some(announced));
            let is_piece = true;
            assert_eq!(
                Access::from_word(access.piece().word()),
                Some(Announced {
                    is_piece,
                    ..announced
                })
            );
            for manner in Manner::ALL {
                assert_eq!(
                    Access::from_word(access.made(manner).piece().word()),
                    Some(Announced {
                        is_piece,
                        manner,
                        ..announced
                    })
                );
            }
            assert_eq!(Access::from_word(access.word() | 3 << MANNER_SHIFT), None);
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
            (Kind::Mark, 12, 8),
            (Kind::Fence, 8, 4),
        ] {
            let word = Access::new(kind, address, bytes).word();
            assert_eq!(Access::from_word(word), None, "{kind:?} {address} {bytes}");
        }
    }

    #[test]
    fn without_a_size_it_is_the_rest_of_the_word() {
        for (address, bytes) in [(8, 8), (12, 4), (14, 2), (13, 3)] {
            let word = Access::new(Kind::ReadModifyWrite, address, 0).word();
            assert_eq!(Access::from_word(word).map(|it| it.bytes), Some(bytes));
        }
    }
}
