//! A connection of `vmm ctl` to a control socket: found or waited for, asked one request after the
//! other. Knows no verb but `hello`.

use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::command::Refused;

/// Exit status if there is no connection, or no answer.
pub(super) const NO_ANSWER: u8 = 3;

/// How often it is looked whether there is a socket yet.
const LOOK: Duration = Duration::from_millis(10);

/// A connection to the control socket.
pub(super) struct Connection {
    stream: BufReader<UnixStream>,
    name: String,
}

impl Connection {
    /// Connects to `socket`; waits for up to `limit`, if that is given, until somebody listens
    /// there and answers.
    ///
    /// # Errors
    /// [`Refused`] says what is there instead.
    pub fn to(socket: &Path, limit: Option<Duration>) -> Result<Self, Refused> {
        let name = socket.display().to_string();
        let refused = |message| Refused {
            message,
            status: NO_ANSWER,
        };
        let deadline = limit.map(|limit| Instant::now() + limit);
        let left = || deadline.map(|it| it.saturating_duration_since(Instant::now()));
        let stream = loop {
            let error = match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(error) => error,
            };
            let waited = match (limit, left()) {
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
            stream: BufReader::new(stream),
            name,
        };
        if let (Some(limit), Some(left)) = (limit, left()) {
            connection.greet(limit, left)?;
        }
        Ok(connection)
    }

    /// Checks that somebody answers, within what is `left` of `limit`.
    fn greet(&mut self, limit: Duration, left: Duration) -> Result<(), Refused> {
        // A timeout of zero is none.
        let left = left.max(LOOK);
        let set = |stream: &UnixStream, left| stream.set_read_timeout(left);
        set(self.stream.get_ref(), Some(left)).map_err(|error| self.failed(&error))?;
        let hello = json!({ "verb": "hello" }).to_string();
        match self.write(&hello).and_then(|()| self.next_line()) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                let limit = limit.as_secs_f64();
                return Err(self.failed(&format!(
                    "somebody listens there, and has answered nothing within {limit} s"
                )));
            }
            answer => _ = self.read(answer)?,
        }
        set(self.stream.get_ref(), None).map_err(|error| self.failed(&error))
    }

    /// Sends a request.
    ///
    /// # Errors
    /// [`Refused`] if it cannot be sent.
    pub fn send(&mut self, request: &str) -> Result<(), Refused> {
        let sent = self.write(request);
        sent.map_err(|error| self.failed(&error))
    }

    /// The next answer or event, which is waited for; `None` once the connection has ended.
    ///
    /// # Errors
    /// [`Refused`] if what comes is neither.
    pub fn receive(&mut self) -> Result<Option<Value>, Refused> {
        let line = self.next_line();
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
        let sent = writeln!(self.stream.get_mut(), "{}", request.replace('\n', " "));
        match sent {
            // A client too many is told so before its connection is closed.
            Err(error) if error.kind() == ErrorKind::BrokenPipe && self.has_received() => Ok(()),
            sent => sent,
        }
    }

    fn has_received(&mut self) -> bool {
        self.stream
            .fill_buf()
            .is_ok_and(|received| !received.is_empty())
    }

    fn next_line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        Ok(line)
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
