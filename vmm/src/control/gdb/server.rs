//! Accepts the clients of `--gdb`, one at a time, and gives each the machine that there is. Speaks with
//! nobody.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use tracing::{info, warn};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::Monitor;
use super::session::serve;
use crate::confinement::{self, ThreadKind};
use crate::control::operator::Operator;
use crate::gdb::Listener;
use crate::machine::breakpoints;
use crate::peers::ACCEPT_RETRY;
use crate::waiting::Waiting;

/// The state that the thread shares with the [`Server`].
#[derive(Debug)]
pub(super) struct Shared {
    /// The machine that there is at this moment.
    machine: Mutex<Option<Arc<Operator>>>,
    closing: AtomicBool,
    /// Readable when the server closes, or there is another machine.
    pub news: EventFd,
    pub monitor: Arc<dyn Monitor>,
}

impl Shared {
    /// The machine that there is, unless it is over.
    pub fn machine(&self) -> Option<Arc<Operator>> {
        let machine = self.locked().clone();
        machine.filter(|operator| operator.over().is_none())
    }

    /// Whether the server closes.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    fn wake(&self) {
        // Fails only if it is readable already.
        let _ = self.news.write(1);
    }

    fn locked(&self) -> MutexGuard<'_, Option<Arc<Operator>>> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves gdb at one address, as long as it is there. Dropping it closes the connection.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    /// Whether machines wait for gdb before their first instruction.
    waits: bool,
    thread: Option<JoinHandle<()>>,
    /// Its file is removed by who drops it last, and the thread may remove none.
    _listener: Arc<Listener>,
}

impl Server {
    /// Serves whoever connects to `listener`. If `waits`, each machine stops before its first
    /// instruction, until gdb lets it go on.
    ///
    /// # Errors
    /// The host has no eventfd, or no thread.
    pub fn new(listener: Listener, waits: bool, monitor: Arc<dyn Monitor>) -> io::Result<Self> {
        breakpoints::check_while_allowed();
        let shared = Arc::new(Shared {
            machine: Mutex::default(),
            closing: AtomicBool::new(false),
            news: EventFd::new(EFD_NONBLOCK)?,
            monitor,
        });
        let coming = Waiting::of([listener.as_raw_fd(), shared.news.as_raw_fd()])?;
        // A client that has connected waits for a machine, and is not what is waited for then.
        let news = Waiting::of([shared.news.as_raw_fd()])?;
        let listener = Arc::new(listener);
        let own = (Arc::clone(&shared), Arc::clone(&listener));
        let thread = thread::Builder::new().name("gdb".to_owned());
        let thread = thread.spawn(move || {
            confinement::enter(ThreadKind::Debugger);
            let (shared, listener) = own;
            accept(&listener, &shared, &coming, &news);
        })?;
        Ok(Self {
            shared,
            waits,
            thread: Some(thread),
            _listener: listener,
        })
    }

    /// Debugs this machine from now on.
    pub fn attend(&self, operator: &Arc<Operator>) {
        *self.shared.locked() = Some(Arc::clone(operator));
        if self.waits {
            // No vCPU runs yet, so that none can be late.
            let _ = operator.stop_for_debugger();
        }
        self.shared.wake();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &Listener, shared: &Shared, coming: &Waiting<2>, news: &Waiting<1>) {
    while !shared.is_closing() {
        let operator = shared.machine();
        let waited = match &operator {
            Some(_) => coming.wait().map(|[has_client, _]| has_client),
            None => news.wait().map(|_| false),
        };
        let Ok(has_client) = waited else {
            // Without epoll nobody can be accepted.
            return;
        };
        let _ = shared.news.read();
        let Some(operator) = operator.filter(|it| has_client && it.over().is_none()) else {
            continue;
        };
        match listener.accept() {
            Ok(client) => {
                info!("gdb connects");
                match serve(client, shared, &operator) {
                    Ok(()) => info!("gdb is gone"),
                    Err(error) => warn!("gdb is let go: {error}"),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // The host has run out of some resource; the next attempt would fail too.
            Err(_) => thread::sleep(ACCEPT_RETRY),
        }
    }
}
