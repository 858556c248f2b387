//! What the threads of a control socket share: the machine that clients drive, the clients, and the
//! outboxes of those that are connected, to which events go. Knows no request.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::events::{self, Kind};
use super::outbox::Outbox;
use crate::control::operator::{Event, Operator, Subscriber};

/// How long a request waits for a machine, before the first one or between two machines of a
/// script.
const MACHINE_WAIT: Duration = Duration::from_secs(10);

/// The state that the threads share.
#[derive(Debug)]
pub(super) struct ServerState {
    /// The machine that clients drive, if there is one at this moment.
    machine: Mutex<Option<Arc<Operator>>>,
    /// Notified when there is a machine, or when there will be none.
    pub news: Condvar,
    clients: Mutex<Vec<Client>>,
    /// The outboxes of the clients that are connected.
    outboxes: Mutex<Vec<Weak<Outbox>>>,
    pub closing: AtomicBool,
    /// Readable when the server closes. Ends the wait for the next client, also if the socket's
    /// file was removed.
    pub closed: EventFd,
}

#[derive(Debug)]
pub(super) struct Client {
    pub stream: UnixStream,
    pub thread: JoinHandle<()>,
    /// Whether it has the place that is kept for one that ends the machine.
    pub is_last: bool,
}

impl ServerState {
    /// No machine and no clients.
    ///
    /// # Errors
    /// The host has no eventfd.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            machine: Mutex::default(),
            news: Condvar::new(),
            clients: Mutex::default(),
            outboxes: Mutex::default(),
            closing: AtomicBool::new(false),
            closed: EventFd::new(EFD_NONBLOCK)?,
        })
    }

    pub fn machine(&self) -> MutexGuard<'_, Option<Arc<Operator>>> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a machine, up to [`MACHINE_WAIT`].
    pub fn wait_for_machine(&self) -> Option<Arc<Operator>> {
        let nothing =
            |machine: &mut Option<_>| machine.is_none() && !self.closing.load(Ordering::SeqCst);
        let (machine, _) = self
            .news
            .wait_timeout_while(self.machine(), MACHINE_WAIT, nothing)
            .unwrap_or_else(PoisonError::into_inner);
        machine.clone()
    }

    pub fn clients(&self) -> MutexGuard<'_, Vec<Client>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The outboxes of the clients that are connected.
    fn outboxes(&self) -> Vec<Arc<Outbox>> {
        let outboxes = self.outboxes.lock();
        let outboxes = outboxes.unwrap_or_else(PoisonError::into_inner);
        outboxes.iter().filter_map(Weak::upgrade).collect()
    }

    /// An outbox for a client that has connected.
    pub fn new_outbox(&self) -> Arc<Outbox> {
        let outbox = Arc::<Outbox>::default();
        let outboxes = self.outboxes.lock();
        let mut outboxes = outboxes.unwrap_or_else(PoisonError::into_inner);
        outboxes.retain(|outbox| outbox.strong_count() > 0);
        outboxes.push(Arc::downgrade(&outbox));
        outbox
    }
}

impl Subscriber for ServerState {
    fn wants_findings(&self) -> bool {
        let mut outboxes = self.outboxes().into_iter();
        outboxes.any(|outbox| outbox.wants(Kind::Finding))
    }

    fn hear(&self, event: &Event) {
        let mut line = None;
        for outbox in self.outboxes() {
            if outbox.wants(Kind::of(event)) {
                outbox.hear(event, line.get_or_insert_with(|| events::line(event)));
            }
        }
    }
}
