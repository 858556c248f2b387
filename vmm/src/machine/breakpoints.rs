//! Breakpoints, watchpoints and single steps of one vCPU (`KVM_SET_GUEST_DEBUG`, KVM's api.rst). Whether
//! those of the hardware work on this host is found out by a trial: there are hosts whose KVM
//! accepts them, and they never fire. Must not touch threads or states.

use std::sync::OnceLock;

use kvm_bindings::{
    KVM_GUESTDBG_BLOCKIRQ, KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP,
    kvm_guest_debug,
};
use kvm_ioctls::{VcpuExit, VcpuFd};
use vmm_sys_util::errno;

use super::exit::{DebuggerStop, Stop};
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
    /// Watchpoints do not fire on this host.
    #[error("this host's KVM has no watchpoints that work: it accepts them, and they never fire")]
    NoWatchpoints,
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

/// What a processor watches for by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HardwarePoint {
    /// The instruction at this address is about to be executed.
    Code(u64),
    /// Memory is accessed.
    Data {
        /// The first byte.
        address: u64,
        /// How many bytes: 1, 2, 4 or 8, of which the address is a multiple.
        length: u64,
        /// Whether reads count too.
        reads_too: bool,
    },
}

/// How many of them there are for a debugger. One of the processor's four is the operator's.
pub const HARDWARE_POINTS: usize = 3;

impl HardwarePoint {
    /// Whether the processor can watch for it.
    pub fn is_possible(&self) -> bool {
        match *self {
            Self::Code(_) => true,
            Self::Data {
                address, length, ..
            } => [1, 2, 4, 8].contains(&length) && address.is_multiple_of(length),
        }
    }

    fn address(&self) -> u64 {
        match *self {
            Self::Code(address) | Self::Data { address, .. } => address,
        }
    }

    /// Its bits of DR7 in slot `slot` (SDM Vol. 3B, 18.2.4 and Figure 18-1).
    fn control(&self, slot: usize) -> u64 {
        let kind = match *self {
            Self::Code(_) => 0,
            Self::Data {
                length, reads_too, ..
            } => {
                let access = if reads_too { 0b11 } else { 0b01 };
                let size = match length {
                    1 => 0b00,
                    2 => 0b01,
                    8 => 0b10,
                    _ => 0b11,
                };
                size << 2 | access
            }
        };
        // Enabled globally (G0 to G3); R/W and LEN.
        1 << (2 * slot + 1) | kind << (16 + 4 * slot)
    }
}

/// The breakpoint and the steps that are set for one vCPU.
#[derive(Debug, Default)]
pub(super) struct GuestDebug {
    breakpoint: Option<u64>,
    steps: u64,
    /// Whether the debugger wants to be told of the next instruction. The operator's steps are not taken
    /// by that.
    debugger_step: bool,
    /// The debugger's, in the slots from the second on.
    debugger: Vec<HardwarePoint>,
    /// Whether it stops after every instruction.
    walks: bool,
    /// Whether the last instruction is complete, so that RIP points to the next one.
    is_between: bool,
}

impl GuestDebug {
    /// Stops the vCPU before the instruction at `address`, once.
    pub fn set_breakpoint(&mut self, address: u64, fd: &VcpuFd) -> Result<(), errno::Error> {
        self.breakpoint = Some(address);
        self.tell(fd)
    }

    /// Removes the breakpoint and the steps, but for what is a debugger's.
    pub fn clear(&mut self, fd: &VcpuFd) -> Result<(), errno::Error> {
        if self.breakpoint.is_none() && self.steps == 0 {
            return Ok(());
        }
        self.breakpoint = None;
        self.steps = 0;
        self.tell(fd)
    }

    /// Stops the vCPU for the debugger at `points`, [`HARDWARE_POINTS`] at most, and at no others.
    pub fn set_debugger_points(
        &mut self,
        points: &[HardwarePoint],
        fd: &VcpuFd,
    ) -> Result<(), errno::Error> {
        self.debugger = points.to_vec();
        self.tell(fd)
    }

