//! Loops that wait for other CPUs. A search must know where such a loop begins and ends, to know
//! which accesses make up its turns: it then lets the CPU wait until these words change, and skips
//! turns that find nothing new ([`shared::stop`]). In every other build this does nothing.

use crate::counters::count;
use crate::lab::Lab;
use crate::platform::{Doorbell, Platform};
use crate::probe;

/// Cycles after which a long wait is reported to the host, again and again: about 100 µs, a hundred
/// times what a call takes between two CPUs that both run.
const LONG_WAIT: u64 = 1 << 18;

/// As long as this value lives, this CPU waits in a loop. Each turn of the loop must pass a point
/// [`RELAX`](shared::stop::RELAX), and may change nothing but memory that is accessed through
/// [`sync`](super). A loop that counts its turns, to give up after some number, does not qualify.
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
/// between CPUs that run is also reported to the host.
#[inline(always)]
pub fn spin_until<P: Platform>(platform: &P, lab: &Lab, done: impl Fn() -> bool) {
    let _waiting = Waiting::begin(platform);
    if done() {
        return;
    }
    let mut since = platform.timestamp();
    loop {
        // Not in a variable: to a search, two turns that find the same must be the same state.
        count(&lab.counters(platform.this_cpu()).wait_spins, 1);
        probe!(*platform, "spin.relax");
        platform.relax();
        if done() {
            return;
        }
        since = report_if_long(platform, since);
    }
}

/// Reports a wait to the host that has gone on for long since then, and returns since when the next
/// report is to be reckoned.
#[inline(always)]
pub fn report_if_long<P: Platform>(platform: &P, since: u64) -> u64 {
    let now = platform.timestamp();
    if now.wrapping_sub(since) <= LONG_WAIT {
        return since;
    }
    platform.ring(Doorbell::Waiting);
    now
}
