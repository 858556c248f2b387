//! Why a specimen cannot be made, or cannot go on.

use std::time::Duration;

use shared::stop;
use vmm_sys_util::errno;

use super::stopped::FIRST_VECTOR;
use crate::explore::case::CaseError;
use crate::explore::stop_reason::StopReason;
use crate::lab::programs::NoRoom;
use crate::machine::MachineError;
use crate::machine::threads::ThreadsError;
use crate::machine::vm::HostError;

/// Why a specimen cannot be made, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SpecimenError {
    /// Two machines that were booted in the same way do not begin in the same state.
    #[error(
        "two machines with this guest and these words came to different states when they booted, so \
         that they cannot share a search; try again, or without --jobs"
    )]
    OtherBeginning,
    /// A machine of another job has no thread.
    #[error(
        "cannot start the thread of another job; raise the limit on threads (ulimit -u), or ask for fewer --jobs"
    )]
    Job(#[source] std::io::Error),
    /// The machine cannot be built.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The lab cannot be set up.
    #[error("cannot write the lab to guest memory")]
    Lab(#[source] vm_memory::GuestMemoryError),
    /// The threads of the boot failed.
    #[error(transparent)]
    VcpuThreads(#[from] ThreadsError),
    /// The host cannot do it.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The image lacks a point that a search needs.
    #[error(
        "the guest image has no point \"{point}\", without which it cannot be explored{hint}",
        hint = if *.point == stop::NAME {
            "; build one that stops at each access (guest/build explore), or take \
             --granularity probe"
        } else { "" }
    )]
    NoPoint {
        /// The name of the point.
        point: &'static str,
    },
    /// The case contains something that the guest cannot be told.
    #[error("the case, {0}")]
    Case(#[from] CaseError),
    /// The case contains more than the lab has room for.
    #[error("the case: {0}")]
    Programs(#[from] NoRoom),
    /// The case has a condition about what the guest does not have.
    #[error("the case, \"{condition}\": {why}")]
    Condition {
        /// The condition.
        condition: String,
        /// What is wrong with it.
        why: String,
    },
    /// The guest has no deed that ends its workload.
    #[error(
        "the guest does not say by which deed its workload ends (vmm describe shows its deeds), \
         without which no schedule can be judged"
    )]
    NoEnding,
    /// A search does not keep track of a vector of the guest.
    #[error(
        "the guest's vector \"{name}\" is {number:#x}, and a search knows of {FIRST_VECTOR:#x} \
         to 0xff whether they are pending; give it one of those"
    )]
    Vector {
        /// The name of the vector.
        name: String,
        /// Its number.
        number: u8,
    },
    /// The guest ended before its CPUs were ready.
    #[error("the guest ended before its CPUs were ready: {0}")]
    NotReady(String),
    /// The guest was not ready within this time.
    #[error("not all CPUs of the guest were ready after {} s", .0.as_secs())]
    Late(Duration),
    /// A KVM call failed.
    #[error("KVM refused to {0}")]
    Kvm(&'static str, #[source] errno::Error),
    /// A signal arrived, or the time was up.
    #[error("{}", .0.reason())]
    Ended(StopReason),
    /// The guest gives impossible addresses for a stack.
    #[error(
        "the guest says that the {which} of CPU {cpu} is from {start:#x} to {end:#x}, {why}; a \
         guest that can be explored says in the lab where its stacks are, see \
         shared::lab::Contexts"
    )]
    Stack {
        /// The CPU.
        cpu: usize,
        /// Which stack of that CPU.
        which: &'static str,
        /// The first address of the stack, as given by the guest.
        start: u64,
        /// The first address after the stack, as given by the guest.
        end: u64,
        /// What is wrong with these addresses.
        why: &'static str,
    },
    /// The same choice led from one state to two different states.
    #[error(
        "a bug of the explorer: CPU {cpu} led from state {from} to {before} once, and to {to} \
         another time, so that states that are taken for the same are not"
    )]
    NotCanonical {
        /// The CPU that went on.
        cpu: usize,
        /// The key of the state from which it went on.
        from: String,
        /// The key of the state to which it led now.
        to: String,
        /// The key of the state to which it led before.
        before: String,
    },
    /// What was kept of a search is of no use to go on with it.
    #[error("cannot go on from the checkpoint: {0}")]
    Checkpoint(String),
    /// A page of memory differs from the initial state, although it was restored, or was never
    /// written as far as KVM says.
    #[error(
        "the page of guest memory at {address:#x} is not what it was at the beginning, though KVM \
         says that it was not written since"
    )]
    OtherPage {
        /// The address of the page.
        address: usize,
    },
    /// The guest has overwritten the table of what it passes over, which only the VMM writes.
    #[error(
        "the guest has written to {address:#x}, in the pages in which the VMM tells it at which \
         accesses it need not stop (shared::passing): it may not have stopped where it had to"
    )]
    OtherTable {
        /// The address of the word that differs.
        address: u64,
    },
    /// The guest has changed its situation otherwise than it may.
    #[error(
        "CPU {cpu} is not in the situation that the guest has in the pages in which the VMM tells \
         it at which accesses it need not stop (shared::passing): it may not have stopped where \
         it had to"
    )]
    OtherSituation {
        /// The CPU.
        cpu: usize,
    },
    /// A CPU makes an access in pieces as a whole, and another context accesses one of them.
    #[error(
        "CPU {cpu} copies memory as a whole, and with it what is at {address:#x}, which another CPU \
         or a handler accesses as well ({place}): a search cannot let these go on in the middle of \
         the copy; copy member by member, or with memcpy()"
    )]
    Piece {
        /// The CPU.
        cpu: usize,
        /// The address of the part that others access.
        address: u64,
        /// Where that is in the source.
        place: String,
    },
    /// A vCPU differs from the initial state in something that nothing should have changed.
    #[error("CPU {cpu} differs at a stop in what no stop can change: {what}")]
    NotExact {
        /// The CPU.
        cpu: usize,
        /// What differs.
        what: &'static str,
    },
}

/// Makes an error of a failed KVM call that was to do `what`.
pub(super) fn kvm(what: &'static str) -> impl FnOnce(errno::Error) -> SpecimenError {
    move |error| SpecimenError::Kvm(what, error)
}
