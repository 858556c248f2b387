//! What the guest and the VMM agree on: I/O ports, exit codes, IPI vectors and the lab pages.
//!
//! Everything here is plain data. The crate knows nothing of KVM, of x86 beyond port numbers, or of
//! how either side is built, so that another guest needs this crate and nothing more. Every
//! structure is `repr(C)`, and its size is asserted at compile time: a change to any of them is a
//! change of [`lab::VERSION`].

#![no_std]

pub mod cpus;
pub mod exit;
pub mod lab;
pub mod ledger;
pub mod mailbox;
pub mod manifest;
pub mod passing;
pub mod ports;
pub mod probe;
pub mod program;
pub mod stop;
pub mod trace;
