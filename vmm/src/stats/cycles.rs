//! Cycles of a TSC as time. Arithmetic only.

/// `cycles` of a TSC of `tsc_khz` in nanoseconds.
pub fn nanoseconds(cycles: u64, tsc_khz: u32) -> f64 {
    cycles as f64 * 1e6 / f64::from(tsc_khz.max(1))
}
