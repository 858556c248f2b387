//! How much each workload does: what the command line asks for, or a default. Plain arithmetic, for
//! the workloads, and for what a run says of itself.

/// Why words that say what a workload does, and how much of it, have no effect in a search.
pub const BY_CASE: &str = "in which the case says what each CPU does and how often";

/// Rounds that `bench` measures: `asked`, or a default.
pub fn rounds(asked: Option<u32>) -> u32 {
    asked.unwrap_or(1000)
}

/// Random calls that each of `cpus` CPUs makes in `selftest`: `asked`, or a default, which is lower
/// on large machines. There each call has more targets, and each target walks a longer queue.
pub fn random_calls(asked: Option<u32>, cpus: usize) -> u32 {
    asked.unwrap_or_else(|| (256 / cpus as u32).clamp(1, 16))
}

/// Operations that each of `cpus` CPUs makes in `stress`: `asked`, or a default. `None` if only the
/// limit of `milliseconds` ends it.
pub fn operations(asked: Option<u32>, milliseconds: Option<u64>, cpus: usize) -> Option<u64> {
    let by_default = || (4096 / cpus as u32).clamp(16, 256);
    match milliseconds {
        None => Some(asked.unwrap_or_else(by_default).into()),
        Some(_) => asked.map(u64::from),
    }
}
