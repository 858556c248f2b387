//! Sets of CPUs: a plain one, passed around by value, and an atomic one that CPUs share.

use alloc::boxed::Box;
use core::fmt;

use super::atomic::{AtomicU64, Ordering};

/// Index of a CPU, from 0, dense. Not an APIC id.
pub type CpuId = usize;

/// Largest number of CPUs in a set, that of the lab.
pub const MAX_CPUS: usize = shared::cpus::MAX_CPUS as usize;

const WORDS: usize = MAX_CPUS / 64;

/// A set of CPUs.
///
/// It knows how many CPUs the machine has and touches only the words they need: on a small machine
/// an operation costs one word, not sixteen.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CpuMask {
    used: usize,
    words: [u64; WORDS],
}

impl CpuMask {
    /// The empty set on a machine of `cpus` CPUs, at most [`MAX_CPUS`].
    pub fn none(cpus: usize) -> Self {
        assert!(cpus <= MAX_CPUS, "{cpus} CPUs do not fit into a mask");
        Self {
            used: cpus.div_ceil(64),
            words: [0; WORDS],
        }
    }

    /// All of the machine's `cpus` CPUs.
    pub fn all(cpus: usize) -> Self {
        let mut mask = Self::none(cpus);
        mask.words[..cpus / 64].fill(u64::MAX);
        if !cpus.is_multiple_of(64) {
            mask.words[cpus / 64] = (1 << (cpus % 64)) - 1;
        }
        mask
    }

    /// A single CPU of a machine of `cpus`.
    pub fn only(cpu: CpuId, cpus: usize) -> Self {
        let mut mask = Self::none(cpus);
        mask.insert(cpu);
        mask
    }

    /// Adds `cpu`.
    #[inline]
    pub fn insert(&mut self, cpu: CpuId) {
        self.words[cpu / 64] |= 1 << (cpu % 64);
    }

    /// Takes `cpu` out.
    #[inline]
    pub fn remove(&mut self, cpu: CpuId) {
        self.words[cpu / 64] &= !(1 << (cpu % 64));
    }

    /// Whether `cpu` is in the set.
    #[inline]
    pub fn contains(&self, cpu: CpuId) -> bool {
        self.words[cpu / 64] >> (cpu % 64) & 1 != 0
    }

    /// Keeps only what is in `other` too.
    pub fn intersect(&mut self, other: &AtomicCpuMask) {
        for (word, other) in self.words[..self.used].iter_mut().zip(&other.words) {
            *word &= other.load(Ordering::Relaxed);
        }
    }

    /// Keeps only the CPUs whose bits are set in `pattern`, which is called once for each word of
    /// 64 CPUs. With random words this draws a random subset.
    pub fn filter_words(&mut self, mut pattern: impl FnMut() -> u64) {
        for word in &mut self.words[..self.used] {
            *word &= pattern();
        }
    }

    /// Adds what is in `other` too.
    pub fn union(&mut self, other: &Self) {
        for (word, other) in self.words.iter_mut().zip(other.words()) {
            *word |= other;
        }
    }

    /// Number of CPUs in the set.
    #[inline]
    pub fn len(&self) -> usize {
        self.words()
            .iter()
            .map(|word| word.count_ones() as usize)
            .sum()
    }

    /// Whether the set is empty.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.words().iter().all(|word| *word == 0)
    }

    /// The lowest CPU in the set.
    #[inline]
    pub fn first(&self) -> Option<CpuId> {
        self.iter().next()
    }

    /// The CPUs, ascending.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = CpuId> + Clone + '_ {
        self.words().iter().enumerate().flat_map(|(index, &word)| {
            core::iter::successors((word != 0).then_some(word), |rest| {
                let next = rest & (rest - 1);
                (next != 0).then_some(next)
            })
            .map(move |rest| index * 64 + rest.trailing_zeros() as usize)
        })
    }

    /// The words in use, CPU 0 in the lowest bit of the first.
    #[inline]
    pub fn words(&self) -> &[u64] {
        &self.words[..self.used]
    }
}

/// The targets of a call: a set that does not change, or one that other CPUs change meanwhile, as
/// they do with the CPUs of an address space.
pub trait Targets {
    /// The set as it is now, on a machine of `cpus` CPUs.
    fn load(&self, cpus: usize) -> CpuMask;
}

impl Targets for CpuMask {
    fn load(&self, _: usize) -> CpuMask {
        *self
    }
}

impl Targets for AtomicCpuMask {
    fn load(&self, cpus: usize) -> CpuMask {
        self.load(cpus)
    }
}

/// Ranges, as in `{0-3,7}`.
impl fmt::Debug for CpuMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cpus = self.iter().peekable();
        let mut separator = "{";
        while let Some(first) = cpus.next() {
            let mut last = first;
            while cpus.next_if_eq(&(last + 1)).is_some() {
                last += 1;
            }
            match last - first {
                0 => write!(f, "{separator}{first}")?,
                _ => write!(f, "{separator}{first}-{last}")?,
            }
            separator = ",";
        }
        f.write_str(if separator == "{" { "{}" } else { "}" })
    }
}

