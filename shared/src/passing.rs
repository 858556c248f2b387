//! What a CPU passes over without ringing: accesses to shared memory at which its monitor has no
//! choice to make. Only an image that stops before each access can have this
//! ([`stop`](crate::stop)).
//!
//! Its section [`SECTION`] holds a [`Head`], and tables that the monitor fills: one for each [`Way`]
//! to access memory. A [`key`] in a table stands for an address, and for a *situation*: who makes
//! the access, and with which locks held. The present one is in [`Head::situation`]. Before an
//! access the CPU looks in the one place of the table where the key can be ([`slot`]). If it is
//! there, the CPU makes the access and does not ring. Taking or releasing a lock leads to another
//! situation, which is beside the key ([`Way::nexts`]). Everything else rings: so with empty tables
//! every access does.
//!
//! The monitor sets the situation before it lets a CPU go on. One situation is enough, since one
//! CPU runs at a time. The guest adds [`EVERY`] to it, so that the CPU rings before its next access
//! whatever that is,
//!
//! * when it enters a loop that waits for other CPUs,
//! * when a handler ends, since a task goes on then,
//! * when a handler enables interrupts,
//! * when an oracle reports something.
//!
//! A CPU that releases a lock with interrupts enabled always rings. So does one that has passed
//! over as many accesses as [`Head::left`] allows.

use crate::stop::Kind;

/// The section of the image, on pages that hold nothing else.
pub const SECTION: &str = ".passing";

/// The beginning of the section, on a page that holds nothing else. The guest writes it, and
/// nothing else of the section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Head {
    /// The present situation: its number, from bit [`NUMBER_SHIFT`] on, with [`HANDLER`] and
    /// [`EVERY`].
    pub situation: u64,
    /// How many accesses the CPU may still pass over. It rings where this becomes negative.
    pub left: i32,
    /// Room for more.
    pub reserved: u32,
}

/// In [`Head::situation`]: the CPU rings before its next access.
pub const EVERY: u64 = 1 << 63;

/// In [`Head::situation`]: a handler runs.
pub const HANDLER: u64 = 1 << 62;

/// The lowest bit of the number of a situation. Accesses at this address or above are never passed
/// over, since their keys would be those of others.
pub const NUMBER_SHIFT: u32 = 40;

/// Numbers of situations are below this, and not 0.
pub const NUMBERS: u64 = 1 << 16;

/// The situation with this number. Beside the number it has bits that follow from it, so that keys
/// of one word in different situations have different places.
pub const fn situation(number: u64, in_handler: bool) -> u64 {
    let spread = number.wrapping_mul(0x9e37_79b9) & SLOT_MASK;
    number << NUMBER_SHIFT | spread | if in_handler { HANDLER } else { 0 }
}

/// The number of a situation.
pub const fn number(situation: u64) -> u64 {
    situation >> NUMBER_SHIFT & (NUMBERS - 1)
}

/// A way to access memory, which has a table of its own. What is accessed in another number of
/// bytes is so in another way: other CPUs can meet the one, and not the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A load of 1, 2, 4 or 8 bytes.
    Load(u8),
    /// A store of so many that does not release a lock.
    Store(u8),
    /// A read and write in one.
    ReadModifyWrite(u8),
    /// As the kind says, which is none of these.
    Of(Kind),
    /// A store that releases a lock.
    Release,
}

/// The numbers of bytes that have a table of their own.
const BYTES: [u8; 4] = [1, 2, 4, 8];

/// Tables of keys.
const WAYS: usize = 3 * BYTES.len() + 5 + 1;

impl Way {
    /// The way of an access of this kind to so many bytes; it does not release a lock. `None` for a
    /// number of bytes that has no table.
    pub fn of(kind: Kind, bytes: u8) -> Option<Self> {
        let has_table = BYTES.contains(&bytes);
        match kind {
            Kind::Load => has_table.then_some(Self::Load(bytes)),
            Kind::Store => has_table.then_some(Self::Store(bytes)),
            Kind::ReadModifyWrite => has_table.then_some(Self::ReadModifyWrite(bytes)),
            kind => Some(Self::Of(kind)),
        }
    }

