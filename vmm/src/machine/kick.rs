//! Getting a vCPU out of the guest from another thread, without losing a request. This is the one
//! place where memory is shared with a running `KVM_RUN`: a single byte, through a mapping of its
//! own, and never anything else.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use kvm_ioctls::KvmRunWrapper;
use vmm_sys_util::errno;
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

/// The byte that makes the next `KVM_RUN` of one vCPU return at once.
///
/// Setting it and then sending [`signal`] to the vCPU's thread ends a `KVM_RUN` whether it has
/// already begun (the signal does) or is just about to (the byte does).
#[derive(Debug)]
pub struct ImmediateExit {
    byte: *mut u8,
    /// Keeps the mapping that `byte` points into.
    _mapping: KvmRunWrapper,
}

// SAFETY: `byte` points into the mapping owned by the same value and is dereferenced only as an
// `AtomicU8`, which any thread may do at any time.
unsafe impl Send for ImmediateExit {}
// SAFETY: as for `Send`.
unsafe impl Sync for ImmediateExit {}

impl ImmediateExit {
    /// Maps the `kvm_run` of `vcpu`, of `run_size` bytes, once more.
    ///
    /// # Errors
    /// What `mmap` said.
    pub fn new(vcpu: &impl AsRawFd, run_size: usize) -> Result<Self, errno::Error> {
        // `VcpuFd` hands out `&mut kvm_run` of its own mapping, so that a pointer into it could not
        // be kept. This mapping shows the same page at another address, of which nobody makes a
        // reference again once the address of the byte is known.
        let mut mapping = KvmRunWrapper::mmap_from_fd(vcpu, run_size)?;
        let byte = &raw mut mapping.as_mut_ref().immediate_exit;
        Ok(Self {
            byte,
            _mapping: mapping,
        })
    }

    /// Makes the next `KVM_RUN` return at once, or no longer.
    pub fn set(&self, on: bool) {
        // SAFETY: the byte is valid and aligned for as long as `_mapping` lives, and every access
        // to it through this mapping is atomic. The kernel reads it once per `KVM_RUN`.
        let byte = unsafe { AtomicU8::from_ptr(self.byte) };
        // Ordered after the request that the vCPU's thread is to see (`lifecycle::Seat::ask`) and,
        // in that thread, before its look at the request.
        byte.store(on.into(), Ordering::SeqCst);
    }
}

/// The signal that interrupts `KVM_RUN`.
pub fn signal() -> libc::c_int {
    SIGRTMIN()
}

/// Installs a handler for [`signal`], which need not do anything: to have been delivered is enough.
///
/// # Errors
/// What `sigaction` said.
pub fn install_handler() -> Result<(), errno::Error> {
    extern "C" fn nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    register_signal_handler(signal(), nothing)
}

/// How often an [`Alarm`] rings.
const RINGS_EVERY: Duration = Duration::from_millis(200);

/// Sends [`signal`] to the thread that set it, again and again, until it is dropped: `KVM_RUN` on that thread
/// then returns now and then, whatever the guest does.
#[derive(Debug)]
pub struct Alarm {
    off: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Alarm {
    /// Sets one for this thread, on which a handler must be installed ([`install_handler`]).
    pub fn set() -> Self {
        let (off, is_off) = mpsc::channel();
        // SAFETY: the call has no preconditions.
        let sleeper = unsafe { libc::pthread_self() };
        let ring = move || {
            while is_off.recv_timeout(RINGS_EVERY) == Err(RecvTimeoutError::Timeout) {
                // SAFETY: the thread has not ended, since it drops the alarm, and with it joins this thread,
                // before it does.
                unsafe { libc::pthread_kill(sleeper, signal()) };
            }
        };
        // Without a thread there is no alarm, which only a guest that never stops would miss.
        let thread = thread::Builder::new().name("alarm".to_owned()).spawn(ring);
        Self {
            off: Some(off),
            thread: thread.ok(),
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        drop(self.off.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing that could panic.
            let _ = thread.join();
        }
    }
}
