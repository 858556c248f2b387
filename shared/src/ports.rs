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
/// guest with `transport=wire`: the VMM can then hold, delay, reorder and lose its IPIs, INIT and
/// start-up IPIs included. What a CPU sends to itself goes this way only with `self-ipi=wire`.
///
/// While it writes, the guest has in RSI the raw [`CallId`](crate::ledger::CallId) of the call that
/// it tells of, or 0. Only a call that is in its ledger counts.
pub const WIRE: u16 = 0x5b4;

/// The delivery mode of an IPI, by its number in the ICR (SDM Vol. 3A, 11.6.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Delivery {
    /// The interrupt that the vector says.
    #[default]
    Fixed = 0,
    /// INIT.
    Init = 5,
    /// A start-up IPI: the vector is the page at which the target starts.
    StartUp = 6,
}

/// An IPI on its way through the VMM, as it is written to the [`WIRE`] port: the vector in bits 0
/// to 7, the target in bits 8 to 28, the delivery mode in bits 29 to 31.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dispatch {
    /// APIC id of the target, below 2^21.
    pub target: u32,
    /// The vector.
    pub vector: u8,
    /// What it is.
    pub delivery: Delivery,
}

/// First bit of the target in a word.
const TARGET_SHIFT: u32 = 8;

/// First bit of the delivery mode in a word.
const DELIVERY_SHIFT: u32 = 29;

impl Dispatch {
    /// An interrupt with this vector.
    pub const fn fixed(target: u32, vector: u8) -> Self {
        Self {
            target,
            vector,
            delivery: Delivery::Fixed,
        }
    }
}

impl From<Dispatch> for u32 {
    fn from(dispatch: Dispatch) -> Self {
        (dispatch.delivery as u32) << DELIVERY_SHIFT
            | dispatch.target << TARGET_SHIFT
            | u32::from(dispatch.vector)
    }
}

impl TryFrom<u32> for Dispatch {
    /// The delivery mode that the wire does not carry.
    type Error = u32;

    fn try_from(word: u32) -> Result<Self, u32> {
        let delivery = match word >> DELIVERY_SHIFT {
            0 => Delivery::Fixed,
            5 => Delivery::Init,
            6 => Delivery::StartUp,
            other => return Err(other),
        };
        Ok(Self {
            target: word << (32 - DELIVERY_SHIFT) >> (32 - DELIVERY_SHIFT + TARGET_SHIFT),
            vector: word.to_le_bytes()[0],
            delivery,
        })
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
        for delivery in [Delivery::Fixed, Delivery::Init, Delivery::StartUp] {
            for target in [0, 1023, (1 << 21) - 1] {
                let dispatch = Dispatch {
                    target,
                    vector: 0xfc,
                    delivery,
                };
                assert_eq!(Dispatch::try_from(u32::from(dispatch)), Ok(dispatch));
            }
        }
        assert_eq!(u32::from(Dispatch::fixed(3, 0xfb)), 0x3fb);
        // An NMI.
        assert_eq!(Dispatch::try_from(4 << 29), Err(4));
    }

    /// What a guest writes is any number: here, every one of each delivery mode with every target, and with
    /// every vector.
    #[test]
    fn any_word_is_a_dispatch_or_refused() {
        let of_targets = (0..=u32::MAX >> TARGET_SHIFT).map(|high| high << TARGET_SHIFT | 0xa5);
        let of_vectors = (0..=0x7ff).map(|it| it >> 8 << DELIVERY_SHIFT | 1023 << 8 | it & 0xff);
        for word in of_targets.chain(of_vectors) {
            match Dispatch::try_from(word) {
                Ok(dispatch) => {
                    assert!(dispatch.target < 1 << 21);
                    assert_eq!(u32::from(dispatch), word);
                }
                Err(mode) => assert_eq!(mode, word >> DELIVERY_SHIFT),
            }
        }
    }
}
