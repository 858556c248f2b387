//! The one way to standard output and standard error: what is printed has no control characters but
//! line ends and tabs, whoever it is from, and what cannot be written is an error.

use std::io::{self, Write};
use std::time::Duration;

use vmm::control_characters::{spell_out, spell_out_json};
use vmm::writable::write_within;

use super::Refused;

/// How long a reader of standard error may take nothing before the rest is not written.
const PATIENCE: Duration = Duration::from_secs(5);

/// Exit status if what was asked for cannot be printed.
const NOT_PRINTED: u8 = 3;

/// Prints `text` on standard output.
///
/// # Errors
/// If it cannot be written.
pub fn print(text: &str) -> io::Result<()> {
    write(&spell_out(text))
}

/// Prints a JSON document on standard output.
///
/// # Errors
/// If it cannot be written.
pub fn print_json(document: &str) -> io::Result<()> {
    write(&spell_out_json(document))
}

#[expect(clippy::disallowed_methods, reason = "this is its place")]
fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// The exit status of a subcommand that does nothing but to print `what`, and has done so. It is no
/// failure if the reader has closed the pipe, as `head` does: it has read enough.
///
/// # Errors
/// [`Refused`] if it could not be written.
pub fn listed(what: &str, printed: io::Result<()>) -> Result<u8, Refused> {
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Refused {
            message: format!("cannot print {what}: {error}"),
            status: NOT_PRINTED,
        }),
        _ => Ok(0),
    }
}

/// Writes to standard error, which the guest's console may have filled for a reader that does not
/// read: the command ends all the same.
///
/// # Errors
/// If standard error is closed, or not read.
#[expect(clippy::disallowed_methods, reason = "this is its place")]
pub fn say(words: &str) -> io::Result<()> {
    write_within(io::stderr().lock(), spell_out(words).as_bytes(), PATIENCE)
}

/// Tells the user, on standard error.
pub fn complain(message: &str) {
    // If standard error is closed too, only the exit status is left.
    let _ = say(&format!("vmm: {message}\n"));
}

/// Standard error for a log, which writes a line at a time.
#[derive(Debug, Clone, Copy)]
pub struct Log;

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        say(&String::from_utf8_lossy(line))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
