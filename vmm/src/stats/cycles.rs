//! Cycles of a TSC as time. Arithmetic only.

/// Nanoseconds that `cycles` of a TSC of `tsc_khz` last.
pub fn nanoseconds(cycles: u64, tsc_khz: u32) -> f64 {
    cycles as f64 * 1e6 / f64::from(tsc_khz.max(1))
}
