//! What the command can be asked to do, one module for each. They read arguments and print; the library does
//! the work.

pub mod bench;
pub mod ctl;
pub mod explore;
pub mod interruption;
pub mod probes;
pub mod replay;
pub mod run;
pub mod schema;
mod stats;

use std::error::Error;
use std::io::{self, Write};

/// Why nothing came of it.
#[derive(Debug)]
pub struct Refused {
    /// For the user, in a sentence.
    pub message: String,
    /// The exit status.
    pub status: u8,
}

/// Tells the user.
pub fn complain(message: &str) {
    // If standard error is gone too, the exit status has to do.
    let _ = writeln!(io::stderr(), "vmm: {message}");
}

/// An error and what it comes from, on one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some messages contain their cause already.
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
