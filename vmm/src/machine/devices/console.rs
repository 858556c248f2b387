//! The bytes a guest has written to its console, on their way out. vCPU threads put them here and
//! never wait: when the buffer is full, further bytes are dropped and counted.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::transcript::Transcript;

const CAPACITY: usize = 1 << 20;

/// As many bytes are announced even if they are no whole line.
const MANY: usize = 4096;

/// A bounded buffer with an eventfd that is readable when a line is complete. A guest writes byte by
/// byte: to wake the reader for each would take as long as the writing. What is no whole line, the
/// reader has to take from time to time.
#[derive(Debug)]
pub struct Console {
    buffer: Mutex<Vec<u8>>,
    written: AtomicU64,
    dropped: AtomicU64,
    lines: AtomicU64,
    filled: EventFd,
    transcript: Mutex<Transcript>,
}

impl Console {
    /// An empty console.
    ///
    /// # Errors
    /// What `eventfd` said.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            buffer: Mutex::default(),
            written: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            lines: AtomicU64::new(0),
            transcript: Mutex::default(),
            filled: EventFd::new(EFD_NONBLOCK)?,
        })
    }

    /// Takes everything written so far.
    pub fn take(&self) -> Vec<u8> {
        // The eventfd is read first, so that a byte that is put in between makes it readable again.
        let _ = self.filled.read();
        std::mem::take(&mut *self.buffer.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Readable when a line is complete, or much has been written.
    pub fn filled(&self) -> &EventFd {
        &self.filled
    }

    /// Bytes the guest has written.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Bytes that did not fit.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Lines that the guest has ended.
    pub fn lines(&self) -> u64 {
        self.lines.load(Ordering::Relaxed)
    }

    /// The last of what the guest itself has written, to be searched.
    pub fn transcript(&self) -> MutexGuard<'_, Transcript> {
        (self.transcript.lock()).unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds text that is not the guest's, in order with the guest's output.
    pub fn add(&self, text: &str) {
        self.put(text.as_bytes());
    }

    fn put(&self, bytes: &[u8]) {
        self.written
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        let before = buffer.len();
        let room = CAPACITY.saturating_sub(before).min(bytes.len());
        buffer.extend_from_slice(&bytes[..room]);
        drop(buffer);
        let are_many = (before + 1..=before + room).contains(&MANY);
        self.dropped
            .fetch_add((bytes.len() - room) as u64, Ordering::Relaxed);
        if are_many || bytes[..room].contains(&b'\n') {
            // Fails only if the counter is full, and then it is readable already.
            let _ = self.filled.write(1);
        }
    }
}

/// The UART's end of a [`Console`].
pub(super) struct Writer(pub Arc<Console>);

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.put(bytes);
        self.0.transcript().add(bytes);
        if bytes.contains(&b'\n') {
            self.0.lines.fetch_add(1, Ordering::Relaxed);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_lines_are_announced_and_much_without_an_end() {
        let console = Console::new().unwrap();
        let announced = |bytes: &[u8]| {
            console.put(bytes);
            console.filled().read().is_ok()
        };
        assert!(!announced(b"a"));
        assert!(!announced(b"b"));
        assert!(announced(b"\n"));
        assert_eq!(console.take(), b"ab\n");
        assert!(!announced(&[b'x'; MANY - 1]));
        assert!(announced(b"y"));
        assert!(!announced(b"z"));
        console.take();
        assert!(announced(&[b'x'; MANY + 1]));
    }

    #[test]
    fn a_full_buffer_drops_and_counts() {
        let console = Console::new().unwrap();
        console.put(&vec![b'x'; CAPACITY - 1]);
        console.put(b"yz");
        assert_eq!(
            (console.written(), console.dropped()),
            (CAPACITY as u64 + 1, 1)
        );
        assert_eq!(console.take().len(), CAPACITY);
        assert!(console.filled().read().is_err(), "still announced");
    }
}
