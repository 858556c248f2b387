//! The portable part of the guest: the generic-ipi path, its oracles and its workloads.
//!
//! Nothing here knows x86, KVM or a monitor. What it needs of the machine is the one trait
//! [`platform::Platform`]; the image implements it on bare metal (`main.rs`), the tests on threads.

#![cfg_attr(not(any(test, loom, shuttle, feature = "census")), no_std)]

extern crate alloc;

pub mod ipi;
pub mod lab;
pub mod ledger;
pub mod machine;
pub mod options;
#[cfg(all(test, not(any(loom, shuttle))))]
mod oracles;
#[cfg(all(test, loom))]
mod orderings;
pub mod platform;
mod probe;
pub mod rules;
#[cfg(all(test, shuttle))]
mod schedules;
pub mod sync;
#[cfg(all(test, not(loom)))]
mod threads;
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
                Program::Puppet => Running::Puppet(Puppet::new(cpus)),
            },
        }
    }

    /// This CPU's part of the workload. Every CPU calls it when it has started; with
    /// [`Fate::Stay`] it returns on all of them when the workload is over.
    ///
    /// With [`Fate::Leave`] it returns on a CPU that goes offline, interrupts off. The platform parks
    /// the CPU, and has it call this again when [`Platform::start_cpu`] has started it.
    pub fn run_cpu(&self) -> Fate {
        self.ipi.cpu_starting();
        self.ipi.machine.platform.irqs_enable();
        match &self.program {
            Running::Selftest(selftest) => {
                selftest.run(&self.ipi);
                Fate::Stay
            }
            Running::Stress(stress) => stress.run(&self.ipi),
            Running::Puppet(puppet) => puppet.run(&self.ipi),
        }
    }

    /// The interrupt handler of `vector`. Interrupts are off and stay off.
    pub fn handle(&self, vector: Vector) {
        self.ipi.handle(vector);
    }

    /// The hardware.
    pub fn platform(&self) -> &P {
        &self.ipi.machine.platform
    }

    /// Whether it is this CPU that has to say what became of the calls, when [`Guest::run_cpu`] has
    /// returned on it.
    pub fn concludes_here(&self) -> bool {
        let judge = match &self.program {
            Running::Selftest(_) | Running::Stress(_) => 0,
            Running::Puppet(puppet) => puppet.judge(),
        };
        self.ipi.machine.this_cpu() == judge
    }

    /// What became of the calls. Once, on the CPU that [`Guest::concludes_here`].
    pub fn verdict(&self) -> Verdict {
        let machine = &self.ipi.machine;
        Verdict::of(machine.lab, machine.platform.timestamp())
    }
}
