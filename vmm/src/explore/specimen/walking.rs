//! Walks a CPU through a step instruction by instruction, for a debugger, and shows the machine there.
//! Walking changes nothing: a step that was walked through leads to the same state as one that was not,
//! which whoever walks has to check. Decides nothing.

use std::hash::Hash;

use kvm_bindings::kvm_regs;
use vmm_sys_util::errno;
use xxhash_rust::xxh3::Xxh3;

use super::breach::Breach;
use super::errors::{SpecimenError, kvm};
use super::machine::Specimen;
use crate::explore::schedule::{Act, Choice};
use crate::machine::debugged::Debugged;
use crate::machine::ram::Ram;
use crate::machine::serial::Serial;
use crate::machine::serial_walk::Walked;

/// That a walk has paused between two instructions of a step. Only another state can be restored then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paused;

/// Is shown memory as the CPU sees it before the first instruction, and then after each, with the
/// registers. Says whether to pause there.
pub type OnInstruction<'a> = dyn FnMut(&Ram, Option<&kvm_regs>) -> bool + 'a;

/// Why the vCPU did not come to the end of a step.
enum Ended {
    Paused,
    Failed(errno::Error),
}

impl Specimen {
    /// As [`Specimen::follow`], instruction by instruction.
    ///
    /// # Errors
    /// As [`Specimen::follow`].
    pub fn walk(
        &mut self,
        choice: Choice,
        on_instruction: &mut OnInstruction<'_>,
    ) -> Result<Result<Option<Breach>, Paused>, SpecimenError> {
        let mut has_begun = false;
        let mut go = |serial: &mut Serial, cpu: usize| {
            // The CPU goes on several times if a signal interrupts it, or it asks for something.
            if !has_begun {
                if on_instruction(serial.ram(), None) {
                    return Err(Ended::Paused);
                }
                serial.expect(cpu, choice.takes());
                has_begun = true;
            }
            serial.begin_walk(cpu).map_err(Ended::Failed)?;
            loop {
                match serial.walk(cpu).map_err(Ended::Failed)? {
                    Walked::Exit(exit) => return Ok(exit),
                    Walked::Instruction(regs) if on_instruction(serial.ram(), Some(&regs)) => {
                        serial.end_walk(cpu).map_err(Ended::Failed)?;
                        return Err(Ended::Paused);
                    }
                    Walked::Instruction(_) => {}
                }
            }
        };
        match self.follow_by(choice, &mut go)? {
            Ok(breach) => Ok(Ok(breach)),
            Err(Ended::Paused) => Ok(Err(Paused)),
            Err(Ended::Failed(error)) => Err(kvm("execute one instruction")(error)),
        }
    }

    /// Whether the CPU of `choice` executes instructions in that step.
    pub fn executes(&self, choice: Choice) -> bool {
        match choice.act {
            Act::Flush => false,
            Act::Arrive => !self.arrives_as_init(choice.cpu),
            Act::GoOn | Act::Take(_) => true,
        }
    }

    /// `cpu` as a debugger sees it, at a stop.
    ///
    /// # Errors
    /// As [`Specimen::follow`].
    pub fn at_stop(&mut self, cpu: usize) -> Result<Debugged<'_>, SpecimenError> {
        self.prepare(cpu)?;
        Ok(self.serial.debugged(cpu))
    }

    /// `cpu` as a debugger sees it, while a walk that it makes has paused.
    pub fn between_instructions(&mut self, cpu: usize) -> Debugged<'_> {
        self.serial.debugged(cpu)
    }

    /// Guest RAM.
    pub fn ram(&self) -> &Ram {
        self.serial.ram()
    }

    /// A hash of all of memory as it is now, without the pages whose contents do not matter. Those that
    /// are as in the initial state are compared, and not hashed, which takes a thousandth of the time.
    pub fn memory_hash(&self) -> u128 {
        let mut hash = Xxh3::new();
        let ram = self.serial.ram();
        for number in (0..ram.pages()).filter(|it| ram.page(*it) != self.origin(*it)) {
            if !self.unobserved.contains(&number) && !self.passing.is_on_page(number) {
                (number, ram.page(number)).hash(&mut hash);
            }
        }
        hash.digest128()
    }
}
