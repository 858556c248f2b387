//! The guest as the kit has it: one test, run in one of two ways.

use alloc::boxed::Box;
use core::fmt;

use kit::handler;
use kit::lab::Lab;
use kit::platform::{Platform, Vector};
use kit::specimen::{Part, Specimen};

use crate::options::{Options, Workload};
use crate::puppet::{OutcomeReport, Puppet};
use crate::rounds::Rounds;
use crate::table::Table;

/// A test on a machine.
#[derive(Debug)]
pub struct Litmus<P> {
    platform: P,
    lab: Lab,
    running: Running,
}

#[derive(Debug)]
enum Running {
    Rounds(Box<Rounds>),
    Puppet(Puppet),
}

impl<P: Platform> Specimen<P> for Litmus<P> {
    type Options = Options;

    fn new(platform: P, options: &Options, lab: Lab) -> Self {
        Self {
            platform,
            lab,
            running: match options.workload() {
                Workload::Rounds => {
                    let rounds = Rounds::new(options);
                    Running::Rounds(Box::new(rounds.expect("the command line was checked")))
                }
                Workload::Puppet => Running::Puppet(Puppet::new(options, lab)),
            },
        }
    }

    fn platform(&self) -> &P {
        &self.platform
    }

    fn run_cpu(&self) -> Part {
        self.platform.irqs_enable();
        match &self.running {
            Running::Rounds(rounds) => rounds.run(&self.platform, self.lab),
            Running::Puppet(puppet) => puppet.run(&self.platform, &self.lab),
        }
    }

    fn handle(&self, vector: Vector) {
        handler::run(&self.platform, &self.lab, vector, || match &self.running {
            Running::Rounds(rounds) => rounds.handle(&self.platform, vector),
            Running::Puppet(puppet) => puppet.handle(&self.platform, &self.lab, vector),
        });
    }

    fn verdict(&self) -> impl fmt::Display {
        match &self.running {
            Running::Rounds(rounds) => Report::Rounds(rounds.judge(&self.platform, self.lab)),
            Running::Puppet(puppet) => Report::Puppet(puppet.outcome()),
        }
    }
}

impl<P> Litmus<P> {
    /// Where it reports.
    pub fn lab(&self) -> Lab {
        self.lab
    }

    /// The outcomes of all rounds, if the test is run in rounds and they are over.
    pub fn table(&self) -> Option<Table<'_>> {
        match &self.running {
            Running::Rounds(rounds) => rounds.table(),
            Running::Puppet(_) => None,
        }
    }
}

/// What is printed at the end.
enum Report<'a> {
    Rounds(Option<Table<'a>>),
    Puppet(OutcomeReport<'a>),
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rounds(Some(table)) => table.fmt(f),
            Self::Rounds(None) => f.write_str("the rounds are not over"),
            Self::Puppet(outcome) => outcome.fmt(f),
        }
    }
}
