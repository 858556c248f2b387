//! What can be done with a vCPU that is out of the guest: look at it, say where it is to stop, have it take
//! a few steps. Nothing here waits for the guest.

use std::sync::PoisonError;

use vm_memory::GuestMemoryMmap;
use vmm_sys_util::errno;

use super::breakpoints::{self, BreakpointError, Stop};
use super::inspect::Standing;
use super::lifecycle::{Held, State};
use super::pausing::PauseError;
use super::threads::Crew;
use super::vcpu::Vcpu;

/// What a vCPU is held by, if it came there by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldBy {
    /// A point of the guest's.
    Point {
        /// Its address.
        point: u64,
        /// The call at hand, or 0.
        call: u64,
    },
    /// An instruction that it was about to execute.
    Address(u64),
    /// It has taken the steps it was to take.
    Steps,
    /// Something it said, for which whoever heard it has it held.
    Word,
}

impl From<Stop> for HeldBy {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Address(address) => Self::Address(address),
            Stop::Steps => Self::Steps,
        }
    }
}

impl Crew {
    /// Does something with vCPU `id`, which is out of the guest and stays out meanwhile.
    ///
    /// # Errors
    /// [`PauseError::NotStalled`] if it is in the guest, or what is wrong with it otherwise.
    pub fn with_stalled<T>(
        &self,
        id: u32,
        body: impl FnOnce(&mut Vcpu) -> T,
    ) -> Result<T, PauseError> {
        let member = self.member(id)?;
        // One that is out already stays out by this, and confirms nothing anew.
        let held = member.hold()?;
        let result = match held {
            Held::Already(_) => {
                let mut vcpu = member.vcpu.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(body(&mut vcpu))
            }
            Held::Underway => Err(PauseError::NotStalled(id)),
        };
        member.release()?;
        result
    }

    /// Looks at vCPU `id`, which is out of the guest.
    ///
    /// # Errors
    /// As [`Crew::with_stalled`]; inside, what KVM said when it was asked for registers.
    pub fn standing(
        &self,
        id: u32,
        memory: &GuestMemoryMmap,
    ) -> Result<Result<Standing, errno::Error>, PauseError> {
        self.with_stalled(id, |vcpu| Standing::of(vcpu, memory))
    }

    /// What vCPU `id` is held by, if it is held and has come there by itself.
    pub fn held_by(&self, id: u32) -> Option<HeldBy> {
        let member = self.member(id).ok()?;
        *member
            .held_by
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Has vCPU `id`, which is out of the guest, held before it executes the instruction at `address`, once;
    /// or nowhere.
    ///
    /// # Errors
    /// [`BreakpointError`] if this host has no breakpoints, or as [`Crew::with_stalled`].
    pub fn set_breakpoint(&self, id: u32, address: Option<u64>) -> Result<(), BreakpointError> {
        if address.is_some() {
            breakpoints::check()?;
        }
        self.with_stalled(id, |vcpu| {
            let (debugging, fd) = vcpu.debugging();
            debugging.set_breakpoint(address, fd)
        })??;
        Ok(())
    }

    /// Lets vCPU `id`, which is stalled by one hold, execute `count` instructions. It then is
    /// [`State::Stalled`] by a hold of its own, in place of that one. With `count` 0 it is only no longer to
    /// stop, if it is at it, and stays where it is.
    ///
    /// # Errors
    /// As [`Crew::with_stalled`], or KVM refuses.
    pub fn step(&self, id: u32, count: u64) -> Result<(), BreakpointError> {
        if let (State::Created, _) = self.state(id)? {
            return Err(PauseError::NotStalled(id).into());
        }
        self.with_stalled(id, |vcpu| {
            let (debugging, fd) = vcpu.debugging();
            debugging.set_steps(count, fd)
        })??;
        if count > 0 {
            self.resume_confirmed(id)?;
        }
        Ok(())
    }
}
