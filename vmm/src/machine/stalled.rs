//! What can be done with a vCPU that is out of the guest: look at it, say where it is to stop, have
//! it take a few steps.

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
    /// Does something with vCPU `id`, which is out of the guest and stays out meanwhile.
    ///
    /// # Errors
    /// [`PauseError::NotStalled`] if it is in the guest, or what is wrong with it otherwise.
    pub fn with_stalled<T>(
        &self,
        id: u32,
        body: impl FnOnce(&mut Vcpu) -> T,
    ) -> Result<T, PauseError> {
        let thread = self.thread(id)?;
        // One that is out already stays out by this, and confirms nothing anew.
        let result = match thread.hold(Holder::Visit)? {
            HoldOutcome::Already(_) => Ok(thread.with_vcpu(body)),
            HoldOutcome::Underway => Err(PauseError::NotStalled(id)),
        };
        thread.release(Holder::Visit)?;
        result
    }

    /// Does something with vCPU `id`, which is taken out of the guest for it and back. What it was
    /// about to be held for when this was called, it is held for when this returns.
    fn visit<T>(&self, id: u32, body: impl FnOnce(&mut Vcpu) -> T) -> Result<T, PauseError> {
        let thread = self.thread(id)?;
        thread.keep_out(Holder::Visit)?;
        let result = thread.with_vcpu(body);
        thread.release(Holder::Visit)?;
        Ok(result)
    }

    /// Looks at vCPU `id`, which is out of the guest.
    ///
    /// # Errors
    /// As [`VcpuThreads::with_stalled`]; inside, what KVM said when it was asked for registers.
    pub fn dump(&self, id: u32) -> Result<Result<VcpuDump, errno::Error>, PauseError> {
        self.with_stalled(id, |vcpu| VcpuDump::of(vcpu, &self.memory))
    }

    /// What vCPU `id` is held by, if it is held and has come there by itself.
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
    /// [`BreakpointError`] if this host has no breakpoints, or no such vCPU runs.
    pub fn set_breakpoint(&self, id: u32, address: u64) -> Result<(), BreakpointError> {
        breakpoints::check()?;
        self.visit(id, |vcpu| {
            let (debugging, fd) = vcpu.debugging();
            debugging.set_breakpoint(address, fd)
        })??;
        Ok(())
    }

    /// Has vCPU `id` stop by itself nowhere any more. If it has come to where it was to stop by
    /// now, it is held when this returns.
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

    /// Lets vCPU `id`, which is stalled by one hold of the operator's, execute `count`
    /// instructions. It then is [`State::Stalled`] by a hold of its own, in place of that one. With
    /// `count` 0 it is only no longer to stop, if it is at it, and stays where it is.
    ///
    /// # Errors
    /// As [`VcpuThreads::with_stalled`], if it is stalled by nobody but a plan, or KVM refuses.
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