    /// Stops the vCPU for the debugger after one instruction, or does no longer.
    pub fn set_debugger_step(&mut self, on: bool, fd: &VcpuFd) -> Result<(), errno::Error> {
        if !on && !self.debugger_step {
            return Ok(());
        }
        self.debugger_step = on;
        self.is_between = true;
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

    /// Has the vCPU come out after every instruction, or no longer. Interrupts are taken where they
    /// would be taken otherwise: this is for a machine in which nothing happens but what its one thread
    /// has decided.
    pub fn set_walking(&mut self, on: bool, fd: &VcpuFd) -> Result<(), errno::Error> {
        self.walks = on;
        self.is_between = true;
        self.tell(fd)
    }

    /// Whether the next instruction is to be stepped over and has not begun.
    pub fn is_before_a_step(&self) -> bool {
        self.has_steps() && self.is_between
    }

    /// Whether there are steps to be taken.
    pub fn has_steps(&self) -> bool {
        self.steps > 0 || self.debugger_step || self.walks
    }

    /// Says whether the vCPU is between two instructions. It is not while it is in the guest, or
    /// has come out in the middle of one.
    pub fn set_between(&mut self, is_between: bool) {
        self.is_between = is_between;
    }

    /// KVM has come out of the guest at the instruction at `pc`, with this in DR6. Returns why the vCPU
    /// is to stop there, if it is; the breakpoint or the steps are over then, but a debugger's points
    /// stay. A debug exit that is no longer asked for is ignored.
    pub fn stopped_at(&mut self, pc: u64, dr6: u64, fd: &VcpuFd) -> Option<Stop> {
        let has_hit = |(slot, point): &(usize, &HardwarePoint)| {
            matches!(point, HardwarePoint::Data { .. }) && dr6 >> slot & 1 != 0
        };
        let data = (1..).zip(&self.debugger).find(has_hit);
        let stop = if self.breakpoint == Some(pc) {
            Some(Stop::Address(pc))
        } else if self.debugger.contains(&HardwarePoint::Code(pc)) {
            Some(Stop::Debugger(DebuggerStop::Breakpoint(pc)))
        } else if let Some((_, point)) = data {
            Some(Stop::Debugger(DebuggerStop::Watchpoint(point.address())))
        } else if self.debugger_step {
            Some(Stop::Debugger(DebuggerStop::Step))
        } else if self.steps == 1 {
            Some(Stop::Steps)
        } else {
            None
        };
        match stop {
            Some(Stop::Address(_) | Stop::Steps) => {
                self.breakpoint = None;
                self.steps = 0;
            }
            Some(Stop::Debugger(_)) if self.debugger_step => self.debugger_step = false,
            _ => self.steps = self.steps.saturating_sub(1),
        }
        self.is_between = true;
        // KVM does not refuse this, since it accepted the breakpoint or the steps before. It is
        // repeated after each step, because an `iret` or `popf` can have cleared the trap flag.
        let _ = self.tell(fd);
        stop
    }

    fn tell(&self, fd: &VcpuFd) -> Result<(), errno::Error> {
        let mut debug = kvm_guest_debug::default();
        if self.steps > 0 || self.debugger_step {
            debug.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_BLOCKIRQ;
        }
        if self.walks {
            debug.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
        }
        let operators = self.breakpoint.map(HardwarePoint::Code);
        let operators = operators.iter().map(|point| (0, point));
        let debuggers = (1..=HARDWARE_POINTS).zip(&self.debugger);
        for (slot, point) in operators.chain(debuggers) {
            debug.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
            debug.arch.debugreg[slot] = point.address();
            debug.arch.debugreg[7] |= ALWAYS_SET | point.control(slot);
        }
        fd.set_guest_debug(&debug)
    }
}

/// The bit of DR7 that is always set (SDM Vol. 3B, 18.2.4).
const ALWAYS_SET: u64 = 1 << 10;

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

/// Checks that a watchpoint fires on this host.
///
/// # Errors
/// As [`check`], with [`BreakpointError::NoWatchpoints`].
pub fn check_watchpoints() -> Result<(), BreakpointError> {
    static FIRES: OnceLock<Result<bool, &'static str>> = OnceLock::new();
    let fires = FIRES
        .get_or_init(|| try_a_watchpoint().map_err(|_| "KVM gives no VM to try watchpoints with"));
    match *fires {
        Ok(true) => Ok(()),
        Ok(false) => Err(BreakpointError::NoWatchpoints),
        Err(why) => Err(BreakpointError::Untried(why)),
    }
}

/// Makes the trial of [`check`] now if threads that will ask for it may not make it themselves: those
/// of a script and of the control socket, in a process that is confined.
pub fn check_while_allowed() {
    if confinement::limits_calls() {
        // Whoever asks is told.
        let _ = check();
        let _ = check_watchpoints();
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

/// Runs two instructions of real-mode code, of which the first writes where a watchpoint is.
fn try_a_watchpoint() -> Result<bool, HostError> {
    /// `mov [0x500], al`, then `out 0, al`, which exits to the VMM in any case.
    const CODE: [u8; 5] = [0xa2, 0x00, 0x05, 0xe6, 0x00];
    let mut trial = Trial::of(&CODE)?;
    let mut debugging = GuestDebug::default();
    let watched = HardwarePoint::Data {
        address: 0x500,
        length: 1,
        reads_too: false,
    };
    debugging
        .set_debugger_points(&[watched], &trial.fd)
        .map_err(setup("set a watchpoint"))?;
    match trial.fd.run() {
        // In the second slot.
        Ok(VcpuExit::Debug(debug)) => Ok(debug.dr6 & 2 != 0),
        Ok(_) => Ok(false),
        Err(error) => Err(setup("run two instructions")(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bits as the manual draws them.
    #[test]
    fn points_are_encoded_for_their_slot() {
        assert_eq!(HardwarePoint::Code(1).control(0), 1 << 1);
        assert_eq!(HardwarePoint::Code(1).control(3), 1 << 7);
        let data = |length, reads_too| HardwarePoint::Data {
            address: 64,
            length,
            reads_too,
        };
        assert_eq!(data(1, false).control(1), 1 << 3 | 0b0001 << 20);
        assert_eq!(data(2, true).control(1), 1 << 3 | 0b0111 << 20);
        assert_eq!(data(4, false).control(2), 1 << 5 | 0b1101 << 24);
        assert_eq!(data(8, true).control(3), 1 << 7 | 0b1011 << 28);
        assert!(data(8, true).is_possible() && !data(3, true).is_possible());
        let odd = HardwarePoint::Data {
            address: 66,
            length: 4,
            reads_too: true,
        };
        assert!(!odd.is_possible());
    }
}
