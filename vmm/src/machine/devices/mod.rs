//! The devices at ports and addresses that KVM does not handle: the 16550 console, the exit port,
//! the doorbell, and what turns a machine off. Shared by all vCPUs. Decides nothing: a write that
//! matters to the rest of the VMM is returned as an [`Effect`].

mod console;
pub mod power;
mod transcript;
mod uart;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shared::ports::{self, Dispatch, Doorbell};
use vmm_sys_util::eventfd::EventFd;

use super::{function_entry, stop_instruction};
pub use console::Console;
pub use transcript::Transcript;
pub use uart::TYPED_AHEAD;
use uart::Uart;

/// What a port write means to the rest of the VMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// The doorbell was rung.
    Doorbell(Doorbell),
    /// The guest sends an IPI through the VMM.
    Dispatch(Dispatch),
    /// The guest has ended with this code, which is not checked yet.
    GuestExit(u32),
    /// The guest turns the machine off.
    PowerOff,
    /// The guest resets the machine.
    Reset,
    /// The guest has ended a line on its console.
    Line,
    /// A vCPU has come to the armed entry of a function.
    Entry,
    /// A vCPU has come to an instruction that stops it for a debugger.
    Stop,
}

/// Accesses that no device knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct Strays {
    /// To ports, or to the wire with a delivery mode that it does not carry.
    pub ports: u64,
    /// To addresses.
    pub mmio: u64,
    /// To the doorbell, with a value that means nothing.
    pub doorbell: u64,
}

/// The devices of one machine.
#[derive(Debug)]
pub struct Devices {
    uart: Mutex<Uart>,
    console: Arc<Console>,
    stray_ports: AtomicU64,
    stray_mmio: AtomicU64,
    stray_doorbell: AtomicU64,
}

impl Devices {
    /// Devices whose console writes to `console`.
    pub fn new(console: Arc<Console>) -> Self {
        Self::with(Uart::new(&console), console)
    }

    /// The same, with an eventfd that is written to when the console raises its interrupt.
    ///
    /// # Errors
    /// What `eventfd` said.
    pub fn interrupting(console: Arc<Console>) -> io::Result<(Self, EventFd)> {
        let (uart, line) = Uart::interrupting(&console)?;
        Ok((Self::with(uart, console), line))
    }

    fn with(uart: Uart, console: Arc<Console>) -> Self {
        Self {
            uart: Mutex::new(uart),
            console,
            stray_ports: AtomicU64::new(0),
            stray_mmio: AtomicU64::new(0),
            stray_doorbell: AtomicU64::new(0),
        }
    }

    /// The console, with what the guest has written to it.
    pub fn console(&self) -> &Arc<Console> {
        &self.console
    }

    /// Accesses that no device knew, so far.
    pub fn strays(&self) -> Strays {
        Strays {
            ports: self.stray_ports.load(Ordering::Relaxed),
            mmio: self.stray_mmio.load(Ordering::Relaxed),
            doorbell: self.stray_doorbell.load(Ordering::Relaxed),
        }
    }

    /// Handles `out`. A repeated `outs` brings all its bytes at once.
    pub fn write_port(&self, port: u16, data: &[u8]) -> Effect {
        match port {
            ports::EXIT => Effect::GuestExit(value(data)),
            function_entry::PORT => Effect::Entry,
            stop_instruction::PORT => Effect::Stop,
            ports::WIRE => match Dispatch::try_from(value(data)) {
                Ok(dispatch) => Effect::Dispatch(dispatch),
                Err(_) => {
                    self.stray_ports.fetch_add(1, Ordering::Relaxed);
                    Effect::None
                }
            },
            ports::DOORBELL => match Doorbell::try_from(value(data)) {
                Ok(doorbell) => Effect::Doorbell(doorbell),
                Err(_) => {
                    self.stray_doorbell.fetch_add(1, Ordering::Relaxed);
                    Effect::None
                }
            },
            _ => match uart_register(port) {
                Some(register) => self.write_uart(register, data),
                None => (data.first())
                    .and_then(|value| power::written(port, *value))
                    .unwrap_or_else(|| {
                        self.stray_ports.fetch_add(1, Ordering::Relaxed);
                        Effect::None
                    }),
            },
        }
    }

