//! Commands to the CPUs of a guest that takes them, one at a time each, and what came of them.
//! Remembers what a mailbox forgets when the next command is posted.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use shared::ledger::CallId;
use shared::mailbox::{ANSWERS, Mailbox};

use crate::lab::Lab;
use crate::lab::mailbox::Command;
use crate::lab::refused::Refused;

/// A command that was posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// To which CPU.
    pub cpu: u32,
    /// Its number in that CPU's mailbox, from 1.
    pub number: u64,
    /// What it was: the number of a deed.
    pub verb: u32,
}

/// What came of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// The result; its meaning is the deed's.
    pub result: Result<i64, Refused>,
    /// The call it made.
    pub call: Option<CallId>,
    /// The CPUs it answered with.
    pub answer: [u16; ANSWERS],
}

/// A CPU that has not done its last command cannot take another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::control) struct NotDone;

#[derive(Debug, Default)]
struct Row {
    last: Option<Ticket>,
    /// What was posted before, and what came of it.
    done: BTreeMap<u64, (u32, Done)>,
}

/// The mailboxes of one machine.
#[derive(Debug)]
pub(in crate::control) struct Commands {
    lab: Lab,
    rows: Mutex<Vec<Row>>,
}

impl Commands {
    /// No commands yet.
    pub fn new(lab: Lab) -> Self {
        let rows = (0..lab.cpus()).map(|_| Row::default()).collect();
        Self {
            lab,
            rows: Mutex::new(rows),
        }
    }

    /// Posts `command` to `cpu`, of which there must be one. The CPU is still to be woken.
    ///
    /// # Errors
    /// [`NotDone`] if it has something left to do.
    pub fn post(&self, cpu: u32, command: &Command) -> Result<Ticket, NotDone> {
        let mut rows = self.rows();
        let row = &mut rows[cpu as usize];
        if let Some(last) = row.last {
            let done = self.read(last).ok_or(NotDone)?;
            row.done.insert(last.number, (last.verb, done));
        }
        let ticket = Ticket {
            cpu,
            number: row.last.map_or(1, |last| last.number + 1),
            verb: command.verb,
        };
        self.lab.post(cpu, ticket.number, command);
        row.last = Some(ticket);
        Ok(ticket)
    }

    /// What came of a command, if it is done.
    pub fn done(&self, ticket: Ticket) -> Option<Done> {
        let rows = self.rows();
        let known = rows.get(ticket.cpu as usize)?.done.get(&ticket.number);
        known.map(|(_, done)| *done).or_else(|| self.read(ticket))
    }

    /// The command with this number, if it was posted.
    pub fn ticket(&self, cpu: u32, number: u64) -> Option<Ticket> {
        let rows = self.rows();
        let row = rows.get(cpu as usize)?;
        let last = row.last.filter(|last| last.number == number);
        let earlier = row.done.get(&number).map(|(verb, _)| Ticket {
            cpu,
            number,
            verb: *verb,
        });
        last.or(earlier)
    }

    /// The call that a command makes, if it has got that far.
    pub fn call(&self, ticket: Ticket) -> Option<CallId> {
        let rows = self.rows();
        match rows.get(ticket.cpu as usize)?.done.get(&ticket.number) {
            Some((_, done)) => done.call,
            None => {
                let mailbox = self.lab.mailbox(ticket.cpu)?;
                (mailbox.taken >= ticket.number).then(|| call(&mailbox))?
            }
        }
    }

    /// The CPUs that have something left to do, and what.
    pub fn outstanding(&self) -> Vec<Ticket> {
        let rows = self.rows();
        let last = rows.iter().filter_map(|row| row.last);
        last.filter(|last| self.read(*last).is_none()).collect()
    }

    fn read(&self, ticket: Ticket) -> Option<Done> {
        let mailbox = self.lab.mailbox(ticket.cpu)?;
        (mailbox.done >= ticket.number).then(|| Done {
            result: Refused::check(mailbox.result),
            call: call(&mailbox),
            answer: mailbox.answer,
        })
    }

    fn rows(&self) -> MutexGuard<'_, Vec<Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn call(mailbox: &Mailbox) -> Option<CallId> {
    (mailbox.call != 0).then(|| CallId::from_raw(mailbox.call))
}
