//! SIGINT (^C), SIGTERM and SIGHUP (the terminal is gone) while machines run by themselves. A signal
//! ends the machine that is running, which is then reported. While no machine runs, it stops the
//! script, if there is one, and is kept for a moment for the next machine. Without a script it then
//! does what it does by default, and with one if it comes again. Searches and replays, which step
//! their machine, use [`super::interruption`] instead.

use std::fs::File;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tracing::info;
use vmm::confinement::{self, ThreadKind};
use vmm::control::operator::Operator;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::signal::{block_signal, create_sigset, get_blocked_signals, unblock_signal};

use super::Refused;

/// The signals that end a run, but not what was known by then. SIGHUP is left alone by a process that
/// was told to ignore it, by `nohup` for example.
pub fn caught() -> impl Iterator<Item = libc::c_int> + Clone {
    let all = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];
    let hangup_counts = !is_ignored(libc::SIGHUP);
    all.into_iter()
        .filter(move |signal| hangup_counts || *signal != libc::SIGHUP)
}

/// The exit status that says that `signal` has ended a run, as a shell has it.
pub fn status_of(signal: libc::c_int) -> u8 {
    u8::try_from(128 + signal).unwrap_or(130)
}

/// Makes a limit on the size of files (`ulimit -f`) an error of the write that comes to it, as a full
/// disk is, instead of the end of the process.
pub fn take_file_size_limit_for_an_error() {
    // SAFETY: no handler is set, so that none can run code that must not run in one.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Whether this process ignores `signal`.
fn is_ignored(signal: libc::c_int) -> bool {
    let mut now = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action, sigaction() only writes the present one to `now`, which has room
    // for it.
    let is_known = unsafe { libc::sigaction(signal, ptr::null(), now.as_mut_ptr()) } == 0;
    // SAFETY: the structure is plain data, of which all zeros is a valid value too.
    let now = unsafe { now.assume_init() };
    is_known && now.sa_sigaction == libc::SIG_IGN
}

/// Milliseconds after which it is checked again whether a machine has been torn down.
const SOON: i32 = 20;

/// How long a signal is kept while there is no machine. A second one is not.
const KEPT: Duration = Duration::from_secs(2);

/// The machine that was started last. A weak reference, so that its memory can be freed.
type Machine = Mutex<Weak<Operator>>;

/// What drives the machines that signals end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drives {
    /// A script, which goes on between two machines.
    Script,
    /// Nothing that has to be stopped as well.
    Nothing,
}

/// The signals, caught until this is dropped.
#[derive(Debug)]
pub struct Signals {
    machine: Arc<Machine>,
    interrupted: Arc<AtomicI32>,
    blocked: Vec<libc::c_int>,
    done: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Signals {
    /// Catches the signals in this thread and in all threads that it starts later. The process must
    /// have no other threads.
    ///
    /// # Errors
    /// [`Refused`] if the host does not allow it.
    pub fn catch(drives: Drives) -> Result<Self, Refused> {
        Self::try_catch(drives).map_err(|error| Refused {
            message: format!("cannot catch signals: {error}"),
            status: 3,
        })
    }

    fn try_catch(drives: Drives) -> io::Result<Self> {
        let other = |error: vmm_sys_util::signal::Error| io::Error::other(format!("{error:?}"));
        let caught: Vec<_> = caught().collect();
        let set = create_sigset(&caught)?;
        // SAFETY: `set` is an initialised signal set; -1 asks for a new file descriptor.
        let fd =
            unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this file descriptor for us, and nothing else uses it.
        let file = unsafe { File::from_raw_fd(fd) };
        let done = Arc::new(EventFd::new(EFD_NONBLOCK)?);
        let epoll = Epoll::new()?;
        for fd in [file.as_raw_fd(), done.as_raw_fd()] {
            let event = EpollEvent::new(EventSet::IN, fd as u64);
            epoll.ctl(ControlOperation::Add, fd, event)?;
        }
        let already = get_blocked_signals().map_err(other)?;
        let mut signals = Self {
            machine: Arc::default(),
            interrupted: Arc::default(),
            blocked: Vec::new(),
            done: Arc::clone(&done),
            thread: None,
        };
        for signal in caught.into_iter().filter(|it| !already.contains(it)) {
            block_signal(signal).map_err(other)?;
            signals.blocked.push(signal);
        }
        let (machine, blocked) = (Arc::clone(&signals.machine), signals.blocked.clone());
        let interrupted = Arc::clone(&signals.interrupted);
        let thread = thread::Builder::new().name("signals".to_owned());
        let listen = move || {
            confinement::enter(ThreadKind::Signals);
            let script = (drives == Drives::Script).then_some(&*interrupted);
            listen(file, &epoll, &done, &machine, script, &blocked);
        };
        signals.thread = Some(thread.spawn(listen)?);
        Ok(signals)
    }

    /// The number of the signal that has stopped the script; 0 if none has.
    pub fn interrupted(&self) -> &Arc<AtomicI32> {
        &self.interrupted
    }

    /// An attendant that is handed the operator of each machine: from then on signals end that
    /// machine.
    pub fn attendant(&self) -> impl Fn(&Arc<Operator>) + Send + Sync + use<> {
        let machine = Arc::clone(&self.machine);
        move |operator| *lock(&machine) = Arc::downgrade(operator)
    }
}

fn lock(machine: &Machine) -> MutexGuard<'_, Weak<Operator>> {
    machine.lock().unwrap_or_else(PoisonError::into_inner)
}

