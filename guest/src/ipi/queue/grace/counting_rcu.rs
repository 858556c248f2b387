//! `counting-rcu`: one counter of all walkers (Peter Zijlstra, in the thread: "almost
//! implemented").
//!
//! The simplest design, and safe. But all CPUs write the same cache line twice per walk, and while
//! walks on many CPUs overlap, the counter may never be *seen* at zero, although each walk is
//! short: the owner of an element can wait without a bound.

use kit::platform::Platform;
use kit::sync::atomic::{AtomicU32, Ordering};

use super::walks::{Grace, announce};
use crate::machine::Machine;
use crate::oracle::Oracle;

/// See the module's description.
#[derive(Debug)]
pub struct CountingRcu {
    walkers: AtomicU32,
}

impl CountingRcu {
    /// A counter of no walkers.
    pub fn new() -> Self {
        Self {
            walkers: AtomicU32::new(0),
        }
    }
}

impl<P: Platform> Grace<P> for CountingRcu {
    type Entry = ();

    fn enter(&self, _: &Machine<P>) {
        self.walkers.fetch_add(1, Ordering::SeqCst);
        announce();
    }

    fn exit(&self, _: &Machine<P>, (): ()) {
        self.walkers.fetch_sub(1, Ordering::SeqCst);
    }

    fn wait(&self, machine: &Machine<P>) {
        announce();
        machine.spin_until(|| self.walkers.load(Ordering::SeqCst) == 0);
    }

    fn audit(&self, machine: &Machine<P>) {
        let walkers = self.walkers.load(Ordering::Relaxed);
        if walkers != 0 {
            machine.report(Oracle::BadRefs, 0, u64::from(walkers));
        }
    }
}
