//! What it takes to serve gdb by its remote protocol, whatever it is that is debugged: where to listen,
//! the connection, and the registers of an x86-64 vCPU. The protocol itself is that of the crate
//! `gdbstub`. Knows no machine.

mod address;
mod connection;
mod listener;
mod registers;
mod thread;

pub use address::{Address, NotAnAddress};
pub use connection::Client;
pub use listener::{ListenError, Listener};
pub(crate) use registers::{NotChanged, RegisterFile, RegisterId, VcpuArch, VcpuRegisters};
pub(crate) use thread::{cpu_of, thread_of};
