//! The portable part of the guest: the generic-ipi path, its oracles and its workloads.
//!
//! Nothing here knows x86, KVM or a monitor. What it needs of the machine is the one trait
//! [`platform::Platform`]; the image implements it on bare metal (`main.rs`), the tests on threads.

#![cfg_attr(not(any(test, loom, shuttle, feature = "census")), no_std)]

extern crate alloc;

pub mod counters;
pub mod effective;
pub mod ipi;
pub mod lab;
pub mod ledger;
pub mod machine;
pub mod manifest;
pub mod options;
#[cfg(all(test, not(any(loom, shuttle))))]
mod oracles;
#[cfg(all(test, loom))]
mod orderings;
pub mod platform;
pub mod probe;
pub mod route;
pub mod rules;
#[cfg(all(test, shuttle))]
mod schedules;
#[cfg(shuttle)]
pub mod search;
pub mod sync;
#[cfg(any(shuttle, all(test, not(loom))))]
pub mod threads;
pub mod trace;
pub mod verdict;
pub mod workload;

use ipi::Ipi;
use ipi::hotplug::Fate;
use lab::Lab;
use machine::Machine;
use options::Options;
use options::Program;
use platform::{Platform, Vector};
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

/// What a CPU has to do when its part of the workload has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Part {
    /// Nothing: it is offline, interrupts off, until it is started again.
    Left,
    /// Nothing but take interrupts.
    Done,
    /// The workload is over, and this CPU, of all, says how it went.
    Over,
}

impl<P: Platform> Guest<P> {
    /// The guest that `options` ask for, on every CPU that `lab` describes.
    pub fn new(platform: P, options: &Options, lab: Lab) -> Self {
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

    /// This CPU's part of the workload. Every CPU calls it when it has started. It returns on all of them
    /// when the workload is over, on one with [`Part::Over`]; but `workload=puppet` can end while CPUs hang
    /// in it.
    ///
    /// With [`Part::Left`] it returns on a CPU that goes offline. The platform parks the CPU, and has it
    /// call this again when [`Platform::start_cpu`] has started it.
    pub fn run_cpu(&self) -> Part {
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
            Fate::Leave => Part::Left,
            Fate::Stay if self.ipi.machine.this_cpu() == 0 => Part::Over,
            Fate::Stay => Part::Done,
        }
    }

    /// The machine it runs on.
    pub fn platform(&self) -> &P {
        &self.ipi.machine.platform
    }

    /// The interrupt handler of `vector`. Interrupts are off and stay off.
    pub fn handle(&self, vector: Vector) {
        self.ipi.handle(vector);
    }

    /// What became of the calls. Once, when [`Guest::run_cpu`] has returned with [`Part::Over`].
    pub fn verdict(&self) -> Verdict {
        let machine = &self.ipi.machine;
        Verdict::of(machine.lab, machine.platform.timestamp())
    }
}