    /// Offset of its keys in the section: a word for each place, zero where there is none.
    ///
    /// # Panics
    /// For a number of bytes that has no table.
    pub const fn keys(self) -> usize {
        const fn sized(bytes: u8) -> usize {
            assert!(bytes <= 8 && bytes.is_power_of_two());
            bytes.trailing_zeros() as usize
        }
        let table = match self {
            Self::Load(bytes) => sized(bytes),
            Self::Store(bytes) => BYTES.len() + sized(bytes),
            Self::ReadModifyWrite(bytes) => 2 * BYTES.len() + sized(bytes),
            Self::Of(kind) => 3 * BYTES.len() + kind as usize - Kind::Lock as usize,
            Self::Release => WAYS - 1,
        };
        PAGE + table * TABLE
    }

    /// Offset of the situations that follow, a word for each place, if there are any.
    pub const fn nexts(self) -> Option<usize> {
        match self {
            Self::Of(Kind::Lock) => Some(PAGE + WAYS * TABLE),
            Self::Release => Some(PAGE + (WAYS + 1) * TABLE),
            _ => None,
        }
    }
}

const PAGE: usize = 4096;

/// Bytes of a table.
const TABLE: usize = SLOTS * 8;

/// Bytes of the section.
pub const SIZE: usize = PAGE + (WAYS + 2) * TABLE;

/// Places of a table.
pub const SLOTS: usize = 1 << 11;

/// The bits of a key that say its place: one for every four bytes of memory. A guest on a host that
/// emulates it pays for each instruction, so that this is no better hash.
pub const SLOT_MASK: u64 = (SLOTS as u64 - 1) << 2;

/// The key of an access to the word at `address`.
pub const fn key(address: u64, situation: u64) -> u64 {
    address ^ situation
}

/// The one place in a table where `key` can be.
pub const fn slot(key: u64) -> usize {
    ((key & SLOT_MASK) >> 2) as usize
}

const _: () = assert!(size_of::<Head>() == 16);
const _: () = assert!((NUMBERS - 1) << NUMBER_SHIFT & (HANDLER | EVERY) == 0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_access_has_the_key_of_another_or_of_an_empty_place() {
        let highest = (1 << NUMBER_SHIFT) - 4;
        let mut keys = [0; 3 * 4 * 3];
        let mut count = 0;
        for address in [0, 0x20_0000, highest] {
            for number in [1, 2, 3, NUMBERS - 1] {
                let task = situation(number, false);
                for situation in [task, situation(number, true), task | EVERY] {
                    assert_eq!(super::number(situation), number);
                    keys[count] = key(address, situation);
                    count += 1;
                }
            }
        }
        keys.sort_unstable();
        assert!(keys.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(keys.iter().all(|key| *key != 0 && slot(*key) < SLOTS));
    }

    #[test]
    fn no_table_reaches_into_another() {
        let kinds = Kind::ALL.into_iter();
        let ways = kinds.flat_map(|kind| {
            BYTES
                .map(|bytes| Way::of(kind, bytes))
                .into_iter()
                .flatten()
        });
        let mut starts = [0; WAYS + 2];
        let mut count = 0;
        for way in ways.chain([Way::Release]) {
            for start in [Some(way.keys()), way.nexts()].into_iter().flatten() {
                // The number of bytes matters only to some.
                if !starts[..count].contains(&start) {
                    starts[count] = start;
                    count += 1;
                }
            }
        }
        assert_eq!(count, starts.len());
        starts.sort_unstable();
        assert_eq!(starts[0], PAGE);
        assert!(starts.windows(2).all(|pair| pair[1] == pair[0] + TABLE));
        assert_eq!(starts[starts.len() - 1] + TABLE, SIZE);
    }
}
