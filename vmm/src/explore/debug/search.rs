//! Finds the position at which something happens next, forwards or backwards: a breakpoint, a change of
//! what is watched, or the end of a step that gdb asked for. Looks at one step of the recording at a
//! time, so that whoever asks can look after gdb in between.

use super::recording::{Position, Recording, RecordingError};
use crate::machine::ram::Ram;
use crate::page_size::PAGE_SIZE;

/// Bytes of guest memory that are watched for changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Watch {
    /// What gdb calls them.
    pub address: u64,
    /// The address of the first in guest memory.
    pub physical: u64,
    /// How many, within a page and 8 at most.
    pub length: usize,
}

/// The most bytes that one watch is for.
pub(super) const WIDEST: usize = 8;

impl Watch {
    /// What they hold; nothing where there is no memory.
    pub fn value(&self, ram: &Ram) -> Option<[u8; WIDEST]> {
        let start = usize::try_from(self.physical).ok()?;
        let (number, offset) = (start / PAGE_SIZE, start % PAGE_SIZE);
        if number >= ram.pages() {
            return None;
        }
        let mut value = [0; WIDEST];
        let bytes = ram.page(number).get(offset..offset + self.length)?;
        value[..self.length].copy_from_slice(bytes);
        Some(value)
    }
}

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Forwards,
    Backwards,
}

/// What is looked for.
#[derive(Debug, Clone)]
pub(super) struct Goal {
    pub way: Way,
    /// Where the search began. What is there gdb knows.
    pub from: Position,
    /// The CPU that is to execute one instruction, if that is all.
    pub stepping: Option<u32>,
    /// The addresses of the breakpoints.
    pub breakpoints: Vec<u64>,
}

/// Why the machine is where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// This CPU is about to execute the instruction at a breakpoint.
    Breakpoint(u32),
    /// This CPU has changed what is watched, or is about to.
    Changed(u32, Watch),
    /// This CPU has executed an instruction, or is about to.
    Stepped(u32),
    /// There is nothing further this way.
    End(u32),
}

/// What the next step of the recording brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// It is this, and the machine is there.
    Found(Found),
    /// Nothing, and the search goes on at this position.
    Not(Position),
}

impl Recording {
    /// Looks for `goal` in the step of the recording that is next to `from`, which the search has come to.
    ///
    /// # Errors
    /// As [`Recording::go_to`].
    pub(super) fn look_for(
        &mut self,
        goal: &Goal,
        from: Position,
    ) -> Result<Progress, RecordingError> {
        let number = match goal.way {
            Way::Forwards => Some(from.step).filter(|step| *step < self.steps.len()),
            Way::Backwards if from.instruction > 0 => Some(from.step),
            Way::Backwards => from.step.checked_sub(1),
        };
        let Some(number) = number else {
            let end = match goal.way {
                Way::Forwards => self.end(),
                Way::Backwards => Position::default(),
            };
            self.go_to(end)?;
            return Ok(Progress::Found(Found::End(self.cpu_at(end))));
        };
        let cpu = self.cpu_at(Position {
            step: number,
            instruction: 0,
        });
        let executes = self.steps[number].executes;
        let trace = self.trace(number)?.clone();
        let count = trace.rips.len();
        let is_breakpoint = |at: &usize| executes && goal.breakpoints.contains(&trace.rips[*at]);
        let breakpoint = |at| (at, Found::Breakpoint(cpu));
        let steps = goal.stepping == Some(cpu);
        let step = |at| (at, Found::Stepped(cpu));
        // Of what happens at one position, a change comes first: gdb asks for no reason twice.
        let found = match goal.way {
            Way::Forwards => {
                let begin = from.instruction;
                let first = begin + usize::from(from == goal.from);
                let changed = trace.changes.iter().filter(|(at, _)| *at >= begin);
                let changed = changed.map(|(at, watch)| (at + 1, Found::Changed(cpu, *watch)));
                let breakpoints = (first..count).filter(is_breakpoint).map(breakpoint);
                let stepped = steps.then(|| step(begin + 1));
                changed
                    .chain(breakpoints)
                    .chain(stepped)
                    .min_by_key(|(at, _)| *at)
            }
            Way::Backwards => {
                let limit = if from.instruction > 0 {
                    from.instruction
                } else {
                    count
                };
                let changed = trace.changes.iter().filter(|(at, _)| *at < limit);
                let changed = changed.map(|(at, watch)| (*at, Found::Changed(cpu, *watch)));
                let breakpoints = (0..limit).filter(is_breakpoint).map(breakpoint);
                let stepped = steps.then(|| step(limit - 1));
                // The first of several that are as late.
                let all = stepped.into_iter().chain(breakpoints).chain(changed);
                all.max_by_key(|(at, _)| *at)
            }
        };
        let position = |at| match at < count {
            true => Position {
                step: number,
                instruction: at,
            },
            false => Position {
                step: number + 1,
                instruction: 0,
            },
        };
        match found {
            Some((at, found)) => {
                self.go_to(position(at))?;
                Ok(Progress::Found(found))
            }
            None => Ok(Progress::Not(match goal.way {
                Way::Forwards => position(count),
                Way::Backwards => position(0),
            })),
        }
    }
}
