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

use std::io;
use std::time::Duration;

use vmm::chain;
use vmm::writable::write_within;

/// Why a subcommand could not do its work.
#[derive(Debug)]
pub struct Refused {
    /// For the user, in a sentence.
    pub message: String,
    /// The exit status.
    pub status: u8,
}

/// How long a reader of standard error may take nothing before the rest is not written.
const PATIENCE: Duration = Duration::from_secs(5);

/// Writes to standard error, which the guest's console may have filled for a reader that does not
/// read: the command ends all the same.
///
/// # Errors
/// If standard error is closed, or not read.
pub fn say(words: &str) -> io::Result<()> {
    write_within(io::stderr().lock(), words.as_bytes(), PATIENCE)
}

/// Tells the user, on standard error.
pub fn complain(message: &str) {
    // If standard error is closed too, only the exit status is left.
    let _ = say(&format!("vmm: {}\n", harmless(message)));
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
