//! The C kit: the runtime of guests that are written in C (`docs/guests-in-c.md`).
//!
//! It is a guest of the [kit](kit) whose deeds, handlers, words and oracles are functions and
//! records of C files ([`table`]), which reach the machine through the functions of
//! `include/lab.h`. In an image to be explored the compiler has put a call of a hook before every
//! access of the C files ([`hooks`]), and each hook announces the access to the search. The kit
//! knows nothing of what the C files do.

#![cfg_attr(not(test), no_std)]

extern crate alloc;

#[cfg(any(test, feature = "explore"))]
pub mod announce;
mod counters;
#[cfg(feature = "explore")]
mod each;
pub mod guest;
#[cfg(any(test, feature = "explore"))]
pub mod hooks;
#[cfg(any(test, feature = "image"))]
pub mod intended;
pub mod ledger;
#[cfg(any(test, feature = "explore"))]
pub mod memory;
#[cfg(feature = "image")]
pub mod surface;
pub mod table;
pub mod words;

#[cfg(feature = "image")]
use kit::metal::platform::Metal;

// A C file can have any of these vectors: all that there are but the kit's own.
#[cfg(feature = "image")]
kit::guest!(
    guest::CGuest<Metal>,
    [
        table::VECTORS[0],
        table::VECTORS[1],
        table::VECTORS[2],
        table::VECTORS[3],
        table::VECTORS[4],
        table::VECTORS[5],
        table::VECTORS[6],
        table::VECTORS[7],
    ]
);
