//! The console: a 16550 that is polled, one line at a time, each with the number of its CPU.
//!
//! Source: National Semiconductor PC16550D data sheet, 8.0 (registers).

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

use shared::ports::CONSOLE;
use x86_64::instructions::interrupts::without_interrupts;
use x86_64::instructions::port::Port;

/// Line status: the transmitter can take [`FIFO`] bytes.
const EMPTY: u8 = 1 << 5;

/// Bytes the transmitter takes at once when it is empty.
const FIFO: usize = 16;

/// Held while a line is written.
static LOCK: AtomicBool = AtomicBool::new(false);

/// Turns after which a line is written although the lock is held: its holder may be dead.
const PATIENCE: u32 = 100_000;

struct Uart;

impl Write for Uart {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for burst in text.as_bytes().chunks(FIFO) {
            let mut status = Port::<u8>::new(CONSOLE + 5);
            let mut data = Port::<u8>::new(CONSOLE);
            // SAFETY: reading the line status of the UART has no effect on memory.
            while unsafe { status.read() } & EMPTY == 0 {
                core::hint::spin_loop();
            }
            for byte in burst {
                // SAFETY: the transmitter has room, and sending a byte has no effect on memory.
                unsafe { data.write(*byte) };
            }
        }
        Ok(())
    }
}

/// Writes one line.
pub fn line(text: fmt::Arguments<'_>) {
    without_interrupts(|| {
        let mut turns = 0;
        while LOCK.swap(true, Ordering::Acquire) && turns < PATIENCE {
            core::hint::spin_loop();
            turns += 1;
        }
        let cpu = super::percpu::index();
        // The UART never fails.
        let _ = writeln!(Uart, "[cpu {cpu}] {text}");
        LOCK.store(false, Ordering::Release);
    });
}

/// Takes the console from whoever has it, for the last words of a CPU that panicked.
pub fn seize() {
    LOCK.store(false, Ordering::Release);
}

/// Writes one line to the console, with the number of the CPU in front.
macro_rules! println {
    ($($arguments:tt)*) => { $crate::metal::console::line(format_args!($($arguments)*)) };
}
pub(crate) use println;
