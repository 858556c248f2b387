//! CPUID as each vCPU sees it: what KVM supports, with this vCPU's place in the topology and the
//! frequencies KVM knows filled in. Works on tables only and calls no KVM.

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

/// Leaf with the frequencies, as VMware and others define it.
const TIMING: u32 = 0x4000_0010;
const HYPERVISOR: u32 = 0x4000_0000;
/// Frequency of the local APIC's bus in KVM.
const APIC_BUS_KHZ: u32 = 1_000_000;

const LEAF1_X2APIC: u32 = 1 << 21;
const LEAF1_TSC_DEADLINE: u32 = 1 << 24;
const LEAF1_HYPERVISOR: u32 = 1 << 31;
const LEAF1_HTT: u32 = 1 << 28;

/// What is the same for all vCPUs of a machine.
#[derive(Debug, Clone, Copy)]
pub struct Features {
    /// Number of vCPUs.
    pub vcpus: u32,
    /// Whether KVM emulates the TSC-deadline mode of the local APIC's timer.
    pub tsc_deadline: bool,
    /// Frequency of the TSC in kHz, if KVM knows it.
    pub tsc_khz: Option<u32>,
}

/// A CPUID table that would be too long for KVM.
#[derive(Debug, thiserror::Error)]
#[error("KVM's CPUID table has no room for the entries of this machine")]
pub struct CpuidFull;

/// The table of vCPU `id`, made from the one KVM supports.
///
/// # Errors
/// [`CpuidFull`] if there are more entries than KVM takes.
pub fn for_vcpu(supported: &CpuId, features: Features, id: u32) -> Result<CpuId, CpuidFull> {
    let mut table: Vec<kvm_cpuid_entry2> = supported
        .as_slice()
        .iter()
        // Topology is described anew below, whatever the host's looks like.
        .filter(|entry| !matches!(entry.function, 0xb | 0x1f | TIMING))
        .copied()
        .collect();
    let extended_topology = supported
        .as_slice()
        .iter()
        .any(|entry| entry.function == 0x1f);
    for entry in &mut table {
        patch(entry, features, id);
    }
    table.extend(topology(0xb, features.vcpus, id));
    if extended_topology {
        table.extend(topology(0x1f, features.vcpus, id));
    }
    if let Some(khz) = features.tsc_khz {
        table.push(kvm_cpuid_entry2 {
            function: TIMING,
            eax: khz,
            ebx: APIC_BUS_KHZ,
            ..kvm_cpuid_entry2::default()
        });
    }
    CpuId::from_entries(&table).map_err(|_| CpuidFull)
}

fn patch(entry: &mut kvm_cpuid_entry2, features: Features, id: u32) {
    let last = features.vcpus - 1;
    match entry.function {
        0 => entry.eax = entry.eax.max(0xb),
        1 => {
            let logical = features.vcpus.next_power_of_two().min(255);
            entry.ebx = entry.ebx & 0xffff | logical << 16 | (id & 0xff) << 24;
            entry.ecx |= LEAF1_X2APIC | LEAF1_HYPERVISOR;
            set(&mut entry.ecx, LEAF1_TSC_DEADLINE, features.tsc_deadline);
            set(&mut entry.edx, LEAF1_HTT, features.vcpus > 1);
        }
        // Caches: none shared between vCPUs, all vCPUs in one package.
        4 if entry.eax & 0x1f != 0 => {
            entry.eax = entry.eax & 0x3fff | last.min(63) << 26;
        }
        HYPERVISOR if features.tsc_khz.is_some() => entry.eax = entry.eax.max(TIMING),
        0x8000_0008 => entry.ecx = last.min(255) | id_bits(features.vcpus) << 12,
        0x8000_001e => {
            entry.eax = id;
            entry.ebx = id & 0xff;
            entry.ecx = 0;
        }
        _ => {}
    }
}

/// One thread per core, all cores in one package, ended by an empty level.
fn topology(function: u32, vcpus: u32, id: u32) -> [kvm_cpuid_entry2; 3] {
    const THREAD: u32 = 1 << 8;
    const CORE: u32 = 2 << 8;
    let level = |index, kind: u32, shift, count| kvm_cpuid_entry2 {
        function,
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: count,
        ecx: kind | index,
        edx: id,
        ..kvm_cpuid_entry2::default()
    };
    [
        level(0, THREAD, 0, 1),
        level(1, CORE, id_bits(vcpus), vcpus),
        level(2, 0, 0, 0),
    ]
}

/// How many low bits of an APIC id tell the vCPUs of the package apart.
fn id_bits(vcpus: u32) -> u32 {
    vcpus.next_power_of_two().trailing_zeros()
}

fn set(register: &mut u32, bit: u32, value: bool) {
    if value {
        *register |= bit;
    } else {
        *register &= !bit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(function: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 {
            function,
            ..kvm_cpuid_entry2::default()
        }
    }

    #[test]
    fn a_vcpu_finds_its_own_id_and_the_frequencies() {
        let host = CpuId::from_entries(&[leaf(0), leaf(1), leaf(0xb), leaf(HYPERVISOR)]).unwrap();
        let features = Features {
            vcpus: 300,
            tsc_deadline: true,
            tsc_khz: Some(2_000_000),
        };
        let table = for_vcpu(&host, features, 299).unwrap();
        let find = |function, index| {
            *table
                .as_slice()
                .iter()
                .find(|entry| entry.function == function && entry.index == index)
                .unwrap()
        };
        assert_eq!(find(1, 0).ebx >> 24, 299 & 0xff);
        assert_ne!(find(1, 0).ecx & LEAF1_TSC_DEADLINE, 0);
        assert_eq!((find(0xb, 0).edx, find(0xb, 1).edx), (299, 299));
        assert_eq!((find(0xb, 1).eax, find(0xb, 1).ebx), (9, 300));
        assert_eq!(find(HYPERVISOR, 0).eax, TIMING);
        assert_eq!(
            (find(TIMING, 0).eax, find(TIMING, 0).ebx),
            (2_000_000, APIC_BUS_KHZ)
        );
        assert!(find(0, 0).eax >= 0xb);
    }

    #[test]
    fn what_kvm_lacks_is_not_promised() {
        let mut one = leaf(1);
        one.ecx = LEAF1_TSC_DEADLINE;
        one.edx = LEAF1_HTT;
        let host = CpuId::from_entries(&[one]).unwrap();
        let features = Features {
            vcpus: 1,
            tsc_deadline: false,
            tsc_khz: None,
        };
        let table = for_vcpu(&host, features, 0).unwrap();
        let entries = table.as_slice();
        assert!(entries.iter().all(|entry| entry.function != TIMING));
        assert_eq!(entries[0].ecx & LEAF1_TSC_DEADLINE, 0);
        assert_eq!(entries[0].edx & LEAF1_HTT, 0);
        assert!(entries.iter().all(|entry| entry.function != 0x1f));
    }
}
