//! The I/O ports through which the guest talks to the monitor that runs it.
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

/// Wire port: one 32-bit write of a [`Dispatch`] hands an IPI to the VMM, which delivers it. For a
/// guest with `transport=wire`: the VMM can then hold, delay and reorder its IPIs. INIT and
/// start-up IPIs do not go this way, and what a CPU sends to itself only with `self-ipi=wire`.
pub const WIRE: u16 = 0x5b4;

/// An IPI on its way through the VMM, as it is written to the [`WIRE`] port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dispatch {
    /// APIC id of the target, below 2^24.
    pub target: u32,
    /// The vector.
    pub vector: u8,
}

impl From<Dispatch> for u32 {
    fn from(dispatch: Dispatch) -> Self {
        dispatch.target << 8 | u32::from(dispatch.vector)
    }
}

impl From<u32> for Dispatch {
    fn from(word: u32) -> Self {
        Self {
            target: word >> 8,
            vector: word.to_le_bytes()[0],
        }
    }
}

/// What a write to the [`DOORBELL`] port announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Doorbell {
    /// Every CPU is up; the workload starts now. Counting starts here.
    WorkloadStarted = 1,
    /// Every CPU has finished the workload. Counting ends here.
    WorkloadFinished = 2,
    /// This CPU has been waiting for another for a while. On a host with fewer processors than
    /// vCPUs the other may need the processor on which this one spins.
    Waiting = 3,
    /// This CPU has come to an armed point; see [`probe`](crate::probe).
    Reached = 4,
    /// This CPU has carried out the command in its mailbox; see [`mailbox`](crate::mailbox).
    Done = 5,
    /// The warm-up, which began with [`Doorbell::WorkloadStarted`], is over. Counting starts here
    /// instead. At most once.
    WarmedUp = 6,
}

impl TryFrom<u32> for Doorbell {
    /// The value that means nothing.
    type Error = u32;

    fn try_from(value: u32) -> Result<Self, u32> {
        match value {
            1 => Ok(Self::WorkloadStarted),
            2 => Ok(Self::WorkloadFinished),
            3 => Ok(Self::Waiting),
            4 => Ok(Self::Reached),
            5 => Ok(Self::Done),
            6 => Ok(Self::WarmedUp),
            unknown => Err(unknown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dispatch_gives_back_what_it_was_made_of() {
        let dispatch = Dispatch {
            target: 1023,
            vector: 0xfc,
        };
        assert_eq!(Dispatch::from(u32::from(dispatch)), dispatch);
    }
}
