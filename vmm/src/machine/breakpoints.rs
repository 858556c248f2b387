//! Where a vCPU is to stop by itself: before an instruction, or after some steps
//! (`KVM_SET_GUEST_DEBUG`, KVM's api.rst). Whether hardware breakpoints work on this host is found
//! out by trying: there are hosts whose KVM takes them and never lets them fire.

use std::sync::OnceLock;

use kvm_bindings::{
    KVM_GUESTDBG_BLOCKIRQ, KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP,
    kvm_guest_debug,
};
use kvm_ioctls::{VcpuExit, VcpuFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::errno;

use super::exit::Stop;
use super::pause_error::PauseError;
use super::vm::{HostError, Vm, setup};

/// Why a vCPU does not stop by itself.
#[derive(Debug, thiserror::Error)]
pub enum BreakpointError {
    /// They do not fire here.
    #[error(
        "this host's KVM has no breakpoints that work; hold the CPU at a probe instead \
         (`vmm probes GUEST` lists them)"
    )]
    None,
    /// Trying was not possible.
    #[error("cannot try whether this host has breakpoints: {0}")]
    Untried(&'static str),
    /// The vCPU is not in a state for it.
    #[error(transparent)]
    Pause(#[from] PauseError),
    /// KVM refused.
    #[error("KVM refuses to debug the vCPU (steps take Linux 5.15 or later)")]
    Refused(#[from] errno::Error),
}

/// Where one vCPU is to stop.
#[derive(Debug, Default)]
pub(super) struct GuestDebug {
    breakpoint: Option<u64>,
    steps: u64,
    /// Whether the last instruction is complete, so that RIP is that of the next.
    is_between: bool,
}

impl GuestDebug {
    /// Stop before the instruction at `address`, once.
    pub fn set_breakpoint(&mut self, address: u64, fd: &VcpuFd) -> Result<(), errno::Error> {
        self.breakpoint = Some(address);
        self.tell(fd)
    }

    /// Stop nowhere.
    pub fn clear(&mut self, fd: &VcpuFd) -> Result<(), errno::Error> {
        if self.breakpoint.is_none() && self.steps == 0 {
            return Ok(());
        }
        *self = Self::default();
        self.tell(fd)
    }

    /// Stop after `steps` instructions, or 0 for never. No interrupt comes in before: it would save
    /// the trap flag, by which the processor steps, with the other flags, and its end would bring
    /// it back when nobody steps any more, as a #DB of the guest's.
    pub fn set_steps(&mut self, steps: u64, fd: &VcpuFd) -> Result<(), errno::Error> {
        self.steps = steps;
        self.is_between = true;
        self.tell(fd)
    }

    /// Whether the next instruction is one of several to be stepped over, and nothing of it has
    /// been done.
    pub fn is_before_a_step(&self) -> bool {
        self.steps > 0 && self.is_between
    }

    /// The vCPU is about to execute, or has come out of the guest with nothing half done.
    pub fn set_between(&mut self, is_between: bool) {
        self.is_between = is_between;
    }

    /// KVM has come out of the guest at the instruction at `pc`. Returns whether the vCPU is to
    /// stop there, which it then does once. What nobody asked for, as when it was called off, is
    /// passed over.
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
        // Not refused, as it was not when there was something to stop at. Told after each step: an
        // `iret` or `popf` can have cleared the trap flag by which the processor steps.
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

/// DR7: the first breakpoint is on, for everybody, at the execution of an instruction; bit 10 is
/// always set (SDM Vol. 3B, 18.2.4).
const BREAK_ON_EXECUTION: u64 = 1 << 10 | 1 << 1;

/// Checks that a breakpoint fires on this host.
///
/// # Errors
/// [`BreakpointError::None`] if not.
pub fn check() -> Result<(), BreakpointError> {
    static FIRES: OnceLock<Result<bool, &'static str>> = OnceLock::new();
    let fires = FIRES.get_or_init(|| try_one().map_err(|_| "KVM gives no VM to try it with"));
    match *fires {
        Ok(true) => Ok(()),
        Ok(false) => Err(BreakpointError::None),
        Err(why) => Err(BreakpointError::Untried(why)),
    }
}

/// Runs two instructions of real-mode code with a breakpoint on the second.
fn try_one() -> Result<bool, HostError> {
    /// `nop`, then `out 0, al`, which comes out to the VMM in any case.
    const CODE: [u8; 3] = [0x90, 0xe6, 0x00];
    const START: u64 = 0x1000;
    let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x2000)])
        .map_err(|_| HostError::Missing("two pages of memory"))?;
    memory
        .write_slice(&CODE, GuestAddress(START))
        .map_err(|_| HostError::Missing("two pages of memory"))?;
    let vm = Vm::new(1, &memory)?;
    let mut fd = vm.create_vcpu(0)?;
    let mut sregs = fd
        .get_sregs()
        .map_err(setup("read the segment registers"))?;
    sregs.cs.base = 0;
    sregs.cs.selector = 0;
    fd.set_sregs(&sregs)
        .map_err(setup("set the segment registers"))?;
    let mut regs = fd.get_regs().map_err(setup("read the registers"))?;
    regs.rip = START;
    fd.set_regs(&regs).map_err(setup("set the registers"))?;
    let mut debugging = GuestDebug::default();
    debugging
        .set_breakpoint(START + 1, &fd)
        .map_err(setup("set a breakpoint"))?;
    match fd.run() {
        Ok(VcpuExit::Debug(debug)) => Ok(debug.pc == START + 1),
        Ok(_) => Ok(false),
        Err(error) => Err(setup("run two instructions")(error)),
    }
}
