//! Why a vCPU could not be paused, resumed or worked on while it is out of the guest.

use super::lifecycle::{CONFIRMATION, Exited};

/// Why a vCPU is not paused or resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PauseError {
    /// No such vCPU.
    #[error("there is no vCPU {id}; this machine has vCPUs 0 to {last}")]
    NoSuchVcpu {
        /// The number asked for.
        id: u32,
        /// The highest number there is.
        last: u32,
    },
    /// It has exited.
    #[error("vCPU {id} has exited and cannot be paused: {why}")]
    Exited {
        /// The vCPU.
        id: u32,
        /// Why it exited.
        why: Exited,
    },
    /// It was not paused, or not by the holder that resumes it.
    #[error("vCPU {0} is not paused, so that there is nothing to resume")]
    NotPaused(u32),
    /// It is in the guest.
    #[error("vCPU {0} is not stalled; pause it, or hold it at a probe")]
    NotStalled(u32),
    /// It did not leave the guest in time. The hold was undone.
    #[error(
        "vCPU {0} did not leave the guest within {limit} s of being told to; this host's KVM is \
         stuck",
        limit = CONFIRMATION.as_secs()
    )]
    Stuck(u32),
}
