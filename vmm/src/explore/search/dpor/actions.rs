//! Actions: steps, as far as they matter to other CPUs. An action says which CPU makes the step and
//! what it accesses; from that follows which two are dependent, that is, for which the order can
//! matter. Actions are numbered, so that sets of them are small. Knows nothing of the search.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use shared::stop::Kind;

use crate::explore::schedule::{Act, Choice};
use crate::explore::search::checkpoint::{read_list, read_plain, write_list, write_plain};
use crate::explore::search::leaving::Leaving;
use crate::explore::sharing::AccessKind;
use crate::explore::specimen::{Signal, State, Stop};

/// How a step depends on the interrupts that are pending at its own CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum Pending {
    /// Not at all.
    Ignored,
    /// If one were pending, it could be taken first.
    Heeded,
    /// The step takes one, or an INIT or a start-up IPI, after which none is pending.
    Taken,
}

/// A step, as far as it matters to other CPUs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Action {
    cpu: usize,
    /// The addresses of the words that it accesses, and how.
    words: Vec<(u64, AccessKind)>,
    pending: Pending,
    /// The CPUs to which it sends interrupts.
    sends: Vec<usize>,
    /// The CPUs to which it sends INITs or start-up IPIs.
    starts: Vec<usize>,
    /// Whether its CPU is down. Then it does nothing before something arrives.
    is_down: bool,
    /// Whether it is no step of the CPU, but of its store buffer.
    flushes: bool,
}

impl Action {
    /// The action of `choice` at `state`. `is_blocked` says whether its CPU cannot go on there with
    /// what it is about to do.
    ///
    /// A blocked CPU that takes an interrupt stops waiting for a while. Had another CPU unblocked
    /// it before, it could have taken the interrupt later. So the order of these two steps matters,
    /// and taking the interrupt counts as an access to what the CPU waits for.
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
            sends: Vec::new(),
            starts: Vec::new(),
            is_down: stopped.is_down() && choice.act == Act::GoOn,
            flushes: choice.act == Act::Flush,
        };
        match choice.act {
            Act::GoOn => {}
            Act::Take(_) | Act::Arrive => {
                action.pending = Pending::Taken;
                if !is_blocked {
                    return action;
                }
            }
            // As long as the buffer holds anything, no interrupt can be taken.
            Act::Flush => {
                action.pending = Pending::Ignored;
                let Leaving { words, ipis } = Leaving::of(stopped);
                action.words = words;
                ipis.into_iter().for_each(|ipi| action.send(ipi));
                return action;
            }
        }
        match stopped.at {
            Stop::Access(Kind::IrqsOff | Kind::Fence, _)
            | Stop::Left
            | Stop::NotStarted
            | Stop::WaitsForStartUp
            | Stop::Point(_) => {}
            Stop::Access(kind, address) => action.words.push((address & !7, AccessKind::of(kind))),
            Stop::Send { target, signal } => action.send((target, signal)),
            Stop::Idle => action.pending = Pending::Taken,
            Stop::Relax => {
                action.words = stopped
                    .watched()
                    .map(|word| (word, AccessKind::Reads))
                    .collect();
            }
        }
        action
    }

    /// The CPU that makes it.
    pub fn cpu(&self) -> usize {
        self.cpu
    }

    /// It sends this to that CPU.
    fn send(&mut self, (target, signal): (usize, Signal)) {
        if signal.starts() {
            self.starts.push(target);
        } else {
            self.sends.push(target);
        }
    }

    /// Whether its order with `other`, an action of another CPU, can matter. An INIT puts an end to
    /// whatever its target does, so that its order with everything that the target does can matter,
    /// and so can that of two INITs or start-up IPIs to one CPU.
    fn depends_on(&self, other: &Self) -> bool {
        let starts = |one: &Self, other: &Self| {
            let reaches = |target: &usize| *target == other.cpu && !other.is_down;
            one.starts.iter().any(reaches)
        };
        if starts(self, other) || starts(other, self) {
            return true;
        }
        if self.starts.iter().any(|it| other.starts.contains(it)) {
            return true;
        }
        let sends = |one: &Self, other: &Self| {
            one.sends.contains(&other.cpu) && other.pending != Pending::Ignored
        };
        let words = self.words.iter().any(|(word, kind)| {
            (other.words.iter()).any(|(its, its_kind)| its == word && its_kind.depends_on(*kind))
        });
        words || sends(self, other) || sends(other, self)
    }
}

