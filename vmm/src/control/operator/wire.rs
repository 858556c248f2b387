//! The wire: IPIs that the guest sends through the VMM (`transport=wire`), each of which can be
//! held, delayed, delivered out of order, or lost. Keeps the order: what is released is delivered
//! before anything that is sent later. The caller does the delivery.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shared::ports::Dispatch;

/// Most IPIs of one pair of CPUs in flight. If a guest sends more into a held wire, the oldest ones
/// are delivered, so that it cannot fill the host's memory.
const MOST_OF_A_PAIR: usize = 4096;

/// Most IPIs in flight in all, against a guest that sends to many targets that do not exist. Beyond
/// that, the oldest one to the same target is delivered.
const MOST: usize = 1 << 18;

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

/// The IPIs from one CPU to another.
#[derive(Debug, Default)]
struct Flow {
    /// Whether this pair is held, if that was set for the pair.
    held: Option<bool>,
    delay: Duration,
    /// In the order in which they were sent, each with the time at which it is due unless it is
    /// held. An IPI is not delivered by time before those in front of it.
    waiting: VecDeque<(Option<Instant>, Dispatch)>,
}

impl Flow {
    /// Whether it is in its initial state, so that it need not be kept.
    fn is_idle(&self) -> bool {
        self.held.is_none() && self.delay == Duration::ZERO && self.waiting.is_empty()
    }
}

/// There is no such IPI on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the wire holds no IPI number {nth} from CPU {from} to CPU {to}; it holds {held} of them")]
pub struct NotThere {
    from: u32,
    to: u32,
    nth: usize,
    held: usize,
}

/// What became of an IPI that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::control) struct Sent {
    /// An IPI to deliver at once. It can be an earlier one.
    pub deliver: Option<Dispatch>,
    /// Whether the IPI is delayed and has a due time.
    pub is_delayed: bool,
}

/// All IPIs in flight, and the rules for those that are still to be sent.
#[derive(Debug, Default)]
pub(in crate::control) struct Wire {
    flows: Mutex<Flows>,
}

#[derive(Debug, Default)]
struct Flows {
    /// Whether pairs without a setting of their own are held.
    all_held: bool,
    /// The pairs that are not in their initial state.
    pairs: BTreeMap<(u32, u32), Flow>,
    in_flight: usize,
    /// Whether anything was ever sent.
    used: bool,
}

impl Flows {
    fn pair(&mut self, from: u32, to: u32) -> &mut Flow {
        self.pairs.entry((from, to)).or_default()
    }
}

impl Wire {
    /// Takes an IPI that was sent just now.
    pub fn send(&self, from: u32, dispatch: Dispatch) -> Sent {
        let mut flows = self.flows();
        let flows = &mut *flows;
        flows.used = true;
        let known = flows.pairs.get(&(from, dispatch.target));
        let is_held = known.and_then(|flow| flow.held).unwrap_or(flows.all_held);
        let goes_through =
            known.is_none_or(|flow| flow.delay == Duration::ZERO && flow.waiting.is_empty());
        if goes_through && !is_held {
            return Sent {
                deliver: Some(dispatch),
                is_delayed: false,
            };
        }
        flows.in_flight += 1;
        let is_full = flows.in_flight > MOST;
        let flow = flows.pair(from, dispatch.target);
        let due = (!is_held).then(|| Instant::now() + flow.delay);
        flow.waiting.push_back((due, dispatch));
        let is_full = is_full || flow.waiting.len() > MOST_OF_A_PAIR;
        let oldest = if is_full {
            flow.waiting.pop_front()
        } else {
            None
        };
        if flow.is_idle() {
            flows.pairs.remove(&(from, dispatch.target));
        }
        flows.in_flight -= usize::from(oldest.is_some());
        Sent {
            deliver: oldest.map(|(_, dispatch)| dispatch),
            is_delayed: due.is_some(),
        }
    }

    /// Holds what `from` sends to `to` from now on.
    pub fn hold(&self, from: u32, to: u32) {
        self.flows().pair(from, to).held = Some(true);
    }

    /// Holds everything that is sent from now on.
    pub fn hold_all(&self) {
        let mut flows = self.flows();
        flows.all_held = true;
        flows.pairs.values_mut().for_each(|flow| flow.held = None);
    }

    /// Delays what `from` sends to `to` from now on, and no longer holds it. What is held becomes
    /// due after `delay`, counted from now.
    pub fn delay(&self, from: u32, to: u32, delay: Duration) {
        let mut flows = self.flows();
        let flow = flows.pair(from, to);
        flow.delay = delay;
        flow.held = Some(false);
        let due = Instant::now() + delay;
        for (at, _) in &mut flow.waiting {
            at.get_or_insert(due);
        }
    }

