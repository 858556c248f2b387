//! ^C, SIGTERM and SIGHUP while the machine is moved by hand: they are asked for between two steps,
//! and end `KVM_RUN`, which a signal does anyway.

use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use vmm_sys_util::signal::register_signal_handler;

use super::{Refused, signals};

/// The last that came.
static CAME: AtomicI32 = AtomicI32::new(0);

/// How many came, and how many of them were heeded.
static COUNT: AtomicU32 = AtomicU32::new(0);
static HEEDED: AtomicU32 = AtomicU32::new(0);

extern "C" fn note(signal: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    pretend(signal);
}

/// Takes the signals that end a run from now on.
///
/// # Errors
/// [`Refused`] if the host does not let it.
pub fn catch() -> Result<(), Refused> {
    for signal in signals::caught() {
        register_signal_handler(signal, note).map_err(|error| Refused {
            message: format!("cannot catch signal {signal}: {error}"),
            status: 3,
        })?;
    }
    Ok(())
}

/// Whether one has come that was not heeded yet.
pub fn interrupted() -> bool {
    COUNT.load(Ordering::Relaxed) != HEEDED.load(Ordering::Relaxed)
}

/// Whether one has come at all.
pub fn has_come() -> bool {
    CAME.load(Ordering::Relaxed) != 0
}

/// Takes those that have come for heeded: what they were to end has ended. What comes now is for
/// the next thing.
pub fn heed() {
    HEEDED.store(COUNT.load(Ordering::Relaxed), Ordering::Relaxed);
}

/// Goes on as if `signal` had come.
pub fn pretend(signal: libc::c_int) {
    CAME.store(signal, Ordering::Relaxed);
    COUNT.fetch_add(1, Ordering::Relaxed);
}

/// The exit status that says so.
pub fn status() -> u8 {
    signals::status_of(CAME.load(Ordering::Relaxed))
}
