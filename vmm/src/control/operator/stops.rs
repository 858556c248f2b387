//! What an operator remembers of the ways in which it has a vCPU held: whether it ever asked for
//! any, and the breakpoint that is set. Sets nothing itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::machine::message::HeldBy;

/// A breakpoint that is set.
#[derive(Debug, Clone, Copy)]
struct Breakpoint {
    address: u64,
    /// Whether it was set while the vCPU was held at an address or after steps, and the vCPU has not
    /// gone on since. Otherwise such a hold ends it.
    is_ahead: bool,
}

/// The stops of one vCPU.
#[derive(Debug, Default)]
pub(super) struct Stops {
    ever: AtomicBool,
    breakpoint: Mutex<Option<Breakpoint>>,
}

impl Stops {
    /// Notes that a point, a breakpoint or steps are about to be set.
    pub fn will_be_set(&self) {
        self.ever.store(true, Ordering::SeqCst);
    }

    /// Whether a point, a breakpoint or steps were ever set.
    pub fn were_set(&self) -> bool {
        self.ever.load(Ordering::SeqCst)
    }

    /// Notes that a breakpoint is set, while the vCPU is held by this.
    pub fn set_breakpoint(&self, address: u64, held_by: Option<HeldBy>) {
        *self.locked() = Some(Breakpoint {
            address,
            is_ahead: ends_stops(held_by),
        });
    }

    /// Notes that no breakpoint is set any more.
    pub fn clear_breakpoint(&self) {
        *self.locked() = None;
    }

    /// The breakpoint at which the vCPU, which is held by this now, will be held.
    pub fn breakpoint(&self, held_by: Option<HeldBy>) -> Option<u64> {
        let breakpoint = *self.locked();
        let is_set = |it: &Breakpoint| it.is_ahead || !ends_stops(held_by);
        breakpoint.filter(is_set).map(|it| it.address)
    }

    /// Notes that the vCPU, which is held by this, goes on.
    pub fn goes_on(&self, held_by: Option<HeldBy>) {
        let left = self.breakpoint(held_by).map(|address| Breakpoint {
            address,
            is_ahead: false,
        });
        *self.locked() = left;
    }

    fn locked(&self) -> MutexGuard<'_, Option<Breakpoint>> {
        self.breakpoint
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a vCPU that is held by this has no breakpoint any more: it was at one, or took steps.
fn ends_stops(held_by: Option<HeldBy>) -> bool {
    matches!(held_by, Some(HeldBy::Address(_) | HeldBy::Steps))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_breakpoint_is_over_once_it_has_held_the_vcpu() {
        let stops = Stops::default();
        stops.set_breakpoint(16, None);
        let at_a_point = Some(HeldBy::Point { point: 1, call: 0 });
        stops.goes_on(at_a_point);
        assert_eq!(stops.breakpoint(at_a_point), Some(16));
        assert_eq!(stops.breakpoint(Some(HeldBy::Address(16))), None);
        stops.goes_on(Some(HeldBy::Address(16)));
        assert_eq!(stops.breakpoint(None), None);
    }

    #[test]
    fn one_that_is_set_where_the_vcpu_is_held_is_ahead_of_it() {
        let stops = Stops::default();
        let held = Some(HeldBy::Address(16));
        stops.set_breakpoint(32, held);
        assert_eq!(stops.breakpoint(held), Some(32));
        stops.goes_on(held);
        assert_eq!(stops.breakpoint(None), Some(32));
        assert_eq!(stops.breakpoint(Some(HeldBy::Address(32))), None);
        stops.set_breakpoint(16, held);
        stops.clear_breakpoint();
        assert_eq!(stops.breakpoint(held), None);
    }
}