fn listen(
    mut signals: File,
    epoll: &Epoll,
    done: &EventFd,
    machine: &Machine,
    script: Option<&AtomicI32>,
    blocked: &[libc::c_int],
) {
    // A signal that came while there was no machine, or one that had ended by itself was being torn
    // down.
    let mut late: Option<(libc::c_int, Instant)> = None;
    loop {
        let timeout = late.map_or(-1, |_| SOON);
        // Fails only with EINTR, and then everything is checked once more.
        let _ = epoll.wait(timeout, &mut [EpollEvent::default(); 2]);
        if done.read().is_ok() {
            return;
        }
        let mut info = [0; size_of::<libc::signalfd_siginfo>()];
        let came = signals.read_exact(&mut info).ok();
        // The structure begins with the number, `ssi_signo`.
        let came = came.and_then(|()| info.first_chunk().map(|it| i32::from_ne_bytes(*it)));
        let was_told = script.is_some_and(|it| it.load(Ordering::Relaxed) != 0);
        let is_again = came.is_some() && (late.is_some() || was_told);
        let kept_since = late.map_or_else(Instant::now, |(_, since)| since);
        let Some(signal) = came.or_else(|| late.map(|(signal, _)| signal)) else {
            continue;
        };
        late = None;
        if came.is_some() {
            info!("signal {signal}");
        }
        match lock(machine).upgrade().filter(|it| !it.is_gone()) {
            Some(machine) if machine.over().is_none() => machine.interrupt(signal),
            // It has been ended from outside already, and with it whatever would have followed.
            Some(machine) if machine.cut_short().is_some() => {}
            // It has ended by itself and is about to be reported. After that there is no machine,
            // or the next one.
            Some(_) => late = Some((signal, kept_since)),
            None if !is_again && kept_since.elapsed() < KEPT => {
                if let Some(script) = script {
                    script.store(signal, Ordering::Relaxed);
                }
                late = Some((signal, kept_since));
            }
            // The script stops before it boots another.
            None if script.is_some() && !is_again => {}
            None if blocked.contains(&signal) => take_effect(signal),
            None => {}
        }
    }
}

/// Lets `signal`, which is blocked, have its default effect.
fn take_effect(signal: libc::c_int) {
    // All other threads block it, so that this thread takes it at once. Both calls fail only for
    // numbers that are no signals.
    let _ = unblock_signal(signal);
    // SAFETY: the call has no preconditions.
    unsafe { libc::raise(signal) };
    // Still here: the signal is ignored in this process.
    let _ = block_signal(signal);
}

impl Drop for Signals {
    fn drop(&mut self) {
        // Fails only if the counter is full, which it is not after one write.
        let _ = self.done.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        for signal in &self.blocked {
            // Fails only for numbers that are no signals.
            let _ = unblock_signal(*signal);
        }
    }
}
