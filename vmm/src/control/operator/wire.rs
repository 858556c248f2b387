//! The wire: IPIs that the guest sends through the VMM (`transport=wire`), each of which can be held,
//! delayed, delivered out of order, or lost when somebody says so. Keeps them; whoever asks delivers them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shared::ports::Dispatch;

/// IPIs that one pair of CPUs can have in flight. A guest that sends more into a held wire has them
/// delivered, oldest first, rather than fill the host's memory.
const MOST_IN_FLIGHT: usize = 4096;

/// An IPI on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InFlight {
    /// The sender.
    pub from: u32,
    /// Where it goes.
    pub dispatch: Dispatch,
}

impl fmt::Display for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Dispatch { target, vector } = self.dispatch;
        write!(f, "{vector:#x} from CPU {} to CPU {target}", self.from)
    }
}

/// From one CPU to another.
#[derive(Debug, Default)]
struct Flow {
    held: bool,
    delay: Duration,
    /// In the order in which they were sent. Those of a flow that is not held have a time.
    waiting: Vec<(Option<Instant>, Dispatch)>,
}

/// What an IPI is doing on the wire that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the wire holds no IPI number {nth} from CPU {from} to CPU {to}; it holds {held} of them")]
pub struct NotThere {
    from: u32,
    to: u32,
    nth: usize,
    held: usize,
}

/// All IPIs in flight, and what is to become of those that will be.
#[derive(Debug, Default)]
pub(in crate::control) struct Wire {
    flows: Mutex<Flows>,
}

#[derive(Debug, Default)]
struct Flows {
    /// Whether pairs that nothing was said about are held.
    all_held: bool,
    pairs: BTreeMap<(u32, u32), Flow>,
}

impl Flows {
    fn pair(&mut self, from: u32, to: u32) -> &mut Flow {
        let held = self.all_held;
        self.pairs.entry((from, to)).or_insert_with(|| Flow {
            held,
            ..Flow::default()
        })
    }
}

impl Wire {
    /// Takes an IPI that was sent just now. Returns one to deliver at once, if there is one.
    pub fn send(&self, from: u32, dispatch: Dispatch) -> Option<Dispatch> {
        let mut flows = self.flows();
        let flow = flows.pair(from, dispatch.target);
        if !flow.held && flow.delay == Duration::ZERO && flow.waiting.is_empty() {
            return Some(dispatch);
        }
        let due = (!flow.held).then(|| Instant::now() + flow.delay);
        flow.waiting.push((due, dispatch));
        (flow.waiting.len() > MOST_IN_FLIGHT).then(|| flow.waiting.remove(0).1)
    }

    /// Holds what `from` sends to `to` from now on.
    pub fn hold(&self, from: u32, to: u32) {
        self.flows().pair(from, to).held = true;
    }

    /// Holds everything that is sent from now on.
    pub fn hold_all(&self) {
        let mut flows = self.flows();
        flows.all_held = true;
        flows.pairs.values_mut().for_each(|flow| flow.held = true);
    }

    /// Has what `from` sends to `to` from now on arrive so much later; no longer holds it.
    pub fn delay(&self, from: u32, to: u32, delay: Duration) {
        let mut flows = self.flows();
        let flow = flows.pair(from, to);
        flow.delay = delay;
        flow.held = false;
        let due = Instant::now() + delay;
        for (at, _) in &mut flow.waiting {
            at.get_or_insert(due);
        }
    }

    /// No longer holds or delays what `from` sends to `to`, and returns what was held, in order.
    pub fn release(&self, from: u32, to: u32) -> Vec<Dispatch> {
        let mut flows = self.flows();
        let flow = flows.pair(from, to);
        flow.held = false;
        flow.delay = Duration::ZERO;
        flow.waiting
            .drain(..)
            .map(|(_, dispatch)| dispatch)
            .collect()
    }

    /// No longer holds or delays anything, and returns all that was held.
    pub fn release_all(&self) -> Vec<Dispatch> {
        let mut flows = self.flows();
        flows.all_held = false;
        std::mem::take(&mut flows.pairs)
            .into_values()
            .flat_map(|flow| flow.waiting)
            .map(|(_, dispatch)| dispatch)
            .collect()
    }

