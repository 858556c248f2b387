//! How a run ends: with a verdict, with a refusal, or with a panic. Each tells the monitor through
//! the exit port; a monitor that has none is left by turning the machine off.

use core::fmt;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU64, Ordering};

use shared::exit::ExitCode;
use shared::ports::EXIT;
use x86_64::VirtAddr;
use x86_64::instructions::interrupts;
use x86_64::instructions::port::Port;
use x86_64::instructions::tables::lidt;
use x86_64::structures::DescriptorTablePointer;

use super::acpi::PowerOff;
use super::cpu::Cpu;
use crate::log;

/// How the machine is turned off, in the form of [`packed`]; 0 if that is not known.
static POWER_OFF: AtomicU64 = AtomicU64::new(0);

/// Says how the machine is turned off, once the tables of ACPI have been read.
pub fn know_power_off(how: Option<PowerOff>) {
    POWER_OFF.store(how.map_or(0, packed), Ordering::Relaxed);
}

fn packed(how: PowerOff) -> u64 {
    u64::from(how.port) | u64::from(how.value) << 16 | u64::from(how.is_wide) << 32
}

/// Ends the run. Where no monitor listens on the exit port the machine is turned off, and if that does
/// nothing either, it ends by a triple fault.
pub fn exit(code: ExitCode) -> ! {
    // SAFETY: the port is the exit device's, or there is no device at it.
    unsafe { Port::<u32>::new(EXIT).write(code as u32) };
    interrupts::disable();
    let how = POWER_OFF.load(Ordering::Relaxed);
    let (port, value) = (how as u16, (how >> 16) as u16);
    match how >> 32 {
        _ if how == 0 => {}
        // SAFETY: ACPI says that this turns the machine off, and nothing is needed of it any more.
        0 => unsafe { Port::<u8>::new(port).write(value as u8) },
        // SAFETY: as above.
        _ => unsafe { Port::<u16>::new(port).write(value) },
    }
    // A monitor may need a moment for it. The bound is far above that, and of no importance otherwise.
    for _ in 0..1_000_000 {
        core::hint::spin_loop();
    }
    let none = DescriptorTablePointer {
        limit: 0,
        base: VirtAddr::zero(),
    };
    // SAFETY: interrupts are off, and the only exception that comes is the next instruction.
    unsafe { lidt(&none) };
    // SAFETY: it finds no handler, nor does the exception of that: the machine ends here, as is meant.
    unsafe { core::arch::asm!("ud2", options(noreturn)) }
}

/// Prints why this machine or this command line cannot be used, and ends the run.
pub fn refuse(code: ExitCode, why: fmt::Arguments<'_>) -> ! {
    log!("{why}");
    exit(code)
}

/// Prints `report` and ends the run. A failure within the report is not reported.
pub fn die(report: fmt::Arguments<'_>) -> ! {
    interrupts::disable();
    if !Cpu::current().dying.swap(true, Ordering::Relaxed) {
        log!("{report}");
    }
    exit(ExitCode::Panic)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    die(format_args!("{info}"))
}
