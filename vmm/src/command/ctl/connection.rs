//! A connection of `vmm ctl` to a control socket: found or waited for, asked one request after the
//! other. Knows no verb but `hello`.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vmm::control_characters::spell_out_path;
use vmm::peers::{LOOK, PEER};
use vmm::unix_socket::connect;

use crate::command::Refused;

/// Exit status if there is no connection, or no answer.
pub(super) const NO_ANSWER: u8 = 3;

/// Longest answer, in bytes. The longest that there is says where 1024 vCPUs are.
const LONGEST_LINE: usize = 16 << 20;

/// How long a request may take whose wait has no limit of its own.
const LIMIT: Duration = Duration::from_secs(10);

/// What is added to the limit of a request: a request waits for a machine first, if there is none.
const MARGIN: Duration = Duration::from_secs(20);

/// The longest limit of a request, as the protocol has it.
const LONGEST_LIMIT: f64 = 86_400.0;

/// A connection to the control socket.
pub(super) struct Connection {
    stream: UnixStream,
    /// What has come, and was not asked for yet.
    received: Vec<u8>,
    name: String,
}

impl Connection {
    /// Connects to `socket`; waits for up to `limit`, if that is given, until somebody listens
    /// there and answers.
    ///
    /// # Errors
    /// [`Refused`] says what is there instead.
    pub fn to(socket: &Path, limit: Option<Duration>) -> Result<Self, Refused> {
        let name = spell_out_path(socket);
        let refused = |message| Refused {
            message,
            status: NO_ANSWER,
        };
        let begun = Instant::now();
        let deadline = limit.map(|limit| begun + limit);
        let left = || deadline.map(|it| it.saturating_duration_since(Instant::now()));
        let stream = loop {
            let error = match connect(socket) {
                Ok(stream) => break stream,
                Err(error) => error,
            };
            let is_full = error.kind() == ErrorKind::WouldBlock;
            let waited = match (limit, left()) {
                (None, _) if is_full && begun.elapsed() < PEER => {
                    thread::sleep(LOOK);
                    continue;
                }
                (Some(_), Some(left)) if may_come(socket, &error) && !left.is_zero() => {
                    thread::sleep(LOOK.min(left));
                    continue;
                }
                (Some(limit), Some(Duration::ZERO)) => {
                    format!(" within {} s", limit.as_secs_f64())
                }
                _ => String::new(),
            };
            let hint = match limit {
                _ if is_other_file(socket) => "it is no socket".to_owned(),
                _ if is_full => {
                    "as many wait there as can, and whoever listens accepts nobody".to_owned()
                }
                None => format!(
                    "is there a `vmm --control {name}` running? --wait 10 waits for one to come"
                ),
                Some(_) => format!("is there a `vmm --control {name}` running?"),
            };
            return Err(refused(format!(
                "cannot connect to {name}{waited}: {error}; {hint}"
            )));
        };
        let mut connection = Self {
            stream,
            received: Vec::new(),
            name,
        };
        let set = connection.stream.set_write_timeout(Some(PEER));
        set.map_err(|error| connection.failed(&error))?;
        if let (Some(limit), Some(left)) = (limit, left()) {
            connection.greet(limit, left)?;
        }
        Ok(connection)
    }

