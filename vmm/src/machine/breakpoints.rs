//! Breakpoints and single steps of one vCPU (`KVM_SET_GUEST_DEBUG`, KVM's api.rst). Whether
//! hardware breakpoints work on this host is found out by a trial: there are hosts whose KVM
//! accepts them, and they never fire. Must not touch threads or states.

use std::sync::OnceLock;

use kvm_bindings::{
    KVM_GUESTDBG_BLOCKIRQ, KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP,
    kvm_guest_debug,
};
use kvm_ioctls::{VcpuExit, VcpuFd};
use vmm_sys_util::errno;

use super::exit::Stop;
use super::pause_error::PauseError;
use super::trial::{self, Trial};
use super::vm::{HostError, setup};
use crate::confinement;

/// Why a breakpoint or a step was not set.
#[derive(Debug, thiserror::Error)]
pub enum BreakpointError {
    /// Breakpoints do not fire on this host.
    #[error(
        "this host's KVM has no breakpoints that work; hold the CPU at a probe instead \
         (`vmm probes GUEST` lists them)"
    )]
    None,
    /// The trial itself failed.
    #[error("cannot try whether this host has breakpoints: {0}")]
    Untried(&'static str),
    /// The vCPU does not run, or is not stalled.
    #[error(transparent)]
    Pause(#[from] PauseError),
    /// KVM refused.
    #[error("KVM refuses to debug the vCPU (steps take Linux 5.15 or later)")]
    Refused(#[from] errno::Error),
}

/// The breakpoint and the steps that are set for one vCPU.
#[derive(Debug, Default)]
pub(super) struct GuestDebug {
    breakpoint: Option<u64>,
    steps: u64,
    /// Whether the last instruction is complete, so that RIP points to the next one.
    is_between: bool,
}

impl GuestDebug {
    /// Stops the vCPU before the instruction at `address`, once.
    pub fn set_breakpoint(&mut self, address: u64, fd: &VcpuFd) -> Result<(), errno::Error> {
        self.breakpoint = Some(address);
        self.tell(fd)
    }

    /// Removes the breakpoint and the steps.
    pub fn clear(&mut self, fd: &VcpuFd) -> Result<(), errno::Error> {
        if self.breakpoint.is_none() && self.steps == 0 {
            return Ok(());
        }
        *self = Self::default();
        self.tell(fd)
    }

    /// Stops the vCPU after `steps` instructions; 0 means never. Interrupts are blocked until then.
    /// The processor steps by the trap flag; an interrupt would save that flag with the others, and
    /// its `iret` would restore it after the last step, which the guest would see as a #DB. Of one
    /// that cannot be blocked any more, see [`InterruptFrame`](super::interrupt_frame::InterruptFrame).
    pub fn set_steps(&mut self, steps: u64, fd: &VcpuFd) -> Result<(), errno::Error> {
        self.steps = steps;
        self.is_between = true;
        self.tell(fd)
    }

    /// Whether the next instruction is to be stepped over and has not begun.
    pub fn is_before_a_step(&self) -> bool {
        self.steps > 0 && self.is_between
    }

    /// Whether there are steps to be taken.
    pub fn has_steps(&self) -> bool {
        self.steps > 0
    }

    /// Says whether the vCPU is between two instructions. It is not while it is in the guest, or
    /// has come out in the middle of one.
    pub fn set_between(&mut self, is_between: bool) {
        self.is_between = is_between;
    }

    /// KVM has come out of the guest at the instruction at `pc`. Returns why the vCPU is to stop
    /// there, if it is; the breakpoint or the steps are over then. A debug exit that is no longer
    /// asked for is ignored.
    pub fn stopped_at(&mut self, pc: u64, fd: &VcpuFd) -> Option<Stop> {
        let stop = if self.breakpoint == Some(pc) {
            Some(Stop::Address(pc))
        } else if self.steps == 1 {
            Some(Stop::Steps)
        } else {
            None
        };
        if stop.is_some() {
            *self = Self::default();
        }
        self.steps = self.steps.saturating_sub(1);
        self.is_between = true;
        // KVM does not refuse this, since it accepted the breakpoint or the steps before. It is
        // repeated after each step, because an `iret` or `popf` can have cleared the trap flag.
        let _ = self.tell(fd);
        stop
    }

    fn tell(&self, fd: &VcpuFd) -> Result<(), errno::Error> {
        let mut debug = kvm_guest_debug::default();
        if self.steps > 0 {
            debug.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_BLOCKIRQ;
        }
        if let Some(address) = self.breakpoint {
            debug.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
            debug.arch.debugreg[0] = address;
            debug.arch.debugreg[7] = BREAK_ON_EXECUTION;
        }
        fd.set_guest_debug(&debug)
    }
}

/// DR7: the first breakpoint is enabled globally (G0), for instruction execution; bit 10 is always
/// set (SDM Vol. 3B, 18.2.4).
const BREAK_ON_EXECUTION: u64 = 1 << 10 | 1 << 1;

/// Checks that a breakpoint fires on this host.
///
/// # Errors
/// [`BreakpointError::None`] if it does not, [`BreakpointError::Untried`] if that could not be
/// tried.
pub fn check() -> Result<(), BreakpointError> {
    static FIRES: OnceLock<Result<bool, &'static str>> = OnceLock::new();
    let fires = FIRES.get_or_init(|| try_one().map_err(|_| "KVM gives no VM to try it with"));
    match *fires {
        Ok(true) => Ok(()),
        Ok(false) => Err(BreakpointError::None),
        Err(why) => Err(BreakpointError::Untried(why)),
    }
}

/// Makes the trial of [`check`] now if threads that will ask for it may not make it themselves: those
/// of a script and of the control socket, in a process that is confined.
pub fn check_while_allowed() {
    if confinement::limits_calls() {
        // Whoever asks is told.
        let _ = check();
    }
}

/// Runs two instructions of real-mode code with a breakpoint on the second.
fn try_one() -> Result<bool, HostError> {
    /// `nop`, then `out 0, al`, which exits to the VMM in any case.
    const CODE: [u8; 3] = [0x90, 0xe6, 0x00];
    let mut trial = Trial::of(&CODE)?;
    let mut debugging = GuestDebug::default();
    debugging
        .set_breakpoint(trial::START + 1, &trial.fd)
        .map_err(setup("set a breakpoint"))?;
    match trial.fd.run() {
        Ok(VcpuExit::Debug(debug)) => Ok(debug.pc == trial::START + 1),
        Ok(_) => Ok(false),
        Err(error) => Err(setup("run two instructions")(error)),
    }
}
