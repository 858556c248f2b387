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
pub mod probes;
mod progress;
pub mod reduce;
mod replay;
pub mod run;
pub mod schema;
mod screen;
mod search_stats;
mod signals;
mod stats;

use std::io::{self, Write};

use vmm::chain;

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
    let _ = writeln!(io::stderr(), "vmm: {}", harmless(message));
}

/// The text with its control characters spelled out, but for line ends and tabs: a file's name, or
/// what a script says, is not to move the cursor of a terminal.
fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' | '\t' => shown.push(letter),
            letter if letter.is_control() => shown.extend(letter.escape_default()),
            letter => shown.push(letter),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_does_not_move_the_cursor() {
        assert_eq!(harmless("a\x1b[2Jb\r\n\tc"), "a\\u{1b}[2Jb\\r\n\tc");
        assert_eq!(harmless("größer"), "größer");
    }
}
