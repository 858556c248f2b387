//! The generic-ipi guest: the path, its oracles and its workloads.
//!
//! Nothing here knows x86, KVM or a monitor. What it needs of the machine is the kit's one trait
//! [`Platform`]; the image runs on the kit's bare metal (`main.rs`), the tests on its threads.

#![cfg_attr(not(any(test, loom, shuttle, feature = "census")), no_std)]

extern crate alloc;

#[cfg(any(test, shuttle))]
pub mod checking;
pub mod counters;
pub mod ipi;
pub mod ledger;
pub mod machine;
pub mod manifest;
pub mod options;
pub mod oracle;
pub mod rules;
pub mod vectors;
pub mod verdict;
pub mod workload;

use core::fmt;

use kit::lab::Lab;
use kit::platform::{Platform, Vector};
use kit::specimen::{Fate, Part, Specimen};

use ipi::Ipi;
use machine::Machine;
use options::Options;
use options::Program;
use verdict::Verdict;
use workload::bench::Bench;
use workload::functions::Workload;
use workload::puppet::Puppet;
use workload::selftest::Selftest;
use workload::stress::Stress;

/// A whole guest: the path, and the workload that uses it.
#[derive(Debug)]
pub struct Guest<P: Platform> {
    ipi: Ipi<P, Workload>,
    program: Running,
}

#[derive(Debug)]
enum Running {
    Selftest(Selftest),
    Stress(Stress),
    Puppet(Puppet),
    Bench(Bench),
}

impl<P: Platform> Specimen<P> for Guest<P> {
    type Options = Options;

    fn new(platform: P, options: &Options, lab: Lab) -> Self {
        let cpus = lab.cpus();
        let mut machine = Machine::new(platform, cpus, lab);
        machine.rules = options.rules;
        Self {
            ipi: Ipi::new(machine, options.queue, Workload::new(cpus)),
            program: match options.workload {
                Program::Selftest => Running::Selftest(Selftest::new(cpus, options)),
                Program::Stress => Running::Stress(Stress::new(cpus, options)),
                Program::Puppet => Running::Puppet(Puppet::new(lab)),
                Program::Bench => Running::Bench(Bench::new(cpus, options)),
            },
        }
    }

    /// With `workload=puppet` it can end while CPUs hang in it.
    fn run_cpu(&self) -> Part {
        self.ipi.cpu_starting();
        self.ipi.machine.platform.irqs_enable();
        let fate = match &self.program {
            Running::Selftest(selftest) => {
                selftest.run(&self.ipi);
                Fate::Stay
            }
            Running::Bench(bench) => {
                bench.run(&self.ipi);
                Fate::Stay
            }
            Running::Stress(stress) => stress.run(&self.ipi),
            Running::Puppet(puppet) => return puppet.run(&self.ipi),
        };
        match fate {
            Fate::Stay if self.ipi.machine.this_cpu() == 0 => Part::Over,
            fate => fate.into(),
        }
    }

    fn platform(&self) -> &P {
        &self.ipi.machine.platform
    }

    fn handle(&self, vector: Vector) {
        self.ipi.handle(vector);
    }

    fn verdict(&self) -> impl fmt::Display {
        self.judge()
    }
}

impl<P: Platform> Guest<P> {
    /// What became of the calls. Once, when nothing is in flight.
    pub fn judge(&self) -> Verdict {
        let machine = &self.ipi.machine;
        Verdict::of(machine.lab, machine.platform.timestamp())
    }
}
