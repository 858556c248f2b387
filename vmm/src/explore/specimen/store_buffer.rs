//! The store buffer of a CPU, as x86-TSO has it: what its stores have not yet brought to memory, in
//! the order in which they were made. An IPI that leaves behind earlier stores waits among them.
//! Plain data: knows no memory, and does not decide when an entry leaves.

use std::ops::Range;

use shared::stop::Manner;

use super::signal::Signal;

/// The most entries. Processors have more: 42 or above since 2013 (Agner Fog, "The
/// microarchitecture of Intel, AMD and VIA CPUs"). A CPU whose buffer is full waits before its next
/// store, as a processor does.
const MOST: usize = 32;

/// What waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Entry {
    /// A store.
    Store(BufferedStore),
    /// An IPI.
    Ipi {
        /// The CPU to which it is sent.
        target: usize,
        /// What is sent.
        signal: Signal,
    },
}

/// A store that is not in memory yet. It lies within a word of eight bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BufferedStore {
    /// The address of the first byte.
    pub address: u64,
    /// How many bytes: 1, 2, 4 or 8.
    pub bytes: u8,
    /// What is stored, in the low bytes.
    pub value: u64,
    /// Whether it waits only because something is in front of it that it must not overtake. No other
    /// CPU can tell: it releases a lock that is accessed only to take and release it, or nobody else
    /// accesses what it writes. It leaves together with the entry in front of it.
    pub follows: bool,
    /// Where it was made, if a search looks for data races.
    pub origin: Option<Origin>,
}

/// Where a store was made, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Origin {
    /// An address in the guest's code.
    pub address: u64,
    /// How the source makes it.
    pub manner: Manner,
}

impl BufferedStore {
    /// The address of the word in which it lies.
    pub fn word(&self) -> u64 {
        self.address & !7
    }

    /// The bits of the word that it sets.
    fn mask(&self) -> u64 {
        mask(self.address, self.bytes)
    }

    /// The word, which held `word`, with this store in it.
    pub fn over(&self, word: u64) -> u64 {
        word & !self.mask() | self.value << (self.address % 8 * 8) & self.mask()
    }

    /// The same store of what is in its place in `word`.
    pub fn of(self, word: u64) -> Self {
        let value = part(word, self.address, self.bytes);
        Self { value, ..self }
    }

    fn range(&self) -> Range<u64> {
        self.address..self.address + u64::from(self.bytes)
    }
}

/// The bits of a word that `bytes` bytes at `address` are.
fn mask(address: u64, bytes: u8) -> u64 {
    let all = u64::MAX >> (64 - 8 * u32::from(bytes.clamp(1, 8)));
    all << (address % 8 * 8)
}

/// What an access of `bytes` bytes at `address` is in `word`, the word in which it lies.
pub fn part(word: u64, address: u64, bytes: u8) -> u64 {
    (word & mask(address, bytes)) >> (address % 8 * 8)
}

/// The store buffer of one CPU, oldest entry first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct StoreBuffer(Vec<Entry>);

impl StoreBuffer {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is no room for another entry.
    pub fn is_full(&self) -> bool {
        self.0.len() >= MOST
    }

    /// The oldest entry.
    pub fn oldest(&self) -> Option<&Entry> {
        self.0.first()
    }

    /// The stores, oldest first.
    pub fn stores(&self) -> impl DoubleEndedIterator<Item = &BufferedStore> {
        self.0.iter().filter_map(|entry| match entry {
            Entry::Store(store) => Some(store),
            Entry::Ipi { .. } => None,
        })
    }

    /// Adds an entry.
    pub fn push(&mut self, entry: Entry) {
        self.0.push(entry);
    }

    /// What leaves when the oldest entry does: it, and the stores right behind it that only follow.
    pub fn leaving(&self) -> &[Entry] {
        let follows = |entry: &&Entry| matches!(entry, Entry::Store(store) if store.follows);
        let behind = self.0.iter().skip(1).take_while(follows).count();
        &self.0[..self.0.len().min(1 + behind)]
    }

    /// Takes out [`StoreBuffer::leaving`].
    pub fn take(&mut self) -> Vec<Entry> {
        let count = self.leaving().len();
        self.0.drain(..count).collect()
    }

