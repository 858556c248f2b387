//! Loops that wait for other CPUs. Whoever explores orders must know where such a loop begins and
//! ends, to tell which accesses its turns are made of: it then lets a CPU wait for these words to
//! change, and leaves out turns that find nothing new ([`shared::stop`]). In every other build this
//! is nothing.

use crate::counters::count;
use crate::lab::Lab;
use crate::platform::{Doorbell, Platform};
use crate::probe;

/// Cycles after which a wait is told to the host, and again each time they have passed: some 100
/// µs, a hundred times what a call takes between two CPUs that both run.
const LONG_WAIT: u64 = 1 << 18;

/// This CPU waits in a loop for as long as this lives. Each turn of the loop comes to a point
/// [`RELAX`](shared::stop::RELAX), and by itself changes nothing but memory that is reached through
/// [`sync`](super): a loop that counts its turns, to give up after so many, is none.
#[derive(Debug)]
pub struct Waiting<'a, P: Platform>(&'a P);

impl<'a, P: Platform> Waiting<'a, P> {
    /// The loop begins here.
    #[inline(always)]
    pub fn begin(platform: &'a P) -> Self {
        platform.wait_begins();
        Self(platform)
    }
}

impl<P: Platform> Drop for Waiting<'_, P> {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.wait_ends();
    }
}

/// Waits, with `relax`, until `done`; every turn is counted as a spin. A wait far longer than any
/// between CPUs that run is also told to the host.
#[inline(always)]
pub fn spin_until<P: Platform>(platform: &P, lab: &Lab, done: impl Fn() -> bool) {
    let _waiting = Waiting::begin(platform);
    if done() {
        return;
    }
    let mut since = platform.timestamp();
    loop {
        // Not in a variable: two turns that find the same are the same state to whoever explores.
        count(&lab.counters(platform.this_cpu()).wait_spins, 1);
        probe!(*platform, "spin.relax");
        platform.relax();
        if done() {
            return;
        }
        let now = platform.timestamp();
        if now.wrapping_sub(since) > LONG_WAIT {
            platform.ring(Doorbell::Waiting);
            since = now;
        }
    }
}
