//! What an operator remembers of the ways in which it has a vCPU held: whether it ever asked for
//! any, and the breakpoint that is set. Sets nothing itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::machine::message::HeldBy;

/// The stops of one vCPU.
#[derive(Debug, Default)]
pub(super) struct Stops {
    ever: AtomicBool,
    breakpoint: Mutex<Option<u64>>,
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

    /// Notes which breakpoint is set from now on.
    pub fn set_breakpoint(&self, address: Option<u64>) {
        *self.locked() = address;
    }

    /// The breakpoint at which the vCPU, which is held by this now, will be held. There is none any
    /// more once it was held at an address or after steps.
    pub fn breakpoint(&self, held_by: Option<HeldBy>) -> Option<u64> {
        match held_by {
            Some(HeldBy::Address(_) | HeldBy::Steps) => None,
            _ => *self.locked(),
        }
    }

    /// Notes that the vCPU, which is held by this, goes on.
    pub fn goes_on(&self, held_by: Option<HeldBy>) {
        let left = self.breakpoint(held_by);
        self.set_breakpoint(left);
    }

    fn locked(&self) -> MutexGuard<'_, Option<u64>> {
        self.breakpoint
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_breakpoint_is_over_once_it_has_held_the_vcpu() {
        let stops = Stops::default();
        stops.set_breakpoint(Some(16));
        let at_a_point = Some(HeldBy::Point { point: 1, call: 0 });
        stops.goes_on(at_a_point);
        assert_eq!(stops.breakpoint(at_a_point), Some(16));
        assert_eq!(stops.breakpoint(Some(HeldBy::Address(16))), None);
        stops.goes_on(Some(HeldBy::Address(16)));
        assert_eq!(stops.breakpoint(None), None);
    }
}
