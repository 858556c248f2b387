//! The CPUs of the machine, as ACPI lists them, and how it is turned off: RSDP, then XSDT or RSDT, then
//! the MADT and the FADT (ACPI 6.5, sections 5.2.5 to 5.2.12). Every table's length and checksum are checked before it is used.

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
    let madt = find(rsdp, b"APIC")?;
    let madt = madt.ok_or("ACPI: there is no MADT, so the CPUs cannot be found")?;
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

/// A write that turns the machine off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerOff {
    /// The port.
    pub port: u16,
    /// What is written.
    pub value: u16,
    /// Whether the port has 16 bits, and not 8.
    pub is_wide: bool,
}

/// How the machine is turned off: by the sleep control register where there is no fixed hardware, else
/// by the first control block of power management (ACPI 6.5, 4.8.3). `rsdp` as in [`apic_ids`]; `None`
/// if the tables do not say.
pub fn power_off(rsdp: u64) -> Option<PowerOff> {
    // Places in the FADT, behind the header (table 5.9), and its flag that there is no fixed hardware.
    const DSDT: usize = 40 - 36;
    const PM1A_CONTROL: usize = 64 - 36;
    const FLAGS: usize = 112 - 36;
    const X_DSDT: usize = 140 - 36;
    const SLEEP_CONTROL: usize = 248 - 36;
    const HARDWARE_REDUCED: u32 = 1 << 20;
    let fadt = find(rsdp, b"FACP").ok().flatten()?;
    let word = |at: usize| Some(U32::read_from_prefix(fadt.get(at..)?).ok()?.0.get());
    let long = |at: usize| Some(U64::read_from_prefix(fadt.get(at..)?).ok()?.0.get());
    let dsdt = long(X_DSDT).filter(|address| *address != 0);
    let dsdt = table(dsdt.or_else(|| word(DSDT).map(u64::from))?, b"DSDT");
    let off = sleep_type(dsdt.ok().flatten()?)?;
    let is_reduced = word(FLAGS)? & HARDWARE_REDUCED != 0;
    let port = if is_reduced {
        long(SLEEP_CONTROL)?
    } else {
        word(PM1A_CONTROL)?.into()
    };
    let (value, is_wide) = match is_reduced {
        true => (off << 2 | 1 << 5, false),
        false => (off << 10 | 1 << 13, true),
    };
    let port = u16::try_from(port).ok().filter(|port| *port != 0)?;
    Some(PowerOff {
        port,
        value,
        is_wide,
    })
}

/// The type of the sleep state S5 in the code of the DSDT: the first element of the package `_S5`. Finds
/// it by its bytes (ACPI 6.5, 20.2), since nothing here executes AML.
fn sleep_type(code: &[u8]) -> Option<u16> {
    const PACKAGE: u8 = 0x12;
    const BYTE: u8 = 0x0a;
    let name = code.windows(4).position(|window| window == b"_S5_")?;
    let [PACKAGE, rest @ ..] = code.get(name + 4..)? else {
        return None;
    };
    // The length of the package has up to three bytes more; then comes the number of its elements.
    let more = usize::from(rest.first()? >> 6);
    match *rest.get(1 + more + 1..)? {
        [BYTE, value, ..] if value < 8 => Some(value.into()),
        [value @ (0 | 1), ..] => Some(value.into()),
        _ => None,
    }
}

/// The contents of the table with this signature; `None` if there is none. `rsdp` is 0 if it has to be
/// found.
fn find(rsdp: u64, wanted: &[u8; 4]) -> Result<Option<&'static [u8]>, &'static str> {
    let address = match rsdp {
        0 => RSDP_SEARCH
            .step_by(16)
            .find(|address| {
                physical::bytes(*address, 8).is_some_and(|bytes| bytes == RSDP_SIGNATURE)
            })
            .ok_or("ACPI: the start info names no RSDP, and there is none below 1 MiB")?,
        given => given,
    };
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
        if let Some(found) = table(address, wanted)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
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
