//! Tail insertion made safe: an element is reused only after every walk that could stand on it has
//! ended. The alternatives Paul E. McKenney and Peter Zijlstra sketched in the thread, completed;
//! they differ in how walks are counted ([`walks`]).
//!
//! With that rule no CPU ever stands on an element that is being filled, so elements need no lock,
//! calls run in order, and a walk meets each element at most twice.
//!
//! The owner waits before it fills its element, with interrupts on and no lock held. The last
//! target could not wait instead: it is inside a walk itself, and two of them would wait for each
//! other.

mod counters;
mod counting_rcu;
mod graced;
mod shared_refs;
mod walks;

pub use counters::Counters;
pub use counting_rcu::CountingRcu;
pub use graced::Graced;
pub use shared_refs::SharedRefs;
#[cfg(all(test, loom))]
pub use walks::Grace;