    /// Checks that somebody answers, within what is `left` of `limit`.
    fn greet(&mut self, limit: Duration, left: Duration) -> Result<(), Refused> {
        let hello = json!({ "verb": "hello" }).to_string();
        let answer = self
            .write(&hello)
            .and_then(|()| self.next_line(Some(Instant::now() + left.max(LOOK))));
        match answer {
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                let limit = limit.as_secs_f64();
                Err(self.failed(&format!(
                    "somebody listens there, and has answered nothing within {limit} s"
                )))
            }
            answer => self.read(answer).map(drop),
        }
    }

    /// Sends a request, and returns until when it has to be answered.
    ///
    /// # Errors
    /// [`Refused`] if it cannot be sent.
    pub fn send(&mut self, request: &str) -> Result<Instant, Refused> {
        let sent = self.write(request);
        sent.map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => self.failed(&"whoever listens there reads nothing"),
            _ => self.failed(&error),
        })?;
        Ok(Instant::now() + answer_within(request))
    }

    /// The next answer or event; `None` once the connection has ended. An answer is waited for until
    /// `deadline`. Without one it is an event, which can come at any time; a line that has begun
    /// has to end within [`PEER`].
    ///
    /// # Errors
    /// [`Refused`] if what comes is neither, or nothing comes.
    pub fn receive(&mut self, deadline: Option<Instant>) -> Result<Option<Value>, Refused> {
        let line = self.next_line(deadline);
        if line
            .as_ref()
            .is_err_and(|it| it.kind() == ErrorKind::TimedOut)
        {
            let what = match self.received.is_empty() {
                true => "whoever listens there does not answer",
                false => "whoever listens there does not end its line",
            };
            return Err(self.failed(&what));
        }
        self.read(line)
    }

    /// What is wrong if the connection ends, and nobody has said that the machine is over.
    pub fn lost(&self) -> Refused {
        self.failed(&"the connection ended before the machine did")
    }

    /// What is wrong if the connection ends before an answer.
    pub fn unanswered(&self) -> Refused {
        self.failed(&"the machine was over before it answered")
    }

    fn write(&mut self, request: &str) -> io::Result<()> {
        let sent = writeln!(self.stream, "{}", request.replace('\n', " "));
        match sent {
            // A client too many is told so before its connection is closed.
            Err(error) if error.kind() == ErrorKind::BrokenPipe && self.has_received() => Ok(()),
            sent => sent,
        }
    }

    fn has_received(&mut self) -> bool {
        // It is closed, so that what has not come by now does not come.
        let _ = self.fill(Some(Instant::now()));
        !self.received.is_empty()
    }

    /// The next line, without its end; empty once the connection has ended.
    fn next_line(&mut self, mut deadline: Option<Instant>) -> io::Result<String> {
        let mut looked_at = 0;
        loop {
            let end = self.received[looked_at..]
                .iter()
                .position(|it| *it == b'\n');
            if let Some(end) = end {
                let rest = self.received.split_off(looked_at + end + 1);
                let line = std::mem::replace(&mut self.received, rest);
                return String::from_utf8(line).map_err(io::Error::other);
            }
            looked_at = self.received.len();
            if looked_at > LONGEST_LINE {
                let most = LONGEST_LINE >> 20;
                let why = format!("what is answered has more than {most} MiB");
                return Err(io::Error::new(ErrorKind::FileTooLarge, why));
            }
            if looked_at > 0 {
                deadline.get_or_insert_with(|| Instant::now() + PEER);
            }
            if self.fill(deadline)? == 0 {
                // What has no end was cut off.
                let line = std::mem::take(&mut self.received);
                return String::from_utf8(line).map_err(io::Error::other);
            }
        }
    }

    /// Takes some of what has come, which is waited for until `deadline`, and returns how much that
    /// is: 0 once the connection has ended.
    fn fill(&mut self, deadline: Option<Instant>) -> io::Result<usize> {
        let mut some = [0; 4096];
        let left = deadline.map(|it| it.saturating_duration_since(Instant::now()));
        // A limit of zero would be none.
        let left = left.map(|left| left.max(Duration::from_millis(1)));
        self.stream.set_read_timeout(left)?;
        loop {
            match self.stream.read(&mut some) {
                Ok(read) => {
                    self.received.extend_from_slice(&some[..read]);
                    return Ok(read);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Err(ErrorKind::TimedOut.into());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn read(&self, line: io::Result<String>) -> Result<Option<Value>, Refused> {
        let line = match line {
            Ok(line) => line,
            // The VMM has ended, and did not read all that it was sent.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(None),
            Err(error) => return Err(self.failed(&error)),
        };
        if line.is_empty() {
            return Ok(None);
        }
        match serde_json::from_str(&line) {
            Ok(answer) => Ok(Some(answer)),
            Err(error) => Err(self.failed(&format!("what is answered is no JSON: {error}"))),
        }
    }

    fn failed(&self, why: &dyn std::fmt::Display) -> Refused {
        Refused {
            message: format!("{}: {why}", self.name),
            status: NO_ANSWER,
        }
    }
}

/// How long an answer to `request` may take: the server waits up to its limit, some requests twice.
fn answer_within(request: &str) -> Duration {
    let asked = serde_json::from_str::<Value>(request).ok();
    let limit = asked.and_then(|it| it["limit"].as_f64());
    let limit = limit.map(|it| Duration::from_secs_f64(it.clamp(0.0, LONGEST_LIMIT)));
    limit.unwrap_or(LIMIT) * 2 + MARGIN
}

/// Whether waiting can help against `error`: nobody listens yet, or more want to connect than can.
fn may_come(socket: &Path, error: &io::Error) -> bool {
    let kinds = [
        ErrorKind::NotFound,
        ErrorKind::ConnectionRefused,
        ErrorKind::WouldBlock,
        ErrorKind::Interrupted,
    ];
    kinds.contains(&error.kind()) && !is_other_file(socket)
}

/// Whether there is a file of that name that is no socket.
fn is_other_file(socket: &Path) -> bool {
    fs::metadata(socket).is_ok_and(|found| !found.file_type().is_socket())
}
