//! The effective options of a run: every option that affects it with its value, default or not, as
//! a command line that set all of them. They go into the lab, so that a report can say what it is
//! about.

use core::fmt;

use shared::lab::Transport;

use crate::options::{ApicMode, CommandLine, MachineOptions, Options};

/// The options of a run, with what was chosen where the command line says nothing.
#[derive(Clone, Copy, Debug)]
pub struct Effective<'a, O> {
    /// What was asked for.
    pub asked: &'a CommandLine<O>,
    /// The mode of the APICs.
    pub apic: ApicMode,
    /// How an IPI to one CPU leaves another.
    pub unicast: Transport,
    /// Number of CPUs.
    pub cpus: usize,
}

impl<O: Options> fmt::Display for Effective<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MachineOptions {
            transport,
            eoi,
            icr_fence,
            self_ipi_by_wire,
            clock_stopped,
            start_limit_millis,
            // The mode was chosen from `apic`, and `lab` does not affect the run.
            apic: _,
            lab: _,
        } = self.asked.machine;
        write!(
            f,
            "transport={} apic={} eoi={} icr-fence={} self-ipi={} clock={} \
             start-limit={}",
            transport.name(self.unicast),
            self.apic.name(),
            eoi.name(),
            if icr_fence { "on" } else { "off" },
            if self_ipi_by_wire { "wire" } else { "apic" },
            if clock_stopped { "stopped" } else { "running" },
            start_limit_millis
        )?;
        self.asked.guest.write_words(self.cpus, f)
    }
}
