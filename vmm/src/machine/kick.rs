//! Getting a vCPU out of the guest from another thread, without losing a request. This is the one
//! place where memory is shared with a running `KVM_RUN`: a single byte, through a mapping of its
//! own, and never anything else.

use std::io;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use kvm_ioctls::KvmRunWrapper;
use rustix::process::{Pid, getpid};
use rustix::thread::gettid;
use vmm_sys_util::errno;
use vmm_sys_util::signal::{SIGRTMAX, SIGRTMIN, register_signal_handler};

use crate::confinement::{self, ThreadKind};

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
        // be kept. This mapping shows the same page at another address, and no reference to it is
        // made once the address of the byte is known.
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
        // Ordered after the request that the vCPU's thread has to see (`lifecycle::Lifecycle::ask`)
        // and, in that thread, before it reads the request.
        byte.store(on.into(), Ordering::SeqCst);
    }
}

/// The signal that was chosen, or is in use.
static SIGNAL: OnceLock<libc::c_int> = OnceLock::new();

/// The signal that interrupts `KVM_RUN`: the first of the real-time signals, unless the program has
/// chosen another.
pub fn signal() -> libc::c_int {
    *SIGNAL.get_or_init(SIGRTMIN)
}

/// Why a signal cannot interrupt `KVM_RUN`.
#[derive(Debug, thiserror::Error)]
pub enum SignalError {
    /// The program has a handler of its own for it.
    #[error(
        "this program has a handler of its own for signal {0}, by which vCPUs are to be \
         interrupted; choose another with vmm::machine::kick::use_signal before the first machine"
    )]
    Taken(libc::c_int),
    /// It is not a real-time signal.
    #[error("signal {0} is no real-time signal; those are {1} to {2}")]
    NotRealTime(libc::c_int, libc::c_int, libc::c_int),
    /// Another signal is in use already.
    #[error("signal {0} interrupts vCPUs already; choose before the first machine")]
    TooLate(libc::c_int),
    /// The host refused the handler.
    #[error("cannot handle signal {0}")]
    Refused(libc::c_int, #[source] io::Error),
}

/// Chooses the real-time signal `wanted` to interrupt vCPUs. A program that uses the first
/// real-time signal itself must call this before it makes its first machine.
///
/// # Errors
/// [`SignalError::NotRealTime`] or [`SignalError::TooLate`].
pub fn use_signal(wanted: libc::c_int) -> Result<(), SignalError> {
    let (first, last) = (SIGRTMIN(), SIGRTMAX());
    if !(first..=last).contains(&wanted) {
        return Err(SignalError::NotRealTime(wanted, first, last));
    }
    let used = *SIGNAL.get_or_init(|| wanted);
    match used == wanted {
        true => Ok(()),
        false => Err(SignalError::TooLate(used)),
    }
}

/// Installs a handler for [`signal`]. It does nothing: the delivery alone interrupts `KVM_RUN`.
/// This is the only thing that a machine changes in the process around it. A handler that is
/// already there is not replaced.
///
/// # Errors
/// [`SignalError::Taken`] if the program has another handler.
pub fn install_handler() -> Result<(), SignalError> {
    handle(signal())
}

fn handle(signal: libc::c_int) -> Result<(), SignalError> {
    extern "C" fn nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    // SAFETY: all zeroes are a valid `sigaction`.
    let mut current: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: `current` is a valid place for one `sigaction`, and without another nothing is
    // changed.
    if unsafe { libc::sigaction(signal, ptr::null(), &raw mut current) } != 0 {
        return Err(SignalError::Refused(signal, io::Error::last_os_error()));
    }
    match current.sa_sigaction {
        libc::SIG_DFL | libc::SIG_IGN => register_signal_handler(signal, nothing)
            .map_err(|error| SignalError::Refused(signal, error.into())),
        ours if ours == nothing as *const () as usize => Ok(()),
        _ => Err(SignalError::Taken(signal)),
    }
}

/// How often an [`Alarm`] rings.
const RINGS_EVERY: Duration = Duration::from_millis(200);

/// Sends [`signal`] to the thread that set it, again and again, until it is dropped or that thread has
/// ended. So `KVM_RUN` on that thread returns now and then, whatever the guest does.
#[derive(Debug)]
pub struct Alarm {
    off: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Alarm {
    /// Sets one for this thread, on which a handler must be installed ([`install_handler`]).
    pub fn set() -> Self {
        let (off, is_off) = mpsc::channel();
        let sleeper = gettid();
        let ring = move || {
            confinement::enter(ThreadKind::Ticker);
            while is_off.recv_timeout(RINGS_EVERY) == Err(RecvTimeoutError::Timeout)
                && send(sleeper, signal())
            {}
        };
        // If there is no thread there is no alarm. That matters only with a guest that never exits.
        let thread = thread::Builder::new().name("alarm".to_owned()).spawn(ring);
        Self {
            off: Some(off),
            thread: thread.ok(),
        }
    }
}

/// Sends `signal` to a thread of this process, and returns whether there is such a thread. It is named
/// by its number and not by a `pthread_t`, which must not be used once the thread has ended.
fn send(thread: Pid, signal: libc::c_int) -> bool {
    let (process, thread) = (getpid().as_raw_nonzero(), thread.as_raw_nonzero());
    // SAFETY: the call takes three numbers, and touches no memory of this process. Numbers of threads
    // that there are not are refused.
    let sent = unsafe { libc::syscall(libc::SYS_tgkill, process.get(), thread.get(), signal) };
    sent == 0
}

impl Drop for Alarm {
    fn drop(&mut self) {
        drop(self.off.take());
        if let Some(thread) = self.thread.take() {
            // The thread has nothing that could panic.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::thread::{NanosleepRelativeResult, Timespec};

    use super::*;

    /// Signals that no machine of these tests uses: all tests of a process share one table of
    /// handlers.
    fn unused(nth: libc::c_int) -> libc::c_int {
        SIGRTMAX() - nth
    }

    #[test]
    fn a_handler_of_the_programs_own_is_left_alone() {
        extern "C" fn own(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
        let signal = unused(0);
        register_signal_handler(signal, own).unwrap();
        for _ in 0..2 {
            assert!(matches!(handle(signal), Err(SignalError::Taken(it)) if it == signal));
        }
    }

    #[test]
    fn a_second_machine_finds_the_handler_of_the_first() {
        handle(unused(1)).unwrap();
        handle(unused(1)).unwrap();
    }

    #[test]
    fn an_alarm_may_outlive_the_thread_that_set_it() {
        install_handler().unwrap();
        let set = thread::spawn(Alarm::set);
        let mut alarm = set.join().unwrap();
        // It ends by itself, and not because it is dropped.
        let ringing = alarm.thread.take().unwrap();
        ringing.join().unwrap();
        assert!(alarm.off.take().unwrap().send(()).is_err());
    }

    #[test]
    fn an_alarm_rings_for_its_thread_until_it_is_dropped() {
        install_handler().unwrap();
        let alarm = Alarm::set();
        // Nothing else ends this sleep before its time.
        let slept = rustix::thread::nanosleep(&Timespec {
            tv_sec: 60,
            tv_nsec: 0,
        });
        assert!(matches!(slept, NanosleepRelativeResult::Interrupted(_)));
        drop(alarm);
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        assert!(matches!(
            use_signal(libc::SIGTERM),
            Err(SignalError::NotRealTime(libc::SIGTERM, ..))
        ));
        let used = signal();
        use_signal(used).unwrap();
        assert!(matches!(
            use_signal(unused(2)),
            Err(SignalError::TooLate(it)) if it == used
        ));
    }
}
