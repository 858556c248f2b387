//! Why a verb of the operator failed, in words for scripts and clients.

use shared::ledger::CallId;
use vmm_sys_util::errno;

use super::{InFlight, NoSuchPoint, NoSuchVector, NotThere, TooManyRules};
use crate::lab::call_name::CallName;
use crate::lab::deed::TellError;
use crate::lab::deed_refusal::DeedRefusal;
use crate::machine::breakpoints::BreakpointError;
use crate::machine::function_entry::EntryError;
use crate::machine::pause_error::PauseError;
use crate::machine::stop_instruction::StopError;
use crate::machine::symbols::NoSuchSymbol;

/// Why a verb of the operator failed.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The machine is over.
    #[error("the machine is over: {0}")]
    Over(String),
    /// There is no such vCPU, or it is not in a state for this.
    #[error(transparent)]
    Pause(#[from] PauseError),
    /// No such probe.
    #[error(transparent)]
    Point(#[from] NoSuchPoint),
    /// The kernel's function cannot be held at.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// A guest without a lab makes no calls that are known.
    #[error("this guest was told of no lab, so no call of it is known; leave the call out")]
    NoCalls,
    /// No such place in the image.
    #[error(transparent)]
    Symbol(#[from] NoSuchSymbol),
    /// A breakpoint or a step was not set.
    #[error(transparent)]
    Breakpoint(BreakpointError),
    /// An instruction was not replaced by one that stops vCPUs.
    #[error(transparent)]
    Stop(#[from] StopError),
    /// No regular expression.
    #[error("no regular expression: {0}")]
    Pattern(String),
    /// The guest does not read its console.
    #[error(
        "the guest has left too much unread on its console, of {0} bytes for which there is room"
    )]
    TypedTooMuch(usize),
    /// There is no such IPI on the wire.
    #[error(transparent)]
    NotThere(#[from] NotThere),
    /// No IPI has this name.
    #[error(transparent)]
    Vector(#[from] NoSuchVector),
    /// The wire has no room for another rule.
    #[error(transparent)]
    Rules(#[from] TooManyRules),
    /// The wire still holds IPIs.
    #[error(
        "the wire still holds {count} IPIs, the first {first}; release them, or lose them on \
         purpose"
    )]
    WireNotEmpty {
        /// How many.
        count: usize,
        /// One of them.
        first: InFlight,
    },
    /// What was waited for did not happen.
    #[error("{what} has not happened within {} s", limit.as_secs_f64())]
    TimedOut {
        /// What was waited for.
        what: String,
        /// For how long.
        limit: std::time::Duration,
    },
    /// The client that waited has gone.
    #[error("nobody waits for {0} any more")]
    GivenUp(String),
    /// KVM did not deliver an interrupt.
    #[error("KVM does not deliver an interrupt to CPU {0}")]
    Interrupt(u32, #[source] errno::Error),
    /// KVM did not give the registers.
    #[error("KVM does not show the registers of vCPU {0}")]
    Look(u32, #[source] errno::Error),
    /// KVM did not take the registers.
    #[error("KVM does not take these registers for vCPU {0}")]
    Change(u32, #[source] errno::Error),
    /// The machine was started without a trace.
    #[error("there is no trace to turn on or off; start vmm with --trace FILE or --report FILE")]
    NoTrace,
    /// The guest's workload takes no commands.
    #[error(
        "this guest's workload takes no commands; ask with --append for one that does, or quit to \
         end it"
    )]
    TakesNoCommands,
    /// No CPU of this guest can be told this.
    #[error(transparent)]
    Tell(#[from] TellError),
    /// The guest declares no deed that ends its workload.
    #[error(
        "the guest does not say by which deed its workload ends (vmm describe shows its deeds); \
         quit ends it"
    )]
    NoEnding,
    /// The guest refused.
    #[error("CPU {cpu} was told {deed} and did not: {why}")]
    Refused {
        /// The CPU.
        cpu: u32,
        /// What it was told.
        deed: String,
        /// Why it did not.
        why: DeedRefusal,
    },
    /// The command is done, and there is no call to speak of.
    #[error("CPU {cpu} has done {deed}, which made no call")]
    NoCall {
        /// The CPU.
        cpu: u32,
        /// What it was told.
        deed: String,
    },
    /// The call has returned, and runs nowhere.
    #[error("{} was made to no CPU", CallName(*.0))]
    ToNobody(CallId),
}

impl From<BreakpointError> for OperatorError {
    fn from(error: BreakpointError) -> Self {
        match error {
            BreakpointError::Pause(error) => Self::Pause(error),
            error => Self::Breakpoint(error),
        }
    }
}
