//! All possible outcomes of a test, found by trying every order of its steps on a model of memory:
//! one that is sequentially consistent, and x86's, in which each CPU has a first-in-first-out store
//! buffer (Sewell and others, "x86-TSO", 2010). Searches and runs are compared with the result.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;

use crate::histogram::outcome;
use crate::program::{Instruction, Variable};
use crate::test::{Memory, Source, Test};

/// The most states that are tried.
const MOST_STATES: usize = 200_000;

/// How memory behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// Each store is visible to all CPUs at once.
    Sequential,
    /// Stores wait in their CPU's store buffer, from which only the CPU itself reads them.
    Tso,
}

/// The state of a test between two steps.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    memory: Memory,
    cpus: Vec<Cpu>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Cpu {
    /// Instructions done.
    done: usize,
    irqs_off: bool,
    /// A bit for each variable that its handler is to read.
    asked: u8,
    /// Whether the interrupt that tells it so is pending. Several are coalesced into one.
    is_pending: bool,
    /// A bit for each variable that its handler has yet to read. The CPU is in its handler while
    /// there are any.
    handling: u8,
    /// Whether it has asked another CPU for a variable, and has yet to interrupt that CPU.
    is_sending: bool,
    buffer: VecDeque<(Variable, i64)>,
    loaded: Vec<i64>,
    handled: Vec<i64>,
}

/// Every outcome of `test` that `model` allows, or `None` if there are too many states.
pub fn outcomes(test: &Test, model: Model) -> Option<BTreeSet<Vec<Option<i64>>>> {
    outcomes_within(test, model, MOST_STATES)
}

fn outcomes_within(test: &Test, model: Model, most: usize) -> Option<BTreeSet<Vec<Option<i64>>>> {
    let mut outcomes = BTreeSet::new();
    let first = State {
        memory: test.initial,
        cpus: test.programs.iter().map(|_| Cpu::default()).collect(),
    };
    let mut known = BTreeSet::from([first.clone()]);
    let mut open = Vec::from([first]);
    while let Some(state) = open.pop() {
        let next = state.successors(test, model);
        if next.is_empty() {
            outcomes.insert(outcome(test, |source| state.value(source)));
        }
        for state in next {
            if known.len() == most {
                return None;
            }
            if known.insert(state.clone()) {
                open.push(state);
            }
        }
    }
    Some(outcomes)
}

impl State {
    fn value(&self, source: Source) -> Option<i64> {
        match source {
            Source::Loaded(cpu, nth) => self.cpus[cpu].loaded.get(nth).copied(),
            Source::Handled(cpu, nth) => self.cpus[cpu].handled.get(nth).copied(),
            Source::Memory(variable) => Some(self.memory[variable as usize]),
        }
    }

    /// The states to which the possible next steps lead.
    fn successors(&self, test: &Test, model: Model) -> Vec<Self> {
        let mut next = Vec::new();
        for (index, cpu) in self.cpus.iter().enumerate() {
            if let Some((variable, value)) = cpu.buffer.front() {
                let mut state = self.clone();
                state.memory[*variable as usize] = *value;
                state.cpus[index].buffer.pop_front();
                next.push(state);
            }
            let steps = &test.programs[index].steps;
            let is_over = cpu.done == steps.len();
            if cpu.handling != 0 {
                let variable = Variable::ALL[cpu.handling.trailing_zeros() as usize];
                let mut state = self.clone();
                let cpu = &mut state.cpus[index];
                cpu.handling &= cpu.handling - 1;
                cpu.handled.push(state.memory[variable as usize]);
                next.push(state);
                continue;
            }
            // At the end of a program interrupts are enabled. An interrupt is taken only with an
            // empty store buffer.
            if cpu.is_pending && (!cpu.irqs_off || is_over) && cpu.buffer.is_empty() {
                let mut state = self.clone();
                let cpu = &mut state.cpus[index];
                cpu.is_pending = false;
                cpu.handling = core::mem::take(&mut cpu.asked);
                next.push(state);
            }
            if let Some(step) = steps.get(cpu.done) {
                next.extend(self.after(index, step.instruction, model));
            }
        }
        next
    }

    /// The state after `instruction` of CPU `index`, if that can be executed now.
    fn after(&self, index: usize, instruction: Instruction, model: Model) -> Option<Self> {
        let mut state = self.clone();
        let cpu = &mut state.cpus[index];
        cpu.done += 1;
        let (memory, drained) = (&mut state.memory, cpu.buffer.is_empty());
        match instruction {
            Instruction::Store(variable, value) => match model {
                Model::Sequential => memory[variable as usize] = value,
                Model::Tso => cpu.buffer.push_back((variable, value)),
            },
            Instruction::Load(variable) => {
                let own = cpu.buffer.iter().rfind(|(at, _)| *at == variable);
                let value = own.map_or(memory[variable as usize], |(_, value)| *value);
                cpu.loaded.push(value);
            }
            Instruction::Exchange(variable, value) if drained => {
                let before = core::mem::replace(&mut memory[variable as usize], value);
                cpu.loaded.push(before);
            }
            Instruction::Add(variable, value) if drained => {
                let word = &mut memory[variable as usize];
                cpu.loaded.push(*word);
                *word = word.wrapping_add(value);
            }
            Instruction::Fence if drained => {}
            // The target can find the request before this interrupt, if it takes another CPU's
            // interrupt.
            Instruction::Send(target, variable) if !cpu.is_sending => {
                cpu.is_sending = true;
                cpu.done -= 1;
                state.cpus[target].asked |= 1 << variable as usize;
            }
            Instruction::Send(target, _) if drained => {
                cpu.is_sending = false;
                state.cpus[target].is_pending = true;
            }
            // A locked instruction, a fence and an IPI wait for the stores before them.
            Instruction::Exchange(..)
            | Instruction::Add(..)
            | Instruction::Fence
            | Instruction::Send(..) => return None,
            Instruction::IrqsOff => cpu.irqs_off = true,
            Instruction::IrqsOn => cpu.irqs_off = false,
        }
        Some(state)
    }
}

