//! The kinds of threads that the table tells apart, and of which kind the calling one is. Installs
//! nothing.

use std::cell::Cell;
use std::fmt;

/// A kind of thread, by what it has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThreadKind {
    /// Reads the command line, opens files and devices, builds machines, starts threads, writes
    /// results. Every other kind may do less.
    Main,
    /// Moves the machine of a search by hand, on a thread of its own with `--jobs`.
    Search,
    /// Runs one vCPU.
    Vcpu,
    /// Waits for what happens to a machine, and writes its console.
    EventLoop,
    /// Performs a script.
    Script,
    /// Accepts clients of the control socket, or answers one.
    Socket,
    /// Sends one client of the control socket its answers and events.
    Writer,
    /// Accepts debuggers, and does what they ask for.
    Debugger,
    /// Takes the signals that end a run.
    Signals,
    /// Waits for a time, and then wakes a thread or draws the line of progress.
    Ticker,
}

impl ThreadKind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Main,
        Self::Search,
        Self::Vcpu,
        Self::EventLoop,
        Self::Script,
        Self::Socket,
        Self::Writer,
        Self::Debugger,
        Self::Signals,
        Self::Ticker,
    ];

    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Search => "search",
            Self::Vcpu => "vcpu",
            Self::EventLoop => "event loop",
            Self::Script => "script",
            Self::Socket => "socket",
            Self::Writer => "writer",
            Self::Debugger => "debugger",
            Self::Signals => "signals",
            Self::Ticker => "ticker",
        }
    }
}

impl fmt::Display for ThreadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

thread_local! {
    // Without a destructor, and set before there can be a violation: a signal handler reads it.
    static KIND: Cell<ThreadKind> = const { Cell::new(ThreadKind::Main) };
}

/// The kind of the calling thread. One that has not said otherwise is a main thread.
pub fn current() -> ThreadKind {
    KIND.get()
}

/// From now on the calling thread is one of that kind.
pub(super) fn become_one(kind: ThreadKind) {
    KIND.set(kind);
}
