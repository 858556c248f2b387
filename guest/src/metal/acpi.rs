//! Which CPUs there are: the MADT, found from the RSDP.
//!
//! Source: ACPI Specification 6.5, 5.2.5 (RSDP), 5.2.7 and 5.2.8 (RSDT, XSDT), 5.2.12 (MADT). Tables
//! are the monitor's, and checked: length, checksum, and that they lie in mapped memory.

use alloc::vec::Vec;
use core::fmt;
use core::slice;

use super::boot::{MAPPED_END, StartInfo};

/// APIC ids of the CPUs, by CPU index. The first is the CPU that booted.
#[derive(Debug)]
pub struct Cpus {
    apic_ids: Vec<u32>,
}

impl Cpus {
    /// Number of CPUs.
    pub fn len(&self) -> usize {
        self.apic_ids.len()
    }

    /// APIC ids in the order of CPU indices.
    pub fn apic_ids(&self) -> &[u32] {
        &self.apic_ids
    }
}

/// Largest APIC id this guest can address; KVM's own limit (`KVM_MAX_VCPU_IDS` - 1).
pub const MAX_APIC_ID: u32 = 4095;

/// Why the CPUs could not be found.
#[derive(Clone, Copy, Debug)]
pub enum AcpiError {
    /// No RSDP in the start info, and none in the BIOS area.
    NoRsdp,
    /// The table at this address is not whole.
    BadTable(u64),
    /// No MADT among the tables.
    NoMadt,
    /// More CPUs than masks hold.
    TooMany,
    /// An APIC id beyond [`MAX_APIC_ID`].
    ApicId(u32),
    /// The CPU that booted is not among them.
    NoBootCpu(u32),
}

impl fmt::Display for AcpiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRsdp => f.write_str("ACPI: the monitor gave no RSDP"),
            Self::BadTable(address) => {
                write!(
                    f,
                    "ACPI: the table at {address:#x} is damaged or out of reach"
                )
            }
            Self::NoMadt => f.write_str("ACPI: no MADT, so no CPUs can be found"),
            Self::TooMany => {
                write!(f, "ACPI: more than {} CPUs", guest::sync::mask::MAX_CPUS)
            }
            Self::ApicId(id) => write!(f, "ACPI: APIC id {id} is beyond {MAX_APIC_ID}"),
            Self::NoBootCpu(id) => {
                write!(f, "ACPI: the MADT does not name this CPU, APIC id {id}")
            }
        }
    }
}

const RSDP_SIGNATURE: &[u8] = b"RSD PTR ";
const HEADER: usize = 36;

/// The CPUs the MADT names as enabled, the one with `boot_apic_id` first.
pub fn cpus(start: &StartInfo, boot_apic_id: u32) -> Result<Cpus, AcpiError> {
    let madt = madt(start)?;
    let mut apic_ids = Vec::with_capacity(64);
    // After the header: the LAPIC's address, and flags; then the entries.
    let mut rest = madt.get(HEADER + 8..).unwrap_or(&[]);
    while let [kind, length, ..] = *rest {
        let Some(entry) = rest
            .get(..usize::from(length))
            .filter(|entry| entry.len() >= 2)
        else {
            break;
        };
        rest = &rest[entry.len()..];
        if let Some(id) = enabled_cpu(kind, entry) {
            if id > MAX_APIC_ID {
                return Err(AcpiError::ApicId(id));
            }
            apic_ids.push(id);
        }
    }
    if apic_ids.len() > guest::sync::mask::MAX_CPUS {
        return Err(AcpiError::TooMany);
    }
    let boot = apic_ids
        .iter()
        .position(|id| *id == boot_apic_id)
        .ok_or(AcpiError::NoBootCpu(boot_apic_id))?;
    apic_ids[..=boot].rotate_right(1);
    Ok(Cpus { apic_ids })
}

/// The APIC id, if `entry` is one of a CPU that is there: type 0, processor local APIC, or type 9,
/// processor local x2APIC.
fn enabled_cpu(kind: u8, entry: &[u8]) -> Option<u32> {
    let (id, flags) = match (kind, entry.len()) {
        (0, 8..) => (u32::from(entry[3]), u32_at(entry, 4)),
        (9, 16..) => (u32_at(entry, 4), u32_at(entry, 8)),
        _ => return None,
    };
    (flags & 1 != 0).then_some(id)
}

fn madt(start: &StartInfo) -> Result<&'static [u8], AcpiError> {
    let rsdp = match start.rsdp {
        0 => scan_for_rsdp().ok_or(AcpiError::NoRsdp)?,
        address => address,
    };
    let bytes = memory(rsdp, 36)?;
    if !bytes.starts_with(RSDP_SIGNATURE) || !sums_to_zero(&bytes[..20]) {
        return Err(AcpiError::BadTable(rsdp));
    }
    // Revision 2 brought the XSDT, with addresses of 64 bits.
    let (root, width) = match (bytes[15], u64_at(bytes, 24)) {
        (2.., xsdt) if xsdt != 0 => (xsdt, 8),
        _ => (u64::from(u32_at(bytes, 16)), 4),
    };
    for entry in table(root)?[HEADER..].chunks_exact(width) {
        let address = match width {
            8 => u64_at(entry, 0),
            _ => u64::from(u32_at(entry, 0)),
        };
        if memory(address, HEADER)?.starts_with(b"APIC") {
            return table(address);
        }
    }
    Err(AcpiError::NoMadt)
}

/// ACPI 6.5, 5.2.5.1: on a 16-byte boundary of the BIOS area.
fn scan_for_rsdp() -> Option<u64> {
    (0xe_0000..0x10_0000).step_by(16).find(|address| {
        memory(*address, 20)
            .is_ok_and(|bytes| bytes.starts_with(RSDP_SIGNATURE) && sums_to_zero(bytes))
    })
}

/// The whole table at `address`, checksum verified.
fn table(address: u64) -> Result<&'static [u8], AcpiError> {
    let length = u32_at(memory(address, HEADER)?, 4) as usize;
    let bytes = memory(address, length)?;
    if length < HEADER || !sums_to_zero(bytes) {
        return Err(AcpiError::BadTable(address));
    }
    Ok(bytes)
}

fn memory(address: u64, length: usize) -> Result<&'static [u8], AcpiError> {
    let end = address.checked_add(length as u64);
    if address < 0x1000 || end.is_none_or(|end| end > MAPPED_END) {
        return Err(AcpiError::BadTable(address));
    }
    // SAFETY: the range is mapped, and nothing is ever written there: tables lie in memory the
    // monitor reserved, or in the BIOS area, out of the heap.
    Ok(unsafe { slice::from_raw_parts(address as *const u8, length) })
}

fn sums_to_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)) == 0
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
