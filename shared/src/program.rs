//! Programs: what the function of a call does, or an interrupt that a CPU asks for, as the VMM
//! tells it along with the command ([`Mailbox::program`](crate::mailbox::Mailbox::program)). A
//! program is a few deeds, which a CPU does one after the other wherever the call has it run.
//!
//! Programs are numbered from 1, in the order of their places in the lab. The VMM writes a program
//! before it posts the first command that has its number, and never changes it: a function can run
//! long after the command that made the call is done.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::cpus::MASK_WORDS;
use crate::manifest::ARGUMENTS;

/// Programs that a lab has room for.
pub const PROGRAMS: u32 = 64;

/// Deeds that a program has room for.
pub const STEPS: usize = 8;

/// A deed of a program. The fields are those of the [mailbox](crate::mailbox::Mailbox).
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Step {
    /// The number of the deed.
    pub verb: u32,
    /// [`WAIT`](crate::mailbox::WAIT), or 0.
    pub flags: u32,
    /// Its arguments that are CPUs, numbers and words.
    pub arguments: [u64; ARGUMENTS],
    /// Its argument that is a set of CPUs.
    pub mask: [u64; MASK_WORDS],
}

const _: () = assert!(size_of::<Step>() == 168);

/// A program. Only the VMM writes it.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct Program {
    /// How many deeds it has, at most [`STEPS`].
    pub length: u64,
    /// The deeds, in their order.
    pub steps: [Step; STEPS],
    /// Room for more.
    pub reserved: [u64; 7],
}

const _: () = assert!(size_of::<Program>() == 1408);
