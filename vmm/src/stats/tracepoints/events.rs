//! What is counted of each vCPU: which tracepoints, and which of their events by name. Names and
//! numbers only; whether a host has them, and whether they can be believed, is found out in
//! [`crate::stats::sources`].

/// The instruction set extension whose exit reasons `kvm_exit` reports, as in its field `isa`
/// (Linux, `arch/x86/include/uapi/asm/kvm.h`, `KVM_ISA_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Isa {
    /// Intel VMX.
    Vmx = 1,
    /// AMD SVM.
    Svm = 2,
}

impl Isa {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Vmx, Self::Svm];

    /// The exit reason of `cpuid`, which always exits.
    pub fn cpuid(self) -> u32 {
        match self {
            Self::Vmx => 10,
            Self::Svm => 0x72,
        }
    }

    /// The exit reasons that sending, handling or waiting for an IPI can cause, with KVM's names
    /// for them. All others are counted together, as the difference to the total.
    fn reasons(self) -> &'static [(u32, &'static str)] {
        match self {
            // SDM Vol. 3D, appendix C; Linux, `arch/x86/include/uapi/asm/vmx.h`.
            Self::Vmx => &[
                (1, "EXTERNAL_INTERRUPT"),
                (7, "INTERRUPT_WINDOW"),
                (12, "HLT"),
                (18, "VMCALL"),
                (30, "IO_INSTRUCTION"),
                (32, "MSR_WRITE"),
                (40, "PAUSE_INSTRUCTION"),
                (44, "APIC_ACCESS"),
                (45, "EOI_INDUCED"),
                (48, "EPT_VIOLATION"),
                (49, "EPT_MISCONFIG"),
                (52, "PREEMPTION_TIMER"),
                (56, "APIC_WRITE"),
                (77, "TDCALL"),
            ],
            // AMD64 APM Vol. 2, appendix C; Linux, `arch/x86/include/uapi/asm/svm.h`.
            Self::Svm => &[
                (0x60, "interrupt"),
                (0x64, "vintr"),
                (0x74, "iret"),
                (0x77, "pause"),
                (0x78, "hlt"),
                (0x7b, "io"),
                (0x7c, "msr"),
                (0x81, "hypercall"),
                (0xa6, "idle-halt"),
                (0x400, "npf"),
                (0x401, "avic_incomplete_ipi"),
                (0x402, "avic_unaccelerated_access"),
                (0x403, "vmgexit"),
            ],
        }
    }
}

/// Exit reasons of a write to the ICR of an xAPIC, which is in memory, with the names of both
/// manufacturers. Other accesses can have the same reasons, but hardly occur once everything is
/// warm.
pub const SENDING_BY_XAPIC: [&str; 6] = [
    "APIC_ACCESS",
    "APIC_WRITE",
    "EPT_MISCONFIG",
    "npf",
    "avic_incomplete_ipi",
    "vmgexit",
];

/// Exit reasons of a write to the ICR of an x2APIC, which is an MSR.
pub const SENDING_BY_X2APIC: [&str; 5] = [
    "MSR_WRITE",
    "APIC_WRITE",
    "msr",
    "avic_incomplete_ipi",
    "vmgexit",
];

/// Exit reasons of a hypercall that asks KVM to send.
pub const SENDING_BY_HYPERCALL: [&str; 2] = ["VMCALL", "hypercall"];

/// Exits of all reasons.
pub const EXIT: &str = "kvm_exit";
/// Accesses to MSRs.
pub const MSR: &str = "kvm_msr";
/// Commands to a local APIC that KVM carries out.
pub const APIC_IPI: &str = "kvm_apic_ipi";
/// Interrupts that a local APIC accepts. It is hit on the sender's thread.
pub const ACCEPT_IRQ: &str = "kvm_apic_accept_irq";
/// Ends of interrupts that KVM sees.
pub const EOI: &str = "kvm_eoi";

