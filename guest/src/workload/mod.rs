//! What the CPUs do: the functions that calls run, and the programs that make the calls.

pub mod amount;
pub mod bench;
pub mod calls;
pub mod classic;
pub mod deeds;
pub mod functions;
pub mod obey;
pub mod objects;
pub mod puppet;
#[cfg(all(test, not(any(loom, shuttle))))]
mod puppet_test;
pub mod round;
pub mod selftest;
pub mod stress;
