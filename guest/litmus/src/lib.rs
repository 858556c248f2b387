//! Litmus tests, the second client of the bench: programs of a few accesses to shared memory, and a
//! claim of what may come out of them.
//!
//! What a test is needs neither the bench nor a machine: how it is written ([`program`],
//! [`condition`], [`test`], [`herd`]), what can come out ([`interleavings`]) and how that is told
//! ([`histogram`], [`table`], [`case`]). The guest runs one in two ways: as it is told, deed by
//! deed, which is how orders are searched ([`puppet`]), or by itself in many rounds ([`rounds`]).

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
