//! The console: a 16550 at COM1, polled. Each line is written as a whole, and begins with the
//! number of the CPU that writes it.

use core::fmt::{self, Write};
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, Ordering};

use shared::ports::CONSOLE;
use x86_64::instructions::port::Port;

use super::cpu::Cpu;

// Registers and bits of the 16550 (PC16550D data sheet, 8.0).
const DATA: u16 = CONSOLE;
const INTERRUPT_ENABLE: u16 = CONSOLE + 1;
const FIFO_CONTROL: u16 = CONSOLE + 2;
const LINE_CONTROL: u16 = CONSOLE + 3;
const LINE_STATUS: u16 = CONSOLE + 5;
/// FIFOs on and empty.
const FIFO_RESET: u8 = 0x07;
/// Eight data bits, no parity, one stop bit.
const EIGHT_N_ONE: u8 = 0x03;
/// Line status: the transmit FIFO is empty.
const TRANSMIT_EMPTY: u8 = 1 << 5;
/// Bytes the transmit FIFO takes once it is empty.
const FIFO: u8 = 16;

/// Turns after which a wait is given up, in case the FIFO never empties or the holder of the lock
/// has died. A garbled line is better than a lost report.
const WAIT_TURNS: u32 = 200_000;

static BUSY: AtomicBool = AtomicBool::new(false);

/// Writes a line to the console. The arguments are those of `format!`.
#[macro_export]
macro_rules! log {
    ($($argument:tt)*) => { $crate::metal::console::line(format_args!($($argument)*)) };
}

/// Sets the UART up for polled output.
pub fn init() {
    write(INTERRUPT_ENABLE, 0);
    write(LINE_CONTROL, EIGHT_N_ONE);
    write(FIFO_CONTROL, FIFO_RESET);
}

/// Writes `text` as one line or several, each with the number of this CPU in front.
pub fn line(text: fmt::Arguments<'_>) {
    let free = || !BUSY.swap(true, Ordering::Acquire);
    let _ = wait_until(free);
    let mut uart = Uart {
        room: 0,
        at_line_start: true,
    };
    let _ = writeln!(uart, "{text}");
    BUSY.store(false, Ordering::Release);
}

fn wait_until(mut ready: impl FnMut() -> bool) -> bool {
    (0..WAIT_TURNS).any(|_| {
        ready() || {
            spin_loop();
            false
        }
    })
}

fn write(register: u16, value: u8) {
    // SAFETY: no other code uses the registers of the UART, and writing them touches no memory.
    unsafe { Port::new(register).write(value) };
}

struct Uart {
    /// Bytes the FIFO is known to take.
    room: u8,
    at_line_start: bool,
}

impl Uart {
    fn put(&mut self, byte: u8) {
        if self.room == 0 {
            let mut status = Port::<u8>::new(LINE_STATUS);
            // SAFETY: reading the line status changes nothing but error flags that are not used.
            let empty = || unsafe { status.read() } & TRANSMIT_EMPTY != 0;
            let _ = wait_until(empty);
            self.room = FIFO;
        }
        self.room -= 1;
        write(DATA, byte);
    }
}

impl Write for Uart {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if self.at_line_start {
                self.at_line_start = false;
                write!(self, "[cpu {}] ", Cpu::current().index)?;
            }
            self.put(byte);
            self.at_line_start = byte == b'\n';
        }
        Ok(())
    }
}
