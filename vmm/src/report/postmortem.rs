//! Where the vCPUs of a machine stood when it ended badly, in words: registers and backtrace of the
//! vCPU that died, or a line for every group of vCPUs in the same place. Formats what was read
//! before, and reads nothing itself.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::cpus::CpuSet;
use crate::machine::inspect::{Activity, VcpuDump};
use crate::machine::lifecycle::Stall;
use crate::machine::symbols::Symbols;
use crate::manifest::{Vector, vectors};

/// Most groups of vCPUs whose backtrace is printed.
const TRACED: usize = 8;
/// Most vCPUs for which the exact instruction is shown. With more, only the function is, so that
/// they form groups.
const EXACT: usize = 16;

/// The vCPU that died, in full.
pub fn death(dump: &VcpuDump, symbols: &Symbols) -> String {
    let regs = &dump.regs;
    let mut text = String::new();
    let mut line = |content: std::fmt::Arguments<'_>| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{content}");
    };
    line(format_args!(
        "CPU {} stands at {}",
        dump.vcpu,
        symbols.place(regs.rip)
    ));
    if dump.code.is_empty() {
        line(format_args!("  code  cannot be read"));
    } else {
        let bytes: Vec<_> = dump.code.iter().map(|byte| format!("{byte:02x}")).collect();
        line(format_args!("  code  {}", bytes.join(" ")));
    }
    let mut registers = dump.registers().to_vec();
    registers.extend([("cr2", dump.fault_address), ("cr3", dump.page_tables)]);
    for row in registers.chunks(4) {
        let row: Vec<_> = row
            .iter()
            .map(|(name, value)| format!("{name:<6} {value:016x}"))
            .collect();
        line(format_args!("  {}", row.join("  ")));
    }
    text.push_str(&backtrace(dump, symbols));
    text
}

/// Every vCPU, those in the same place together, with the names of the guest's vectors.
pub fn dumps(dumps: &[VcpuDump], symbols: &Symbols, named: &[Vector]) -> String {
    let mut groups: BTreeMap<String, Vec<&VcpuDump>> = BTreeMap::new();
    for dump in dumps {
        let function = symbols.function(dump.regs.rip);
        let place = match function.filter(|_| dumps.len() > EXACT) {
            Some(function) => function.to_owned(),
            None => symbols.place(dump.regs.rip),
        };
        let description = describe(dump, &place, named);
        groups.entry(description).or_default().push(dump);
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, members)| members.first().map(|first| first.vcpu));
    let mut text = String::new();
    let mut traced = 0;
    for (description, members) in groups {
        let cpus: CpuSet = members.iter().map(|member| member.vcpu).collect();
        let _ = writeln!(text, "{}: {description}", cpus.noun());
        let first = members
            .first()
            .filter(|first| first.activity != Activity::NotStarted);
        if let Some(first) = first.filter(|_| traced < TRACED) {
            traced += 1;
            text.push_str(&backtrace(first, symbols));
        }
    }
    text
}

fn describe(dump: &VcpuDump, place: &str, named: &[Vector]) -> String {
    if dump.activity == Activity::NotStarted {
        return "never started, waiting for SIPI".to_owned();
    }
    let activity = match (dump.stalled, dump.activity) {
        (None, Activity::Halted) => "halted",
        (None, _) => "running",
        (Some(Stall::Paused), Activity::Halted) => "paused in hlt",
        (Some(Stall::Paused), _) => "paused",
        (Some(Stall::Held), _) => "held",
    };
    let interrupts = if dump.interrupts_on() { "on" } else { "off" };
    let mut text = format!("{activity}, interrupts {interrupts}, at {place}");
    for (what, numbers) in [
        ("pending", &dump.requested),
        ("in service", &dump.in_service),
    ] {
        if !numbers.is_empty() {
            let numbers = numbers.iter();
            let told: Vec<_> = numbers
                .map(|number| vectors::name_and_number(named, *number))
                .collect();
            let _ = write!(text, ", {what} {}", told.join(", "));
        }
    }
    text
}

fn backtrace(dump: &VcpuDump, symbols: &Symbols) -> String {
    let mut text = String::new();
    for caller in &dump.callers {
        // The return address of a call at the end of a function lies in the next function.
        let place = symbols.function(caller.wrapping_sub(1)).unwrap_or("?");
        let _ = writeln!(text, "    called from {caller:#x} {place}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvm_bindings::kvm_regs;
    use shared::manifest::VectorRole;

    fn dump(vcpu: u32, activity: Activity, rip: u64) -> VcpuDump {
        VcpuDump {
            vcpu,
            activity,
            stalled: None,
            regs: kvm_regs {
                rip,
                rflags: 0x202,
                ..kvm_regs::default()
            },
            requested: vec![0xf0, 0xfc],
            in_service: Vec::new(),
            code: vec![0x0f, 0x0b],
            callers: vec![0x1234],
            fault_address: 0,
            page_tables: 0,
        }
    }

    #[test]
    fn those_that_stand_alike_share_a_line() {
        let mut all: Vec<_> = (1..300)
            .map(|id| dump(id, Activity::Halted, 0x10))
            .collect();
        all.push(dump(0, Activity::Running, 0x20));
        all.push(VcpuDump {
            stalled: Some(Stall::Held),
            ..dump(301, Activity::Running, 0x20)
        });
        all.push(dump(300, Activity::NotStarted, 0));
        let many = Vector {
            number: 0xfc,
            name: "many".to_owned(),
            role: VectorRole::Call,
            about: String::new(),
        };
        let text = dumps(&all, &Symbols::default(), &[many]);
        let expected = "CPU 0: running, interrupts on, at 0x20, pending 0xf0, many (0xfc)\n    \
            called from 0x1234 ?\n\
            CPUs 1-299: halted, interrupts on, at 0x10, pending 0xf0, many (0xfc)\n    \
            called from 0x1234 ?\n\
            CPU 300: never started, waiting for SIPI\n\
            CPU 301: held, interrupts on, at 0x20, pending 0xf0, many (0xfc)\n    \
            called from 0x1234 ?\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_death_shows_code_registers_and_callers() {
        let text = death(&dump(2, Activity::Running, 0xdead), &Symbols::default());
        assert!(
            text.starts_with("CPU 2 stands at 0xdead\n  code  0f 0b\n"),
            "{text}"
        );
        assert!(text.contains("rip    000000000000dead"), "{text}");
        assert!(text.ends_with("called from 0x1234 ?\n"), "{text}");
    }
}
