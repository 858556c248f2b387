//! What steps are to each other: by whom they are made and what they touch, and of which two the
//! order can matter. They have numbers, so that sets of them are small. Knows nothing of the
//! search.

use std::collections::HashMap;

use shared::stop::Kind;

use crate::explore::schedule::Choice;
use crate::explore::sharing::Way;
use crate::explore::specimen::{State, Stop};

/// What a step has to do with the interrupts that are pending at its own CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Pending {
    /// Nothing.
    Ignored,
    /// It would be another step if one were pending: that could be taken first.
    Heeded,
    /// It takes one.
    Taken,
}

/// A step, as far as others can matter to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Action {
    cpu: usize,
    words: Vec<(u64, Way)>,
    pending: Pending,
    /// The CPU to whose pending interrupts it adds, if it does.
    sends: Option<usize>,
}

impl Action {
    /// What `choice` is at `state`, where its CPU cannot go on with what it is about to do if it
    /// `is_blocked`.
    ///
    /// A CPU that is blocked and takes an interrupt gives up for now what it waits for. Had another
    /// CPU let it go on before, it could have taken the interrupt later: the order of the two
    /// matters, and so it touches what it waits for.
    pub fn of(state: &State, choice: Choice, is_blocked: bool) -> Self {
        let stopped = &state.cpus()[choice.cpu];
        let mut action = Self {
            cpu: choice.cpu,
            words: Vec::new(),
            pending: if stopped.irqs_on() {
                Pending::Heeded
            } else {
                Pending::Ignored
            },
            sends: None,
        };
        if choice.takes.is_some() {
            action.pending = Pending::Taken;
            if !is_blocked {
                return action;
            }
        }
        match stopped.at {
            Stop::Access(Kind::IrqsOff, _) | Stop::Left | Stop::Point(_) => {}
            Stop::Access(kind, address) => action.words.push((address & !7, Way::of(kind))),
            Stop::Send { target, .. } => action.sends = Some(target),
            Stop::Idle => action.pending = Pending::Taken,
            Stop::Relax => {
                action.words = stopped.watched().map(|word| (word, Way::Reads)).collect();
            }
        }
        action
    }

    /// Whether its order with `other`, of another CPU, can matter.
    fn collides(&self, other: &Self) -> bool {
        let sends = |one: &Self, other: &Self| {
            one.sends == Some(other.cpu) && other.pending != Pending::Ignored
        };
        let words = self.words.iter().any(|(word, way)| {
            (other.words.iter()).any(|(its, its_way)| its == word && its_way.collides(*way))
        });
        words || sends(self, other) || sends(other, self)
    }
}

/// All actions that were met, by number.
#[derive(Debug, Default)]
pub struct Actions {
    numbers: HashMap<Action, usize>,
    all: Vec<Met>,
}

/// An action that was met.
#[derive(Debug)]
struct Met {
    action: Action,
    /// Those of other CPUs whose order with it can matter.
    rivals: Vec<usize>,
}

impl Actions {
    /// The number of `action`: the next one, if it was not met before.
    pub fn number(&mut self, action: Action) -> usize {
        if let Some(number) = self.numbers.get(&action) {
            return *number;
        }
        let number = self.all.len();
        let mut rivals = Vec::new();
        for (other, met) in self.all.iter_mut().enumerate() {
            if met.action.cpu != action.cpu && met.action.collides(&action) {
                rivals.push(other);
                met.rivals.push(number);
            }
        }
        self.numbers.insert(action.clone(), number);
        self.all.push(Met { action, rivals });
        number
    }

    /// Whose action it is.
    pub fn cpu(&self, number: usize) -> usize {
        self.all[number].action.cpu
    }

    /// Whether it is a step of what its CPU's task or handler is about to do, and not one by which
    /// it takes an interrupt.
    pub fn goes_on(&self, number: usize) -> bool {
        self.all[number].action.pending != Pending::Taken
    }

    /// The actions of other CPUs whose order with it can matter.
    pub fn rivals(&self, number: usize) -> &[usize] {
        &self.all[number].rivals
    }
}

/// A set of actions, by number: those that happen behind a state.
#[derive(Debug, Default)]
pub struct Future(Vec<u64>);

impl Future {
    /// Puts an action into it.
    pub fn insert(&mut self, number: usize) {
        if self.0.len() <= number / 64 {
            self.0.resize(number / 64 + 1, 0);
        }
        self.0[number / 64] |= 1 << (number % 64);
    }

    /// Puts all of another one into it.
    pub fn add(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (word, its) in self.0.iter_mut().zip(&other.0) {
            *word |= its;
        }
    }

    /// Those that are in it.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().flat_map(|(index, word)| {
            (0..64)
                .filter(move |bit| word >> bit & 1 != 0)
                .map(move |bit| index * 64 + bit)
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn action(cpu: usize, words: &[(u64, Way)], pending: Pending, sends: Option<usize>) -> Action {
        Action {
            cpu,
            words: words.to_vec(),
            pending,
            sends,
        }
    }

    /// What a CPU does to one word, with interrupts off.
    pub fn access(cpu: usize, word: u64, way: Way) -> Action {
        action(cpu, &[(word, way)], Pending::Ignored, None)
    }

    #[test]
    fn rivals_are_those_of_other_cpus_whose_order_can_matter() {
        let mut actions = Actions::default();
        let reads = actions.number(access(0, 8, Way::Reads));
        let writes = actions.number(access(1, 8, Way::Writes));
        let own = actions.number(access(0, 8, Way::Writes));
        let words = [(16, Way::Reads), (8, Way::Reads)];
        let waits = actions.number(action(2, &words, Pending::Heeded, None));
        let sends = actions.number(action(1, &[], Pending::Ignored, Some(2)));
        let takes = actions.number(action(2, &[], Pending::Taken, None));
        assert_eq!(actions.number(access(0, 8, Way::Reads)), reads);
        assert_eq!(actions.rivals(reads), [writes]);
        assert_eq!(actions.rivals(writes), [reads, own, waits]);
        assert_eq!(actions.rivals(own), [writes, waits]);
        assert_eq!(actions.rivals(waits), [writes, own, sends]);
        assert_eq!(actions.rivals(sends), [waits, takes]);
        assert_eq!(actions.rivals(takes), [sends]);
        assert_eq!(actions.cpu(sends), 1);
        assert!(actions.goes_on(waits) && actions.goes_on(sends) && !actions.goes_on(takes));
    }

    #[test]
    fn who_is_about_to_send_heeds_what_it_is_sent_itself() {
        let mut actions = Actions::default();
        let sends = actions.number(action(2, &[], Pending::Heeded, Some(0)));
        let with_irqs_off = actions.number(action(2, &[], Pending::Ignored, Some(0)));
        let to_it = actions.number(action(1, &[], Pending::Heeded, Some(2)));
        assert_eq!(actions.rivals(to_it), [sends]);
        assert!(actions.rivals(with_irqs_off).is_empty());
    }

    #[test]
    fn a_future_is_a_set() {
        let mut future = Future::default();
        for number in [3, 64, 200, 3] {
            future.insert(number);
        }
        let mut other = Future::default();
        other.insert(1);
        other.add(&future);
        assert!(other.iter().eq([1, 3, 64, 200]));
    }
}
