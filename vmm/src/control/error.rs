//! Why a run could not be controlled. How the guest fared is no such error; see
//! [`Ending`](super::ending::Ending).

use std::io;

use crate::machine::threads::ThreadsError;

/// Why a run could not be controlled.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A step of setting up the run failed.
    #[error("cannot {0}")]
    Prepare(&'static str, #[source] io::Error),
    /// The event loop failed.
    #[error("the event loop failed")]
    Loop(#[source] event_manager::Error),
    /// The vCPU threads failed.
    #[error(transparent)]
    Threads(#[from] ThreadsError),
}
