//! The debugger of a run (`--gdb`): gdb connects, and has the machine before it, each vCPU a thread. The
//! `server` accepts one client at a time and gives each the machine that there is; a `session` speaks with
//! it by the crate `gdbstub`; what it asks for is done in `debuggee`, `breakpoints` and `resuming`. All of
//! that is on one thread, which ends with the [`Server`].

mod breakpoints;
mod debuggee;
mod resuming;
mod server;
mod session;

use std::fmt;

pub use server::Server;

/// What is behind gdb's `monitor`: commands by which somebody who has typed them reaches the bench.
pub trait Monitor: fmt::Debug + Send + Sync {
    /// Does what `words` say, and returns what there is to print. `ask` answers a request of the control
    /// socket (`docs/control-socket.md`), which is one line, by another.
    fn perform(&self, words: &[&str], ask: &mut dyn FnMut(&str) -> String) -> String;
}
