//! ^C while the machine is moved by hand: it is asked for between two steps, and ends `KVM_RUN`, which a signal
//! does anyway.

use std::sync::atomic::{AtomicI32, Ordering};

use vmm_sys_util::errno;
use vmm_sys_util::signal::register_signal_handler;

static CAME: AtomicI32 = AtomicI32::new(0);

extern "C" fn note(signal: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    CAME.store(signal, Ordering::Relaxed);
}

/// Takes SIGINT and SIGTERM from now on.
///
/// # Errors
/// What `sigaction` said.
pub fn catch() -> Result<(), errno::Error> {
    register_signal_handler(libc::SIGINT, note)?;
    register_signal_handler(libc::SIGTERM, note)
}

/// Whether one has come.
pub fn interrupted() -> bool {
    CAME.load(Ordering::Relaxed) != 0
}

/// Goes on as if `signal` had come.
pub fn pretend(signal: libc::c_int) {
    CAME.store(signal, Ordering::Relaxed);
}

/// The exit status that says so.
pub fn status() -> u8 {
    u8::try_from(128 + CAME.load(Ordering::Relaxed)).unwrap_or(130)
}
