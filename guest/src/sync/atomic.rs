//! The atomics of the generic-ipi path: those of `core`, or, under `cfg(loom)` and `cfg(shuttle)`,
//! those of a checker that decides what happens between any two of them.
//!
//! Counters, ledger and findings are observations, not part of the protocol, and use `core`'s
//! atomics directly.

#[cfg(not(any(loom, shuttle)))]
pub use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};
#[cfg(loom)]
pub use loom::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};
#[cfg(shuttle)]
pub use shuttle::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};
