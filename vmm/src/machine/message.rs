//! What a vCPU tells the VMM by itself, what is answered, and what the vCPU is then held by. Passed
//! between the vCPU threads and the code that controls the machine.

use shared::ports::Dispatch;

use super::exit::Stop;

/// What a vCPU tells the VMM by itself, out of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// The guest's workload starts.
    WorkloadStarted,
    /// What came since then was its warm-up.
    WarmedUp,
    /// It has finished.
    WorkloadFinished,
    /// The vCPU has come to an armed point; see [`shared::probe`]. Whatever the guest says it is.
    Reached {
        /// Address of the point.
        point: u64,
        /// The call at hand, or 0.
        call: u64,
    },
    /// The vCPU has done what its mailbox said; see [`shared::mailbox`].
    Done,
    /// The vCPU has come to where it was told to stop by itself.
    Stopped(Stop),
    /// The vCPU sends an IPI through the VMM, to a target that may not exist.
    Dispatch(Dispatch),
}

/// What is to become of a vCPU that has told something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaction {
    /// It goes on.
    GoOn,
    /// It is held where it is.
    Hold,
}

/// Called on the thread of the vCPU that tells something, which waits meanwhile.
pub type OnMessage = dyn Fn(u32, Message) -> Reaction + Send + Sync;

/// What a vCPU is held by, if it came there by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldBy {
    /// A point of the guest's.
    Point {
        /// Its address.
        point: u64,
        /// The call at hand, or 0.
        call: u64,
    },
    /// An instruction that it was about to execute.
    Address(u64),
    /// It has taken the steps it was to take.
    Steps,
    /// Something it said, for which whoever heard it has it held.
    Word,
}

impl From<Stop> for HeldBy {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Address(address) => Self::Address(address),
            Stop::Steps => Self::Steps,
        }
    }
}
