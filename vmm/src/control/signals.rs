//! SIGINT and SIGTERM as something to read. They are blocked only while a run is being watched, so
//! that afterwards they do again what they always do.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};

use vmm_sys_util::signal::{block_signal, create_sigset, get_blocked_signals, unblock_signal};

const CAUGHT: [libc::c_int; 2] = [libc::SIGINT, libc::SIGTERM];

/// Leaves the signals to the thread that runs the machine, for as long as the calling thread lives. One that
/// has them unblocked while they are to be caught elsewhere would take them, and the process would end.
pub(crate) fn leave_to_others() {
    for signal in CAUGHT {
        // Fails only for numbers that are no signals, or if it is blocked already.
        let _ = block_signal(signal);
    }
}

/// The signals that end a run, caught until this is dropped.
#[derive(Debug)]
pub(super) struct Signals {
    file: File,
    blocked: Vec<libc::c_int>,
}

impl Signals {
    /// Blocks the signals in this thread, and with it in all threads it starts from here on.
    pub fn catch() -> io::Result<Self> {
        let other = |error: vmm_sys_util::signal::Error| io::Error::other(format!("{error:?}"));
        let already = get_blocked_signals().map_err(other)?;
        let mut blocked = Vec::new();
        for signal in CAUGHT
            .into_iter()
            .filter(|signal| !already.contains(signal))
        {
            block_signal(signal).map_err(other)?;
            blocked.push(signal);
        }
        let set = create_sigset(&CAUGHT)?;
        // SAFETY: `set` is an initialised signal set; -1 asks for a new file descriptor.
        let fd =
            unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this file descriptor for us; nobody else knows it.
        let file = unsafe { File::from_raw_fd(fd) };
        Ok(Self { file, blocked })
    }

    /// The number of a signal that has come.
    pub fn take(&mut self) -> Option<i32> {
        let mut info = [0; size_of::<libc::signalfd_siginfo>()];
        self.file.read_exact(&mut info).ok()?;
        // The structure begins with the number, `ssi_signo`.
        info.first_chunk().map(|number| i32::from_ne_bytes(*number))
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for signal in &self.blocked {
            // Fails only for numbers that are no signals.
            let _ = unblock_signal(*signal);
        }
    }
}
