//! The wire: IPIs that the guest sends through the VMM (`transport=wire`), INIT and start-up IPIs
//! included, each of which can be held, delayed, delivered out of order, or lost. Keeps the order:
//! what is released is delivered before anything that is sent later. The caller does the delivery.

mod ipi;
mod rules;
mod selection;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shared::ports::Dispatch;

pub use ipi::InFlight;
pub(in crate::control) use ipi::WireIpi;
pub use rules::TooManyRules;
use rules::{Rules, Treatment};
pub use selection::{NoSuchVector, Selection};

/// Most IPIs of one pair of CPUs in flight. If a guest sends more into a held wire, the oldest ones
/// are delivered, so that it cannot fill the host's memory.
const MOST_OF_A_PAIR: usize = 4096;

/// Most IPIs in flight in all, against a guest that sends to many targets that do not exist. Beyond
/// that, the oldest one to the same target is delivered.
const MOST: usize = 1 << 18;

/// An IPI in flight.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    ipi: WireIpi,
    /// When it is due, unless it is held.
    due: Option<Instant>,
}

/// The IPIs from one CPU to another.
#[derive(Debug, Default)]
struct Flow {
    rules: Rules,
    /// In the order in which they were sent.
    waiting: VecDeque<Waiting>,
    /// The earliest time at which one of them is due.
    next_due: Option<Instant>,
}

impl Flow {
    /// Whether it is in its initial state, so that it need not be kept.
    fn is_idle(&self) -> bool {
        self.rules.is_empty() && self.waiting.is_empty()
    }

    /// When the last of those that `meant` names, and are not held, is due.
    fn last_due(&self, meant: impl Fn(&WireIpi) -> bool) -> Option<Instant> {
        let waiting = self.waiting.iter().filter(|it| meant(&it.ipi));
        waiting.filter_map(|it| it.due).max()
    }

    /// Takes out those that `meant` names, in order.
    fn take(&mut self, mut meant: impl FnMut(&Waiting) -> bool) -> Vec<Dispatch> {
        let mut taken = Vec::new();
        self.waiting.retain(|it| {
            let goes = meant(it);
            if goes {
                taken.push(it.ipi.dispatch);
            }
            !goes
        });
        self.find_next_due();
        taken
    }

    fn find_next_due(&mut self) {
        self.next_due = self.waiting.iter().filter_map(|it| it.due).min();
    }
}

/// There is no such IPI on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the wire holds no IPI number {nth} from CPU {from} to CPU {to}; of {} it holds {held}",
    selection.unwrap_or_default()
)]
pub struct NotThere {
    from: u32,
    to: u32,
    selection: Option<Selection>,
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
    /// The vectors that only wake CPUs.
    wakes: Vec<u8>,
    flows: Mutex<Flows>,
}

#[derive(Debug, Default)]
struct Flows {
    /// The rules for all pairs.
    everywhere: Rules,
    /// The pairs that are not in their initial state.
    pairs: BTreeMap<(u32, u32), Flow>,
    in_flight: usize,
    /// The number of rules that were made so far.
    made: u64,
    /// Whether anything was ever sent.
    used: bool,
}

impl Flows {
    fn pair(&mut self, from: u32, to: u32) -> &mut Flow {
        self.pairs.entry((from, to)).or_default()
    }

    fn add_rule(
        &mut self,
        from: u32,
        to: u32,
        selection: Option<Selection>,
        treatment: Treatment,
    ) -> Result<&mut Flow, TooManyRules> {
        self.made += 1;
        let order = self.made;
        let flow = self.pair(from, to);
        flow.rules.add(selection, treatment, order)?;
        Ok(flow)
    }
}

impl Wire {
    /// A wire of a guest to whose CPUs the vectors `wakes` mean to wake up, and nothing else.
    pub fn new(wakes: Vec<u8>) -> Self {
        Self {
            wakes,
            flows: Mutex::default(),
        }
    }

