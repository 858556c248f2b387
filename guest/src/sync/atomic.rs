//! The atomics of the generic-ipi path: those of `core`, or the model checker's under `cfg(loom)`.
//!
//! Counters, ledger and findings are observations, not part of the protocol, and use `core`'s
//! atomics directly.

#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(loom)]
pub use loom::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
