//! How a run ends: with a verdict, with a refusal, or with a panic. Each tells the monitor through
//! the exit port and then halts.

use core::fmt;
use core::panic::PanicInfo;
use core::sync::atomic::Ordering;

use shared::exit::ExitCode;
use shared::ports::EXIT;
use x86_64::instructions::port::Port;
use x86_64::instructions::{hlt, interrupts};

use super::cpu::Cpu;
use crate::log;

/// Ends the run. If no monitor listens on the exit port, this CPU halts for ever.
pub fn exit(code: ExitCode) -> ! {
    // SAFETY: the port is the exit device's, or there is no device at it.
    unsafe { Port::<u32>::new(EXIT).write(code as u32) };
    interrupts::disable();
    loop {
        hlt();
    }
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
