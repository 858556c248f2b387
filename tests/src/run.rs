//! One run of the command: arguments in, status and output out, never longer than its time limit.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, Once};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use wait_timeout::ChildExt;

/// How long a run may take if the test does not say. Far above what any takes on a busy host.
pub const TIME_LIMIT: Duration = Duration::from_secs(120);

/// The command, about to be run.
#[derive(Debug)]
pub struct Vmm {
    command: Command,
    limit: Duration,
    /// The directory of the script that it reads, kept for as long as it runs.
    script: Option<TempDir>,
}

impl Vmm {
    /// The command under test, without arguments.
    pub fn new() -> Self {
        Self::from(Command::new(crate::vmm()))
    }

    /// The command with some arguments, separated by spaces.
    pub fn with(arguments: &str) -> Self {
        Self::new().args(arguments.split_whitespace())
    }

    /// The guest image under test, booted with some arguments.
    pub fn boot(arguments: &str) -> Self {
        Self::with(arguments).arg(crate::guest())
    }

    /// The guest image under test, driven by a script of this text.
    ///
    /// # Panics
    /// If there is no room for the script.
    pub fn scripted(text: &str) -> Self {
        Self::boot("").script(text)
    }

    /// Adds a script of this text.
    ///
    /// # Panics
    /// If there is no room for it.
    pub fn script(self, text: &str) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let script = directory.path().join("script.rhai");
        fs::write(&script, text).expect("room for a script");
        let mut vmm = self.arg("--script").arg(script);
        vmm.script = Some(directory);
        vmm
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Sends standard output elsewhere.
    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.command.stdout(stdout);
        self
    }

    /// The command of the process, for what the methods here cannot do.
    pub fn command(&mut self) -> &mut Command {
        &mut self.command
    }

    /// Changes the time limit.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs it to its end.
    pub fn run(self) -> Run {
        self.start().finish()
    }

    /// Whether SIGHUP is ignored when it starts, as under `nohup`, or not, as in a terminal.
    pub fn ignoring_hangups(mut self, ignored: bool) -> Self {
        let handler = if ignored {
            libc::SIG_IGN
        } else {
            libc::SIG_DFL
        };
        let set = move || {
            // SAFETY: no handler is set, so that none can run code that must not run in one.
            unsafe { libc::signal(libc::SIGHUP, handler) };
            Ok(())
        };
        // SAFETY: between fork and exec it only calls signal(), which is async-signal-safe.
        unsafe { self.command.pre_exec(set) };
        self
    }

    /// Starts it.
    ///
    /// # Panics
    /// If there is no such program.
    pub fn start(mut self) -> Running {
        heed_interrupts();
        let shown = format!("{:?}", self.command);
        let mut child = loop {
            match self.command.spawn() {
                Ok(child) => break child,
                // A program that was just copied: a process that another test has just forked still
                // has all files of this process open, this one for writing.
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => thread::yield_now(),
                Err(error) => panic!("cannot start {shown}: {error}"),
            }
        };
        Running {
            stdout: Stream::collect(child.stdout.take()),
            stderr: Stream::collect(child.stderr.take()),
            started: Instant::now(),
            limit: self.limit,
            child,
            shown,
            _script: self.script,
        }
    }
}

/// Has this process and those that it starts end on SIGINT, as is the default. A shell that runs
/// tests in the background has them ignore it.
fn heed_interrupts() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: no handler is set, so that none can run code that must not run in one.
        unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
    });
}

impl From<Command> for Vmm {
    /// Any program, run as the command is: nothing on standard input, both outputs kept.
    fn from(mut command: Command) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self {
            command,
            limit: TIME_LIMIT,
            script: None,
        }
    }
}

impl Default for Vmm {
    fn default() -> Self {
        Self::new()
    }
}

/// The command while it runs. Killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: Stream,
    stderr: Stream,
    started: Instant,
    limit: Duration,
    shown: String,
    _script: Option<TempDir>,
}

impl Running {
    /// Waits until standard output contains `text`.
    ///
    /// # Panics
    /// If it does not within the time limit, or the command ends first.
    pub fn wait_for(&self, text: &str) {
        let deadline = self.started + self.limit;
        if let Err(seen) = self.stdout.wait_for(text, deadline) {
            panic!(
                "\"{text}\" never came from {}, which said: {seen}\nand on standard error: {}",
                self.shown,
                self.stderr.text()
            );
        }
    }

    /// What it has said so far on standard error.
    pub fn said(&self) -> String {
        self.stderr.text()
    }

    /// Waits until the process has a handler for `signal`, so that the signal does not just kill
    /// it.
    ///
    /// # Panics
    /// If it has none within the time limit, or ends first.
    pub fn wait_until_it_catches(&self, signal: i32) {
        let path = format!("/proc/{}/status", self.child.id());
        let catches = |status: &str| {
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
            let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
            caught.is_some_and(|mask| mask >> (signal - 1) & 1 != 0)
        };
        while !fs::read_to_string(&path).is_ok_and(|status| catches(&status)) {
            let is_late = self.started.elapsed() > self.limit;
            assert!(!is_late, "{} does not catch {signal}", self.shown);
            thread::yield_now();
        }
    }

