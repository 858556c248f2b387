//! `counters`: every CPU counts the beginnings and ends of its own walks (Paul E. McKenney, in the
//! thread). An odd count is a walk under way; any change of it is the end of that walk.
//!
//! The cheapest design for walkers, which write only a cache line of their own. The owner reads one
//! line per CPU, and waits no longer than the longest walk, however often others begin new ones.
//!
//! `counters-nofence` leaves out the fence at the beginning of a walk, on purpose. **It is broken
//! on x86 too**: the walker's load of the list can pass its own announcement, and the owner sees an
//! even count while the walker stands on its element.

use alloc::boxed::Box;

use kit::platform::Platform;
use kit::sync::atomic::{AtomicU32, Ordering, fence};

use super::walks::{Grace, announce};
use crate::machine::Machine;
use crate::oracle::Oracle;

#[derive(Debug)]
#[repr(align(64))]
struct Count(AtomicU32);

/// See the module's description.
#[derive(Debug)]
pub struct Counters {
    counts: Box<[Count]>,
    fence_on_entry: bool,
}

impl Counters {
    /// Counters for `cpus` CPUs, all outside of any walk.
    pub fn new(cpus: usize, fence_on_entry: bool) -> Self {
        Self {
            counts: (0..cpus).map(|_| Count(AtomicU32::new(0))).collect(),
            fence_on_entry,
        }
    }
}

fn is_walking(count: u32) -> bool {
    count % 2 == 1
}

impl<P: Platform> Grace<P> for Counters {
    /// The count during the walk.
    type Entry = u32;

    fn enter(&self, machine: &Machine<P>) -> u32 {
        let count = &self.counts[machine.this_cpu()].0;
        let walking = count.load(Ordering::Relaxed).wrapping_add(1);
        count.store(walking, Ordering::Relaxed);
        if self.fence_on_entry {
            announce();
        }
        walking
    }

    fn exit(&self, machine: &Machine<P>, walking: u32) {
        // Release: a CPU that sees the walk ended sees it done with every element.
        self.counts[machine.this_cpu()]
            .0
            .store(walking.wrapping_add(1), Ordering::Release);
    }

    fn wait(&self, machine: &Machine<P>) {
        announce();
        for count in &self.counts {
            let seen = count.0.load(Ordering::Relaxed);
            if is_walking(seen) {
                machine.spin_until(|| count.0.load(Ordering::Relaxed) != seen);
            }
        }
        // Pairs with the Release in `exit`.
        fence(Ordering::Acquire);
    }

    fn audit(&self, machine: &Machine<P>) {
        for (cpu, count) in self.counts.iter().enumerate() {
            if is_walking(count.0.load(Ordering::Relaxed)) {
                machine.report(Oracle::BrokenQueue, 0, cpu as u64);
            }
        }
    }
}
