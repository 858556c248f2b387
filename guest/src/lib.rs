//! The generic-ipi guest: the path, its oracles and its workloads.
//!
//! Nothing here knows x86, KVM or a monitor. All that it needs of the machine is the kit's trait
//! [`Platform`](kit::platform::Platform). The image runs on the kit's bare metal (`main.rs`), the
//! tests on its threads.

#![cfg_attr(not(any(test, loom, shuttle, feature = "census")), no_std)]

extern crate alloc;

#[cfg(any(test, shuttle))]
pub mod checking;
pub mod counters;
pub mod guest;
pub mod ipi;
pub mod ledger;
pub mod machine;
pub mod manifest;
pub mod options;
pub mod oracle;
pub mod rules;
pub mod summary;
pub mod vectors;
pub mod workload;

pub use guest::Guest;
