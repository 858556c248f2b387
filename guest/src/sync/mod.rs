//! What shared memory is reached through: atomics, the spin lock, masks of CPUs.
//!
//! The generic-ipi path touches memory that another CPU can touch only by way of this module, so
//! that the same source runs on bare metal and, with other atomics underneath, under a model
//! checker.

pub mod atomic;
pub mod barrier;
#[cfg(feature = "census")]
pub mod census;
pub mod irq;
pub mod mask;
pub mod rcu;
pub mod spin;
