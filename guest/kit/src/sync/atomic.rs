//! The atomics of the code under test: those of `core`; under `cfg(loom)` and `cfg(shuttle)` those
//! of a checker, which decides what happens between any two accesses; with the feature `census` or
//! `explore` those of `core` with a witness.
//!
//! Counters, ledger and findings are observations, not part of the protocol, and use `core`'s
//! atomics directly.

#[cfg(all(any(feature = "census", feature = "explore"), not(any(loom, shuttle))))]
pub use super::witness::{AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(any(loom, shuttle, feature = "census", feature = "explore")))]
pub use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};
#[cfg(loom)]
pub use loom::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};
#[cfg(shuttle)]
pub use shuttle::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};