/// Whether `model` allows an outcome that decides the claim of `test`, or `None` if there are too
/// many states.
pub fn decides(test: &Test, model: Model) -> Option<bool> {
    let outcomes = outcomes(test, model)?;
    Some(
        outcomes
            .iter()
            .any(|outcome| crate::histogram::decides(test, outcome)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::Quantifier;
    use crate::test::tests::test_of;

    /// What the literature says of these tests: whether the outcome is possible if memory is
    /// sequentially consistent, and on x86.
    #[test]
    fn the_models_are_the_known_ones() {
        for (name, programs, condition, sequential, tso) in [
            (
                "SB",
                "0:store,x,1;load,y|1:store,y,1;load,x",
                "0:r0=0&1:r0=0",
                false,
                true,
            ),
            (
                "SB with one fence",
                "0:store,x,1;fence;load,y|1:store,y,1;load,x",
                "0:r0=0&1:r0=0",
                false,
                true,
            ),
            (
                "SB with fences",
                "0:store,x,1;fence;load,y|1:store,y,1;fence;load,x",
                "0:r0=0&1:r0=0",
                false,
                false,
            ),
            (
                "SB with exchanges",
                "0:xchg,x,1,t;load,y|1:xchg,y,1,t;load,x",
                "0:r1=0&1:r1=0",
                false,
                false,
            ),
            (
                "MP",
                "0:store,x,1;store,y,1|1:load,y;load,x",
                "1:r0=1&1:r1=0",
                false,
                false,
            ),
            (
                "LB",
                "0:load,x;store,y,1|1:load,y;store,x,1",
                "0:r0=1&1:r0=1",
                false,
                false,
            ),
            (
                "R",
                "0:store,x,1;store,y,1|1:store,y,2;load,x",
                "y=2&1:r0=0",
                false,
                true,
            ),
            (
                "R with fences",
                "0:store,x,1;fence;store,y,1|1:store,y,2;fence;load,x",
                "y=2&1:r0=0",
                false,
                false,
            ),
            (
                "S",
                "0:store,x,2;store,y,1|1:load,y;store,x,1",
                "x=2&1:r0=1",
                false,
                false,
            ),
            (
                "2+2W",
                "0:store,x,1;store,y,2|1:store,y,1;store,x,2",
                "x=1&y=1",
                false,
                false,
            ),
            (
                "IRIW",
                "0:store,x,1|1:store,y,1|2:load,x;load,y|3:load,y;load,x",
                "2:r0=1&2:r1=0&3:r0=1&3:r1=0",
                false,
                false,
            ),
            (
                "n6",
                "0:store,x,1;load,x;load,y|1:store,y,2;store,x,2",
                "0:r0=1&0:r1=0&x=1",
                false,
                true,
            ),
            (
                "n5",
                "0:store,x,1;load,x|1:store,x,2;load,x",
                "0:r0=2&1:r0=1",
                false,
                false,
            ),
            (
                "CoRR",
                "0:store,x,1|1:load,x;load,x",
                "1:r0=1&1:r1=0",
                false,
                false,
            ),
            (
                "MP the other way",
                "0:store,x,1;store,y,1|1:load,y;load,x",
                "1:r0=0&1:r1=1",
                true,
                true,
            ),
            (
                "MP by an IPI",
                "0:store,x,1;send,1,x|1:",
                "1:h0=0",
                false,
                false,
            ),
            (
                "an IPI that is late",
                "0:send,1,x;store,x,1|1:",
                "1:h0=1",
                true,
                true,
            ),
            (
                "two that become one",
                "0:send,1,x;send,1,x|1:irqs-off",
                "~1:h1=0",
                true,
                true,
            ),
            (
                "none while they are off",
                "0:send,1,x|1:irqs-off;load,x;store,x,1",
                "1:h0=0",
                true,
                true,
            ),
            (
                "none before they are on",
                "0:load,y|1:irqs-off;send,1,x;store,x,1;irqs-on",
                "1:h0=0",
                false,
                false,
            ),
        ] {
            let test = test_of(programs, Quantifier::Exists, condition);
            assert_eq!(
                decides(&test, Model::Sequential),
                Some(sequential),
                "{name}"
            );
            assert_eq!(decides(&test, Model::Tso), Some(tso), "{name}");
        }
    }

    #[test]
    fn an_outcome_has_what_is_left_everywhere() {
        let programs = "0:store,x,1;add,x,2|1:load,x;send,0,y";
        let test = test_of(programs, Quantifier::Exists, "x=0&0:r0=0&1:r0=0&0:h0=0");
        let outcomes = outcomes(&test, Model::Sequential).unwrap();
        let expected = [0, 1, 3].map(|seen| vec![Some(0), Some(1), Some(seen), Some(3)]);
        assert_eq!(outcomes, BTreeSet::from(expected));
    }

    #[test]
    fn what_is_too_much_is_given_up() {
        let programs = "0:store,x,1;load,y|1:store,y,1;load,x";
        let test = test_of(programs, Quantifier::Exists, "x=1");
        assert_eq!(outcomes_within(&test, Model::Tso, 10), None);
        assert!(outcomes_within(&test, Model::Tso, 1000).is_some());
    }
}
