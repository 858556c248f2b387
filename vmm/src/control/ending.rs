//! What ended a run. The machine, the event loop, a script and a client of the control socket can
//! each end one, and all of them name the end in these terms.

use std::fmt;
use std::time::Duration;

use super::script_failure::Failure;
use crate::machine::exit::Death;
use shared::exit::ExitCode;

/// What ended a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// A vCPU wrote this to the exit port.
    GuestExit {
        /// The vCPU.
        vcpu: u32,
        /// What it wrote.
        code: u32,
    },
    /// A vCPU turned the machine off.
    PowerOff {
        /// The vCPU.
        vcpu: u32,
    },
    /// A vCPU reset the machine.
    Reset {
        /// The vCPU.
        vcpu: u32,
    },
    /// The guest's kernel said that it has panicked, and that it does nothing more.
    Panic {
        /// The CPU, if it was said.
        cpu: Option<u32>,
        /// What it said.
        why: String,
    },
    /// The guest could not go on.
    Dead {
        /// The vCPU on which.
        vcpu: u32,
        /// Why.
        death: Death,
    },
    /// A thread of the VMM panicked.
    Panicked {
        /// Its vCPU.
        vcpu: u32,
    },
    /// This signal. The program catches signals and passes the number on.
    Signal(i32),
    /// The time limit.
    TimeOut(Duration),
    /// Nothing moved for this time.
    NoProgress(Duration),
    /// The script stopped before its end.
    Script(Failure),
    /// The operator asked for it.
    Quit,
}

impl Ending {
    /// On which CPU the guest has died and why, if it has.
    pub(super) fn death(&self) -> Option<(u32, String)> {
        match self {
            Self::Dead { vcpu, death } => Some((*vcpu, death.to_string())),
            Self::Panic { cpu, why } => Some((cpu.unwrap_or(0), why.clone())),
            Self::GuestExit { vcpu, code } => match ExitCode::try_from(*code) {
                Ok(ExitCode::Panic) => Some((*vcpu, "it says that it has panicked".to_owned())),
                Ok(ExitCode::BadMachine) => {
                    let why = "it says that the machine lacks what it needs";
                    Some((*vcpu, why.to_owned()))
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// The exit status that a debugger is told, 0 for one that passes; `None` if the guest did not end by
    /// itself.
    pub(super) fn debugger_status(&self) -> Option<u8> {
        match self {
            Self::GuestExit { code, .. } => match ExitCode::try_from(*code) {
                Ok(ExitCode::Pass) => Some(0),
                _ => Some(u8::try_from(*code).unwrap_or(u8::MAX)),
            },
            Self::PowerOff { .. } | Self::Reset { .. } => Some(0),
            _ => None,
        }
    }

    /// Whether the run was cut short from outside, by a signal, a limit, a script or a client, and
    /// did not end by itself.
    pub(super) fn cuts_short(&self) -> bool {
        match self {
            Self::GuestExit { .. }
            | Self::PowerOff { .. }
            | Self::Reset { .. }
            | Self::Panic { .. }
            | Self::Dead { .. }
            | Self::Panicked { .. } => false,
            Self::Signal(_)
            | Self::TimeOut(_)
            | Self::NoProgress(_)
            | Self::Script(_)
            | Self::Quit => true,
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GuestExit { vcpu, .. } => write!(f, "the guest has ended on CPU {vcpu}"),
            Self::PowerOff { vcpu } => write!(f, "CPU {vcpu} turned the machine off"),
            Self::Reset { vcpu } => write!(f, "CPU {vcpu} reset the machine"),
            Self::Panic {
                cpu: Some(cpu),
                why,
            } => {
                write!(f, "the guest's kernel panicked on CPU {cpu}: {why}")
            }
            Self::Panic { cpu: None, why } => write!(f, "the guest's kernel panicked: {why}"),
            Self::Dead { vcpu, death } => write!(f, "the guest died on CPU {vcpu}: {death}"),
            Self::Panicked { vcpu } => {
                write!(f, "the VMM's thread of CPU {vcpu} panicked, which is a bug")
            }
            Self::Signal(signal) => write!(f, "signal {signal} came before the guest was done"),
            Self::TimeOut(limit) => {
                write!(f, "not done after {} s (--timeout)", limit.as_secs_f64())
            }
            Self::NoProgress(limit) => write!(
                f,
                "nothing has moved for {} s (--watchdog)",
                limit.as_secs_f64()
            ),
            Self::Script(failure) => write!(f, "{failure}"),
            Self::Quit => f.write_str("ended on request before the guest was done"),
        }
    }
}
