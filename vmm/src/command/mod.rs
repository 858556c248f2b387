//! The subcommands, one module for each. They read arguments and print; the library does the work.

pub mod bench;
pub mod cli;
pub mod compare;
pub mod ctl;
pub mod describe;
pub mod explore;
mod explored;
mod installed;
pub mod interruption;
mod log;
pub mod merge;
mod outputs;
mod printing;
pub mod probes;
mod progress;
pub mod reduce;
mod replay;
pub mod run;
pub mod schema;
mod screen;
mod search_stats;
pub mod signals;
mod stats;

use vmm::chain;

pub use printing::complain;

/// Why a subcommand could not do its work.
#[derive(Debug)]
pub struct Refused {
    /// For the user, in a sentence.
    pub message: String,
    /// The exit status.
    pub status: u8,
}
