//! The control socket: a UNIX socket at which clients drive the machine, with two threads each: one
//! that answers requests, and one that sends answers and events. This module handles connections;
//! requests are in `protocol`, what is sent in `answers` and `events`, and waits in an `outbox`. A
//! client that sends rubbish, does not read or disappears does not affect the machine or the other
//! clients, and no thread outlives the [`Server`].

mod answers;
mod events;
mod outbox;
mod protocol;

use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::fs::Mode;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::operator::{Event, Operator, Subscriber};
use events::Kind;
use outbox::{Line, Outbox};

pub use protocol::VERSION;

/// Most clients at one time.
const MOST_CLIENTS: usize = 32;

/// Most clients that wait to be accepted.
const BACKLOG: i32 = 128;

/// Longest line, in bytes.
const LONGEST_LINE: u64 = 64 << 10;

/// How long a request waits for a machine, before the first one or between two machines of a
/// script.
const MACHINE_WAIT: Duration = Duration::from_secs(10);

/// How long a client may take to read an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long what is left for a client is sent once the connection is to be closed.
const FAREWELL: Duration = Duration::from_secs(1);

/// How long one attempt to send takes at most, before it is looked whether to go on.
const ATTEMPT: Duration = Duration::from_millis(100);

/// How long to wait after the host could not accept a client.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The path exists and is no socket.
    #[error("{0} exists and is no socket; choose another path for --control")]
    NotASocket(PathBuf),
    /// Another process listens at the path.
    #[error("somebody listens at {0} already; choose another path for --control")]
    InUse(PathBuf),
    /// The socket cannot be made.
    #[error("cannot make the control socket {0}")]
    Bind(PathBuf, #[source] io::Error),
}

/// The state that the threads share.
#[derive(Debug)]
struct ServerState {
    /// The machine that clients drive, if there is one at this moment.
    machine: Mutex<Option<Arc<Operator>>>,
    /// Notified when there is a machine, or when there will be none.
    news: Condvar,
    clients: Mutex<Vec<Client>>,
    /// The outboxes of the clients that are connected.
    outboxes: Mutex<Vec<Weak<Outbox>>>,
    closing: AtomicBool,
    /// Readable when the server closes. Ends the wait for the next client, also if the socket's
    /// file was removed.
    closed: EventFd,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    thread: JoinHandle<()>,
}

