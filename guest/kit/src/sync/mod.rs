//! What shared memory is reached through: atomics, the spin lock, masks of CPUs.
//!
//! A guest touches memory that another CPU can touch only by way of this module, so
//! that the same source runs on bare metal and, with other atomics underneath, under a model
//! checker.

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
