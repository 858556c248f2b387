//! What kind of KVM a host has. The canary finds out whether KVM emulates ring 0; otherwise the
//! kernel says which extension the processor has.

use std::fmt;
use std::fs;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What carries out a guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kvm {
    /// The processor, by Intel's VMX.
    Vmx,
    /// The processor, by AMD's SVM.
    Svm,
    /// KVM's own emulator, in ring 0 at least: there is neither, or KVM does not use it.
    Emulated,
    /// Nobody has said.
    Unknown,
}

impl Kvm {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vmx => "vmx",
            Self::Svm => "svm",
            Self::Emulated => "emulated",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Kvm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vmx => "KVM on VMX",
            Self::Svm => "KVM on SVM",
            Self::Emulated => "KVM without VMX or SVM, which emulates ring 0",
            Self::Unknown => "KVM of an unknown kind",
        })
    }
}

impl Kvm {
    /// The kind by the processor's extension, for a KVM that does not emulate.
    pub(super) fn by_processor() -> Self {
        let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self::by_flags(&text)
    }

    fn by_flags(cpuinfo: &str) -> Self {
        let flags = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("flags")?.split_once(':'))
            .map_or("", |(_, flags)| flags);
        let has = |wanted: &str| flags.split_whitespace().any(|flag| flag == wanted);
        match (has("vmx"), has("svm")) {
            (true, false) => Self::Vmx,
            (false, true) => Self::Svm,
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_says_what_it_has() {
        let of = |flags: &str| Kvm::by_flags(&format!("processor\t: 0\nflags\t\t: fpu {flags}\n"));
        assert_eq!(of("vmx smx"), Kvm::Vmx);
        assert_eq!(of("svm"), Kvm::Svm);
        assert_eq!(of("svm_lock"), Kvm::Unknown);
        assert_eq!(Kvm::by_flags(""), Kvm::Unknown);
    }
}
