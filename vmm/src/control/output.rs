//! Writes the guest's console to the VMM's output. Never waits for a slow reader. After a write
//! error nothing more is written, and the run goes on.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use crate::control_characters::{self, spell_out};
use crate::machine::devices::Console;
use crate::writable::{CHUNK, is_ready};

/// Where the guest's console goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// To standard output.
    Stdout,
    /// To standard error.
    Stderr,
    /// Nowhere. It is captured, up to a limit.
    Captured,
}

/// Most bytes kept for a slow reader.
const BACKLOG: usize = 8 << 20;
/// Most bytes captured of a console that goes nowhere.
const KEPT: usize = 64 << 10;
/// How long to wait for a slow reader at the end.
const PATIENCE: Duration = Duration::from_secs(5);

/// The output to which the guest's console goes.
#[derive(Debug)]
pub(super) struct Output {
    /// `None` if the console is captured.
    file: Option<File>,
    /// Spells out control characters, unless the console is to be as it is.
    spelling: Option<control_characters::Stream>,
    backlog: VecDeque<u8>,
    failed: Option<io::Error>,
    lost: u64,
}

/// Prints a line where a console would go, of which there is none at this moment.
///
/// # Errors
/// If it cannot be written.
#[expect(
    clippy::disallowed_methods,
    reason = "consoles have the streams of the process"
)]
pub(super) fn print(stream: Stream, raw: bool, text: &str) -> io::Result<()> {
    let text = if raw { text.into() } else { spell_out(text) };
    match stream {
        Stream::Stdout => writeln!(io::stdout(), "{text}"),
        Stream::Stderr => writeln!(io::stderr(), "{text}"),
        Stream::Captured => Ok(()),
    }
}

impl Output {
    /// The output that `stream` says; `raw` if control characters are to be kept.
    #[expect(
        clippy::disallowed_methods,
        reason = "consoles have the streams of the process"
    )]
    pub fn new(stream: Stream, raw: bool) -> io::Result<Self> {
        let fd = match stream {
            Stream::Stdout => Some(io::stdout().as_fd().try_clone_to_owned()?),
            Stream::Stderr => Some(io::stderr().as_fd().try_clone_to_owned()?),
            Stream::Captured => None,
        };
        Ok(Self {
            spelling: (fd.is_some() && !raw).then(Default::default),
            file: fd.map(File::from),
            backlog: VecDeque::new(),
            failed: None,
            lost: 0,
        })
    }

    /// Takes what the guest has written, and writes as much as is possible without waiting.
    pub fn pump(&mut self, console: &Console) {
        self.take(console);
        self.write(self.backlog.len());
    }

    /// Takes what the guest has written, as far as there is room, without writing it.
    pub fn take(&mut self, console: &Console) {
        let taken = console.take();
        let bytes = match &mut self.spelling {
            Some(spelling) => spelling.next(&taken).into_bytes(),
            None => taken,
        };
        let room = match self.failed {
            Some(_) => 0,
            None => self
                .limit()
                .saturating_sub(self.backlog.len())
                .min(bytes.len()),
        };
        self.backlog.extend(&bytes[..room]);
        if self.file.is_none() {
            return;
        }
        self.lost += (bytes.len() - room) as u64;
    }

    /// Writes the whole lines of what was taken, as far as is possible without waiting. This is for
    /// a terminal that shows a table below them. A line that is longer than [`CHUNK`] is ended there.
    pub fn write_lines(&mut self) {
        let whole = self.backlog.iter().rposition(|byte| *byte == b'\n');
        if whole.is_none() && self.backlog.len() >= CHUNK {
            self.backlog.push_back(b'\n');
            self.write(self.backlog.len());
        } else {
            self.write(whole.map_or(0, |last| last + 1));
        }
    }

    /// Whether it is a terminal, which may also show a table.
    pub fn is_terminal(&self) -> bool {
        self.file.as_ref().is_some_and(File::is_terminal)
    }

    /// Whether there are whole lines to write.
    pub fn has_lines(&self) -> bool {
        self.file.is_some() && (self.backlog.contains(&b'\n') || self.backlog.len() >= CHUNK)
    }

    /// Writes up to `length` bytes of what was taken, as far as is possible without waiting.
    fn write(&mut self, length: usize) {
        let Some(file) = &mut self.file else {
            return;
        };
        let mut left = length;
        while left > 0 && is_ready(&*file, Duration::ZERO) {
            let (chunk, _) = self.backlog.as_slices();
            match file.write(&chunk[..chunk.len().min(left).min(CHUNK)]) {
                Ok(written @ 1..) => {
                    self.backlog.drain(..written);
                    left -= written;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                failed => {
                    self.lost += self.backlog.len() as u64;
                    self.backlog.clear();
                    self.failed = failed.err().or_else(|| Some(ErrorKind::WriteZero.into()));
                    return;
                }
            }
        }
    }

    /// Writes the rest. Waits for a slow reader, up to [`PATIENCE`].
    pub fn finish(&mut self, console: &Console) {
        let deadline = Instant::now() + PATIENCE;
        self.take(console);
        if let Some(spelling) = &mut self.spelling {
            self.backlog.extend(spelling.rest().into_bytes());
        }
        self.write(self.backlog.len());
        if self.file.is_none() {
            return;
        }
        while !self.backlog.is_empty() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
            self.pump(console);
        }
        self.lost += self.backlog.len() as u64;
        self.backlog.clear();
    }

    /// A message for the user if not everything was written.
    pub fn loss(&self, console: &Console) -> Option<String> {
        let lost = self.lost.saturating_add(console.dropped());
        match &self.failed {
            Some(error) => Some(format!(
                "cannot write the guest's console: {error}; {lost} bytes lost"
            )),
            None if lost > 0 => Some(format!(
                "the guest's console was read too slowly; {lost} bytes lost"
            )),
            None => None,
        }
    }

    /// What was captured of a console that goes nowhere.
    pub fn captured(&self) -> String {
        let bytes: Vec<u8> = self.backlog.iter().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn limit(&self) -> usize {
        match self.file {
            Some(_) => BACKLOG,
            None => KEPT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn output(text: &str) -> (io::PipeReader, Output) {
        let (reader, writer) = io::pipe().unwrap();
        let output = Output {
            file: Some(File::from(std::os::fd::OwnedFd::from(writer))),
            spelling: None,
            backlog: text.bytes().collect(),
            failed: None,
            lost: 0,
        };
        (reader, output)
    }

    #[test]
    fn only_whole_lines_are_written_above_a_table() {
        let (mut reader, mut output) = output("one\ntwo\tä\nthr");
        assert!(output.has_lines());
        output.write_lines();
        assert!(!output.has_lines());
        let kept: Vec<_> = output.backlog.iter().copied().collect();
        assert_eq!(kept, b"thr");
        drop(output);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one\ntwo\tä\n");
    }

    #[test]
    fn a_line_without_an_end_is_given_one() {
        let (mut reader, mut output) = output(&"x".repeat(CHUNK));
        output.write_lines();
        drop(output);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text.len(), CHUNK + 1);
        assert!(text.ends_with("x\n"));
    }
}