/// The MSR of an x2APIC's interrupt command register (SDM Vol. 3A, table 11-6).
pub const X2APIC_ICR: u32 = 0x830;
/// The MSR of its EOI register.
pub const X2APIC_EOI: u32 = 0x80b;
/// The MSR of its self-IPI register.
const X2APIC_SELF_IPI: u32 = 0x83f;

/// Events of one tracepoint that are counted together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The tracepoint.
    pub tracepoint: &'static str,
    /// Which of its events; `None` for all.
    pub what: Option<&'static str>,
    /// The filter that selects them, if it is not all of them.
    pub filter: Option<String>,
}

impl Event {
    fn all_of(tracepoint: &'static str) -> Self {
        Self {
            tracepoint,
            what: None,
            filter: None,
        }
    }

    /// The name of its counts in reports: the tracepoint, and which of its events.
    pub fn label(&self) -> String {
        match self.what {
            Some(what) => format!("{} {what}", self.tracepoint),
            None => self.tracepoint.to_owned(),
        }
    }
}

/// A filter for exits of one reason.
pub fn exit_filter(isa: Isa, reason: u32) -> String {
    format!("isa == {} && exit_reason == {reason:#x}", isa as u32)
}

/// A filter for writes of one MSR.
pub fn msr_filter(msr: u32) -> String {
    format!("write == 1 && ecx == {msr:#x}")
}

/// The events that are counted where `kvm_exit` reports `isa`; `None` if it is not known which.
pub fn counted(isa: Option<Isa>) -> Vec<Event> {
    let mut events = vec![Event::all_of(EXIT)];
    if let Some(isa) = isa {
        let reasons = isa.reasons().iter().map(|(number, name)| Event {
            tracepoint: EXIT,
            what: Some(name),
            filter: Some(exit_filter(isa, *number)),
        });
        events.extend(reasons);
    }
    let msrs = [
        ("icr", X2APIC_ICR),
        ("self-ipi", X2APIC_SELF_IPI),
        ("eoi", X2APIC_EOI),
    ];
    events.extend(msrs.map(|(name, msr)| Event {
        tracepoint: MSR,
        what: Some(name),
        filter: Some(msr_filter(msr)),
    }));
    events.extend([APIC_IPI, ACCEPT_IRQ, EOI].map(Event::all_of));
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of `name` in the kernel's table of names, which is somewhere in `text`.
    fn number(text: &str, name: &str) -> Option<u32> {
        let (before, _) = text.split_once(&format!(", \"{name}\" }}"))?;
        let (_, number) = before.rsplit_once("{ ")?;
        match number.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None => number.parse().ok(),
        }
    }

    #[test]
    fn reasons_have_the_kernels_names() {
        let text = include_str!("formats/kvm_exit-6.18");
        for isa in Isa::ALL {
            for (reason, name) in isa.reasons() {
                assert_eq!(number(text, name), Some(*reason), "{name}");
            }
            let cpuid = [number(text, "CPUID"), number(text, "cpuid")];
            assert!(cpuid.contains(&Some(isa.cpuid())));
        }
    }

    #[test]
    fn what_sends_is_counted() {
        let sending = [
            &SENDING_BY_XAPIC[..],
            &SENDING_BY_X2APIC,
            &SENDING_BY_HYPERCALL,
        ]
        .concat();
        for name in sending {
            let mut events = Isa::ALL.into_iter().flat_map(|isa| counted(Some(isa)));
            assert!(events.any(|event| event.what == Some(name)), "{name}");
        }
    }

    #[test]
    fn nothing_is_counted_twice() {
        for isa in [None, Some(Isa::Vmx), Some(Isa::Svm)] {
            let events = counted(isa);
            for (number, event) in events.iter().enumerate() {
                let label = event.label();
                let same = |other: &Event| other.label() == label || other == event;
                assert!(!events[..number].iter().any(same), "{label}");
            }
        }
    }
}