/// All actions so far, by number, as all workers of a search count them.
#[derive(Debug, Default)]
pub struct Numbering {
    all: Mutex<Vec<Action>>,
}

impl Numbering {
    /// These actions, each with the number of its place.
    pub fn of(all: Vec<Action>) -> Self {
        Self {
            all: Mutex::new(all),
        }
    }

    /// All actions, each at the place of its number.
    pub fn all(&self) -> Vec<Action> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Action>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All actions that a worker knows, by number.
#[derive(Debug)]
pub struct Actions<'a> {
    common: &'a Numbering,
    numbers: HashMap<Action, usize>,
    all: Vec<Numbered>,
}

/// An action that has a number.
#[derive(Debug)]
struct Numbered {
    action: Action,
    /// The actions of other CPUs that are dependent on it.
    dependent: Vec<usize>,
}

impl<'a> Actions<'a> {
    /// None so far of those that `common` has.
    pub fn new(common: &'a Numbering) -> Self {
        Self {
            common,
            numbers: HashMap::new(),
            all: Vec::new(),
        }
    }

    /// The number of `action`; the next free one if it is new.
    pub fn number(&mut self, action: Action) -> usize {
        if let Some(number) = self.numbers.get(&action) {
            return *number;
        }
        let common = self.common;
        let mut common = common.lock();
        self.learn(&common);
        if let Some(number) = self.numbers.get(&action) {
            return *number;
        }
        common.push(action.clone());
        self.add(action)
    }

    /// Learns all actions that have a number below `end`.
    pub fn know(&mut self, end: usize) {
        if self.all.len() < end {
            let common = self.common;
            self.learn(&common.lock());
        }
    }

    /// Learns the actions of `common` that it does not know.
    fn learn(&mut self, common: &[Action]) {
        for action in &common[self.all.len()..] {
            self.add(action.clone());
        }
    }

    /// Adds the action that has the next number.
    fn add(&mut self, action: Action) -> usize {
        let number = self.all.len();
        let mut dependent = Vec::new();
        for (other, it) in self.all.iter_mut().enumerate() {
            if it.action.cpu != action.cpu && it.action.depends_on(&action) {
                dependent.push(other);
                it.dependent.push(number);
            }
        }
        self.numbers.insert(action.clone(), number);
        self.all.push(Numbered { action, dependent });
        number
    }

    /// The CPU that makes it.
    pub fn cpu(&self, number: usize) -> usize {
        self.all[number].action.cpu
    }

    /// Whether it is a step of the CPU's task or handler, or of its store buffer. Otherwise it
    /// takes an interrupt.
    pub fn is_program_step(&self, number: usize) -> bool {
        self.all[number].action.pending != Pending::Taken
    }

    /// The actions of other CPUs that are dependent on it.
    pub fn dependent(&self, number: usize) -> &[usize] {
        &self.all[number].dependent
    }
}

/// A set of actions, by their numbers.
#[derive(Debug, Default, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ActionSet {
    /// The last of them is not 0.
    words: Vec<u64>,
    /// Whether an order in which they happen ends with a breach, past which the search goes on. More
    /// can happen then than is known.
    pub breaks: bool,
}

impl ActionSet {
    /// What can happen behind a breach, as far as it is known.
    pub fn of_breach() -> Self {
        Self {
            breaks: true,
            ..Self::default()
        }
    }

    /// Adds an action.
    pub fn insert(&mut self, number: usize) {
        if self.words.len() <= number / 64 {
            self.words.resize(number / 64 + 1, 0);
        }
        self.words[number / 64] |= 1 << (number % 64);
    }

    /// Adds all actions of `other`.
    pub fn add(&mut self, other: &Self) {
        if self.words.len() < other.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        for (word, its) in self.words.iter_mut().zip(&other.words) {
            *word |= its;
        }
        self.breaks |= other.breaks;
    }

