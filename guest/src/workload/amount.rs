//! How much each workload does: what the command line asks for, or a default. Plain arithmetic, for
//! the workloads, and for what a run says of itself.

use kit::declare_values;

/// Why words that say what a workload does, and how much of it, have no effect in a search.
pub const BY_CASE: &str = "in which the case says what each CPU does and how often";

/// `pairs=`: how many of a machine's CPUs each CPU calls in `selftest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// All of them on a machine of up to [`WHOLE`] CPUs, and a sample on a larger one.
    Sampled,
    /// All of them on any machine.
    All,
}

impl Pairs {
    /// Every one of them.
    pub const ALL: [Self; 2] = [Self::Sampled, Self::All];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sampled => "sampled",
            Self::All => "all",
        }
    }

    /// What it comes to on `cpus` CPUs.
    pub fn on(self, cpus: usize) -> Self {
        match self {
            Self::Sampled if share(self, cpus) < cpus => Self::Sampled,
            _ => Self::All,
        }
    }
}

declare_values!("pairs", Pairs);

/// Most CPUs of which `selftest` calls every pair unasked.
pub const WHOLE: usize = 64;

/// Fewest CPUs that each CPU of a larger machine calls.
const FEWEST: usize = 16;

/// How many of `cpus` CPUs each CPU calls one by one in `selftest`, and how many of them make calls
/// to many. Either way all calls of a machine grow with the square of this, and where ring 0 is
/// emulated each takes about a millisecond. So a sample has as many pairs as a machine of [`WHOLE`]
/// CPUs, as long as that leaves [`FEWEST`] for each CPU.
pub fn share(pairs: Pairs, cpus: usize) -> usize {
    match pairs {
        Pairs::All => cpus,
        Pairs::Sampled => cpus.min((WHOLE * WHOLE / cpus).max(FEWEST)),
    }
}

/// How many CPUs a CPU that calls `share` others calls with functions that make calls themselves.
pub fn nested(share: usize, cpus: usize) -> usize {
    const MOST: usize = 8;
    const LEAST: usize = 2;
    match share < cpus {
        false => cpus.min(MOST),
        true => (share / MOST).clamp(LEAST, MOST),
    }
}

/// Rounds that `bench` measures: `asked`, or a default.
pub fn rounds(asked: Option<u32>) -> u32 {
    asked.unwrap_or(1000)
}

/// Random calls that each CPU which makes any makes in `selftest`, on a machine of `cpus` CPUs:
/// `asked`, or a default, which is lower on large machines. There each call has more targets, and
/// each target walks a longer queue.
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn small_machines_are_called_as_a_whole() {
        for cpus in 1..=WHOLE {
            assert_eq!(share(Pairs::Sampled, cpus), cpus);
            assert_eq!(Pairs::Sampled.on(cpus), Pairs::All);
            assert_eq!(nested(cpus, cpus), cpus.min(8));
        }
    }

    #[test]
    fn the_calls_of_a_large_machine_do_not_grow_with_its_square() {
        for cpus in WHOLE + 1..=kit::sync::mask::MAX_CPUS {
            let share = share(Pairs::Sampled, cpus);
            assert!((FEWEST..cpus).contains(&share), "{share} of {cpus}");
            assert!(share * cpus <= (WHOLE * WHOLE).max(FEWEST * cpus));
            assert!((2..=8).contains(&nested(share, cpus)));
            assert_eq!(Pairs::Sampled.on(cpus), Pairs::Sampled);
            assert_eq!(Pairs::All.on(cpus), Pairs::All);
            assert_eq!(super::share(Pairs::All, cpus), cpus);
        }
    }
}