/// A control socket, and the threads that serve it. Dropping it closes all of that and removes the
/// file.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    /// Device and inode of the socket's file when it was made.
    made: Option<(u64, u64)>,
    state: Arc<ServerState>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Makes a socket at `path`, which only this user can connect to. A socket file at which
    /// nothing listens any more is replaced.
    ///
    /// # Errors
    /// [`SocketError`] says what is in the way.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        make_room(path)?;
        let failed = |error| SocketError::Bind(path.to_owned(), error);
        let listener = bind_private(path).map_err(failed)?;
        let made = file_id(path);
        let state = Arc::new(ServerState {
            machine: Mutex::default(),
            news: Condvar::new(),
            clients: Mutex::default(),
            outboxes: Mutex::default(),
            closing: AtomicBool::new(false),
            closed: EventFd::new(EFD_NONBLOCK).map_err(failed)?,
        });
        let waiting = AcceptWait::of(&listener, &state.closed).map_err(failed)?;
        let accepting = Arc::clone(&state);
        let thread = thread::Builder::new()
            .name("control".to_owned())
            .stack_size(128 << 10)
            .spawn(move || {
                accept(&listener, &waiting, &accepting);
            })
            .map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            made,
            state,
            thread: Some(thread),
        })
    }

    /// Lets clients drive this machine from now on.
    pub fn attend(&self, operator: &Arc<Operator>) {
        operator.make_reachable();
        operator.subscribe(Arc::clone(&self.state) as Arc<dyn Subscriber>);
        *self.state.machine() = Some(Arc::clone(operator));
        self.state.news.notify_all();
    }

    /// The machine is over.
    pub fn leave(&self) {
        *self.state.machine() = None;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.state.closing.store(true, Ordering::SeqCst);
        self.leave();
        self.state.news.notify_all();
        // Cannot be full after one write.
        let _ = self.state.closed.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let clients = std::mem::take(&mut *self.state.clients());
        for client in &clients {
            // Ends its reads; its waits have ended with the machine. It may still write its answer:
            // a client that told the machine to end expects one.
            let _ = client.stream.shutdown(Shutdown::Read);
        }
        for client in clients {
            let _ = client.thread.join();
        }
        // The file may have been removed already, and another process may listen at a new one.
        if self.made.is_some() && file_id(&self.path) == self.made {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Device and inode of the file at `path`.
fn file_id(path: &Path) -> Option<(u64, u64)> {
    let found = fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

/// Waits for the next client, or until the server closes.
#[derive(Debug)]
struct AcceptWait(Epoll);

impl AcceptWait {
    fn of(listener: &UnixListener, closed: &EventFd) -> io::Result<Self> {
        // A client can disconnect before it is accepted; `accept` must not wait then.
        listener.set_nonblocking(true)?;
        let epoll = Epoll::new()?;
        for fd in [listener.as_raw_fd(), closed.as_raw_fd()] {
            epoll.ctl(
                ControlOperation::Add,
                fd,
                EpollEvent::new(EventSet::IN, fd as u64),
            )?;
        }
        Ok(Self(epoll))
    }

    fn wait(&self) -> io::Result<()> {
        self.0.wait(-1, &mut [EpollEvent::default()]).map(|_| ())
    }
}

impl ServerState {
    fn machine(&self) -> MutexGuard<'_, Option<Arc<Operator>>> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a machine, up to [`MACHINE_WAIT`].
    fn wait_for_machine(&self) -> Option<Arc<Operator>> {
        let nothing =
            |machine: &mut Option<_>| machine.is_none() && !self.closing.load(Ordering::SeqCst);
        let (machine, _) = self
            .news
            .wait_timeout_while(self.machine(), MACHINE_WAIT, nothing)
            .unwrap_or_else(PoisonError::into_inner);
        machine.clone()
    }

    fn clients(&self) -> MutexGuard<'_, Vec<Client>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The outboxes of the clients that are connected.
    fn outboxes(&self) -> Vec<Arc<Outbox>> {
        let outboxes = self.outboxes.lock();
        let outboxes = outboxes.unwrap_or_else(PoisonError::into_inner);
        outboxes.iter().filter_map(Weak::upgrade).collect()
    }

    /// An outbox for a client that has connected.
    fn new_outbox(&self) -> Arc<Outbox> {
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

/// Removes a socket file at which nothing listens any more.
fn make_room(path: &Path) -> Result<(), SocketError> {
    let Ok(found) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !found.file_type().is_socket() {
        return Err(SocketError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| SocketError::Bind(path.to_owned(), error))
        }
        _ => Err(SocketError::InUse(path.to_owned())),
    }
}

/// Binds a socket that only this user can access from the first moment on: Linux gives the file the
/// mode that the socket has before the bind. A `chmod` afterwards would be too late, and the umask
/// belongs to the whole process.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    net::bind(&socket, &address)?;
    net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

fn accept(listener: &UnixListener, waiting: &AcceptWait, state: &Arc<ServerState>) {
    loop {
        let waited = waiting.wait();
        if state.closing.load(Ordering::SeqCst) {
            return;
        }
        if waited.is_err_and(|error| error.kind() != ErrorKind::Interrupted) {
            // Without epoll no further client can be accepted; those that are connected stay.
            return;
        }
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                // The client has disconnected, or the host has run out of some resource. In the
                // second case the next attempt would fail too, so wait a little.
                if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) {
                    thread::sleep(ACCEPT_RETRY);
                }
                continue;
            }
        };
        // On some systems a stream inherits this from its listener.
        if stream.set_nonblocking(false).is_err() {
            continue;
        }
        // Fails only for a duration of zero.
        let _ = stream.set_write_timeout(Some(ATTEMPT));
        let mut clients = state.clients();
        clients.retain(|client| !client.thread.is_finished());
        if clients.len() >= MOST_CLIENTS {
            let refusal = format!(
                "{{\"ok\":false,\"kind\":\"refused\",\"error\":\"there are {MOST_CLIENTS} clients \
                 already\"}}\n"
            );
            let _ = (&stream).write_all(refusal.as_bytes());
            continue;
        }
        let Ok(kept) = stream.try_clone() else {
            continue;
        };
        let serving = Arc::clone(state);
        let thread = thread::Builder::new()
            .name("client".to_owned())
            .stack_size(256 << 10)
            .spawn(move || {
                serve(&stream, &serving);
                // Dropping it is not enough: the server keeps a second handle, to close it from
                // outside.
                let _ = stream.shutdown(Shutdown::Both);
            });
        if let Ok(thread) = thread {
            clients.push(Client {
                stream: kept,
                thread,
            });
        }
    }
}

/// Serves one client until it disconnects.
fn serve(stream: &UnixStream, state: &ServerState) {
    let outbox = state.new_outbox();
    thread::scope(|scope| {
        let sender = thread::Builder::new()
            .name("sender".to_owned())
            .stack_size(128 << 10);
        let sender = sender.spawn_scoped(scope, || send(stream, &outbox));
        if sender.is_ok() {
            answer(stream, &outbox, state);
        }
        outbox.close();
    });
}

/// Answers the requests of one client until it disconnects, or does not read an answer.
fn answer(stream: &UnixStream, outbox: &Outbox, state: &ServerState) {
    let mut lines = BufReader::new(stream);
    let mut line = Vec::new();
    let hanging_up = HangupWatch::of(stream);
    let is_gone = || hanging_up.has_happened();
    let client = protocol::Client {
        is_gone: &is_gone,
        outbox,
    };
    loop {
        line.clear();
        let read = (&mut lines).take(LONGEST_LINE).read_until(b'\n', &mut line);
        let whole = line.ends_with(b"\n");
        let answer = match read {
            Ok(1..) if whole || (line.len() as u64) < LONGEST_LINE => {
                if line.trim_ascii().is_empty() {
                    continue;
                }
                protocol::answer(&line, || state.wait_for_machine(), client)
            }
            Ok(1..) => {
                let refusal =
                    r#"{"ok":false,"kind":"bad-request","error":"this line is too long"}"#;
                outbox.answer(refusal.to_owned());
                outbox.wait_answered(PATIENCE);
                return;
            }
            _ => {
                // A client that has said its last word may still read events.
                while outbox.wants_any()
                    && !state.closing.load(Ordering::SeqCst)
                    && outbox.closed_for().is_none()
                    && !hanging_up.happens_within(ATTEMPT)
                {}
                return;
            }
        };
        outbox.answer(answer);
        // A client that does not read its answer counts as gone.
        let said = outbox.wait_answered(PATIENCE);
        if !said || state.closing.load(Ordering::SeqCst) {
            return;
        }
    }
}

/// Sends what is in `outbox` until it is closed. A client that has subscribed need not read.
fn send(stream: &UnixStream, outbox: &Outbox) {
    while let Some(line) = outbox.next() {
        if !send_line(stream, outbox, line.text()) {
            outbox.close();
            // Ends the read of the next request.
            let _ = stream.shutdown(Shutdown::Both);
            return;
        }
        if matches!(line, Line::Answer(_)) {
            outbox.answer_sent();
        }
    }
}

/// Sends one line, however long the client takes to read it, and returns whether it did.
fn send_line(mut stream: &UnixStream, outbox: &Outbox, line: &str) -> bool {
    let line = format!("{line}\n");
    let mut left = line.as_bytes();
    while !left.is_empty() {
        match stream.write(left) {
            Ok(sent) => left = &left[sent..],
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => {}
                ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                    if outbox.closed_for().is_some_and(|time| time > FAREWELL) {
                        return false;
                    }
                }
                _ => return false,
            },
        }
    }
    true
}

