//! A histogram of times: bins of equal width on a logarithmic axis. Draws nothing.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::stats::latency::{Spread, Times};

use crate::stats::cycles::nanoseconds;

/// Bins in each power of ten, so that their edges are the preferred numbers 1, 1.26, 1.58, 2, …
const PER_DECADE: u32 = 10;

/// The histogram of one kind of times.
#[derive(Debug, Serialize)]
pub(super) struct Histogram {
    name: String,
    per_decade: u32,
    /// Bin and number of times in it. Bin p begins at 10^(p / per_decade) ns; bin 0 has all shorter
    /// times too.
    bins: Vec<(u32, u64)>,
    spread: Spread,
}

impl Histogram {
    /// A histogram of `times` by a TSC of `tsc_khz`; `None` if there are none.
    pub fn new(name: &str, times: &Times, tsc_khz: u32) -> Option<Self> {
        let spread = times.spread(tsc_khz)?;
        let mut bins = BTreeMap::new();
        for (low, high, count) in times.buckets() {
            let ns = nanoseconds(low.midpoint(high), tsc_khz).max(1.0);
            // A day is 10^14 ns.
            let place = (ns.log10() * f64::from(PER_DECADE)) as u32;
            *bins.entry(place).or_insert(0) += count;
        }
        Some(Self {
            name: name.to_owned(),
            per_decade: PER_DECADE,
            bins: bins.into_iter().collect(),
            spread,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_in_the_bin_that_its_length_says() {
        let mut times = Times::default();
        for cycles in [0, 1, 300, 1_500, 1_500, 2_500_000] {
            times.record(cycles);
        }
        // A cycle is a nanosecond.
        let histogram = Histogram::new("", &times, 1_000_000).unwrap();
        assert_eq!(histogram.bins, [(0, 2), (24, 1), (31, 2), (63, 1)]);
        assert!(Histogram::new("", &Times::default(), 1).is_none());
    }
}
