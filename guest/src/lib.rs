//! The portable part of the guest: the generic-ipi path, its oracles and its workloads.
//!
//! Nothing here knows x86, KVM or a monitor. What it needs of the machine is the one trait
//! [`platform::Platform`]; the image implements it on bare metal (`main.rs`), the tests on threads.

#![cfg_attr(not(any(test, loom, shuttle)), no_std)]

extern crate alloc;

pub mod ipi;
pub mod lab;
pub mod ledger;
pub mod machine;
pub mod options;
pub mod platform;
#[cfg(all(test, shuttle))]
mod schedules;
pub mod sync;
#[cfg(all(test, not(loom)))]
mod threads;
pub mod verdict;
pub mod workload;

use ipi::Ipi;
use lab::Lab;
use machine::Machine;
use options::Options;
use platform::{Platform, Vector};
use verdict::Verdict;
use workload::functions::Workload;
use workload::selftest::Selftest;

/// A whole guest: the path, and the workload that uses it.
#[derive(Debug)]
pub struct Guest<P: Platform> {
    ipi: Ipi<P, Workload>,
    selftest: Selftest,
}

impl<P: Platform> Guest<P> {
    /// The guest that `options` ask for, on every CPU that `lab` describes.
    pub fn new(platform: P, options: &Options, lab: Lab) -> Self {
        let cpus = lab.cpus();
        let machine = Machine::new(platform, cpus, lab);
        Self {
            ipi: Ipi::new(machine, options.queue, Workload::new(cpus)),
            selftest: Selftest::new(cpus, options),
        }
    }

    /// This CPU's part of the workload. Every CPU calls it once, with interrupts enabled; it returns
    /// on all of them when the workload is over.
    pub fn run_cpu(&self) {
        self.selftest.run(&self.ipi);
    }

    /// The interrupt handler of `vector`. Interrupts are off and stay off.
    pub fn handle(&self, vector: Vector) {
        self.ipi.handle(vector);
    }

    /// What became of the calls. Once, when [`Guest::run_cpu`] has returned.
    pub fn verdict(&self) -> Verdict {
        let machine = &self.ipi.machine;
        Verdict::of(machine.lab, machine.platform.timestamp())
    }
}
