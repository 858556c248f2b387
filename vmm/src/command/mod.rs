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
mod jobs;
mod log;
pub mod merge;
pub mod probes;
mod progress;
pub mod replay;
pub mod run;
pub mod schema;
mod screen;
mod search_stats;
pub mod shard;
mod signals;
mod stats;

use std::fmt::Display;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use vmm::chain;
use vmm::whole_file::WholeFile;

/// Why a subcommand could not do its work.
#[derive(Debug)]
pub struct Refused {
    /// For the user, in a sentence.
    pub message: String,
    /// The exit status.
    pub status: u8,
}

/// Tells the user, on standard error.
pub fn complain(message: &str) {
    // If standard error is closed too, only the exit status is left.
    let _ = writeln!(io::stderr(), "vmm: {message}");
}

/// Refuses to write the file `name`.
fn cannot_write(name: &Path, why: &dyn Display) -> Refused {
    Refused {
        message: format!("cannot write {}: {why}", name.display()),
        status: 2,
    }
}

/// Refuses to write the file `name` if it is one of `inputs`.
fn check_output<'a>(
    name: &Path,
    inputs: impl IntoIterator<Item = &'a PathBuf>,
) -> Result<(), Refused> {
    match inputs.into_iter().any(|input| is_one_file(input, name)) {
        true => Err(cannot_write(name, &"the run needs what is in it")),
        false => Ok(()),
    }
}

/// Prepares to write the file `name` later, unless it is one of `inputs`.
fn create<'a>(
    name: &Path,
    inputs: impl IntoIterator<Item = &'a PathBuf>,
) -> Result<WholeFile, Refused> {
    check_output(name, inputs)?;
    WholeFile::create(name).map_err(|error| cannot_write(name, &error))
}

/// Whether two names lead to one existing file.
fn is_one_file(one: &Path, other: &Path) -> bool {
    let [one, other] = [one, other].map(|name| name.canonicalize().ok());
    one.is_some() && one == other
}
