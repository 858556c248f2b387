//! What a run is made of in the end: every option that has a say in it with its value, asked for or not, as a line
//! that asked for all of them would have it. A monitor with a lab is told, so that a report says what it is about.

use core::fmt;

use shared::lab::Transport;

use crate::options::{ApicMode, Options, Program};
use crate::workload::bench::Bench;
use crate::workload::selftest::Selftest;
use crate::workload::stress::Stress;

/// The options of a run, with what was chosen where nothing was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Effective<'a> {
    /// What was asked for.
    pub options: &'a Options,
    /// The mode of the APICs.
    pub apic: ApicMode,
    /// How an IPI to one CPU leaves another.
    pub unicast: Transport,
    /// Number of CPUs.
    pub cpus: usize,
}

impl Effective<'_> {
    /// Calls, operations or rounds, if the workload counts any.
    fn calls(&self) -> Option<u64> {
        let Self { options, cpus, .. } = *self;
        match options.workload {
            Program::Selftest => Some(Selftest::calls(cpus, options).into()),
            Program::Stress => Stress::operations(cpus, options),
            Program::Bench => Some(Bench::rounds(options).into()),
            Program::Puppet => None,
        }
    }
}

impl fmt::Display for Effective<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options {
            workload,
            queue,
            transport,
            eoi,
            round,
            milliseconds,
            seed,
            rules,
            icr_fence,
            self_ipi_by_wire,
            clock_stopped,
            // These are in the names above, or say nothing of the run.
            apic: _,
            calls: _,
            lab: _,
        } = self.options;
        let switch = |is_on| if is_on { "on" } else { "off" };
        write!(
            f,
            "workload={} queue={} transport={} apic={} eoi={}",
            workload.name(),
            queue.name(),
            transport.name(self.unicast),
            self.apic.name(),
            eoi.name()
        )?;
        if *workload == Program::Bench {
            let (to, by, receiver) = (round.to.name(), round.by.name(), round.receiver.name());
            write!(f, " to={to} by={by} receiver={receiver}")?;
        }
        if let Some(calls) = self.calls() {
            write!(f, " calls={calls}")?;
        }
        if let (Program::Stress, Some(milliseconds)) = (workload, milliseconds) {
            write!(f, " for={milliseconds}ms")?;
        }
        write!(f, " seed={seed} hotplug={}", rules.hotplug.name())?;
        let (refused, of) = rules
            .alloc_fail
            .map_or((0, 1), |rate| (rate.refused, rate.of));
        write!(
            f,
            " alloc-fail={refused}/{of} csd-barrier={} mask-check={} icr-fence={} self-ipi={} clock={}",
            switch(rules.csd_barrier),
            switch(rules.mask_check),
            switch(*icr_fence),
            if *self_ipi_by_wire { "wire" } else { "apic" },
            if *clock_stopped { "stopped" } else { "running" }
        )
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use alloc::string::{String, ToString};
    use core::fmt::Write;

    use shared::lab::Words;

    use super::*;
    use crate::route::Choice;

    fn effective(options: &Options) -> String {
        let unicast = match options.transport {
            Choice::One(Transport::Wire) => Transport::Wire,
            Choice::One(Transport::Xapic) => Transport::Xapic,
            _ => Transport::X2apic,
        };
        let apic = match unicast {
            Transport::Xapic => ApicMode::Xapic,
            _ => ApicMode::X2apic,
        };
        let effective = Effective {
            options,
            apic,
            unicast,
            cpus: 16,
        };
        effective.to_string()
    }

    #[test]
    fn a_run_with_what_it_came_to_is_the_same_run() {
        for line in [
            "",
            "workload=stress for=2s queue=llist",
            "workload=stress transport=wire alloc-fail=1/7",
            "workload=bench to=some by=call receiver=running transport=xapic calls=3",
            "workload=puppet self-ipi=wire clock=stopped csd-barrier=off mask-check=off icr-fence=off hotplug=no-stop",
            "seed=0x10 eoi=pv transport=auto",
        ] {
            let line = alloc::format!("lab=0x1000 {line}");
            let first = effective(&Options::parse(&line).unwrap());
            let again = alloc::format!("lab=0x1000 {first}");
            assert_eq!(effective(&Options::parse(&again).unwrap()), first);
        }
        let said = effective(&Options::DEFAULT);
        for word in ["queue=filo", "transport=x2apic", "seed=1", "calls="] {
            assert!(said.contains(word), "{said}");
        }
    }

    #[test]
    fn the_longest_line_has_room_in_a_lab() {
        let line = "lab=0x1000 workload=bench to=nobody by=call receiver=running queue=shared-refs-naive \
                    transport=x2apic-cluster calls=4294967295 seed=18446744073709551615 hotplug=no-stop \
                    alloc-fail=4294967295/4294967295 csd-barrier=off mask-check=off icr-fence=off clock=stopped";
        let said = effective(&Options::parse(line).unwrap());
        let mut words = Words::EMPTY;
        words.write_str(&said).unwrap();
        assert_eq!(words.text(), said.as_bytes());
    }
}
