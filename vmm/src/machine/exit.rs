//! Why a vCPU came out of the guest. Plain values, so that the vCPU, the counters of its exits and
//! the thread that runs it can all name an exit without knowing each other.

use std::fmt;

use kvm_bindings::KVM_INTERNAL_ERROR_EMULATION;
use vmm_sys_util::errno;

use super::devices::Effect;

/// Why a vCPU came out of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// A port was read or written; the devices have dealt with it.
    Pio(Effect),
    /// An address without memory was read or written; the devices have dealt with it.
    Mmio,
    /// A signal, or [`ImmediateExit`](super::kick::ImmediateExit).
    Interrupted,
    /// KVM asks to be called again (`EAGAIN`), as it does for a CPU that waits to be started.
    Again,
    /// A `hlt` that KVM did not wait out itself.
    Hlt,
    /// A debug exit: a step was taken, or a breakpoint was hit. `Some` if the vCPU is to stop.
    Debug(Option<Stop>),
    /// The guest cannot go on.
    Dead(Death),
}

/// Why a guest cannot go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Death {
    /// A triple fault: an exception during the delivery of a double fault.
    TripleFault,
    /// KVM gave up on an instruction or a state.
    InternalError {
        /// Which kind, `KVM_INTERNAL_ERROR_*`.
        suberror: u32,
        /// What KVM adds; its meaning depends on the kind.
        data: Vec<u64>,
    },
    /// The hardware refused the state of the vCPU.
    FailEntry(u64),
    /// An exit that this VMM does not handle.
    Unexpected(String),
    /// The same instruction exits again and again without being completed.
    Endless,
    /// It has turned itself off, or has reset itself, where no machine ends so.
    TurnedOff,
    /// `KVM_RUN` itself failed.
    Run(errno::Error),
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TripleFault => f.write_str("a triple fault"),
            Self::InternalError {
                suberror: KVM_INTERNAL_ERROR_EMULATION,
                ..
            } => f.write_str("an instruction that KVM could not emulate"),
            Self::InternalError { suberror, data } => {
                write!(f, "KVM internal error {suberror} (")?;
                for (index, word) in data.iter().enumerate() {
                    write!(f, "{}{word:#x}", if index == 0 { "" } else { ", " })?;
                }
                f.write_str(")")
            }
            Self::FailEntry(reason) => {
                write!(
                    f,
                    "a state the processor refused to enter (reason {reason:#x})"
                )
            }
            Self::Endless => f.write_str("a port instruction that repeats itself without an end"),
            Self::TurnedOff => f.write_str("that it turned the machine off, or reset it"),
            Self::Unexpected(exit) => write!(f, "an exit that nothing here handles ({exit})"),
            Self::Run(error) => write!(f, "KVM_RUN: {error}"),
        }
    }
}

/// Why a vCPU has stopped by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// It is about to execute the instruction at this address.
    Address(u64),
    /// It has executed the number of instructions that was asked for.
    Steps,
    /// A debugger is to be told.
    Debugger(DebuggerStop),
}

/// Why a vCPU has stopped for a debugger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DebuggerStop {
    /// It is about to execute the instruction at this address.
    Breakpoint(u64),
    /// It has accessed memory at this address, at which a watchpoint is.
    Watchpoint(u64),
    /// It has taken its step.
    Step,
}
