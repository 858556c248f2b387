//! The guest as the kit has it: the path, and the workload that uses it.

use core::fmt;

use kit::handler;
use kit::lab::Lab;
use kit::options::Options as _;
use kit::platform::{Platform, Vector};
use kit::specimen::{Next, Part, Specimen};

use crate::ipi::Ipi;
use crate::machine::Machine;
use crate::options::{Options, Workload};
use crate::summary::RunSummary;
use crate::workload::bench::{Bench, Measured};
use crate::workload::functions::LedgerFunctions;
use crate::workload::puppet::Puppet;
use crate::workload::selftest::Selftest;
use crate::workload::stress::Stress;

/// A whole guest: the path, and the workload that uses it.
#[derive(Debug)]
pub struct Guest<P: Platform> {
    ipi: Ipi<P, LedgerFunctions>,
    running: Running,
}

#[derive(Debug)]
enum Running {
    Selftest(Selftest),
    Stress(Stress),
    Puppet(Puppet),
    Bench(Bench),
}

/// What the guest prints at its end.
struct LastWords<'guest> {
    judged: RunSummary,
    measured: Option<&'guest Measured>,
}

impl fmt::Display for LastWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.judged)?;
        self.measured
            .map_or(Ok(()), |measured| write!(f, "{measured}"))
    }
}

impl<P: Platform> Specimen<P> for Guest<P> {
    type Options = Options;

    fn new(platform: P, options: &Options, lab: Lab) -> Self {
        let cpus = lab.cpus();
        let mut machine = Machine::new(platform, cpus, lab);
        machine.rules = options.rules;
        let ipi = Ipi::new(machine, options.queue, LedgerFunctions::new(cpus));
        ipi.begin_with(options.cpus_at_boot(cpus));
        Self {
            ipi,
            running: match options.workload {
                Workload::Selftest => Running::Selftest(Selftest::new(cpus, options)),
                Workload::Stress => Running::Stress(Stress::new(cpus, options)),
                Workload::Puppet => Running::Puppet(Puppet::new(lab)),
                Workload::Bench => Running::Bench(Bench::new(cpus, options)),
            },
        }
    }

    /// With `workload=puppet` the run can end while CPUs hang in it.
    fn run_cpu(&self) -> Part {
        self.ipi.cpu_starting();
        self.ipi.machine.platform.irqs_enable();
        let next = match &self.running {
            Running::Selftest(selftest) => {
                selftest.run(&self.ipi);
                Next::Stay
            }
            Running::Bench(bench) => {
                bench.run(&self.ipi);
                Next::Stay
            }
            Running::Stress(stress) => stress.run(&self.ipi),
            Running::Puppet(puppet) => return puppet.run(&self.ipi),
        };
        match next {
            Next::Stay if self.ipi.machine.this_cpu() == 0 => Part::Over,
            next => next.into(),
        }
    }

    fn platform(&self) -> &P {
        &self.ipi.machine.platform
    }

    fn handle(&self, vector: Vector) {
        let machine = &self.ipi.machine;
        handler::run(&machine.platform, &machine.lab, vector, || {
            self.ipi.serve(vector);
            if let Running::Puppet(puppet) = &self.running {
                puppet.handle(&self.ipi, vector);
            }
        });
    }

    fn verdict(&self) -> impl fmt::Display {
        let measured = match &self.running {
            Running::Bench(bench) => Some(bench.measured()),
            _ => None,
        };
        LastWords {
            judged: self.judge(),
            measured,
        }
    }
}

impl<P: Platform> Guest<P> {
    /// What became of the calls. To be called once, when nothing is in flight.
    pub fn judge(&self) -> RunSummary {
        let machine = &self.ipi.machine;
        RunSummary::of(machine.lab, machine.platform.timestamp())
    }
}
