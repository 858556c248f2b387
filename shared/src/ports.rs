//! The I/O ports through which the guest talks to whatever monitor runs it.
//!
//! The console and the exit port are the ones QEMU and its relatives offer, so that the image runs
//! under them too. The doorbell exists only where the VMM named a lab on the command line.

/// First register of the 16550 UART, COM1 of a PC. Seven more registers follow.
pub const CONSOLE: u16 = 0x3f8;

/// Number of consecutive ports a 16550 occupies.
pub const CONSOLE_LEN: u16 = 8;

/// Exit port: one 32-bit write of an [`ExitCode`](crate::exit::ExitCode) ends the run. It is where
/// `qemu-system-x86_64 -device isa-debug-exit,iobase=0xf4,iosize=4` listens; QEMU then ends with
/// status `(code << 1) | 1`.
pub const EXIT: u16 = 0xf4;

/// Doorbell port: one 32-bit write of a [`Doorbell`] tells the VMM to look at the lab pages. The
/// sender is the vCPU that wrote.
pub const DOORBELL: u16 = 0x5b0;

/// What a write to the [`DOORBELL`] port announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Doorbell {
    /// Every CPU is up; the workload starts now. Counting starts here.
    WorkloadStarted = 1,
    /// Every CPU has finished the workload. Counting ends here.
    WorkloadFinished = 2,
    /// This CPU has been waiting for another for a while. On a host with fewer processors than vCPUs
    /// the other may be waiting for the processor this one spins on.
    Waiting = 3,
}

impl TryFrom<u32> for Doorbell {
    /// The value that means nothing.
    type Error = u32;

    fn try_from(value: u32) -> Result<Self, u32> {
        match value {
            1 => Ok(Self::WorkloadStarted),
            2 => Ok(Self::WorkloadFinished),
            3 => Ok(Self::Waiting),
            unknown => Err(unknown),
        }
    }
}
