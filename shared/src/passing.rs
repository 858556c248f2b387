//! What a CPU passes over without ringing: accesses to shared memory at which its monitor has no
//! choice to make. Only an image that stops before each access can have this
//! ([`stop`](crate::stop)).
//!
//! Its section [`SECTION`] holds a [`Head`], and tables that the monitor fills: one for each [`Way`]
//! to access a word. A [`key`] in a table stands for an address, and for a *situation*: who makes
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

/// A way to access a word, which has a table of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As [`Kind`] says; a store that does not release a lock.
    Of(Kind),
    /// A store that releases a lock.
    Release,
}

impl Way {
    /// Offset of its keys in the section: a word for each place, zero where there is none.
    pub const fn keys(self) -> usize {
        let table = match self {
            Self::Of(kind) => kind as usize - 1,
            Self::Release => Kind::ALL.len(),
        };
        PAGE + table * TABLE
    }

    /// Offset of the situations that follow, a word for each place, if there are any.
    pub const fn nexts(self) -> Option<usize> {
        match self {
            Self::Of(Kind::Lock) => Some(PAGE + (Kind::ALL.len() + 1) * TABLE),
            Self::Release => Some(PAGE + (Kind::ALL.len() + 2) * TABLE),
            Self::Of(_) => None,
        }
    }
}

const PAGE: usize = 4096;

/// Bytes of a table.
const TABLE: usize = SLOTS * 8;

/// Bytes of the section.
pub const SIZE: usize = PAGE + (Kind::ALL.len() + 3) * TABLE;

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
        let ways = Kind::ALL.map(Way::Of).into_iter().chain([Way::Release]);
        let mut starts = [0; Kind::ALL.len() + 3];
        let all = ways.flat_map(|way| [Some(way.keys()), way.nexts()]);
        for (place, start) in starts.iter_mut().zip(all.flatten()) {
            *place = start;
        }
        starts.sort_unstable();
        assert_eq!(starts[0], PAGE);
        assert!(starts.windows(2).all(|pair| pair[1] == pair[0] + TABLE));
        assert_eq!(starts[starts.len() - 1] + TABLE, SIZE);
    }
}
