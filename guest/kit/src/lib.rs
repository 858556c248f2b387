//! The guest kit: what every guest of the bench needs, whatever code it holds for examination.
//!
//! A guest implements one trait, [`Specimen`](specimen::Specimen), over any machine of CPUs that
//! interrupt each other ([`Platform`](platform::Platform)). The kit supplies two machines: bare
//! metal, with everything from the first instruction on, in an image (feature `image`, macro
//! `guest!`); and threads of a process, for tests. It knows no queue and no call. What a guest
//! does, counts, watches and takes on its command line, the guest declares itself, in its manifest
//! ([`declare!`]).

#![cfg_attr(
    not(any(test, loom, shuttle, feature = "census", feature = "threads")),
    no_std
)]

extern crate alloc;

pub mod counters;
pub mod deeds;
pub mod effective;
pub mod handler;
pub mod idle;
pub mod lab;
pub mod mailbox;
#[cfg(all(test, not(any(loom, shuttle))))]
mod mailbox_test;
pub mod manifest;
#[cfg(feature = "image")]
pub mod metal;
pub mod options;
pub mod platform;
pub mod probe;
pub mod program;
pub mod record;
pub mod route;
pub mod specimen;
pub mod sync;
#[cfg(any(shuttle, all(any(test, feature = "threads"), not(loom))))]
pub mod threads;
pub mod trace;
pub mod vector;
pub mod vectors;
