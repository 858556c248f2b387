//! What holds the path to what it promises, on the host: that every oracle fires, the designs in
//! thousands of schedules under shuttle, and the orderings of memory under loom.

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
