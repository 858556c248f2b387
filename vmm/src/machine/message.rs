//! What a vCPU tells the VMM by itself, how the VMM reacts, and what the vCPU is then held by.
//! Passed between the vCPU threads and the code that controls the machine.

use shared::ports::Dispatch;

use super::exit::Stop;
use super::lifecycle::Holder;

/// What a vCPU tells the VMM by itself. It is out of the guest then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// The guest's workload starts.
    WorkloadStarted,
    /// The warm-up that began with the workload is over.
    WarmedUp,
    /// The guest's workload has finished.
    WorkloadFinished,
    /// The vCPU has come to an armed point; see [`shared::probe`]. Both fields are what the guest
    /// says, and not checked.
    Reached {
        /// Address of the point.
        point: u64,
        /// The call at hand, or 0.
        call: u64,
    },
    /// The vCPU has carried out the command in its mailbox; see [`shared::mailbox`].
    Done,
    /// The guest has ended a line on its console.
    Line,
    /// The vCPU has hit a breakpoint or taken its steps.
    Stopped(Stop),
    /// The vCPU has come to an instruction in the place of which a debugger has written one that exits,
    /// or the guest has one there itself.
    AtStopInstruction(u64),
    /// The vCPU sends an IPI through the VMM, to a target that may not exist.
    Dispatch {
        /// The IPI.
        dispatch: Dispatch,
        /// The call that it tells of, as the guest says, or 0. It is not checked.
        call: u64,
    },
}

/// What a vCPU does after a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaction {
    /// It enters the guest again.
    GoOn,
    /// It is held where it is, on this behalf.
    Hold(Holder),
}

/// Called with the id of the vCPU, on its thread. The vCPU stays out of the guest meanwhile.
pub type OnMessage = dyn Fn(u32, Message) -> Reaction + Send + Sync;

/// What a vCPU is held by that has stopped by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldBy {
    /// A point of the guest.
    Point {
        /// Its address.
        point: u64,
        /// The call at hand, or 0.
        call: u64,
    },
    /// An instruction that it was about to execute.
    Address(u64),
    /// The end of its steps.
    Steps,
    /// Another message, to which the reaction was to hold it.
    Word,
}