    /// Forgets the stores for which `is_gone`.
    pub fn forget(&mut self, is_gone: impl Fn(&BufferedStore) -> bool) {
        self.0
            .retain(|entry| !matches!(entry, Entry::Store(store) if is_gone(store)));
    }

    /// The word at `address`, which is `word` in memory, as the buffer's CPU sees it.
    pub fn seen(&self, address: u64, word: u64) -> u64 {
        let own = self.stores().filter(|store| store.word() == address);
        own.fold(word, |word, store| store.over(word))
    }

    /// Whether a store to the word at `address` waits.
    pub fn holds(&self, address: u64) -> bool {
        self.stores().any(|store| store.word() == address & !7)
    }

    /// The newest store that has a byte in common with the `bytes` bytes at `address`.
    pub fn newest_over(&self, address: u64, bytes: u8) -> Option<&BufferedStore> {
        let end = address + u64::from(bytes);
        self.stores().rev().find(|store| {
            let has = store.range();
            has.start < end && address < has.end
        })
    }

    /// Whether a load of `bytes` bytes at `address` has to wait: the newest store that it overlaps
    /// has only a part of it, which a processor cannot forward (SDM Vol. 3A, 9.2.2, and "Store
    /// forwarding" in the optimization manual).
    pub fn delays(&self, address: u64, bytes: u8) -> bool {
        self.newest_over(address, bytes).is_some_and(|store| {
            let has = store.range();
            has.start > address || has.end < address + u64::from(bytes)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(address: u64, bytes: u8, value: u64) -> BufferedStore {
        BufferedStore {
            address,
            bytes,
            value,
            follows: false,
            origin: None,
        }
    }

    fn buffer(entries: &[Entry]) -> StoreBuffer {
        StoreBuffer(entries.to_vec())
    }

    #[test]
    fn a_cpu_sees_its_newest_store_to_each_byte() {
        let buffer = buffer(&[
            Entry::Store(store(8, 8, 0x1111_1111_1111_1111)),
            Entry::Ipi {
                target: 1,
                signal: Signal::Interrupt(0xf1),
            },
            Entry::Store(store(12, 4, 0x2222_2222)),
            Entry::Store(store(13, 1, 0x33)),
            Entry::Store(store(16, 2, 0x4444)),
        ]);
        assert_eq!(buffer.seen(8, 7), 0x2222_3322_1111_1111);
        assert_eq!(buffer.seen(16, u64::MAX), 0xffff_ffff_ffff_4444);
        assert_eq!(buffer.seen(24, 5), 5);
    }

    #[test]
    fn what_only_a_part_of_can_be_forwarded_has_to_wait() {
        let buffer = buffer(&[
            Entry::Store(store(8, 8, 1)),
            Entry::Store(store(12, 4, 2)),
            Entry::Store(store(24, 4, 3)),
        ]);
        assert!(buffer.delays(8, 8), "the upper half is newer");
        assert!(!buffer.delays(8, 4));
        assert!(!buffer.delays(12, 4));
        assert!(!buffer.delays(14, 2));
        assert!(buffer.delays(24, 8));
        assert!(!buffer.delays(28, 4));
        assert!(!buffer.delays(16, 8));
        assert!(buffer.holds(12) && buffer.holds(28) && !buffer.holds(16));
    }

    #[test]
    fn what_only_follows_leaves_with_what_is_in_front_of_it() {
        let release = BufferedStore {
            follows: true,
            ..store(32, 4, 0)
        };
        let mut buffer = buffer(&[
            Entry::Store(store(8, 8, 1)),
            Entry::Store(release),
            Entry::Store(release),
            Entry::Store(store(8, 8, 2)),
        ]);
        assert_eq!(buffer.take().len(), 3);
        assert_eq!(buffer.take(), [Entry::Store(store(8, 8, 2))]);
        assert!(buffer.is_empty() && buffer.take().is_empty());
    }

    #[test]
    fn a_part_of_a_word_is_what_an_access_reads() {
        let word = 0x8877_6655_4433_2211;
        assert_eq!(part(word, 8, 8), word);
        assert_eq!(part(word, 12, 4), 0x8877_6655);
        assert_eq!(part(word, 11, 1), 0x44);
        assert_eq!(
            store(12, 4, 0x1_0000_0001).over(word),
            0x0000_0001_4433_2211
        );
    }
}
