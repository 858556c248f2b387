//! The ways out to the monitor: the exit port and the doorbell.

use core::fmt;

use shared::exit::ExitCode;
use shared::ports::{DOORBELL, Doorbell, EXIT};
use x86_64::instructions::{interrupts, port::Port};

/// Says `why` on the console and ends the run with `code`. Under a monitor without an exit port this
/// CPU halts for ever.
pub fn with(code: ExitCode, why: fmt::Arguments<'_>) -> ! {
    interrupts::disable();
    super::console::line(why);
    // SAFETY: either the port ends the machine, or nobody listens.
    unsafe { Port::<u32>::new(EXIT).write(code as u32) };
    super::idle_for_ever()
}

/// Tells a monitor that offered a lab to look at it.
pub fn ring(doorbell: Doorbell) {
    // SAFETY: nothing but the VMM listens at that port, and it changes no memory of the guest's.
    unsafe { Port::<u32>::new(DOORBELL).write(doorbell as u32) };
}