    fn write_uart(&self, register: u8, data: &[u8]) -> Effect {
        let mut uart = self.uart();
        let lines = self.console.lines();
        uart.write(register, data);
        match self.console.lines() == lines {
            true => Effect::None,
            false => Effect::Line,
        }
    }

    /// Answers `in`; where there is no device the bus floats high.
    pub fn read_port(&self, port: u16, data: &mut [u8]) {
        match uart_register(port) {
            Some(register) => self.uart().read(register, data),
            None if power::is_there(port) => data.fill(0),
            None => {
                data.fill(0xff);
                if ![ports::EXIT, ports::DOORBELL, ports::WIRE].contains(&port) {
                    self.stray_ports.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Handles a write to a port that was no device's after all.
    pub fn write_stray_port(&self) {
        self.stray_ports.fetch_add(1, Ordering::Relaxed);
    }

    /// Handles a write to an address without memory or device.
    pub fn write_nowhere(&self) {
        self.stray_mmio.fetch_add(1, Ordering::Relaxed);
    }

    /// Answers a read from an address without memory or device.
    pub fn read_nowhere(&self, data: &mut [u8]) {
        data.fill(0xff);
        self.stray_mmio.fetch_add(1, Ordering::Relaxed);
    }

    /// Types `bytes` on the console. Returns whether there was room for them all; else none are
    /// taken.
    pub fn type_in(&self, bytes: &[u8]) -> bool {
        self.uart().type_in(bytes)
    }

    fn uart(&self) -> MutexGuard<'_, Uart> {
        self.uart.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The value of a port write of any width.
fn value(data: &[u8]) -> u32 {
    data.iter()
        .take(4)
        .rev()
        .fold(0, |value, byte| value << 8 | u32::from(*byte))
}

fn uart_register(port: u16) -> Option<u8> {
    let register = port
        .checked_sub(ports::CONSOLE)
        .filter(|register| *register < ports::CONSOLE_LEN)?;
    u8::try_from(register).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices() -> Devices {
        Devices::new(Arc::new(Console::new().unwrap()))
    }

    #[test]
    fn the_console_is_ready_and_keeps_what_is_written() {
        let devices = devices();
        let mut status = [0];
        devices.read_port(ports::CONSOLE + 5, &mut status);
        assert_ne!(status[0] & 0x20, 0, "transmitter empty");
        assert_eq!(devices.write_port(ports::CONSOLE, b"hello"), Effect::None);
        assert_eq!(devices.console().take(), b"hello");
    }

    #[test]
    fn what_means_nothing_is_counted_and_ignored() {
        let devices = devices();
        assert_eq!(
            devices.write_port(ports::DOORBELL, &77_u32.to_le_bytes()),
            Effect::None
        );
        assert_eq!(devices.write_port(0x80, &[1]), Effect::None);
        let mut data = [0; 4];
        devices.read_port(0xcf8, &mut data);
        assert_eq!(data, [0xff; 4]);
        devices.write_nowhere();
        assert_eq!(
            devices.strays(),
            Strays {
                ports: 2,
                mmio: 1,
                doorbell: 1
            }
        );
    }

    #[test]
    fn the_width_of_a_write_does_not_matter() {
        let devices = devices();
        assert_eq!(
            devices.write_port(ports::EXIT, &[0x10]),
            Effect::GuestExit(0x10)
        );
        assert_eq!(
            devices.write_port(ports::EXIT, &[0x10, 0, 0, 0]),
            Effect::GuestExit(0x10)
        );
        assert_eq!(
            devices.write_port(ports::DOORBELL, &[1, 0, 0, 0]),
            Effect::Doorbell(Doorbell::WorkloadStarted)
        );
        assert_eq!(devices.write_port(ports::EXIT, &[]), Effect::GuestExit(0));
    }
}
