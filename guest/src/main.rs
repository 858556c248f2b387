//! The unikernel image: the guest of the portable library on bare metal.
//!
//! It boots by PVH, finds the CPUs in the ACPI tables, starts them, runs the workload on all of them
//! and ends through the exit port. `guest/build` builds it: for `x86_64-unknown-none` where that is
//! installed, else for the host's target with soft float and fat LTO, which recompiles `core` without
//! SSE.

#![no_std]
#![no_main]

extern crate alloc;

mod metal;

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicPtr, Ordering};

use alloc::boxed::Box;
use guest::Guest;
use guest::lab::Lab;
use guest::options::Options;
use shared::exit::ExitCode;
use shared::ports::Doorbell;

use metal::acpi::{self, Cpus};
use metal::boot::{self, StartInfo};
use metal::console::println;
use metal::percpu::PerCpu;
use metal::platform::Metal;
use metal::{apic, console, exit, heap, percpu, smp};

/// The guest, once it is built; interrupt handlers find it here.
static GUEST: AtomicPtr<Guest<Metal>> = AtomicPtr::new(core::ptr::null_mut());

/// The guest that runs on this machine, or `None` while the machine is still coming up.
fn guest() -> Option<&'static Guest<Metal>> {
    // SAFETY: the pointer is null or came from `Box::leak` in `boot_cpu`.
    unsafe { GUEST.load(Ordering::Acquire).as_ref() }
}

/// The first CPU, from its first instruction of Rust to the end of the run.
fn boot_cpu(start: &StartInfo) -> ! {
    let boot_tsc = metal::tsc();
    heap::init(start);
    let options = match Options::parse(start.command_line()) {
        Ok(options) => options,
        Err(error) => exit::with(ExitCode::BadOptions, format_args!("{error}")),
    };
    let cpus = match acpi::cpus(start, apic::this_id()) {
        Ok(cpus) => cpus,
        Err(error) => exit::with(ExitCode::BadMachine, format_args!("{error}")),
    };
    let lab = open_lab(start, &options, &cpus);
    if lab.cpus() != cpus.len() {
        exit::with(
            ExitCode::BadMachine,
            format_args!(
                "the lab is for {} CPUs, the ACPI tables name {}",
                lab.cpus(),
                cpus.len()
            ),
        );
    }
    lab.set_boot_tsc(boot_tsc);
    boot::unmap_page_zero();

    let has_doorbell = options.lab.is_some();
    percpu::init(&cpus, lab, has_doorbell);
    PerCpu::install(0);
    let transport = match apic::choose(options.transport, &cpus) {
        Ok(transport) => transport,
        Err(error) => exit::with(ExitCode::BadMachine, format_args!("{error}")),
    };
    apic::enable();

    let guest: &'static _ = Box::leak(Box::new(Guest::new(Metal, &options, lab)));
    GUEST.store(core::ptr::from_ref(guest).cast_mut(), Ordering::Release);
    let online = smp::start_all(&cpus);
    lab.set_cpus_online(online);
    if online != cpus.len() {
        exit::with(
            ExitCode::BadMachine,
            format_args!("{online} of {} CPUs came up", cpus.len()),
        );
    }
    println!(
        "{online} CPUs up, transport {}, queue {}",
        transport.name(),
        options.queue.name()
    );
    if options.queue.is_broken() {
        println!("queue {} is broken on purpose", options.queue.name());
    }

    lab.set_workload_tsc(metal::tsc());
    if has_doorbell {
        exit::ring(Doorbell::WorkloadStarted);
    }
    run_workload();
    if has_doorbell {
        exit::ring(Doorbell::WorkloadFinished);
    }
    let verdict = guest.verdict();
    exit::with(verdict.code(), format_args!("{verdict}"))
}

/// The lab the monitor offers, or one in the guest's own memory.
fn open_lab(start: &StartInfo, options: &Options, cpus: &Cpus) -> Lab {
    let opened = match options.lab {
        None => Lab::allocate(cpus.len() as u32),
        Some(address) => match start.reserved_at(address) {
            // SAFETY: the range is mapped, page-aligned, and reserved in the memory map, so the
            // heap and everything else keeps out of it; `open_lab` is called once.
            Some((base, limit)) => unsafe { Lab::open(base, limit) },
            None => exit::with(
                ExitCode::BadOptions,
                format_args!("lab={address:#x} is not a reserved page of the memory map"),
            ),
        },
    };
    opened.unwrap_or_else(|error| exit::with(ExitCode::BadMachine, format_args!("{error}")))
}

/// Any other CPU, once it is in long mode on its own stack.
fn other_cpu(index: usize) -> ! {
    PerCpu::install(index);
    apic::enable();
    smp::report_up();
    run_workload();
    metal::idle_for_ever()
}

/// This CPU's part of the workload, with interrupts on.
fn run_workload() {
    x86_64::instructions::interrupts::enable();
    guest().expect("built before any CPU comes here").run_cpu();
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    console::seize();
    exit::with(ExitCode::Panic, format_args!("{info}"))
}
