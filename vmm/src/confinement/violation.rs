//! What happens when a thread makes a system call that its kind may not make: the kernel does not
//! carry it out and sends SIGSYS, whose handler names the call and the thread on standard error and
//! ends the process. The handler uses nothing that another thread could hold: no lock, no
//! allocation, no formatting of the standard library.

use std::io;
use std::mem;

use libc::{c_int, c_void, siginfo_t};
use syscalls::Sysno;

use super::kind;

/// The exit status of a process that has ended so.
pub const STATUS: u8 = 6;

/// Handles SIGSYS from now on.
///
/// # Errors
/// What the host said.
pub(super) fn report() -> io::Result<()> {
    // SAFETY: all zeroes are a valid `sigaction`.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = handle;
    action.sa_sigaction = handler as usize;
    // Its own stack may be what a thread has lost.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: `action` is a valid `sigaction`, whose handler is of the kind that its flags say.
    match unsafe { libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What the kernel says of a violation, at the beginning of `siginfo_t` (`asm-generic/siginfo.h`).
#[repr(C)]
struct Violation {
    signal: c_int,
    error: c_int,
    code: c_int,
    address: *mut c_void,
    call: c_int,
    architecture: u32,
}

/// `si_code` of a SIGSYS that a filter has caused (`asm-generic/siginfo.h`).
const SYS_SECCOMP: c_int = 1;

extern "C" fn handle(_: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a `siginfo_t`, which is larger than `Violation`, begins as it does,
    // and is made of integers and an address that is not followed.
    let violation = unsafe { &*info.cast::<Violation>() };
    let mut line = Line::new();
    line.text("vmm: confinement: ");
    if violation.code == SYS_SECCOMP {
        line.text("thread \"");
        line.bytes(&name());
        line.text("\" (kind ");
        line.text(kind::current().name());
        line.text(") must not make the system call ");
        let number = usize::try_from(violation.call).unwrap_or(usize::MAX);
        match Sysno::new(number) {
            Some(call) => line.text(call.name()),
            None => line.text("unknown to this vmm, number"),
        }
        line.text(" (");
        line.decimal(number as u64);
        line.text("), arguments");
        // SAFETY: the kernel passes the context of the thread, a `ucontext_t` that is made of
        // integers, and nobody changes it while the handler runs.
        let registers = unsafe { (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
        for register in [libc::REG_RDI, libc::REG_RSI, libc::REG_RDX] {
            line.text(" ");
            line.hexadecimal(registers[register as usize].cast_unsigned());
        }
        line.text(
            ". It was not carried out, and vmm ends. This is a bug of vmm, or somebody's who ",
        );
        line.text("took it over; --no-seccomp runs without this limit\n");
    } else {
        line.text("somebody sent SIGSYS, and vmm ends\n");
    }
    line.write();
    // SAFETY: the call has no preconditions, and every kind of thread may make it. It runs no
    // handlers of the program.
    unsafe { libc::_exit(STATUS.into()) };
}

/// The name of the calling thread, as the kernel has it.
fn name() -> [u8; 16] {
    let mut name = [0; 16];
    // SAFETY: the kernel writes at most 16 bytes to `name`. Every kind of thread may ask.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    name
}

/// A line on the stack.
struct Line {
    bytes: [u8; 512],
    length: usize,
}

impl Line {
    fn new() -> Self {
        Self {
            bytes: [0; 512],
            length: 0,
        }
    }

    fn byte(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte;
            self.length += 1;
        }
    }

    fn text(&mut self, text: &str) {
        text.bytes().for_each(|byte| self.byte(byte));
    }

    /// Bytes up to the first zero, without those that would move a terminal's cursor.
    fn bytes(&mut self, bytes: &[u8]) {
        let until = bytes.iter().take_while(|byte| **byte != 0);
        until.for_each(|byte| match byte.is_ascii_control() {
            true => self.byte(b'?'),
            false => self.byte(*byte),
        });
    }

    fn decimal(&mut self, number: u64) {
        self.digits(number, 10);
    }

    fn hexadecimal(&mut self, number: u64) {
        self.text("0x");
        self.digits(number, 16);
    }

    fn digits(&mut self, number: u64, base: u64) {
        if number >= base {
            self.digits(number / base, base);
        }
        self.byte(b"0123456789abcdef"[(number % base) as usize]);
    }

    fn write(&self) {
        let text = &self.bytes[..self.length];
        // SAFETY: the kernel reads these bytes, which are initialised. If standard error is closed,
        // the exit status is left.
        unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_made_without_allocating_and_cut_where_it_is_full() {
        let mut line = Line::new();
        line.bytes(b"vc\x1bpu\0rest");
        line.decimal(1024);
        line.hexadecimal(u64::MAX);
        assert_eq!(&line.bytes[..line.length], b"vc?pu10240xffffffffffffffff");
        line.text(&"x".repeat(1000));
        assert_eq!(line.length, 512);
    }

    #[test]
    fn calls_have_names() {
        for (number, name) in [(libc::SYS_execve, "execve"), (libc::SYS_ioctl, "ioctl")] {
            assert_eq!(Sysno::new(number as usize).map(|it| it.name()), Some(name));
        }
    }
}
