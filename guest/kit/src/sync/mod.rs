//! The primitives for shared memory: atomics, the spin lock, masks of CPUs.
//!
//! A guest accesses memory that another CPU can access only through this module, so that the same
//! source runs on bare metal and, with other atomics, under a model checker.

pub mod atomic;
pub mod barrier;
#[cfg(any(feature = "census", feature = "explore"))]
pub mod event;
pub mod ghost;
pub mod irq;
#[cfg(all(feature = "census", not(feature = "explore")))]
pub mod listener;
pub mod mask;
pub mod pending;
pub mod rcu;
pub mod spin;
#[cfg(feature = "explore")]
pub mod stops;
pub mod waiting;
#[cfg(any(feature = "census", feature = "explore"))]
pub mod witness;
