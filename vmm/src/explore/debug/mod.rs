//! A found schedule under gdb, forwards and backwards (`vmm replay --gdb`): the schedule is a `recording`,
//! to whose positions a machine is put, and a `trace` is what is seen on the way; `search` finds where
//! something happens, `target` shows it to gdb by the crate `gdbstub`, `monitor` answers what gdb has no
//! words for, and `session` speaks with one gdb. All on one thread, which owns the vCPUs. Nothing here may
//! change what the recording does.

mod breakpoints;
mod monitor;
mod moving;
mod recording;
mod search;
mod session;
mod target;
mod trace;

pub use recording::{Position, Recording};
pub use session::{SessionError, serve};
