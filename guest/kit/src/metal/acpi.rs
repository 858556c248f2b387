//! The CPUs of the machine, as ACPI lists them: RSDP, then XSDT or RSDT, then the MADT (ACPI 6.5,
//! sections 5.2.5 to 5.2.12). Every table's length and checksum are checked before it is used.

use alloc::vec::Vec;

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::cpu::APIC_IDS;
use super::physical;

const RSDP_SIGNATURE: &[u8; 8] = b"RSD PTR ";
/// Length of the RSDP of ACPI 1.0, which the first checksum covers.
const RSDP_V1_LEN: u64 = 20;
/// Where a PC's firmware puts the RSDP, on a multiple of 16.
const RSDP_SEARCH: core::ops::Range<u64> = 0xe_0000..0x10_0000;

#[derive(Clone, Copy, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Rsdp {
    signature: [u8; 8],
    checksum: u8,
    oem: [u8; 6],
    revision: u8,
    rsdt: U32,
    length: U32,
    xsdt: U64,
    extended_checksum: u8,
    reserved: [u8; 3],
}

#[derive(Clone, Copy, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    signature: [u8; 4],
    length: U32,
    revision: u8,
    checksum: u8,
    oem: [u8; 6],
    oem_table: [u8; 8],
    oem_revision: U32,
    creator: U32,
    creator_revision: U32,
}

/// Bytes of the MADT between its header and its entries: local APIC address and flags.
const MADT_FIXED: usize = 8;
const LOCAL_APIC: u8 = 0;
const LOCAL_X2APIC: u8 = 9;
/// Local APIC flags: the CPU may be used.
const ENABLED: u32 = 1;

#[derive(Clone, Copy, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct LocalApic {
    kind: u8,
    length: u8,
    processor: u8,
    id: u8,
    flags: U32,
}

#[derive(Clone, Copy, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct LocalX2apic {
    kind: u8,
    length: u8,
    reserved: U16,
    id: U32,
    flags: U32,
    processor: U32,
}

/// The APIC ids of all enabled CPUs, in the order of the MADT. `rsdp` is 0 if it has to be found.
///
/// # Errors
/// Says what is missing or broken.
pub fn apic_ids(rsdp: u64) -> Result<Vec<u32>, &'static str> {
    let address = match rsdp {
        0 => RSDP_SEARCH
            .step_by(16)
            .find(|address| {
                physical::bytes(*address, 8).is_some_and(|bytes| bytes == RSDP_SIGNATURE)
            })
            .ok_or("ACPI: the start info names no RSDP, and there is none below 1 MiB")?,
        given => given,
    };
    let madt = find_madt(address)?;
    let mut ids = Vec::new();
    let mut seen = [false; APIC_IDS];
    let mut entries = madt
        .get(MADT_FIXED..)
        .ok_or("ACPI: the MADT is too short")?;
    while let [kind, length, ..] = *entries {
        let (entry, rest) = entries
            .split_at_checked(usize::from(length).max(2))
            .ok_or("ACPI: an entry of the MADT is longer than the table")?;
        entries = rest;
        let found = match kind {
            LOCAL_APIC => LocalApic::read_from_prefix(entry)
                .map(|(entry, _)| (entry.id.into(), entry.flags.get()))
                .ok(),
            LOCAL_X2APIC => LocalX2apic::read_from_prefix(entry)
                .map(|(entry, _)| (entry.id.get(), entry.flags.get()))
                .ok(),
            _ => None,
        };
        let Some((id, _)) = found.filter(|(_, flags)| flags & ENABLED != 0) else {
            continue;
        };
        // A CPU may be listed as both kinds. The caller refuses ids beyond the limit.
        let twice = seen
            .get_mut(id as usize)
            .is_some_and(|seen| core::mem::replace(seen, true));
        if !twice {
            ids.push(id);
        }
    }
    Ok(ids)
}

/// The contents of the MADT, which the RSDP at `address` leads to.
fn find_madt(address: u64) -> Result<&'static [u8], &'static str> {
    let start = physical::bytes(address, RSDP_V1_LEN).ok_or("ACPI: the RSDP is not in memory")?;
    if !start.starts_with(RSDP_SIGNATURE) || !sums_to_zero(start) {
        return Err("ACPI: the RSDP is broken");
    }
    let revision = start[15];
    let v2 = (revision >= 2)
        .then(|| physical::read::<Rsdp>(address))
        .flatten();
    let (root, signature, width) = match v2 {
        Some(rsdp) if rsdp.xsdt.get() != 0 => {
            let whole = physical::bytes(address, rsdp.length.get().into());
            if !whole.is_some_and(sums_to_zero) {
                return Err("ACPI: the RSDP is broken");
            }
            (rsdp.xsdt.get(), b"XSDT", 8)
        }
        _ => {
            let rsdt =
                U32::read_from_bytes(&start[16..]).map_err(|_| "ACPI: the RSDP is broken")?;
            (rsdt.get().into(), b"RSDT", 4)
        }
    };
    let pointers = table(root, signature)?.ok_or("ACPI: the RSDP does not lead to a root table")?;
    for pointer in pointers.chunks_exact(width) {
        let address = pointer
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(*byte));
        if let Some(madt) = table(address, b"APIC")? {
            return Ok(madt);
        }
    }
    Err("ACPI: there is no MADT, so the CPUs cannot be found")
}

/// What follows the header of the table at `address`, or `None` if it has another signature.
fn table(address: u64, signature: &[u8; 4]) -> Result<Option<&'static [u8]>, &'static str> {
    let header: Header = physical::read(address).ok_or("ACPI: a table is not in memory")?;
    if header.signature != *signature {
        return Ok(None);
    }
    let whole = physical::bytes(address, header.length.get().into())
        .filter(|whole| whole.len() >= size_of::<Header>())
        .ok_or("ACPI: a table has a length that cannot be")?;
    if !sums_to_zero(whole) {
        return Err("ACPI: a table has a wrong checksum");
    }
    Ok(Some(&whole[size_of::<Header>()..]))
}

fn sums_to_zero(bytes: &[u8]) -> bool {
    bytes
        .iter()
        .fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
        == 0
}
