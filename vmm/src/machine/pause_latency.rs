//! How long pauses took, from the request to the confirmation. Collected from all vCPU threads of a
//! machine; says nothing of what was paused or why.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

/// Times from the request of a pause to its confirmation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PauseLatency {
    /// How many were measured: those that found the vCPU in the guest.
    pub count: u64,
    /// The shortest.
    pub min: Duration,
    /// Half of them took no longer.
    pub median: Duration,
    /// 99 in 100 took no longer.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

/// In nanoseconds, far beyond
/// [`CONFIRMATION`](super::lifecycle::CONFIRMATION); what took longer counts as this.
const LONGEST: u64 = 3600 * 1_000_000_000;

/// Collects the latencies of a machine, from all its threads.
#[derive(Debug)]
pub(super) struct PauseLatencies(Mutex<Histogram<u64>>);

impl Default for PauseLatencies {
    fn default() -> Self {
        let nanoseconds = Histogram::new_with_bounds(1, LONGEST, 2);
        Self(Mutex::new(nanoseconds.expect("bounds in order")))
    }
}

impl PauseLatencies {
    pub fn record(&self, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.lock().saturating_record(nanoseconds);
    }

    pub fn summary(&self) -> Option<PauseLatency> {
        let histogram = self.lock();
        let quantile = |q| Duration::from_nanos(histogram.value_at_quantile(q));
        (!histogram.is_empty()).then(|| PauseLatency {
            count: histogram.len(),
            min: Duration::from_nanos(histogram.min()),
            median: quantile(0.5),
            p99: quantile(0.99),
            max: Duration::from_nanos(histogram.max()),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Histogram<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_summed_up_to_two_digits() {
        let latencies = PauseLatencies::default();
        assert_eq!(latencies.summary(), None);
        for micros in 1..=1000 {
            latencies.record(Duration::from_micros(micros));
        }
        let sum = latencies.summary().unwrap();
        assert_eq!(sum.count, 1000);
        let close = |value: Duration, micros: u64| value.as_micros().abs_diff(micros.into()) <= 10;
        assert!(close(sum.min, 1) && close(sum.median, 500), "{sum:?}");
        assert!(close(sum.p99, 990) && close(sum.max, 1000), "{sum:?}");
        // A clock that jumps must not make a thread panic.
        latencies.record(Duration::MAX);
        assert_eq!(latencies.summary().unwrap().count, 1001);
    }
}
