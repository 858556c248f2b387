//! The subcommands, one module for each. They read arguments and print; the library does the work.

pub mod bench;
pub mod cli;
pub mod compare;
pub mod ctl;
mod debugging;
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

use std::error::Error;
use std::path::Path;

use vmm::chain;
use vmm::machine::limits;
use vmm::text;

pub use printing::complain;

/// The text in the file `path`, which was named on the command line.
///
/// # Errors
/// [`Refused`] if it cannot be read.
pub fn read_text(path: &Path) -> Result<String, Refused> {
    text::read_named(path).map_err(|error| Refused::of(error.to_string(), &error))
}

/// Why a subcommand could not do its work.
#[derive(Debug)]
pub struct Refused {
    /// For the user, in a sentence.
    pub message: String,
    /// The exit status.
    pub status: u8,
}

impl Refused {
    /// Because of something that was named on the command line, with which `error` came of it: with
    /// status 2, or with 3 if the host has no files or no memory left.
    pub fn of(message: String, error: &(dyn Error + 'static)) -> Self {
        let status = if limits::are_reached(error) { 3 } else { 2 };
        Self { message, status }
    }
}