    /// Writes it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        write_plain(to, &u8::from(self.breaks))?;
        let words = |each: &mut dyn FnMut(u64)| self.words.iter().copied().for_each(each);
        write_list(to, words, |to, word| write_plain(to, &word))
    }

    /// Reads what [`ActionSet::write`] has written, with so many `actions`.
    ///
    /// # Errors
    /// If it cannot be read, or speaks of another action.
    pub fn read(from: &mut dyn Read, actions: usize) -> io::Result<Self> {
        let mut set = Self {
            breaks: read_plain::<u8>(from)? != 0,
            ..Self::default()
        };
        read_list(from, |from| {
            set.words.push(read_plain(from)?);
            Ok(())
        })?;
        // As of all sets, so that equal ones are.
        let is_trimmed = set.words.last() != Some(&0);
        match set.end() <= actions && is_trimmed {
            true => Ok(set),
            false => Err(io::Error::other("it speaks of an action that there is not")),
        }
    }

    /// A number above those of all actions in the set.
    pub fn end(&self) -> usize {
        let last = self
            .words
            .last()
            .map_or(0, |word| 64 - word.leading_zeros());
        64 * self.words.len().saturating_sub(1) + last as usize
    }

    /// The numbers of the actions in the set.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        self.words.iter().enumerate().flat_map(|(index, word)| {
            (0..64)
                .filter(move |bit| word >> bit & 1 != 0)
                .map(move |bit| index * 64 + bit)
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn action(
        cpu: usize,
        words: &[(u64, AccessKind)],
        pending: Pending,
        sends: Option<usize>,
    ) -> Action {
        Action {
            cpu,
            words: words.to_vec(),
            pending,
            sends: sends.into_iter().collect(),
            starts: Vec::new(),
            is_down: false,
            flushes: false,
        }
    }

    /// An access of a CPU to one word, with interrupts off.
    pub fn access(cpu: usize, word: u64, kind: AccessKind) -> Action {
        action(cpu, &[(word, kind)], Pending::Ignored, None)
    }

    #[test]
    fn actions_of_other_cpus_are_dependent_if_their_order_can_matter() {
        let numbering = Numbering::default();
        let mut actions = Actions::new(&numbering);
        let reads = actions.number(access(0, 8, AccessKind::Reads));
        let writes = actions.number(access(1, 8, AccessKind::Writes));
        let own = actions.number(access(0, 8, AccessKind::Writes));
        let words = [(16, AccessKind::Reads), (8, AccessKind::Reads)];
        let waits = actions.number(action(2, &words, Pending::Heeded, None));
        let sends = actions.number(action(1, &[], Pending::Ignored, Some(2)));
        let takes = actions.number(action(2, &[], Pending::Taken, None));
        assert_eq!(actions.number(access(0, 8, AccessKind::Reads)), reads);
        assert_eq!(actions.dependent(reads), [writes]);
        assert_eq!(actions.dependent(writes), [reads, own, waits]);
        assert_eq!(actions.dependent(own), [writes, waits]);
        assert_eq!(actions.dependent(waits), [writes, own, sends]);
        assert_eq!(actions.dependent(sends), [waits, takes]);
        assert_eq!(actions.dependent(takes), [sends]);
        assert_eq!(actions.cpu(sends), 1);
        assert!(
            actions.is_program_step(waits)
                && actions.is_program_step(sends)
                && !actions.is_program_step(takes)
        );
    }

    #[test]
    fn a_cpu_that_is_about_to_send_heeds_what_it_is_sent_itself() {
        let numbering = Numbering::default();
        let mut actions = Actions::new(&numbering);
        let sends = actions.number(action(2, &[], Pending::Heeded, Some(0)));
        let with_irqs_off = actions.number(action(2, &[], Pending::Ignored, Some(0)));
        let to_it = actions.number(action(1, &[], Pending::Heeded, Some(2)));
        assert_eq!(actions.dependent(to_it), [sends]);
        assert!(actions.dependent(with_irqs_off).is_empty());
    }

    #[test]
    fn workers_give_the_same_numbers() {
        let numbering = Numbering::default();
        let (mut one, mut other) = (Actions::new(&numbering), Actions::new(&numbering));
        let (reads, writes) = (AccessKind::Reads, AccessKind::Writes);
        let first = one.number(access(0, 8, reads));
        let second = other.number(access(1, 8, writes));
        assert_eq!(one.number(access(1, 8, writes)), second);
        assert_eq!(other.number(access(0, 8, reads)), first);
        let third = one.number(access(2, 8, writes));
        other.know(third + 1);
        assert_eq!(other.dependent(first), one.dependent(first));
        assert_eq!(other.cpu(third), 2);
    }

    #[test]
    fn an_action_set_is_a_set() {
        let mut set = ActionSet::default();
        for number in [3, 64, 200, 3] {
            set.insert(number);
        }
        let mut other = ActionSet::default();
        other.insert(1);
        other.add(&set);
        assert!(other.iter().eq([1, 3, 64, 200]));
    }
}
