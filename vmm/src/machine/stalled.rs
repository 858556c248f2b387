//! What can be done with a vCPU that is out of the guest: dump its state, set breakpoints, have it
//! take steps.

use std::sync::PoisonError;

use vmm_sys_util::errno;

use super::breakpoints::{self, BreakpointError};
use super::inspect::VcpuDump;
use super::lifecycle::{HoldOutcome, Holder, State};
use super::message::HeldBy;
use super::pause_error::PauseError;
use super::threads::VcpuThreads;
use super::vcpu::Vcpu;

impl VcpuThreads {
    /// Runs `body` on vCPU `id`, which must be out of the guest and stays out meanwhile.
    ///
    /// # Errors
    /// [`PauseError::NotStalled`] if it is in the guest, [`PauseError::Exited`] or
    /// [`PauseError::NoSuchVcpu`].
    pub fn with_stalled<T>(
        &self,
        id: u32,
        body: impl FnOnce(&mut Vcpu) -> T,
    ) -> Result<T, PauseError> {
        let thread = self.thread(id)?;
        // This keeps a vCPU out that is out already.
        let result = match thread.hold(Holder::Visit)? {
            HoldOutcome::Already(_) => Ok(thread.with_vcpu(body)),
            HoldOutcome::Underway => Err(PauseError::NotStalled(id)),
        };
        thread.release(Holder::Visit)?;
        result
    }

    /// Runs `body` on vCPU `id`, which is taken out of the guest for that. If it was about to be
    /// held at a point when this was called, it is held there when this returns.
    fn visit<T>(&self, id: u32, body: impl FnOnce(&mut Vcpu) -> T) -> Result<T, PauseError> {
        let thread = self.thread(id)?;
        thread.keep_out(Holder::Visit)?;
        let result = thread.with_vcpu(body);
        thread.release(Holder::Visit)?;
        Ok(result)
    }

    /// Dumps vCPU `id`, which must be out of the guest.
    ///
    /// # Errors
    /// As [`VcpuThreads::with_stalled`]. The inner result is what KVM said when it was asked for
    /// registers.
    pub fn dump(&self, id: u32) -> Result<Result<VcpuDump, errno::Error>, PauseError> {
        self.with_stalled(id, |vcpu| VcpuDump::of(vcpu, &self.memory))
    }

    /// What vCPU `id` is held by, if it is held and has stopped by itself.
    pub fn held_by(&self, id: u32) -> Option<HeldBy> {
        let thread = self.thread(id).ok()?;
        *thread
            .held_by
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Has vCPU `id` held before it executes the instruction at `address`, once.
    ///
    /// # Errors
    /// [`BreakpointError`] if breakpoints do not work on this host, or no such vCPU runs.
    pub fn set_breakpoint(&self, id: u32, address: u64) -> Result<(), BreakpointError> {
        breakpoints::check()?;
        self.visit(id, |vcpu| {
            let (debugging, fd) = vcpu.debugging();
            debugging.set_breakpoint(address, fd)
        })??;
        Ok(())
    }

    /// Removes the breakpoint and the steps of vCPU `id`. If it has reached its breakpoint
    /// meanwhile, it is held when this returns.
    ///
    /// # Errors
    /// No such vCPU runs.
    pub fn clear_stops(&self, id: u32) -> Result<(), BreakpointError> {
        self.visit(id, |vcpu| {
            let (debugging, fd) = vcpu.debugging();
            debugging.clear(fd)
        })??;
        Ok(())
    }

    /// Lets vCPU `id`, which must be stalled by one hold of the operator, execute `count`
    /// instructions. Afterwards it is [`State::Stalled`] again, by a new hold that takes the place
    /// of the old one. With `count` 0 it stays stalled, and steps that are not over yet are
    /// cancelled.
    ///
    /// # Errors
    /// As [`VcpuThreads::with_stalled`]; also if only a planned stall holds it, or KVM refuses.
    pub fn step(&self, id: u32, count: u64) -> Result<(), BreakpointError> {
        if let (State::Created, _) = self.state(id)? {
            return Err(PauseError::NotStalled(id).into());
        }
        self.with_stalled(id, |vcpu| {
            let (debugging, fd) = vcpu.debugging();
            debugging.set_steps(count, fd)
        })??;
        if count > 0 {
            let resumed = self.resume(id);
            if resumed.is_err() {
                self.clear_stops(id)?;
            }
            resumed?;
        }
        Ok(())
    }
}
