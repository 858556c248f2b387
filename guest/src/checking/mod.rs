//! Checks of the whole path on the host: every workload on threads, that every oracle fires, the
//! designs in thousands of schedules under shuttle, and memory orderings under loom.

#[cfg(all(test, not(any(loom, shuttle))))]
mod oracles;
#[cfg(all(test, loom))]
mod orderings;
#[cfg(all(test, shuttle))]
mod schedules;
#[cfg(shuttle)]
pub mod search;
#[cfg(all(test, not(any(loom, shuttle))))]
mod workloads;
