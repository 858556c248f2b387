//! The explorer: finds orders of steps of the machine's CPUs that break something, or shows that there are
//! none. `docs/exploration.md` says how. Its machine is moved by one thread, one CPU at a time; it shares
//! nothing with [`crate::control`], which lets machines run.

pub mod case;
pub mod schedule;
pub mod search;
pub mod sharing;
pub mod specimen;
