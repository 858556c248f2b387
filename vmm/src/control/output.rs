//! The guest's console on its way to ours. Never waits for a slow reader, and a reader that has gone
//! is remembered and not written to again: the run goes on.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::thread;
use std::time::{Duration, Instant};

use crate::machine::devices::Console;

/// Where the guest's console goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// To standard output.
    Stdout,
    /// To standard error.
    Stderr,
    /// Nowhere; what it says is kept, as far as there is room.
    Kept,
}

/// A pipe that is ready takes this much without blocking (`PIPE_BUF`).
const CHUNK: usize = 4096;
/// Bytes kept for a slow reader.
const BACKLOG: usize = 8 << 20;
/// Bytes kept of a console that goes nowhere.
const KEPT: usize = 64 << 10;
/// How long a slow reader is waited for at the end.
const PATIENCE: Duration = Duration::from_secs(5);

/// The end of the VMM's output that the guest's console uses.
#[derive(Debug)]
pub(super) struct Output {
    /// `None` if it is kept.
    file: Option<File>,
    backlog: VecDeque<u8>,
    failed: Option<io::Error>,
    lost: u64,
}

impl Output {
    pub fn new(stream: Stream) -> io::Result<Self> {
        let fd = match stream {
            Stream::Stdout => Some(io::stdout().as_fd().try_clone_to_owned()?),
            Stream::Stderr => Some(io::stderr().as_fd().try_clone_to_owned()?),
            Stream::Kept => None,
        };
        Ok(Self {
            file: fd.map(File::from),
            backlog: VecDeque::new(),
            failed: None,
            lost: 0,
        })
    }

    /// Takes what the guest has written and writes as much of it as goes out at once.
    pub fn pump(&mut self, console: &Console) {
        let bytes = console.take();
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
        while !self.backlog.is_empty() && self.is_ready() {
            if let Err(error) = self.write_chunk() {
                match error.kind() {
                    ErrorKind::WouldBlock => return,
                    ErrorKind::Interrupted => {}
                    _ => self.give_up(error),
                }
            }
        }
    }

    /// Writes the rest, waiting a little for a slow reader.
    pub fn finish(&mut self, console: &Console) {
        let deadline = Instant::now() + PATIENCE;
        self.pump(console);
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

    /// What the user should know if not everything was written.
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

    /// What a console said that goes nowhere.
    pub fn kept(&self) -> String {
        let bytes: Vec<u8> = self.backlog.iter().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn limit(&self) -> usize {
        match self.file {
            Some(_) => BACKLOG,
            None => KEPT,
        }
    }

    fn write_chunk(&mut self) -> io::Result<()> {
        let (chunk, _) = self.backlog.as_slices();
        let chunk = &chunk[..chunk.len().min(CHUNK)];
        let written = match &mut self.file {
            Some(file) => file.write(chunk)?,
            None => chunk.len(),
        };
        if written == 0 {
            return Err(ErrorKind::WriteZero.into());
        }
        self.backlog.drain(..written);
        Ok(())
    }

    fn give_up(&mut self, error: io::Error) {
        self.lost += self.backlog.len() as u64;
        self.backlog.clear();
        self.failed = Some(error);
    }

    fn is_ready(&self) -> bool {
        let Some(file) = &self.file else {
            return true;
        };
        let mut poll = libc::pollfd {
            fd: file.as_raw_fd(),
            events: libc::POLLOUT,
            revents: 0,
        };
        // SAFETY: `poll` is one valid `pollfd`, and the count says so. It does not wait.
        let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
        ready > 0
    }
}
