//! Mailboxes: how the VMM tells a CPU of a guest what to do, one command at a time, and how it learns what
//! became of it. Only a guest whose workload takes commands (`workload=puppet`) looks at them.
//!
//! To post a command the VMM fills the mailbox and then adds one to [`Mailbox::posted`]; in case the CPU
//! sleeps it interrupts it, with the vector that the guest's manifest has for that or else with [`WAKE_VECTOR`]. The CPU notices that `posted` exceeds `taken`, and sets
//! `taken`; when the command is done it writes what came of it, sets `done`, and rings the doorbell with
//! [`Doorbell::Done`](crate::ports::Doorbell::Done). One mailbox holds one command: the next may be posted
//! when the last is done.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::lab::MAX_CPUS;

/// The vector that does nothing but wake a CPU (Linux: `RESCHEDULE_VECTOR`).
pub const WAKE_VECTOR: u8 = 0xfd;

/// Words of a CPU mask in a mailbox.
pub const MASK_WORDS: usize = MAX_CPUS as usize / 64;

/// Entries that [`Mailbox::answer`] has room for.
pub const ANSWERS: usize = 32;

/// The mailbox of one CPU.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct Mailbox {
    /// VMM: commands posted so far.
    pub posted: u64,
    /// VMM: the [`Verb`].
    pub verb: u32,
    /// VMM: [`WAIT`], or 0.
    pub flags: u32,
    /// VMM: what the verb is about; most often a CPU.
    pub argument: u64,
    /// Guest: number of the last command it has begun.
    pub taken: u64,
    /// Guest: number of the last command that is done.
    pub done: u64,
    /// Guest: what came of that one; see [`Verb`]. Negative if it could not be done: one of
    /// [`Refusal`].
    pub result: i64,
    /// Guest: [`CallId`](crate::ledger::CallId) of the call that the command last begun makes, as soon as
    /// it is entered in the ledger; 0 until then, and for other commands.
    pub call: u64,
    /// Guest: other than 0, from before its workload starts, if the CPU takes commands.
    pub listens: u64,
    /// Guest: [`Verb::Queue`]'s answer.
    pub answer: [u16; ANSWERS],
    /// VMM: the CPUs that the verb is about.
    pub mask: [u64; MASK_WORDS],
}

const _: () = assert!(size_of::<Mailbox>() == 256);

/// [`Mailbox::flags`]: the call waits until it has run everywhere.
pub const WAIT: u32 = 1;

/// What a CPU can be told to do. Calls run the workload's plainest function. A result of 0 is success, if
/// nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Verb {
    /// Calls CPU `argument` (`smp_call_function_single`).
    CallSingle = 1,
    /// Calls CPU `argument` with a descriptor of its own (`smp_call_function_single_async`). It cannot wait.
    CallAsync = 2,
    /// Calls the CPUs of `mask` (`smp_call_function_many`). The mask handed to the path is this CPU's own,
    /// from which others can take themselves by [`Verb::LeaveMask`] while the call is under way.
    CallMany = 3,
    /// Calls all others (`smp_call_function`).
    CallAll = 4,
    /// Calls all, itself too (`on_each_cpu`).
    OnEach = 5,
    /// Calls one CPU of `mask` (`smp_call_function_any`). Result: which.
    CallAny = 6,
    /// Disables interrupts. The CPU goes on to look for commands, awake. Until they are enabled it takes part
    /// in no stop, so that none ends; it makes no call that can have to wait for another CPU, which is
    /// reported as a breach of the contract and refused ([`Refusal::Invalid`]), and takes no CPU offline or
    /// online.
    IrqsOff = 7,
    /// Enables interrupts, and takes all that are pending.
    IrqsOn = 8,
    /// Takes CPU `argument` offline.
    Offline = 9,
    /// Brings CPU `argument` online.
    Online = 10,
    /// From now on this CPU stays awake while it waits for commands.
    Spin = 11,
    /// From now on this CPU sleeps while it waits for commands, as at first.
    Idle = 12,
    /// Takes this CPU out of the mask with which CPU `argument` calls.
    LeaveMask = 13,
    /// Reads the global queue: [`Mailbox::answer`] names the elements from the head on, by owner where
    /// elements have one. Result: how many there are, which may be more than the answer has room for.
    Queue = 14,
    /// Ends the workload on this CPU, with interrupts on; no later command is looked at. When all CPUs of
    /// `mask`, this one among them, have been told so with the same mask, and have taken every interrupt that
    /// was sent to them, the first of them that is online looks for what was left behind, and ends the run.
    /// Whatever became of other CPUs, they are not waited for, nor is what a wire still holds.
    Finish = 15,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Self; 15] = [
        Self::CallSingle,
        Self::CallAsync,
        Self::CallMany,
        Self::CallAll,
        Self::OnEach,
        Self::CallAny,
        Self::IrqsOff,
        Self::IrqsOn,
        Self::Offline,
        Self::Online,
        Self::Spin,
        Self::Idle,
        Self::LeaveMask,
        Self::Queue,
        Self::Finish,
    ];
}

impl TryFrom<u32> for Verb {
    /// The value that names no verb.
    type Error = u32;

    fn try_from(value: u32) -> Result<Self, u32> {
        Self::ALL
            .into_iter()
            .find(|verb| *verb as u32 == value)
            .ok_or(value)
    }
}

/// Why a command was not carried out, as [`Mailbox::result`] has it: the negated numbers of Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i64)]
pub enum Refusal {
    /// The CPU did not start (`-EIO`).
    NotStarted = -5,
    /// The target is not online (`-ENXIO`).
    Offline = -6,
    /// There is no memory for the CPU (`-ENOMEM`).
    NoMemory = -12,
    /// Another CPU is leaving or coming (`-EBUSY`).
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
            Self::Busy => "another CPU is leaving or coming",
            Self::Invalid => "this cannot be asked of this CPU now",
            Self::Unsupported => "this queue has nothing of the kind",
        }
    }
}

impl TryFrom<i64> for Refusal {
    /// The value that means no refusal.
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
        for verb in Verb::ALL {
            assert_eq!(Verb::try_from(verb as u32), Ok(verb));
        }
        for refusal in Refusal::ALL {
            assert_eq!(Refusal::try_from(refusal as i64), Ok(refusal));
        }
        assert_eq!(Verb::try_from(0), Err(0));
        assert_eq!(Refusal::try_from(3), Err(3));
    }
}
