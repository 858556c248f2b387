//! Why a bench was not carried to its end.

use crate::control::operator::OperatorError;

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The machine has no other CPU to send to.
    #[error("an IPI takes two: ask for --vcpus 2 or more")]
    TooFew,
    /// A run was not possible.
    #[error(transparent)]
    Run(#[from] crate::Error),
    /// The receivers could not be stalled.
    #[error("cannot stall the receivers")]
    Stall(#[source] OperatorError),
    /// It was ended by a signal.
    #[error("interrupted: {message}")]
    Interrupted {
        /// How the run ended.
        message: String,
        /// The exit status of a run that ends so.
        status: u8,
    },
}