/// Notices when a client closes its connection. One that has only shut down its sending side still
/// reads.
struct HangupWatch(Option<Epoll>);

impl HangupWatch {
    /// Watches a client. If the host has no epoll for that, a hangup is never noticed.
    fn of(stream: &UnixStream) -> Self {
        let epoll = Epoll::new().ok().filter(|epoll| {
            // Epoll reports a hangup in any case, and no other event is wanted.
            let nothing_else = EpollEvent::new(EventSet::empty(), 0);
            epoll
                .ctl(ControlOperation::Add, stream.as_raw_fd(), nothing_else)
                .is_ok()
        });
        Self(epoll)
    }

    fn has_happened(&self) -> bool {
        self.happens_within(Duration::ZERO)
    }

    /// Whether it happens within this time.
    fn happens_within(&self, limit: Duration) -> bool {
        let mut events = [EpollEvent::default()];
        let limit = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
        let Some(epoll) = &self.0 else {
            thread::sleep(Duration::from_millis(limit.try_into().unwrap_or(0)));
            return false;
        };
        epoll.wait(limit, &mut events).is_ok_and(|seen| seen > 0)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_socket_is_this_users_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control");
        let server = Server::bind(&path).unwrap();
        let mode = fs::symlink_metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        assert!(matches!(Server::bind(&path), Err(SocketError::InUse(_))));
        drop(server);
        assert!(!path.exists());
    }

    #[test]
    fn a_path_that_no_client_could_name_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x".repeat(120));
        assert!(matches!(Server::bind(&path), Err(SocketError::Bind(..))));
    }
}