    /// Takes the `nth` IPI, from 0, of those that `from` has in flight to `to` off the wire, out of order
    /// if need be: to deliver it, or to lose it.
    ///
    /// # Errors
    /// [`NotThere`].
    pub fn take(&self, from: u32, to: u32, nth: usize) -> Result<Dispatch, NotThere> {
        let mut flows = self.flows();
        let waiting = &mut flows.pair(from, to).waiting;
        if nth >= waiting.len() {
            let held = waiting.len();
            return Err(NotThere {
                from,
                to,
                nth,
                held,
            });
        }
        Ok(waiting.remove(nth).1)
    }

    /// What is in flight, in the order of CPUs and then of sending.
    pub fn in_flight(&self) -> Vec<InFlight> {
        let flows = self.flows();
        let pairs = flows.pairs.iter();
        pairs
            .flat_map(|((from, _), flow)| flow.waiting.iter().map(|(_, it)| (*from, *it)))
            .map(|(from, dispatch)| InFlight { from, dispatch })
            .collect()
    }

    /// What has been delayed for long enough by `now`.
    pub fn due(&self, now: Instant) -> Vec<Dispatch> {
        let mut ripe = Vec::new();
        for flow in self.flows().pairs.values_mut() {
            flow.waiting.retain(|(due, dispatch)| {
                let is_ripe = due.is_some_and(|due| due <= now);
                if is_ripe {
                    ripe.push(*dispatch);
                }
                !is_ripe
            });
        }
        ripe
    }

    /// When the next will have been.
    pub fn next_due(&self) -> Option<Instant> {
        let flows = self.flows();
        let waiting = flows.pairs.values().flat_map(|flow| &flow.waiting);
        waiting.filter_map(|(due, _)| *due).min()
    }

    fn flows(&self) -> MutexGuard<'_, Flows> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipi(target: u32, vector: u8) -> Dispatch {
        Dispatch { target, vector }
    }

    #[test]
    fn what_nobody_holds_goes_through() {
        let wire = Wire::default();
        wire.hold(0, 1);
        assert_eq!(wire.send(0, ipi(2, 7)), Some(ipi(2, 7)));
        assert_eq!(wire.send(1, ipi(0, 7)), Some(ipi(0, 7)));
        assert_eq!(wire.send(0, ipi(1, 7)), None);
        assert_eq!(wire.in_flight()[0].to_string(), "0x7 from CPU 0 to CPU 1");
    }

    #[test]
    fn what_is_held_comes_out_in_order_or_as_told() {
        let wire = Wire::default();
        wire.hold(0, 1);
        for vector in 1..=4 {
            assert_eq!(wire.send(0, ipi(1, vector)), None);
        }
        assert_eq!(wire.take(0, 1, 2), Ok(ipi(1, 3)));
        let error = wire.take(0, 1, 3).unwrap_err();
        assert!(error.to_string().contains("number 3"), "{error}");
        assert_eq!(wire.release(0, 1), [ipi(1, 1), ipi(1, 2), ipi(1, 4)]);
        assert_eq!(wire.send(0, ipi(1, 5)), Some(ipi(1, 5)));
    }

    #[test]
    fn a_wire_that_holds_all_holds_pairs_it_has_not_seen() {
        let wire = Wire::default();
        wire.hold_all();
        assert_eq!(wire.send(3, ipi(4, 1)), None);
        assert_eq!(wire.release_all(), [ipi(4, 1)]);
        assert_eq!(wire.send(3, ipi(4, 1)), Some(ipi(4, 1)));
    }

    #[test]
    fn what_is_delayed_is_due_later_and_stays_in_order() {
        let wire = Wire::default();
        let second = Duration::from_secs(1);
        wire.delay(0, 1, second);
        let before = Instant::now();
        assert_eq!(wire.send(0, ipi(1, 1)), None);
        assert_eq!(wire.due(before), []);
        assert!(wire.next_due().unwrap() >= before + second);
        // Without a delay now, but not ahead of what was sent before.
        wire.delay(0, 1, Duration::ZERO);
        assert_eq!(wire.send(0, ipi(1, 2)), None);
        assert_eq!(wire.due(before + 10 * second), [ipi(1, 1), ipi(1, 2)]);
        assert_eq!(wire.next_due(), None);
    }

    #[test]
    fn a_flood_into_a_held_wire_has_a_bound() {
        let wire = Wire::default();
        wire.hold(0, 1);
        let delivered = (0..=MOST_IN_FLIGHT).filter_map(|_| wire.send(0, ipi(1, 9)));
        assert_eq!(delivered.count(), 1);
        assert_eq!(wire.in_flight().len(), MOST_IN_FLIGHT);
    }
}