    /// Takes an IPI that was sent just now.
    pub fn send(&self, from: u32, ipi: WireIpi) -> Sent {
        let target = ipi.dispatch.target;
        let mut flows = self.flows();
        let flows = &mut *flows;
        flows.used = true;
        let known = flows.pairs.get(&(from, target));
        let of_pair = known.and_then(|flow| flow.rules.on(&ipi, &self.wakes));
        let of_all = flows.everywhere.on(&ipi, &self.wakes);
        let rule = match (of_pair, of_all) {
            (Some(one), Some(other)) => Some(one.newer(other)),
            (one, other) => one.or(other),
        };
        let due = rule.and_then(|rule| {
            let Treatment::Delay(delay) = rule.treatment else {
                return None;
            };
            // What one rule delays stays in order.
            let meant = |it: &WireIpi| rule.selection.is_none_or(|of| of.matches(it, &self.wakes));
            let last = known.and_then(|flow| flow.last_due(meant));
            let due = (delay != Duration::ZERO).then(|| Instant::now() + delay);
            due.max(last)
        });
        let is_held = rule.is_some_and(|rule| rule.treatment == Treatment::Hold);
        if due.is_none() && !is_held {
            return Sent {
                deliver: Some(ipi.dispatch),
                is_delayed: false,
            };
        }
        flows.in_flight += 1;
        let is_full = flows.in_flight > MOST;
        let flow = flows.pair(from, target);
        flow.waiting.push_back(Waiting { ipi, due });
        flow.next_due = flow.next_due.into_iter().chain(due).min();
        let is_full = is_full || flow.waiting.len() > MOST_OF_A_PAIR;
        let oldest = if is_full {
            flow.waiting.pop_front()
        } else {
            None
        };
        if flow.is_idle() {
            flows.pairs.remove(&(from, target));
        }
        flows.in_flight -= usize::from(oldest.is_some());
        Sent {
            deliver: oldest.map(|it| it.ipi.dispatch),
            is_delayed: due.is_some(),
        }
    }

    /// Holds what of the selection `from` sends to `to` from now on.
    ///
    /// # Errors
    /// [`TooManyRules`].
    pub fn hold(&self, from: u32, to: u32, selection: Selection) -> Result<(), TooManyRules> {
        let held = Treatment::Hold;
        (self.flows().add_rule(from, to, Some(selection), held)).map(|_| ())
    }

    /// Holds everything of the selection that is sent from now on.
    ///
    /// # Errors
    /// [`TooManyRules`].
    pub fn hold_all(&self, selection: Selection) -> Result<(), TooManyRules> {
        let mut flows = self.flows();
        flows.made += 1;
        let order = flows.made;
        (flows.everywhere).add(Some(selection), Treatment::Hold, order)
    }

    /// Delays what of the selection `from` sends to `to` from now on, and no longer holds it. What
    /// of it is held becomes due after `delay`, counted from now.
    ///
    /// # Errors
    /// [`TooManyRules`].
    pub fn delay(
        &self,
        from: u32,
        to: u32,
        selection: Selection,
        delay: Duration,
    ) -> Result<(), TooManyRules> {
        let mut flows = self.flows();
        let delayed = Treatment::Delay(delay);
        let flow = flows.add_rule(from, to, Some(selection), delayed)?;
        let due = Instant::now() + delay;
        for waiting in &mut flow.waiting {
            if selection.matches(&waiting.ipi, &self.wakes) {
                waiting.due.get_or_insert(due);
            }
        }
        flow.find_next_due();
        Ok(())
    }