/// A set of CPUs that several CPUs read and write, bit by bit.
///
/// It is on the heap, as the kernel's `cpumask_var_t` is when masks are large, so that hotplug has
/// to free it.
#[derive(Debug)]
pub struct AtomicCpuMask {
    words: Box<[AtomicU64]>,
}

impl AtomicCpuMask {
    /// The empty set on a machine of `cpus` CPUs.
    pub fn none(cpus: usize) -> Self {
        Self {
            words: (0..cpus.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Replaces the whole set, word by word: a reader can see a mixture of both.
    pub fn store(&self, mask: &CpuMask, order: Ordering) {
        for (word, value) in self.words.iter().zip(mask.words()) {
            word.store(*value, order);
        }
    }

    /// A copy, taken word by word, of the set on a machine of `cpus` CPUs.
    pub fn load(&self, cpus: usize) -> CpuMask {
        let mut mask = CpuMask::all(cpus);
        mask.intersect(self);
        mask
    }

    /// Whether `cpu` is in the set.
    #[inline]
    pub fn contains(&self, cpu: CpuId, order: Ordering) -> bool {
        self.words[cpu / 64].load(order) >> (cpu % 64) & 1 != 0
    }

    /// Adds `cpu`, atomically.
    #[inline]
    pub fn insert(&self, cpu: CpuId, order: Ordering) {
        self.words[cpu / 64].fetch_or(1 << (cpu % 64), order);
    }

    /// Adds all of `mask`, word by word, each atomically.
    pub fn insert_all(&self, mask: &CpuMask, order: Ordering) {
        for (word, value) in self.words.iter().zip(mask.words()) {
            word.fetch_or(*value, order);
        }
    }

    /// Takes `cpu` out, atomically, and says whether it was in.
    #[inline]
    pub fn remove(&self, cpu: CpuId, order: Ordering) -> bool {
        let bit = 1 << (cpu % 64);
        self.words[cpu / 64].fetch_and(!bit, order) & bit != 0
    }

    /// Overwrites the whole set, bits beyond the last CPU included.
    pub fn fill(&self, byte: u8) {
        let value = u64::from_ne_bytes([byte; 8]);
        (self.words.iter()).for_each(|word| word.store(value, Ordering::Relaxed));
    }

    /// Whether the set is empty, word by word.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.words
            .iter()
            .all(|word| word.load(Ordering::Relaxed) == 0)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn mask_of(set: &BTreeSet<usize>, cpus: usize) -> CpuMask {
        let mut mask = CpuMask::none(cpus);
        set.iter().for_each(|cpu| mask.insert(*cpu));
        mask
    }

    proptest! {
        #[test]
        fn a_mask_is_a_set(
            cpus in 1usize..=MAX_CPUS,
            seed in proptest::collection::btree_set(0usize..MAX_CPUS, 0..40),
        ) {
            let set: BTreeSet<usize> = seed.into_iter().filter(|cpu| *cpu < cpus).collect();
            let mask = mask_of(&set, cpus);
            prop_assert_eq!(mask.len(), set.len());
            prop_assert_eq!(mask.is_empty(), set.is_empty());
            prop_assert_eq!(mask.first(), set.first().copied());
            prop_assert_eq!(mask.iter().collect::<BTreeSet<_>>(), set.clone());
            for cpu in 0..cpus {
                prop_assert_eq!(mask.contains(cpu), set.contains(&cpu));
            }
        }

        #[test]
        fn an_atomic_mask_gives_back_what_was_stored(
            cpus in 1usize..=MAX_CPUS,
            seed in proptest::collection::btree_set(0usize..MAX_CPUS, 1..40),
        ) {
            let set: BTreeSet<usize> = seed.into_iter().filter(|cpu| *cpu < cpus).collect();
            let atomic = AtomicCpuMask::none(cpus);
            atomic.store(&mask_of(&set, cpus), Ordering::Relaxed);
            prop_assert_eq!(atomic.load(cpus), mask_of(&set, cpus));
            let others: BTreeSet<usize> = (0..cpus).filter(|cpu| cpu % 3 == 0).collect();
            let both = AtomicCpuMask::none(cpus);
            both.store(&mask_of(&set, cpus), Ordering::Relaxed);
            both.insert_all(&mask_of(&others, cpus), Ordering::Relaxed);
            prop_assert_eq!(both.load(cpus), mask_of(&set.union(&others).copied().collect(), cpus));
            for cpu in &set {
                prop_assert!(atomic.contains(*cpu, Ordering::Relaxed));
                prop_assert!(atomic.remove(*cpu, Ordering::Relaxed));
                prop_assert!(!atomic.remove(*cpu, Ordering::Relaxed));
            }
            prop_assert!(atomic.is_empty());
        }
    }

    #[test]
    fn all_ends_at_the_last_cpu() {
        for cpus in [1, 63, 64, 65, 128, 1023, 1024] {
            assert_eq!(
                CpuMask::all(cpus).iter().collect::<Vec<_>>(),
                (0..cpus).collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn a_mask_prints_as_ranges() {
        let set = BTreeSet::from([0, 1, 2, 5, 64, 65]);
        assert_eq!(format!("{:?}", mask_of(&set, 100)), "{0-2,5,64-65}");
        assert_eq!(format!("{:?}", CpuMask::none(4)), "{}");
    }
}
