//! The ACPI tables through which a guest finds its CPUs and its console, and turns the machine off:
//! RSDP, XSDT, FADT, MADT and DSDT. Builds bytes for a given address and writes nothing itself.

use acpi_tables::fadt::{FADT, FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, AmlSink, aml};
use shared::ports;
use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::{Immutable, IntoBytes};

use super::devices::power;

/// The interrupt of COM1, a pin of the IOAPIC, as on a PC.
pub const COM1_INTERRUPT: u32 = 4;

const SDT_HEADER: u32 = 36;
const OEM: [u8; 6] = *b"IPILAB";
const TABLE: [u8; 8] = *b"IPIBENCH";
const LOCAL_APIC: u32 = 0xfee0_0000;
const IO_APIC: u32 = 0xfec0_0000;
/// First id that does not fit the xAPIC, where 255 is the broadcast id.
const FIRST_X2APIC_ID: u32 = 255;

/// MADT entry type 9, which `acpi_tables` does not have.
#[derive(Debug, Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
struct ProcessorLocalX2Apic {
    kind: u8,
    length: u8,
    reserved: U16,
    id: U32,
    flags: U32,
    processor: U32,
}

const _: () = assert!(size_of::<ProcessorLocalX2Apic>() == 16);

impl ProcessorLocalX2Apic {
    fn new(id: u32) -> Self {
        Self {
            kind: 9,
            length: 16,
            reserved: 0.into(),
            id: id.into(),
            flags: (EnabledStatus::Enabled as u32).into(),
            processor: id.into(),
        }
    }
}

impl Aml for ProcessorLocalX2Apic {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(self.as_bytes());
    }
}

/// The tables for a machine of `vcpus` vCPUs, RSDP first, laid out to be placed at `address`.
pub fn tables(address: u64, vcpus: u32) -> Vec<u8> {
    let dsdt = dsdt();
    let dsdt_at = address + (Rsdp::len() as u64).next_multiple_of(16);
    let madt = bytes(&madt(vcpus));
    let fadt = bytes(&fadt(dsdt_at));

    let fadt_at = dsdt_at + (dsdt.len() as u64).next_multiple_of(16);
    let madt_at = fadt_at + (fadt.len() as u64).next_multiple_of(16);
    let xsdt_at = madt_at + (madt.len() as u64).next_multiple_of(16);
    let mut xsdt = XSDT::new(OEM, TABLE, 1);
    xsdt.add_entry(fadt_at);
    xsdt.add_entry(madt_at);

    let mut area = bytes(&Rsdp::new(OEM, xsdt_at));
    for table in [dsdt, fadt, madt, bytes(&xsdt)] {
        area.resize(area.len().next_multiple_of(16), 0);
        area.extend(table);
    }
    area
}

/// What of a PC is there, and how the machine is turned off and reset.
fn fadt(dsdt: u64) -> FADT {
    // ACPI 6.5, table 5.10: neither VGA, nor a CMOS clock, nor (bit 1) a keyboard controller.
    const NO_VGA: u16 = 1 << 2;
    const NO_CMOS_CLOCK: u16 = 1 << 5;
    let port = |port: u16| {
        let (space, size) = (AddressSpace::SystemIo, AccessSize::ByteAccess);
        GAS::new(space, 8, 0, size, port.into())
    };
    let mut fadt = FADTBuilder::new(OEM, TABLE, 1)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup);
    fadt.iapc_boot_arch = (NO_VGA | NO_CMOS_CLOCK).into();
    fadt.reset_reg = port(power::RESET);
    fadt.reset_value = power::RESET_VALUE;
    fadt.sleep_control_reg = port(power::SLEEP_CONTROL);
    fadt.sleep_status_reg = port(power::SLEEP_STATUS);
    fadt.finalize()
}

/// COM1, and the sleep state in which the machine is off.
fn dsdt() -> Vec<u8> {
    let com1 = aml::IO::new(
        ports::CONSOLE,
        ports::CONSOLE,
        1,
        u8::try_from(ports::CONSOLE_LEN).expect("eight registers"),
    );
    let interrupt = aml::Interrupt::new(true, true, false, false, COM1_INTERRUPT);
    let mut table = Sdt::new(*b"DSDT", SDT_HEADER, 2, OEM, TABLE, 1);
    let definitions = [
        bytes(&aml::Device::new(
            "_SB_.COM1".into(),
            vec![
                // A 16550A-compatible COM port.
                &aml::Name::new("_HID".into(), &aml::EISAName::new("PNP0501")),
                &aml::Name::new("_UID".into(), &aml::ZERO),
                &aml::Name::new(
                    "_CRS".into(),
                    &aml::ResourceTemplate::new(vec![&com1, &interrupt]),
                ),
            ],
        )),
        bytes(&aml::Name::new(
            "_S5_".into(),
            &aml::Package::new(vec![&power::S5]),
        )),
    ];
    table.append_slice(&definitions.concat());
    table.as_slice().to_vec()
}

fn madt(vcpus: u32) -> MADT {
    let mut madt = MADT::new(OEM, TABLE, 1, LocalInterruptController::Address(LOCAL_APIC));
    for id in 0..vcpus {
        match u8::try_from(id) {
            Ok(short) if id < FIRST_X2APIC_ID => {
                madt.add_structure(ProcessorLocalApic::new(
                    short,
                    short,
                    EnabledStatus::Enabled,
                ));
            }
            _ => madt.add_structure(ProcessorLocalX2Apic::new(id)),
        }
    }
    madt.add_structure(IoApic::new(0, IO_APIC, 0));
    madt
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    /// Follows the addresses as a guest does and returns the tables the XSDT names.
    fn walk(area: &[u8], address: u64) -> Vec<&[u8]> {
        let table = |at: u64| {
            let start = usize::try_from(at - address).unwrap();
            let length = u32::from_le_bytes(area[start + 4..start + 8].try_into().unwrap());
            &area[start..start + length as usize]
        };
        assert_eq!(&area[..8], b"RSD PTR ");
        assert_eq!(sum(&area[..20]), 0);
        assert_eq!(sum(&area[..36]), 0);
        let xsdt = table(u64::from_le_bytes(area[24..32].try_into().unwrap()));
        assert_eq!(&xsdt[..4], b"XSDT");
        assert_eq!(sum(xsdt), 0);
        xsdt[36..]
            .chunks(8)
            .map(|entry| table(u64::from_le_bytes(entry.try_into().unwrap())))
            .collect()
    }

    #[test]
    fn every_cpu_is_found_and_every_checksum_holds() {
        for vcpus in [1, 2, 254, 255, 256, 300, 1024] {
            let area = tables(0xe_0000, vcpus);
            let found = walk(&area, 0xe_0000);
            assert!(found.iter().all(|table| sum(table) == 0), "{vcpus} vCPUs");
            let madt = found
                .iter()
                .find(|table| table.starts_with(b"APIC"))
                .unwrap();
            let mut ids = Vec::new();
            let mut rest = &madt[44..];
            while let [kind, length, ..] = *rest {
                match kind {
                    0 => ids.push(u32::from(rest[3])),
                    9 => ids.push(u32::from_le_bytes(rest[4..8].try_into().unwrap())),
                    _ => assert_eq!(kind, 1),
                }
                rest = &rest[usize::from(length)..];
            }
            assert_eq!(ids, (0..vcpus).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_largest_machine_fits_the_boot_data() {
        assert!(tables(0, 1024).len() < 0x8000);
    }
}
