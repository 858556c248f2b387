//! The generic-ipi path: functions that one CPU has others run (Linux `kernel/smp.c`, 2.6.30).
//!
//! Written from the behaviour of that code, not from its text. Calls to one CPU travel through that
//! CPU's own queue ([`single`]); calls to many through one of the designs under [`queue`].

pub mod csd;
pub mod element;
pub mod hotplug;
mod hotplug_state;
pub mod list;
pub mod memory;
pub mod notifier;
mod path;
pub mod queue;
pub mod single;
mod stop;

pub use path::{Functions, Ipi, NoneOnline, Offline};
