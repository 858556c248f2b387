//! The commands posted to the CPUs of a guest, one at a time to each CPU, and their results. Keeps
//! the results that a mailbox loses when the next command is posted.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use shared::ledger::CallId;
use shared::mailbox::{ANSWERS, Mailbox};

use crate::lab::Lab;
use crate::lab::deed_refusal::DeedRefusal;
use crate::lab::mailbox::Command;
use crate::lab::programs::NoRoom;

/// A command that was posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PostedCommand {
    /// The CPU to which it was posted.
    pub cpu: u32,
    /// Its number in that CPU's mailbox, from 1.
    pub number: u64,
    /// What the CPU was told: the number of a deed.
    pub verb: u32,
}

/// The result of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandResult {
    /// The value, whose meaning depends on the deed, or why the guest refused.
    pub result: Result<i64, DeedRefusal>,
    /// The call it made.
    pub call: Option<CallId>,
    /// The CPUs with which it answered, for a deed that answers with a list.
    pub answer: [u16; ANSWERS],
}

/// A CPU that has not done its last command cannot take another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::control) struct Busy;

#[derive(Debug, Default)]
struct CpuCommands {
    last: Option<PostedCommand>,
    /// Earlier commands and their results, by number.
    done: BTreeMap<u64, (u32, CommandResult)>,
}

/// The mailboxes of one machine.
#[derive(Debug)]
pub(in crate::control) struct Commands {
    lab: Lab,
    by_cpu: Mutex<Vec<CpuCommands>>,
}

impl Commands {
    /// No commands yet.
    pub fn new(lab: Lab) -> Self {
        let by_cpu = (0..lab.cpus()).map(|_| CpuCommands::default()).collect();
        Self {
            lab,
            by_cpu: Mutex::new(by_cpu),
        }
    }

    /// Writes the program of `command` for the guest to find, before it is posted.
    ///
    /// # Errors
    /// [`NoRoom`] if there is no room for it.
    pub fn keep_program(&self, command: &Command) -> Result<(), NoRoom> {
        self.lab.keep_program(&command.program)
    }

    /// Posts `command` to `cpu`, which must exist. The caller has to wake the CPU.
    ///
    /// # Errors
    /// [`Busy`] if the CPU has not done its last command.
    pub fn post(&self, cpu: u32, command: &Command) -> Result<PostedCommand, Busy> {
        let mut by_cpu = self.by_cpu();
        let cpu_commands = &mut by_cpu[cpu as usize];
        if let Some(last) = cpu_commands.last {
            let done = self.read(last).ok_or(Busy)?;
            cpu_commands.done.insert(last.number, (last.verb, done));
        }
        let posted = PostedCommand {
            cpu,
            number: cpu_commands.last.map_or(1, |last| last.number + 1),
            verb: command.verb,
        };
        self.lab.post(cpu, posted.number, command);
        cpu_commands.last = Some(posted);
        Ok(posted)
    }

    /// The result of a command, if it is done.
    pub fn done(&self, posted: PostedCommand) -> Option<CommandResult> {
        let by_cpu = self.by_cpu();
        let known = by_cpu.get(posted.cpu as usize)?.done.get(&posted.number);
        known.map(|(_, done)| *done).or_else(|| self.read(posted))
    }

    /// The command with this number, if it was posted.
    pub fn posted(&self, cpu: u32, number: u64) -> Option<PostedCommand> {
        let by_cpu = self.by_cpu();
        let cpu_commands = by_cpu.get(cpu as usize)?;
        let last = cpu_commands.last.filter(|last| last.number == number);
        let earlier = cpu_commands
            .done
            .get(&number)
            .map(|(verb, _)| PostedCommand {
                cpu,
                number,
                verb: *verb,
            });
        last.or(earlier)
    }

    /// The call that a command makes, if the CPU has begun it.
    pub fn call(&self, posted: PostedCommand) -> Option<CallId> {
        let by_cpu = self.by_cpu();
        match by_cpu.get(posted.cpu as usize)?.done.get(&posted.number) {
            Some((_, done)) => done.call,
            None => {
                let mailbox = self.lab.mailbox(posted.cpu)?;
                (mailbox.taken >= posted.number).then(|| call(&mailbox))?
            }
        }
    }

    /// The commands that are not done.
    pub fn outstanding(&self) -> Vec<PostedCommand> {
        let by_cpu = self.by_cpu();
        let last = by_cpu.iter().filter_map(|cpu_commands| cpu_commands.last);
        last.filter(|last| self.read(*last).is_none()).collect()
    }

    fn read(&self, posted: PostedCommand) -> Option<CommandResult> {
        let mailbox = self.lab.mailbox(posted.cpu)?;
        (mailbox.done >= posted.number).then(|| CommandResult {
            result: DeedRefusal::check(mailbox.result),
            call: call(&mailbox),
            answer: mailbox.answer,
        })
    }

    fn by_cpu(&self) -> MutexGuard<'_, Vec<CpuCommands>> {
        self.by_cpu.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn call(mailbox: &Mailbox) -> Option<CallId> {
    (mailbox.call != 0).then(|| CallId::from_raw(mailbox.call))
}
