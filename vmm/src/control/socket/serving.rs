//! Serves one client over its connection, with two threads: one answers requests, one sends answers
//! and events. A client that does not read its answers is let go; one that only listens may read as
//! slowly as it likes.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::outbox::{Line, Outbox};
use super::protocol;
use super::state::ServerState;
use crate::confinement::{self, ThreadKind};

/// Longest line, in bytes.
const LONGEST_LINE: u64 = 64 << 10;

/// How long a client may take to read an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a client may stay for which there is no place. Others come to that place after it.
const MOMENT: Duration = Duration::from_secs(2);

/// How long what is left for a client is sent once the connection is to be closed.
const FAREWELL: Duration = Duration::from_secs(1);

/// How long one attempt to send takes at most, before it is looked whether to go on.
const ATTEMPT: Duration = Duration::from_millis(100);

/// Serves one client until it disconnects.
pub(super) fn serve(stream: &UnixStream, state: &ServerState) {
    let outbox = state.new_outbox();
    // Fails only for a duration of zero.
    let _ = stream.set_write_timeout(Some(ATTEMPT));
    thread::scope(|scope| {
        let sender = thread::Builder::new()
            .name("sender".to_owned())
            .stack_size(128 << 10);
        let sender = sender.spawn_scoped(scope, || {
            confinement::enter(ThreadKind::Writer);
            send(stream, &outbox);
        });
        if sender.is_ok() {
            answer(stream, &outbox, state);
        }
        outbox.close();
    });
}

/// Answers a client for which there is no place among the others, who may all be idle: it can end the
/// machine. Whatever else it says is answered with `refusal`, and so is silence.
pub(super) fn serve_last(stream: &UnixStream, state: &ServerState, refusal: &str) {
    let deadline = Instant::now() + MOMENT;
    // Fails only for a duration of zero.
    let _ = stream.set_write_timeout(Some(ATTEMPT));
    let hanging_up = HangupWatch::of(stream);
    let is_gone = || hanging_up.has_happened();
    let outbox = Outbox::default();
    let client = protocol::Client {
        is_gone: &is_gone,
        outbox: &outbox,
    };
    let mut lines = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let _ = stream.set_read_timeout(Some(left.max(Duration::from_millis(1))));
        // What has come of a line by then stays in it.
        let read = (&mut lines).take(LONGEST_LINE).read_until(b'\n', &mut line);
        let is_whole = read.is_ok() && line.ends_with(b"\n");
        let has_a_place = is_whole && protocol::has_a_place(&line);
        let answer = match has_a_place {
            true => protocol::answer(&line, || state.wait_for_machine(), client),
            false => refusal.to_owned(),
        };
        let sent = { stream }.write_all(format!("{answer}\n").as_bytes());
        let is_over = state.closing.load(Ordering::SeqCst) || left.is_zero();
        if !has_a_place || sent.is_err() || is_over {
            return;
        }
        line.clear();
    }
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
