//! The guest that C files make: its CPUs do what they are told, by the functions of the table.

use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};

use kit::declare;
use kit::handler;
use kit::lab::Lab;
use kit::mailbox::{Command, Deeds, Mailboxes, Refusal};
use kit::manifest::{Argument, ENDS, Record, SourceRole};
use kit::platform::{Platform, Vector};
use kit::specimen::{Part, Specimen};

use crate::ledger::Ledger;
use crate::table::{CCommand, Entry, construct, entries};
use crate::words::Words;

/// The verb of the deed that ends the workload. Those of C files are below.
pub const FINISH: u32 = 1 << 16;

declare! {
    Record::deed(FINISH, "finish", &[Argument::Cpus], "Ends the workload.").with(ENDS),
    Record::source(SourceRole::SkipFile, "/ckit/src/"),
}

/// The number of CPUs, for constructors as well.
pub static CPUS: AtomicU32 = AtomicU32::new(0);

/// The guest.
#[derive(Debug)]
pub struct CGuest<P> {
    platform: P,
    lab: Lab,
    mailboxes: Mailboxes,
    ledger: Ledger,
}

impl<P: Platform> CGuest<P> {
    /// The calls that C files have entered.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }
}

impl<P: Platform> Specimen<P> for CGuest<P> {
    type Options = Words;

    fn new(platform: P, _: &Words, lab: Lab) -> Self {
        CPUS.store(lab.cpus() as u32, Ordering::Relaxed);
        construct();
        Self {
            platform,
            lab,
            mailboxes: Mailboxes::new(lab),
            ledger: Ledger::new(lab),
        }
    }

    fn platform(&self) -> &P {
        &self.platform
    }

    fn run_cpu(&self) -> Part {
        self.platform.irqs_enable();
        self.mailboxes.run(self)
    }

    fn handle(&self, vector: Vector) {
        handler::run(&self.platform, &self.lab, vector, || {
            self.mailboxes.handle(&self.platform, vector);
            for entry in entries() {
                if let Entry::Handler(number, handler) = entry
                    && number == vector.number()
                {
                    handler();
                }
            }
        });
    }

    fn verdict(&self) -> impl fmt::Display {
        Verdict(self.lab.findings_made())
    }
}

/// What is printed at the end.
struct Verdict(u32);

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("pass"),
            findings => write!(f, "fail: {findings} findings"),
        }
    }
}

impl<P: Platform> Deeds<P> for CGuest<P> {
    fn platform(&self) -> &P {
        &self.platform
    }

    fn lab(&self) -> &Lab {
        &self.lab
    }

    fn obey(&self, command: &Command) -> Result<i64, Refusal> {
        if command.verb == FINISH {
            return self.mailboxes.finish(self, command);
        }
        let deed = entries().find_map(|entry| match entry {
            Entry::Deed(verb, function) if verb == command.verb => Some(function),
            _ => None,
        });
        let mut told = CCommand {
            arguments: command.arguments,
            cpus: [0; 16],
            waits: command.waits().into(),
        };
        let mask = command.mask()?;
        for (word, its) in told.cpus.iter_mut().zip(mask.words()) {
            *word = *its;
        }
        let result = deed.ok_or(Refusal::Invalid)?(&raw const told);
        if result < 0 {
            return Err(Refusal::Invalid);
        }
        Ok(result)
    }

    fn judge(&self) {
        for entry in entries() {
            if let Entry::Judge(judge) = entry {
                judge();
            }
        }
        self.ledger.audit(&self.platform);
    }
}
