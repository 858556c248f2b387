//! What the guest finds at its first instruction: the PVH start info, the memory map, the command
//! line and the ACPI tables in memory, and the registers of the first vCPU. The layout is that of
//! the PVH boot protocol; nothing here runs a vCPU.

use std::ops::Range;

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};
use linux_loader::configurator::pvh::PvhBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::elf::start_info::{
    hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::acpi;
use super::devices::power;
use super::initrd::Initrd;
use super::layout::{BOOT_DATA, Layout};

const RSDP: u64 = BOOT_DATA.start;
const START_INFO: u64 = 0xf_0000;
const MEMORY_MAP: u64 = 0xf_1000;
const COMMAND_LINE: u64 = 0xf_2000;
const MODULES: u64 = 0xf_3000;
/// Where a PC resets by its BIOS: `f000:fff0`, to which a kernel jumps in real mode as its last
/// resort, or first where there is neither EFI nor a reset register that it would use.
const RESET_VECTOR: u64 = 0xf_fff0;
/// `mov al, imm8; out imm8, al; hlt; jmp` to the `hlt`: the pulse of the reset line.
const RESET_CODE: [u8; 7] = [
    0xb0,
    power::PULSE_RESET,
    0xe6,
    power::KEYBOARD,
    0xf4,
    0xeb,
    (-3_i8).cast_unsigned(),
];
/// Longest command line, its terminator included.
pub const COMMAND_LINE_MAX: usize = 4096;

const MAGIC: u32 = 0x336e_c578;
const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;

/// Why the boot data cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The command line does not fit.
    #[error(
        "the guest's command line is {0} bytes long, the limit is {limit}; shorten --append",
        limit = COMMAND_LINE_MAX - 1
    )]
    LongCommandLine(usize),
    /// The command line has a zero byte or other characters that no option has.
    #[error("the guest's command line contains a control character; correct --append")]
    BadCommandLine,
    /// The command line has an option that the VMM adds itself.
    #[error("--append must not contain lab=, which is the VMM's to set")]
    LabGiven,
    /// The start info was not written.
    #[error("cannot write the start info to guest memory")]
    StartInfo(#[source] linux_loader::configurator::Error),
    /// The memory map, the command line or the ACPI tables were not written.
    #[error("cannot write the boot data to guest memory")]
    Memory(#[source] vm_memory::GuestMemoryError),
}

/// The command line of the guest: what the user asked for, and where the lab is, if it has one.
///
/// # Errors
/// [`BootError`] if it is too long or cannot be passed on.
pub fn command_line(append: &str, lab: Option<u64>) -> Result<String, BootError> {
    if append.chars().any(char::is_control) {
        return Err(BootError::BadCommandLine);
    }
    let is_lab = |word: &str| word.starts_with("lab=");
    if lab.is_some() && append.split_whitespace().any(is_lab) {
        return Err(BootError::LabGiven);
    }
    let lab = lab.map_or_else(String::new, |lab| format!(" lab={lab:#x}"));
    let line = format!("{append}{lab}").trim_start().to_owned();
    if line.len() >= COMMAND_LINE_MAX {
        return Err(BootError::LongCommandLine(line.len()));
    }
    Ok(line)
}

/// Writes everything a PVH guest reads at boot. The initrd, if there is one, is the first module.
///
/// # Errors
/// [`BootError`] if it does not fit into `memory`.
pub fn write(
    memory: &GuestMemoryMmap,
    layout: &Layout,
    vcpus: u32,
    command_line: &str,
    initrd: Option<&Initrd>,
) -> Result<(), BootError> {
    memory
        .write_slice(&acpi::tables(RSDP, vcpus), GuestAddress(RSDP))
        .map_err(BootError::Memory)?;
    let mut terminated = command_line.as_bytes().to_vec();
    terminated.push(0);
    memory
        .write_slice(&terminated, GuestAddress(COMMAND_LINE))
        .map_err(BootError::Memory)?;

    memory
        .write_slice(&RESET_CODE, GuestAddress(RESET_VECTOR))
        .map_err(BootError::Memory)?;
    if let Some(initrd) = initrd {
        memory
            .write_slice(initrd.bytes(), GuestAddress(layout.initrd.start))
            .map_err(BootError::Memory)?;
    }

    let modules: Vec<_> = (initrd.iter())
        .map(|initrd| hvm_modlist_entry {
            paddr: layout.initrd.start,
            size: initrd.length(),
            ..hvm_modlist_entry::default()
        })
        .collect();
    let map = memory_map(layout);
    let start_info = hvm_start_info {
        magic: MAGIC,
        version: 1,
        cmdline_paddr: COMMAND_LINE,
        nr_modules: u32::try_from(modules.len()).expect("one at most"),
        modlist_paddr: if modules.is_empty() { 0 } else { MODULES },
        rsdp_paddr: RSDP,
        memmap_paddr: MEMORY_MAP,
        memmap_entries: u32::try_from(map.len()).expect("a handful of entries"),
        ..hvm_start_info::default()
    };
    let mut parameters = BootParams::new(&start_info, GuestAddress(START_INFO));
    parameters.set_sections(&map, GuestAddress(MEMORY_MAP));
    if !modules.is_empty() {
        parameters.set_modules(&modules, GuestAddress(MODULES));
    }
    PvhBootConfigurator::write_bootparams(&parameters, memory).map_err(BootError::StartInfo)
}

fn memory_map(layout: &Layout) -> Vec<hvm_memmap_table_entry> {
    let entry = |range: Range<u64>, type_| hvm_memmap_table_entry {
        addr: range.start,
        size: range.end - range.start,
        type_,
        reserved: 0,
    };
    let mut map: Vec<_> = layout
        .usable()
        .into_iter()
        .map(|range| entry(range, E820_RAM))
        .collect();
    map.push(entry(BOOT_DATA, E820_RESERVED));
    if !layout.lab.is_empty() {
        map.push(entry(layout.lab.clone(), E820_RESERVED));
    }
    map.sort_by_key(|entry| entry.addr);
    map
}

/// The general registers with which a PVH guest starts at `entry`.
pub fn registers(entry: u64) -> kvm_regs {
    kvm_regs {
        rip: entry,
        rbx: START_INFO,
        rflags: 2,
        ..kvm_regs::default()
    }
}

/// Turns the registers of a vCPU at reset into those of PVH: flat 32-bit protected mode, no paging.
pub fn protected_mode(sregs: &mut kvm_sregs) {
    const CODE: u8 = 0xb;
    const DATA: u8 = 0x3;
    const BUSY_TSS: u8 = 0xb;
    const PROTECTION: u64 = 1;
    let flat = |type_, selector| kvm_segment {
        limit: 0xffff_ffff,
        selector,
        type_,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..kvm_segment::default()
    };
    sregs.cs = flat(CODE, 0x8);
    for segment in [
        &mut sregs.ds,
        &mut sregs.es,
        &mut sregs.fs,
        &mut sregs.gs,
        &mut sregs.ss,
    ] {
        *segment = flat(DATA, 0x10);
    }
    sregs.tr = kvm_segment {
        limit: 0x67,
        selector: 0x18,
        type_: BUSY_TSS,
        present: 1,
        ..kvm_segment::default()
    };
    sregs.cr0 |= PROTECTION;
    sregs.cr4 = 0;
    sregs.efer = 0;
}

#[cfg(test)]
mod tests {
    use super::super::layout::{Contents, LayoutError};
    use super::*;

    fn layout(mib: u64, vcpus: u32) -> Result<Layout, LayoutError> {
        let contents = Contents {
            image_end: 0x20_0000,
            lab: 0x3000,
            initrd: 0,
        };
        Layout::new(Some(mib), vcpus, contents)
    }

    #[test]
    fn the_memory_map_withholds_boot_data_and_lab() {
        let layout = layout(4096, 2).unwrap();
        let map = memory_map(&layout);
        for pair in map.windows(2) {
            assert!(pair[0].addr + pair[0].size <= pair[1].addr, "{map:?}");
        }
        let kind = |address: u64| {
            map.iter()
                .find(|entry| (entry.addr..entry.addr + entry.size).contains(&address))
                .map(|entry| entry.type_)
        };
        assert_eq!(kind(0x1000), Some(E820_RAM));
        assert_eq!(kind(START_INFO), Some(E820_RESERVED));
        assert_eq!(kind(0x10_0000), Some(E820_RAM));
        assert_eq!(kind(layout.lab.start), Some(E820_RESERVED));
        assert_eq!(kind(0xfee0_0000), None);
        assert_eq!(kind(5 << 30), None);
        assert_eq!(kind(4 << 30), Some(E820_RAM));
    }

    #[test]
    fn everything_is_where_the_start_info_says() {
        let layout = layout(64, 1024).unwrap();
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 64 << 20)]).unwrap();
        write(&memory, &layout, 1024, "queue=filo lab=0x1", None).unwrap();
        let word = |at: u64| {
            memory
                .read_obj::<u64>(GuestAddress(START_INFO + at))
                .unwrap()
        };
        let mut rsdp = [0; 8];
        memory
            .read_slice(&mut rsdp, GuestAddress(word(32)))
            .unwrap();
        assert_eq!(&rsdp, b"RSD PTR ");
        let mut line = [0; 19];
        memory
            .read_slice(&mut line, GuestAddress(word(24)))
            .unwrap();
        assert_eq!(&line, b"queue=filo lab=0x1\0");
    }

    #[test]
    fn command_lines_that_cannot_be_passed_on_are_refused() {
        let at = Some(0x1000);
        assert_eq!(command_line("", at).unwrap(), "lab=0x1000");
        assert_eq!(command_line("a=b", at).unwrap(), "a=b lab=0x1000");
        assert_eq!(command_line("a=b lab=1", None).unwrap(), "a=b lab=1");
        assert!(matches!(
            command_line("a\0b", at),
            Err(BootError::BadCommandLine)
        ));
        assert!(matches!(
            command_line("x lab=0x5", at),
            Err(BootError::LabGiven)
        ));
        assert!(matches!(
            command_line(&"x".repeat(4090), at),
            Err(BootError::LongCommandLine(_))
        ));
    }
}