    /// Waits until the process has a thread of this name.
    ///
    /// # Panics
    /// If it has none within the time limit.
    pub fn wait_for_thread(&self, name: &str) {
        let path = format!("/proc/{}/task", self.child.id());
        let is_there = || {
            let mut threads = fs::read_dir(&path).into_iter().flatten().flatten();
            threads.any(|thread| {
                let comm = fs::read_to_string(thread.path().join("comm"));
                comm.is_ok_and(|comm| comm.trim() == name)
            })
        };
        while !is_there() {
            let is_late = self.started.elapsed() > self.limit;
            assert!(!is_late, "{} has no thread {name}", self.shown);
            thread::yield_now();
        }
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// If the process is gone.
    pub fn signal(&self, signal: i32) {
        let pid = libc::pid_t::try_from(self.child.id()).expect("a process id");
        // SAFETY: sends a signal to our own child, which has not been waited for, so that the id is
        // still its own.
        let sent = unsafe { libc::kill(pid, signal) };
        assert_eq!(sent, 0, "cannot signal {}", self.shown);
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process has ended.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// If it does not come within the time limit, or a thread of the command panicked.
    pub fn finish(mut self) -> Run {
        let left = self.limit.saturating_sub(self.started.elapsed());
        let status = self.child.wait_timeout(left).expect("a child to wait for");
        let elapsed = self.started.elapsed();
        if status.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let run = Run {
            status: status.unwrap_or_default(),
            stdout: self.stdout.finish(),
            stderr: self.stderr.finish(),
            elapsed,
            shown: self.shown.clone(),
        };
        assert!(status.is_some(), "not done within the time limit: {run}");
        let panicked = |line: &str| line.starts_with("thread '") && line.contains("panicked at");
        assert!(!run.stderr.lines().any(panicked), "a panic: {run}");
        run
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Does nothing to a process that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A run that has ended.
#[derive(Debug)]
pub struct Run {
    status: ExitStatus,
    shown: String,
    /// What came on standard output.
    pub stdout: String,
    /// What came on standard error.
    pub stderr: String,
    /// How long it took.
    pub elapsed: Duration,
}

impl Run {
    /// The exit status; for a process that a signal ended, the status that a shell gives.
    pub fn status(&self) -> i32 {
        self.status
            .code()
            .or_else(|| self.status.signal().map(|signal| 128 + signal))
            .expect("an ended process")
    }

    /// Checks the exit status.
    ///
    /// # Panics
    /// If it is another.
    #[track_caller]
    pub fn ends_with(&self, status: i32) -> &Self {
        assert_eq!(self.status(), status, "{self}");
        self
    }

    /// Checks that either output contains `text`.
    ///
    /// # Panics
    /// If neither does.
    #[track_caller]
    pub fn says(&self, text: &str) -> &Self {
        let said = self.stdout.contains(text) || self.stderr.contains(text);
        assert!(said, "not a word of \"{text}\": {self}");
        self
    }

    /// Checks that nothing is on standard output and one message on standard error, which names
    /// `text`.
    ///
    /// # Panics
    /// If it is otherwise.
    #[track_caller]
    pub fn complains_of(&self, text: &str) -> &Self {
        assert_eq!(self.stdout, "", "{self}");
        assert!(self.stderr.contains(text), "no \"{text}\": {self}");
        let messages = self
            .stderr
            .lines()
            .filter(|line| line.starts_with("error: ") || line.starts_with("vmm: "));
        assert_eq!(messages.count(), 1, "{self}");
        self
    }

    /// Standard output as one JSON document.
    ///
    /// # Panics
    /// If it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("not one JSON document, {error}: {self}"))
    }
}

impl fmt::Display for Run {
    /// All that is known, for the message of a failed test.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ended with {} after {:.1?}\n--- standard output\n{}\n--- standard error\n{}",
            self.shown,
            self.status,
            self.elapsed,
            ends(&self.stdout),
            ends(&self.stderr)
        )
    }
}

/// The beginning and the end of a text that may have megabytes.
fn ends(text: &str) -> String {
    const SHOWN: usize = 4000;
    if text.len() <= 2 * SHOWN {
        return text.to_owned();
    }
    // A character that is cut in two is shown as such.
    let part = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let bytes = text.as_bytes();
    let (head, tail) = (&bytes[..SHOWN], &bytes[bytes.len() - SHOWN..]);
    format!("{}\n[…]\n{}", part(head), part(tail))
}

/// Output that a thread collects, so that the writer never waits for the test.
#[derive(Debug)]
struct Stream {
    output: Arc<Output>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Output {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    ended: bool,
}

impl Stream {
    fn collect(source: Option<impl Read + Send + 'static>) -> Self {
        let output = Arc::new(Output::default());
        let reader = source.map(|mut source| {
            let output = Arc::clone(&output);
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                loop {
                    let read = source.read(&mut buffer).unwrap_or(0);
                    let mut state = output.state.lock().expect("no reader panics");
                    state.bytes.extend(&buffer[..read]);
                    state.ended = read == 0;
                    output.changed.notify_all();
                    if state.ended {
                        break;
                    }
                }
            })
        });
        Self { output, reader }
    }

    /// Waits for `text`; if it does not come, returns what came instead.
    fn wait_for(&self, text: &str, deadline: Instant) -> Result<(), String> {
        let contains = |state: &State| {
            state
                .bytes
                .windows(text.len())
                .any(|window| window == text.as_bytes())
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let state = self.output.state.lock().expect("no reader panics");
        let (state, _) = self
            .output
            .changed
            .wait_timeout_while(state, left, |state| !contains(state) && !state.ended)
            .expect("no reader panics");
        if contains(&state) {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&state.bytes).into_owned())
        }
    }

    fn text(&self) -> String {
        let state = self.output.state.lock().expect("no reader panics");
        String::from_utf8_lossy(&state.bytes).into_owned()
    }

    fn finish(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("no reader panics");
        }
        self.text()
    }
}
