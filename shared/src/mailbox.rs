//! Mailboxes: how the VMM tells a CPU of a guest what to do, one command at a time, and how it
//! learns the result. Only a guest whose workload takes commands (`workload=puppet`) looks at them.
//!
//! To post a command the VMM fills the mailbox and then adds one to [`Mailbox::posted`]. The CPU
//! may be asleep, so the VMM also interrupts it, with the vector that the guest's manifest has for
//! that, or with [`WAKE_VECTOR`]. The CPU notices that `posted` exceeds `taken`, and sets `taken`;
//! when the command is done it writes the result, sets `done`, and rings the doorbell with
//! [`Doorbell::Done`](crate::ports::Doorbell::Done). One mailbox holds one command: the next may be
//! posted when the last is done.
//!
//! What a CPU can be told is the guest's own to say: its [manifest](crate::manifest) declares each
//! deed with its number, its name and its arguments. One of them [ends](crate::manifest::ENDS) the
//! workload; what it has to do is said there.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use crate::cpus::MASK_WORDS;
use crate::manifest::ARGUMENTS;

/// The vector that does nothing but wake a CPU (Linux: `RESCHEDULE_VECTOR`).
pub const WAKE_VECTOR: u8 = 0xfd;

/// Entries that [`Mailbox::answer`] has room for.
pub const ANSWERS: usize = 32;

/// The mailbox of one CPU.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct Mailbox {
    /// VMM: commands posted so far.
    pub posted: u64,
    /// VMM: what to do: the number of a [deed](crate::manifest::Record::deed) of the guest.
    pub verb: u32,
    /// VMM: [`WAIT`], or 0.
    pub flags: u32,
    /// VMM: the deed's arguments that are CPUs, numbers and words, by position. A word is given by
    /// its place among the values of its key. 0 where there is no argument.
    pub arguments: [u64; ARGUMENTS],
    /// Guest: number of the last command it has begun.
    pub taken: u64,
    /// Guest: number of the last command that is done.
    pub done: u64,
    /// Guest: the result of that one. Its meaning depends on the deed; 0 is success if nothing else
    /// is said. Negative if it could not be done: one of [`Refusal`].
    pub result: i64,
    /// Guest: [`CallId`](crate::ledger::CallId) of the call that the last command makes, as soon as
    /// it is entered in the ledger; 0 until then, and for commands that make no call.
    pub call: u64,
    /// Guest: other than 0, from before its workload starts, if the CPU takes commands.
    pub listens: u64,
    /// Guest: the list with which it answers a deed that [answers](crate::manifest::ANSWERS).
    pub answer: [u16; ANSWERS],
    /// VMM: the deed's argument that is a set of CPUs.
    pub mask: [u64; MASK_WORDS],
    /// VMM: the number of the [program](crate::program) that goes with the command: what the
    /// function of its call does, say. 0 if none does.
    pub program: u64,
    /// Room for more.
    pub reserved: [u64; 4],
}

const _: () = assert!(size_of::<Mailbox>() == 320);

/// [`Mailbox::flags`]: the call waits until it has run everywhere.
pub const WAIT: u32 = 1;

/// Why a command was not carried out, as [`Mailbox::result`] has it: negated error numbers of
/// Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i64)]
pub enum Refusal {
    /// The CPU did not start (`-EIO`).
    NotStarted = -5,
    /// The target is not online (`-ENXIO`).
    Offline = -6,
    /// There is no memory for the CPU (`-ENOMEM`).
    NoMemory = -12,
    /// Another CPU is leaving or coming, or something else that it takes is in use (`-EBUSY`).
    Busy = -16,
    /// The command makes no sense (`-EINVAL`).
    Invalid = -22,
    /// This queue has nothing of the kind (`-EOPNOTSUPP`).
    Unsupported = -95,
}

impl Refusal {
    /// Every refusal.
    pub const ALL: [Self; 6] = [
        Self::NotStarted,
        Self::Offline,
        Self::NoMemory,
        Self::Busy,
        Self::Invalid,
        Self::Unsupported,
    ];

    /// Why, as a clause.
    pub fn describe(self) -> &'static str {
        match self {
            Self::NotStarted => "the CPU did not start",
            Self::Offline => "the target is not online",
            Self::NoMemory => "there is no memory for the CPU",
            Self::Busy => "another CPU is leaving or coming, or what it takes is in use",
            Self::Invalid => "this cannot be asked of this CPU now",
            Self::Unsupported => "this queue has nothing of the kind",
        }
    }
}

impl TryFrom<i64> for Refusal {
    /// The value, which is no refusal's.
    type Error = i64;

    fn try_from(value: i64) -> Result<Self, i64> {
        Self::ALL
            .into_iter()
            .find(|refusal| *refusal as i64 == value)
            .ok_or(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_by_its_number() {
        for refusal in Refusal::ALL {
            assert_eq!(Refusal::try_from(refusal as i64), Ok(refusal));
        }
        assert_eq!(Refusal::try_from(3), Err(3));
    }
}
