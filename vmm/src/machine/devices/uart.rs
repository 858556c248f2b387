//! The 16550 at COM1: what the guest writes goes to the console, and what is typed there waits until
//! the guest has room for it. Its interrupt line goes where the machine connects it, if anywhere.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::sync::Arc;

use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::console::{Console, Writer};

/// Most bytes that wait to be read by the guest.
pub const TYPED_AHEAD: usize = 64 << 10;

/// The interrupt line. A guest of the bench polls, as all early consoles do, and its line leads
/// nowhere.
#[derive(Debug, Default)]
struct Line(Option<EventFd>);

impl Trigger for Line {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        if let Some(fd) = &self.0 {
            // Fails only if the counter is full, and then it is raised already.
            let _ = fd.write(1);
        }
        Ok(())
    }
}

/// The UART.
pub(super) struct Uart {
    registers: Serial<Line, NoEvents, Writer>,
    /// What was typed and is not in the receiver yet.
    typed: VecDeque<u8>,
}

impl Uart {
    /// One whose interrupt leads nowhere.
    pub fn new(console: &Arc<Console>) -> Self {
        Self::with_line(console, Line::default())
    }

    /// One with an interrupt line: an eventfd, which is written to when it is raised.
    pub fn interrupting(console: &Arc<Console>) -> io::Result<(Self, EventFd)> {
        let fd = EventFd::new(EFD_NONBLOCK)?;
        let line = Line(Some(fd.try_clone()?));
        Ok((Self::with_line(console, line), fd))
    }

    fn with_line(console: &Arc<Console>, line: Line) -> Self {
        Self {
            registers: Serial::new(line, Writer(Arc::clone(console))),
            typed: VecDeque::new(),
        }
    }

    /// Writes bytes to a register.
    pub fn write(&mut self, register: u8, data: &[u8]) {
        for byte in data {
            // Raising the line cannot fail, and the writer takes or drops every byte.
            let _ = self.registers.write(register, *byte);
        }
        self.receive();
    }

    /// Reads a register, once for each byte.
    pub fn read(&mut self, register: u8, data: &mut [u8]) {
        for byte in data {
            *byte = self.registers.read(register);
            self.receive();
        }
    }

    /// Types `bytes`. Returns whether there was room for all; else none are taken.
    pub fn type_in(&mut self, bytes: &[u8]) -> bool {
        if self.typed.len() + bytes.len() > TYPED_AHEAD {
            return false;
        }
        self.typed.extend(bytes);
        self.receive();
        true
    }

    /// Moves to the receiver what it has room for.
    fn receive(&mut self) {
        let room = self.registers.fifo_capacity().min(self.typed.len());
        if room == 0 {
            return;
        }
        let next: Vec<u8> = self.typed.iter().take(room).copied().collect();
        // In loop mode it takes nothing.
        let taken = self.registers.enqueue_raw_bytes(&next).unwrap_or(0);
        self.typed.drain(..taken);
    }
}

impl fmt::Debug for Uart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uart")
            .field("typed", &self.typed.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_waits_for_the_guest_and_raises_its_line() {
        let console = Arc::new(Console::new().unwrap());
        let (mut uart, line) = Uart::interrupting(&console).unwrap();
        uart.write(1, &[1]); // interrupt when data is received
        let text: Vec<u8> = (0..200).collect();
        assert!(uart.type_in(&text));
        assert!(line.read().is_ok());
        let mut seen = Vec::new();
        let mut status = [0];
        loop {
            uart.read(5, &mut status);
            if status[0] & 1 == 0 {
                break;
            }
            let mut byte = [0];
            uart.read(0, &mut byte);
            seen.push(byte[0]);
        }
        assert_eq!(seen, text);
    }

    #[test]
    fn nobody_types_without_end() {
        let mut uart = Uart::new(&Arc::new(Console::new().unwrap()));
        assert!(uart.type_in(&[b'x'; TYPED_AHEAD]));
        assert!(!uart.type_in(&[b'x'; TYPED_AHEAD]));
    }
}