    /// No longer holds or delays what of the selection `from` sends to `to`, or anything without
    /// one, and delivers what of that was held, in order.
    ///
    /// # Errors
    /// [`TooManyRules`].
    pub fn release(
        &self,
        from: u32,
        to: u32,
        selection: Option<Selection>,
        deliver: impl FnMut(Dispatch),
    ) -> Result<(), TooManyRules> {
        let mut flows = self.flows();
        let flow = flows.add_rule(from, to, selection, Treatment::Pass)?;
        let released = flow.take(|it| selection.is_none_or(|of| of.matches(&it.ipi, &self.wakes)));
        flows.in_flight -= released.len();
        // The lock is still held, so what is sent from now on comes after these.
        released.into_iter().for_each(deliver);
        Ok(())
    }

    /// No longer holds or delays anything of the selection, or anything at all without one, and
    /// delivers what of that was held, in order within each pair.
    ///
    /// # Errors
    /// [`TooManyRules`].
    pub fn release_all(
        &self,
        selection: Option<Selection>,
        mut deliver: impl FnMut(Dispatch),
    ) -> Result<(), TooManyRules> {
        let mut flows = self.flows();
        let flows = &mut *flows;
        let Some(of) = selection else {
            flows.everywhere.forget(None);
            flows.in_flight = 0;
            let all = std::mem::take(&mut flows.pairs).into_values();
            all.flat_map(|flow| flow.waiting)
                .for_each(|it| deliver(it.ipi.dispatch));
            return Ok(());
        };
        flows.made += 1;
        let order = flows.made;
        (flows.everywhere).add(selection, Treatment::Pass, order)?;
        for flow in flows.pairs.values_mut() {
            let released = flow.take(|it| of.matches(&it.ipi, &self.wakes));
            flows.in_flight -= released.len();
            released.into_iter().for_each(&mut deliver);
        }
        Ok(())
    }

    /// Takes the `nth` IPI of the selection, from 0, of those in flight from `from` to `to` off the
    /// wire, to deliver it out of order or to lose it.
    ///
    /// # Errors
    /// [`NotThere`].
    pub fn take(
        &self,
        from: u32,
        to: u32,
        selection: Option<Selection>,
        nth: usize,
    ) -> Result<Dispatch, NotThere> {
        let mut flows = self.flows();
        let flow = flows.pairs.get_mut(&(from, to));
        let mut seen = 0;
        let taken = flow.and_then(|flow| {
            let taken = flow.take(|it| {
                let is_meant = selection.is_none_or(|of| of.matches(&it.ipi, &self.wakes));
                seen += usize::from(is_meant);
                is_meant && seen == nth.saturating_add(1)
            });
            taken.into_iter().next()
        });
        let dispatch = taken.ok_or(NotThere {
            from,
            to,
            selection,
            nth,
            held: seen,
        })?;
        flows.in_flight -= 1;
        Ok(dispatch)
    }

    /// All IPIs in flight with their senders, by sender, target and order of sending.
    pub fn in_flight(&self) -> Vec<(u32, WireIpi)> {
        let flows = self.flows();
        let pairs = flows.pairs.iter();
        pairs
            .flat_map(|((from, _), flow)| flow.waiting.iter().map(|it| (*from, it.ipi)))
            .collect()
    }

    /// How many IPIs of the selection are in flight from one CPU to another.
    pub fn in_flight_between(&self, from: u32, to: u32, selection: Option<Selection>) -> usize {
        let flows = self.flows();
        let flow = flows.pairs.get(&(from, to));
        let waiting = flow.into_iter().flat_map(|flow| &flow.waiting);
        waiting
            .filter(|it| selection.is_none_or(|of| of.matches(&it.ipi, &self.wakes)))
            .count()
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
            if flow.next_due.is_none_or(|due| due > now) {
                continue;
            }
            let due = flow.take(|it| it.due.is_some_and(|due| due <= now));
            delivered += due.len();
            due.into_iter().for_each(&mut deliver);
        }
        flows.in_flight -= delivered;
    }

    /// When the next IPI is due.
    pub fn next_due(&self) -> Option<Instant> {
        let flows = self.flows();
        flows.pairs.values().filter_map(|flow| flow.next_due).min()
    }

    fn flows(&self) -> MutexGuard<'_, Flows> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
