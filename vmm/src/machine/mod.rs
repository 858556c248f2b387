//! A machine: guest memory with an image and boot data in it, the VM, its vCPUs and devices. Knows
//! KVM and x86; knows nothing of scripts, of reports, or of what the guest does.

pub mod acpi;
mod address_space;
pub mod boot;
pub mod breakpoints;
pub mod clock;
pub mod cpuid;
pub mod debugged;
pub mod devices;
pub mod exit;
pub mod exit_counts;
pub mod function_entry;
pub mod guest;
pub mod image;
pub mod initrd;
pub mod inspect;
mod interrupt_frame;
pub mod journal;
pub mod kallsyms;
mod kernel_file;
pub mod kick;
pub mod layout;
pub mod lifecycle;
pub mod limits;
pub mod memory_names;
pub mod message;
mod native;
pub mod pause_error;
pub mod pause_latency;
pub mod pausing;
pub mod pin;
pub mod points;
pub mod ram;
pub mod serial;
pub mod serial_walk;
pub mod source;
pub mod stalled;
pub mod state;
pub mod stop_instruction;
pub mod symbols;
pub mod threads;
mod trial;
pub mod vcpu;
pub mod vm;

use std::io;
use std::sync::Arc;

use vm_memory::{GuestAddress, GuestMemoryMmap};

use crate::control_characters::spell_out_path;

use cpuid::Features;
use devices::{Console, Devices};
use image::Image;
use initrd::Initrd;
use layout::Layout;
use vcpu::Vcpu;
use vm::Vm;

/// Why a machine cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The memory that was asked for is too little or too much.
    #[error(transparent)]
    Layout(#[from] layout::LayoutError),
    /// The guest image cannot be loaded.
    #[error(transparent)]
    Image(#[from] image::ImageError),
    /// The file of symbols cannot be used.
    #[error(transparent)]
    Symbols(#[from] symbols::SymbolFileError),
    /// The initrd cannot be read.
    #[error(transparent)]
    Initrd(#[from] initrd::InitrdError),
    /// It is a Linux kernel, which this host cannot run.
    #[error(
        "{0} is a Linux kernel, and this host's KVM emulates ring 0 without instructions that Linux \
         needs (cmpxchg16b, int3, SSE): use a host with VMX or SVM, or an emulated one; see \
         docs/linux.md"
    )]
    NotForLinux(String),
    /// The probes in the guest image make no sense.
    #[error(transparent)]
    Points(#[from] points::PointsError),
    /// The manifest in the guest image makes no sense.
    #[error(transparent)]
    Manifest(#[from] crate::manifest::Unusable),
    /// The boot data cannot be written.
    #[error(transparent)]
    Boot(#[from] boot::BootError),
    /// The host cannot run the machine.
    #[error(transparent)]
    Host(#[from] vm::HostError),
    /// The host's limit on open files is too low.
    #[error(transparent)]
    Limits(#[from] limits::LimitError),
    /// The host does not give the guest's memory, in MiB.
    #[error("this host does not give the guest {0} MiB of memory; ask for less with --memory")]
    Memory(u64, #[source] vm_memory::mmap::FromRangesError),
    /// The host gives no eventfd for the console.
    #[error("cannot create the console")]
    Console(#[source] io::Error),
}

impl MachineError {
    /// Whether the image or the options are at fault. Otherwise it is the host.
    pub fn is_of_what_was_given(&self) -> bool {
        match self {
            Self::Layout(_)
            | Self::Image(_)
            | Self::Initrd(_)
            | Self::Symbols(_)
            | Self::Points(_)
            | Self::Manifest(_)
            | Self::Boot(_) => true,
            Self::NotForLinux(_)
            | Self::Host(_)
            | Self::Limits(_)
            | Self::Memory(..)
            | Self::Console(_) => false,
        }
    }
}

/// What a machine is made of.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// The guest.
    pub image: &'a Image,
    /// Number of vCPUs, 1 to 1024.
    pub vcpus: u32,
    /// RAM.
    pub layout: &'a Layout,
    /// The guest's command line, complete.
    pub command_line: &'a str,
    /// The guest's initrd, for which `layout` has room.
    pub initrd: Option<&'a Initrd>,
    /// Whether there is what the kernels of a PC expect, and no guest of the bench needs: a timer
    /// chip (8254), and a console that interrupts.
    pub is_pc: bool,
}

/// A machine that is ready to run.
///
/// The fields are dropped in this order: vCPUs and VM before the memory that KVM has mapped.
#[derive(Debug)]
pub struct Machine {
    /// The vCPUs, in the order of their ids.
    pub vcpus: Vec<Vcpu>,
    /// The VM.
    pub vm: Vm,
    /// The devices at ports and at addresses without memory.
    pub devices: Arc<Devices>,
    /// Guest memory; clones share it.
    pub memory: GuestMemoryMmap,
}

impl Machine {
    /// Builds the machine, up to the first instruction of its first vCPU.
    ///
    /// # Errors
    /// [`MachineError`] says what is in the way.
    pub fn build(parts: &Parts<'_>) -> Result<Self, MachineError> {
        limits::check(parts.vcpus, 0)?;
        if parts.image.is_linux() && !native::executes_ring_0()? {
            let name = spell_out_path(parts.image.path());
            return Err(MachineError::NotForLinux(name.to_string()));
        }
        let memory = allocate(parts.layout)?;
        let vm = Vm::new(parts.vcpus, &memory)?;
        fill(parts, &memory)?;
        if parts.is_pc {
            vm.add_timer_chip()?;
        }
        let vcpus = create_vcpus(parts, &vm)?;
        let console = Arc::new(Console::new().map_err(MachineError::Console)?);
        let devices = match parts.is_pc {
            true => {
                let (devices, line) =
                    Devices::interrupting(console).map_err(MachineError::Console)?;
                vm.connect(&line, acpi::COM1_INTERRUPT)?;
                devices
            }
            false => Devices::new(console),
        };
        Ok(Self {
            vcpus,
            vm,
            devices: Arc::new(devices),
            memory,
        })
    }
}

/// Writes into `memory` what the guest finds there when it starts.
fn fill(parts: &Parts<'_>, memory: &GuestMemoryMmap) -> Result<(), MachineError> {
    parts.image.load(memory)?;
    Ok(boot::write(
        memory,
        parts.layout,
        parts.vcpus,
        parts.command_line,
        parts.initrd,
    )?)
}

/// The vCPUs, the first of them at the entry of the image.
fn create_vcpus(parts: &Parts<'_>, vm: &Vm) -> Result<Vec<Vcpu>, MachineError> {
    let supported = vm.supported_cpuid()?;
    let features = Features {
        vcpus: parts.vcpus,
        tsc_deadline: vm.has_tsc_deadline(),
        tsc_khz: None,
    };
    let room = Arc::default();
    let vcpus = (0..parts.vcpus)
        .map(|id| Vcpu::new(vm, id, &supported, features, &room))
        .collect::<Result<Vec<_>, _>>()?;
    if let Some(first) = vcpus.first() {
        first.boot_at(parts.image.entry())?;
    }
    Ok(vcpus)
}

fn allocate(layout: &Layout) -> Result<GuestMemoryMmap, MachineError> {
    let too_much = |error| MachineError::Memory(layout.mib(), error);
    let pieces = layout
        .ram
        .iter()
        .map(|piece| {
            usize::try_from(piece.end - piece.start)
                .map(|size| (GuestAddress(piece.start), size))
                .expect("a 64-bit host has 64-bit sizes")
        })
        .collect::<Vec<_>>();
    GuestMemoryMmap::from_ranges(&pieces).map_err(too_much)
}
