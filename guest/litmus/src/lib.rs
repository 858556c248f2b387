//! Litmus tests, the second client of the bench: programs of a few accesses to shared memory, and a
//! claim of what may come out of them.
//!
//! A test itself needs neither the bench nor a machine: how it is written ([`program`],
//! [`condition`], [`test`], [`herd`]), which outcomes are possible ([`interleavings`]) and how they
//! are reported ([`histogram`], [`table`], [`case`]). The guest runs a test in two ways: one deed
//! at a time, as it is told, so that orders can be searched ([`puppet`]); or by itself in many
//! rounds ([`rounds`]).

#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod case;
pub mod condition;
pub mod counters;
pub mod deeds;
pub mod guest;
pub mod herd;
pub mod histogram;
pub mod interleavings;
pub mod manifest;
pub mod options;
pub mod program;
pub mod puppet;
#[cfg(test)]
mod puppet_test;
pub mod registers;
pub mod rounds;
pub mod syntax;
pub mod table;
pub mod test;
pub mod vectors;