    /// No longer holds or delays what `from` sends to `to`, and delivers what was held, in order.
    pub fn release(&self, from: u32, to: u32, deliver: impl FnMut(Dispatch)) {
        let mut flows = self.flows();
        let released = Flow {
            held: Some(false),
            ..Flow::default()
        };
        let flow = flows.pairs.insert((from, to), released);
        let waiting = flow.unwrap_or_default().waiting;
        flows.in_flight -= waiting.len();
        // The lock is still held, so what is sent from now on comes after these.
        waiting.into_iter().map(|(_, it)| it).for_each(deliver);
    }

    /// No longer holds or delays anything, and delivers everything that was held, in order within
    /// each pair.
    pub fn release_all(&self, deliver: impl FnMut(Dispatch)) {
        let mut flows = self.flows();
        flows.all_held = false;
        flows.in_flight = 0;
        std::mem::take(&mut flows.pairs)
            .into_values()
            .flat_map(|flow| flow.waiting)
            .map(|(_, it)| it)
            .for_each(deliver);
    }

    /// Takes the `nth` IPI, from 0, of those in flight from `from` to `to` off the wire, to deliver
    /// it out of order or to lose it.
    ///
    /// # Errors
    /// [`NotThere`].
    pub fn take(&self, from: u32, to: u32, nth: usize) -> Result<Dispatch, NotThere> {
        let mut flows = self.flows();
        let flow = flows.pairs.get_mut(&(from, to));
        let held = flow.as_ref().map_or(0, |flow| flow.waiting.len());
        let taken = flow.and_then(|flow| flow.waiting.remove(nth));
        let (_, dispatch) = taken.ok_or(NotThere {
            from,
            to,
            nth,
            held,
        })?;
        flows.in_flight -= 1;
        Ok(dispatch)
    }

    /// All IPIs in flight, by sender, target and order of sending.
    pub fn in_flight(&self) -> Vec<InFlight> {
        let flows = self.flows();
        let pairs = flows.pairs.iter();
        pairs
            .flat_map(|((from, _), flow)| flow.waiting.iter().map(|(_, it)| (*from, *it)))
            .map(|(from, dispatch)| InFlight { from, dispatch })
            .collect()
    }

    /// How many IPIs are in flight from one CPU to another.
    pub fn in_flight_between(&self, from: u32, to: u32) -> usize {
        let flows = self.flows();
        let flow = flows.pairs.get(&(from, to));
        flow.map_or(0, |flow| flow.waiting.len())
    }

    /// Whether anything was ever sent.
    pub fn is_used(&self) -> bool {
        self.flows().used
    }

    /// Delivers all IPIs that are due at `now`.
    pub fn deliver_due(&self, now: Instant, mut deliver: impl FnMut(Dispatch)) {
        let mut flows = self.flows();
        let mut delivered = 0;
        for flow in flows.pairs.values_mut() {
            while let Some((Some(due), dispatch)) = flow.waiting.front().copied()
                && due <= now
            {
                flow.waiting.pop_front();
                deliver(dispatch);
                delivered += 1;
            }
        }
        flows.in_flight -= delivered;
    }

