//! `shared-refs`: CPUs share counters, sixteen CPUs to a group. A CPU that waits flips the groups
//! to a second set of counters and waits until the first has drained (Paul E. McKenney, in the
//! thread; as in QRCU).
//!
//! The active counter of a group is one more than the number of its walkers: its bias. A walker
//! joins only a counter that is not zero; if the one it chose has drained in the meantime, it
//! chooses again. So a counter that the waiting CPU has seen at zero stays there until the next
//! flip.
//!
//! `shared-refs-naive` has no bias: a walker can read which counter is active, be delayed, and join
//! that counter after it was flipped and has drained. **It is broken**: the next CPU that waits
//! flips back and waits for the *other* counter, while the first walker still walks.

use alloc::boxed::Box;

use kit::platform::Platform;
use kit::probe;
use kit::sync::atomic::{AtomicU32, Ordering};
use kit::sync::spin::SpinLock;

use super::walks::{Grace, announce};
use crate::machine::Machine;
use crate::oracle::Oracle;

/// CPUs that share a pair of counters.
const GROUP: usize = 16;

#[derive(Debug)]
#[repr(C, align(64))]
struct Group {
    /// Which counter walkers join, 0 or 1.
    active: AtomicU32,
    walkers: [AtomicU32; 2],
}

/// See the module's description.
#[derive(Debug)]
pub struct SharedRefs {
    groups: Box<[Group]>,
    /// Held while counters are flipped and drain; taken with interrupts on, never by a walker.
    flip: SpinLock,
    /// 1, or 0 in the naive form.
    bias: u32,
}

impl SharedRefs {
    /// Counters for `cpus` CPUs. They are safe only if `biased`.
    pub fn new(cpus: usize, biased: bool) -> Self {
        let bias = u32::from(biased);
        Self {
            groups: (0..cpus.div_ceil(GROUP))
                .map(|_| Group {
                    active: AtomicU32::new(0),
                    walkers: [AtomicU32::new(bias), AtomicU32::new(0)],
                })
                .collect(),
            flip: SpinLock::new(),
            bias,
        }
    }

    /// Adds a walker to `counter`, unless counters are biased and this one has drained.
    fn join(&self, counter: &AtomicU32) -> bool {
        let next = |walkers| (walkers != 0 || self.bias == 0).then_some(walkers + 1);
        counter
            .fetch_update(Ordering::SeqCst, Ordering::Relaxed, next)
            .is_ok()
    }
}

impl<P: Platform> Grace<P> for SharedRefs {
    /// The counter that was joined.
    type Entry = usize;

    fn enter(&self, machine: &Machine<P>) -> usize {
        let group = &self.groups[machine.this_cpu() / GROUP];
        loop {
            let active = group.active.load(Ordering::Relaxed) as usize;
            probe!(machine.platform, "walk.side");
            if self.join(&group.walkers[active]) {
                announce();
                return active;
            }
        }
    }

    fn exit(&self, machine: &Machine<P>, joined: usize) {
        self.groups[machine.this_cpu() / GROUP].walkers[joined].fetch_sub(1, Ordering::SeqCst);
    }

    fn wait(&self, machine: &Machine<P>) {
        self.flip.with(&machine.platform, || {
            announce();
            probe!(machine.platform, "grace.flip");
            // All biases move before any result is trusted: a straggler may still join a counter
            // whose bias has not moved.
            for group in &self.groups {
                let old = group.active.load(Ordering::Relaxed);
                let new = old ^ 1;
                group.walkers[new as usize].fetch_add(self.bias, Ordering::SeqCst);
                group.active.store(new, Ordering::SeqCst);
                group.walkers[old as usize].fetch_sub(self.bias, Ordering::SeqCst);
            }
            probe!(machine.platform, "grace.flipped");
            for group in &self.groups {
                let drained = group.active.load(Ordering::Relaxed) ^ 1;
                let walkers = &group.walkers[drained as usize];
                machine.spin_until(|| walkers.load(Ordering::SeqCst) == 0);
            }
        });
    }

    fn audit(&self, machine: &Machine<P>) {
        for (index, group) in self.groups.iter().enumerate() {
            let [a, b] = [0, 1].map(|side: usize| group.walkers[side].load(Ordering::Relaxed));
            if a.wrapping_add(b) != self.bias {
                machine.report(Oracle::BadRefs, 0, index as u64);
            }
        }
    }
}
