//! Which outcomes a test had, and how often.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::condition::Place;
use crate::test::{Source, Test};

/// The value in each of a test's [places](Test::places), in their order; `None` for a register into
/// which nothing was read.
pub type Outcome = [Option<i64>];

/// The outcome of `test`, where `value` gives the value of each source.
pub fn outcome(test: &Test, value: impl Fn(Source) -> Option<i64>) -> Vec<Option<i64>> {
    test.sources().iter().copied().map(value).collect()
}

/// The value that `outcome` of `test` has in `place`.
pub fn value(test: &Test, outcome: &Outcome, place: &Place) -> Option<i64> {
    let at = test.places().binary_search(place).ok()?;
    outcome.get(at).copied().flatten()
}

/// Whether `outcome` is one that decides what `test` claims.
pub fn decides(test: &Test, outcome: &Outcome) -> bool {
    test.claim
        .is_decided_by(&|place: &Place| value(test, outcome, place))
}

/// How often each outcome was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: BTreeMap<Vec<Option<i64>>, u64>,
}

impl Histogram {
    /// Counts `outcome`.
    pub fn add(&mut self, outcome: &Outcome) {
        // Only a new outcome allocates memory.
        if let Some(count) = self.counts.get_mut(outcome) {
            *count += 1;
        } else {
            self.counts.insert(outcome.to_owned(), 1);
        }
    }

    /// The outcomes and how often each was seen, in the order of their values.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Outcome, u64)> {
        self.counts
            .iter()
            .map(|(outcome, count)| (&**outcome, *count))
    }

    /// How many there are in all.
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// How many there are that decide what `test` claims.
    pub fn deciding(&self, test: &Test) -> u64 {
        let deciding = self.iter().filter(|(outcome, _)| decides(test, outcome));
        deciding.map(|(_, count)| count).sum()
    }
}
