//! The control socket: a UNIX socket at which clients drive the machine. This module makes it and
//! accepts clients. Each is served in `serving`, its requests are carried out in `protocol`, and
//! what it is sent is made in `answers` and `events`, and waits in an `outbox`. A client that sends
//! rubbish, does not read or disappears does not affect the machine or the other clients, and no
//! thread outlives the [`Server`].

mod answers;
mod events;
mod outbox;
mod protocol;
mod serving;
mod state;

use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};

use serde_json::json;
use tracing::info;

use super::operator::{Operator, Subscriber};
use super::recorder::act_for;
use crate::confinement::{self, ThreadKind};
use crate::control_characters::spell_out_path;
use crate::machine::breakpoints;
use crate::peers::ACCEPT_RETRY;
use crate::stats::marks::Actor;
use crate::unix_socket::{SocketError, SocketFile};
use crate::waiting::Waiting;
use outbox::Outbox;
use serving::{serve, serve_last};
use state::{Client, ServerState};

pub use protocol::VERSION;

/// Most clients at one time, beside one that is there for a moment to end the machine.
const MOST_CLIENTS: usize = 32;

/// The answer to the request in `line`, as a client has it while there is no machine.
pub fn answer_without_machine(line: &[u8]) -> String {
    answer_alone(line, || None)
}

/// The answer to the request in `line`, for somebody who is connected in another way. Events are not sent
/// there.
pub(super) fn answer_of(operator: &Arc<Operator>, line: &[u8]) -> String {
    answer_alone(line, || Some(Arc::clone(operator)))
}

/// The answer to the request in `line`, for somebody who sends no other.
fn answer_alone(line: &[u8], machine: impl FnOnce() -> Option<Arc<Operator>>) -> String {
    let outbox = Outbox::default();
    let client = protocol::Client {
        is_gone: &|| false,
        outbox: &outbox,
    };
    protocol::answer(line, machine, client)
}

/// A control socket, and the threads that serve it. Dropping it closes all of that and removes the
/// file.
#[derive(Debug)]
pub struct Server {
    /// Removed last.
    _file: SocketFile,
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
        let (listener, file) = SocketFile::listen(path, "--control")?;
        breakpoints::check_while_allowed();
        info!("listen at {}", spell_out_path(path));
        let failed = |source| SocketError::Bind {
            path: path.to_owned(),
            option: "--control",
            source,
        };
        let state = Arc::new(ServerState::new().map_err(failed)?);
        let waiting =
            Waiting::of([listener.as_raw_fd(), state.closed.as_raw_fd()]).map_err(failed)?;
        let accepting = Arc::clone(&state);
        let thread = thread::Builder::new()
            .name("control".to_owned())
            .stack_size(128 << 10)
            .spawn(move || {
                confinement::enter(ThreadKind::Socket);
                accept(&listener, &waiting, &accepting);
            })
            .map_err(failed)?;
        Ok(Self {
            _file: file,
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
    }
}

fn accept(listener: &UnixListener, waiting: &Waiting<2>, state: &Arc<ServerState>) {
    let mut came = 0;
    loop {
        let waited = waiting.wait();
        if state.closing.load(Ordering::SeqCst) {
            return;
        }
        if waited.is_err() {
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
        let mut clients = state.clients();
        clients.retain(|client| !client.thread.is_finished());
        let is_last = clients.iter().filter(|it| !it.is_last).count() >= MOST_CLIENTS;
        if is_last && clients.iter().any(|it| it.is_last) {
            // It takes a few bytes, for which there is room in any case.
            let _ = stream.set_nonblocking(true);
            let _ = (&stream).write_all(format!("{}\n", refusal()).as_bytes());
            continue;
        }
        let Ok(kept) = stream.try_clone() else {
            continue;
        };
        let serving = Arc::clone(state);
        came += 1;
        let thread = thread::Builder::new()
            .name("client".to_owned())
            .stack_size(256 << 10)
            .spawn(move || {
                confinement::enter(ThreadKind::Socket);
                act_for(Actor::Client(came));
                match is_last {
                    false => serve(&stream, &serving),
                    true => serve_last(&stream, &serving, &refusal()),
                }
                // Dropping it is not enough: the server keeps a second handle, to close it from
                // outside.
                let _ = stream.shutdown(Shutdown::Both);
            });
        if let Ok(thread) = thread {
            clients.push(Client {
                stream: kept,
                thread,
                is_last,
            });
        }
    }
}

/// What a client is told for which there is no place.
fn refusal() -> String {
    let error = format!(
        "there are {MOST_CLIENTS} clients already; beside them one can say nothing but quit"
    );
    json!({ "ok": false, "kind": "refused", "error": error }).to_string()
}