    /// When the next IPI is due.
    pub fn next_due(&self) -> Option<Instant> {
        let flows = self.flows();
        let next = flows.pairs.values().filter_map(|flow| flow.waiting.front());
        next.filter_map(|(due, _)| *due).min()
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

    /// What `release` delivers.
    fn delivered(release: impl FnOnce(&mut dyn FnMut(Dispatch))) -> Vec<Dispatch> {
        let mut all = Vec::new();
        release(&mut |dispatch| all.push(dispatch));
        all
    }

    #[track_caller]
    fn goes_through(wire: &Wire, from: u32, dispatch: Dispatch) {
        let through = Sent {
            deliver: Some(dispatch),
            is_delayed: false,
        };
        assert_eq!(wire.send(from, dispatch), through);
    }

    #[track_caller]
    fn is_held(wire: &Wire, from: u32, dispatch: Dispatch) {
        let held = Sent {
            deliver: None,
            is_delayed: false,
        };
        assert_eq!(wire.send(from, dispatch), held);
    }

    #[track_caller]
    fn is_delayed(wire: &Wire, from: u32, dispatch: Dispatch) {
        let delayed = Sent {
            deliver: None,
            is_delayed: true,
        };
        assert_eq!(wire.send(from, dispatch), delayed);
    }

    #[test]
    fn what_nobody_holds_goes_through() {
        let wire = Wire::default();
        assert!(!wire.is_used());
        wire.hold(0, 1);
        goes_through(&wire, 0, ipi(2, 7));
        goes_through(&wire, 1, ipi(0, 7));
        assert!(wire.is_used());
        is_held(&wire, 0, ipi(1, 7));
        assert_eq!(wire.in_flight()[0].to_string(), "0x7 from CPU 0 to CPU 1");
        assert_eq!(
            (wire.in_flight_between(0, 1), wire.in_flight_between(1, 0)),
            (1, 0)
        );
    }

    #[test]
    fn what_is_held_comes_out_in_order_or_as_told() {
        let wire = Wire::default();
        wire.hold(0, 1);
        for vector in 1..=4 {
            is_held(&wire, 0, ipi(1, vector));
        }
        assert_eq!(wire.take(0, 1, 2), Ok(ipi(1, 3)));
        let error = wire.take(0, 1, 3).unwrap_err();
        assert!(error.to_string().contains("number 3"), "{error}");
        let all = delivered(|deliver| wire.release(0, 1, deliver));
        assert_eq!(all, [ipi(1, 1), ipi(1, 2), ipi(1, 4)]);
        goes_through(&wire, 0, ipi(1, 5));
    }

    #[test]
    fn a_wire_that_holds_all_holds_pairs_it_has_not_seen() {
        let wire = Wire::default();
        wire.release(1, 2, |_| ());
        wire.hold_all();
        is_held(&wire, 3, ipi(4, 1));
        is_held(&wire, 1, ipi(2, 1));
        assert_eq!(
            delivered(|deliver| wire.release(3, 4, deliver)),
            [ipi(4, 1)]
        );
        // This pair was released by itself, so it is not held with the others.
        goes_through(&wire, 3, ipi(4, 2));
        is_held(&wire, 4, ipi(3, 2));
        let all = delivered(|deliver| wire.release_all(deliver));
        assert_eq!(all, [ipi(2, 1), ipi(3, 2)]);
        goes_through(&wire, 4, ipi(3, 1));
    }

    #[test]
    fn what_is_delayed_is_due_later_and_stays_in_order() {
        let wire = Wire::default();
        let second = Duration::from_secs(1);
        wire.delay(0, 1, second);
        let before = Instant::now();
        is_delayed(&wire, 0, ipi(1, 1));
        assert!(wire.next_due().unwrap() >= before + second);
        // There is no delay now, so it is due at once, but not ahead of what was sent before.
        wire.delay(0, 1, Duration::ZERO);
        is_delayed(&wire, 0, ipi(1, 2));
        let due = |now| delivered(|deliver| wire.deliver_due(now, deliver));
        assert_eq!(due(Instant::now().max(before)), []);
        assert_eq!(due(before + 10 * second), [ipi(1, 1), ipi(1, 2)]);
        assert_eq!(wire.next_due(), None);
        goes_through(&wire, 0, ipi(1, 3));
    }

    #[test]
    fn what_is_held_is_due_when_it_is_delayed_instead() {
        let wire = Wire::default();
        wire.hold(0, 1);
        is_held(&wire, 0, ipi(1, 1));
        assert_eq!(wire.next_due(), None);
        wire.delay(0, 1, Duration::ZERO);
        let now = Instant::now();
        assert_eq!(
            delivered(|deliver| wire.deliver_due(now, deliver)),
            [ipi(1, 1)]
        );
    }

    #[test]
    fn a_flood_into_a_held_wire_has_a_bound() {
        let wire = Wire::default();
        wire.hold(0, 1);
        let sent = (0..=MOST_OF_A_PAIR).filter_map(|_| wire.send(0, ipi(1, 9)).deliver);
        assert_eq!(sent.count(), 1);
        assert_eq!(wire.in_flight().len(), MOST_OF_A_PAIR);
    }

    #[test]
    fn a_flood_to_everywhere_has_a_bound() {
        let wire = Wire::default();
        let targets = 1 << 20;
        for target in 0..targets {
            goes_through(&wire, 0, ipi(target, 9));
        }
        assert_eq!(wire.flows().pairs.len(), 0);
        wire.hold_all();
        for target in 0..targets {
            wire.send(0, ipi(target, 9));
        }
        assert_eq!(wire.flows().pairs.len(), MOST);
        assert_eq!(wire.in_flight().len(), MOST);
        let all = delivered(|deliver| wire.release_all(deliver));
        assert_eq!(all.len(), MOST);
        assert_eq!(wire.flows().in_flight, 0);
    }
}
