//! Pausing and resuming vCPUs of a running machine, one or all, *confirmed*: it is known that the
//! vCPU's thread has left `KVM_RUN`. Says nothing of why or when; scripts, plans and sockets are
//! built on this.
//!
//! A pause is a hold, and holds are counted: who pauses a vCPU resumes it once, and it runs when
//! nobody holds it. A paused vCPU's local APIC goes on accepting interrupts, so that to the others
//! it looks like a CPU with its interrupts off.
//!
//! [`VcpuThreads::pause`] is the operator's, and waits for the confirmation. What was planned must not
//! wait: it uses [`VcpuThreads::hold`] and looks at [`VcpuThreads::state`] again whenever an
//! [`Event::Changed`](super::threads::Event) tells it to.

use std::time::Instant;

use super::lifecycle::{CONFIRMATION, HoldOutcome, Holder, StallTotals, State};
use super::pause_error::PauseError;
use super::pause_latency::PauseLatency;
use super::threads::{VcpuThread, VcpuThreads};

impl VcpuThreads {
    /// Number of vCPUs.
    pub fn len(&self) -> u32 {
        u32::try_from(self.list.len()).unwrap_or(u32::MAX)
    }

    /// Whether there is no vCPU.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The state that vCPU `id` has confirmed, and when it did.
    ///
    /// # Errors
    /// [`PauseError::NoSuchVcpu`].
    pub fn state(&self, id: u32) -> Result<(State, Instant), PauseError> {
        Ok(self.thread(id)?.lifecycle.state())
    }

    /// Holds vCPU `id` out of the guest and waits for the confirmation. Returns the state in which
    /// it is held: [`State::Stalled`], or [`State::Created`] if it had not been let into the guest
    /// yet, and then it will not be.
    ///
    /// # Errors
    /// [`PauseError`] if there is no such vCPU, or if it has exited, perhaps while being waited
    /// for. It is then not held.
    pub fn pause(&self, id: u32) -> Result<State, PauseError> {
        self.thread(id)?.keep_out(Holder::Operator)
    }

    /// Undoes one pause of vCPU `id`, or that it was held where it came. If nobody else holds it,
    /// waits until it is no longer in the state in which it was held: who looks for
    /// [`State::Stalled`] afterwards does not find what he has just ended.
    ///
    /// # Errors
    /// [`PauseError::NotPaused`] if it was not, [`PauseError::NoSuchVcpu`], or
    /// [`PauseError::Stuck`] if its thread does not get to it.
    pub fn resume(&self, id: u32) -> Result<(), PauseError> {
        let thread = self.thread(id)?;
        let since = thread.lifecycle.state().1;
        thread.release(Holder::Operator)?;
        thread.confirm_gone_on(since, Instant::now() + CONFIRMATION)
    }

    /// Undoes every pause of vCPU `id`, and that it was held where it came. It runs if nothing
    /// planned keeps it out.
    ///
    /// # Errors
    /// [`PauseError::NoSuchVcpu`].
    pub fn let_go(&self, id: u32) -> Result<(), PauseError> {
        self.thread(id)?.lifecycle.release_all(Holder::Operator);
        Ok(())
    }

    /// As [`VcpuThreads::pause`] on behalf of `holder`, without waiting: [`HoldOutcome::Underway`] is confirmed
    /// once [`VcpuThreads::state`] is [`State::Stalled`], which an
    /// [`Event::Changed`](super::threads::Event) announces. The vCPU is held from now on, and to be
    /// released, whether that has happened or not.
    ///
    /// # Errors
    /// As [`VcpuThreads::pause`].
    pub fn hold(&self, id: u32, holder: Holder) -> Result<HoldOutcome, PauseError> {
        self.thread(id)?.hold(holder)
    }

    /// Undoes one hold of `holder`. The vCPU runs on if that was the last, which is not waited for.
    ///
    /// # Errors
    /// As [`VcpuThreads::resume`].
    pub fn release(&self, id: u32, holder: Holder) -> Result<(), PauseError> {
        self.thread(id)?.release(holder)
    }

    /// Pauses every vCPU that has not exited. When it returns all of them are out of the guest at
    /// once, so that memory and registers are of one moment.
    ///
    /// # Errors
    /// [`PauseError::Stuck`] names one that did not confirm. None is held then.
    pub fn pause_all(&self) -> Result<(), PauseError> {
        // All are asked before the first is waited for, which takes as long as the slowest, not as
        // all. One that has exited is out of the guest for good, and not held.
        let held: Vec<_> = self
            .list
            .iter()
            .filter(|thread| thread.hold(Holder::Operator).is_ok())
            .collect();
        let deadline = Instant::now() + CONFIRMATION;
        let stuck = held
            .iter()
            .find(|thread| !thread.lifecycle.wait_out_of_guest(deadline));
        let Some(stuck) = stuck else { return Ok(()) };
        for thread in &held {
            thread.release(Holder::Operator)?;
        }
        Err(PauseError::Stuck(stuck.id))
    }

    /// As [`VcpuThreads::resume`] of every vCPU that is paused.
    ///
    /// # Errors
    /// [`PauseError::Stuck`].
    pub fn resume_all(&self) -> Result<(), PauseError> {
        let released: Vec<_> = self
            .list
            .iter()
            .filter_map(|thread| {
                let since = thread.lifecycle.state().1;
                thread.release(Holder::Operator).ok()?;
                Some((thread, since))
            })
            .collect();
        let deadline = Instant::now() + CONFIRMATION;
        released
            .into_iter()
            .try_for_each(|(thread, since)| thread.confirm_gone_on(since, deadline))
    }

    /// How often and for how long each vCPU was paused so far, in order.
    pub fn stall_totals(&self) -> Vec<StallTotals> {
        self.list
            .iter()
            .map(|thread| thread.lifecycle.stall_totals())
            .collect()
    }

    /// How long pauses took from request to confirmation, so far. `None` if none had to be waited
    /// for.
    pub fn pause_latency(&self) -> Option<PauseLatency> {
        self.latencies.summary()
    }

    pub(super) fn thread(&self, id: u32) -> Result<&VcpuThread, PauseError> {
        self.list
            .get(id as usize)
            .ok_or_else(|| PauseError::NoSuchVcpu {
                id,
                last: self.len().saturating_sub(1),
            })
    }
}

impl VcpuThread {
    pub(super) fn hold(&self, holder: Holder) -> Result<HoldOutcome, PauseError> {
        let held = self.lifecycle.hold(holder);
        let held = held.map_err(|why| PauseError::Exited { id: self.id, why })?;
        if held == HoldOutcome::Underway {
            self.kick();
        }
        Ok(held)
    }

    pub(super) fn release(&self, holder: Holder) -> Result<(), PauseError> {
        let released = self.lifecycle.release(holder);
        released.map_err(|_| PauseError::NotPaused(self.id))
    }

    /// Holds it, and waits for the state in which it is held.
    pub(super) fn keep_out(&self, holder: Holder) -> Result<State, PauseError> {
        if let HoldOutcome::Already(state) = self.hold(holder)? {
            return Ok(state);
        }
        let confirmed = self
            .lifecycle
            .wait_out_of_guest(Instant::now() + CONFIRMATION);
        let error = match self.lifecycle.state().0 {
            State::Exited(why) => PauseError::Exited { id: self.id, why },
            state if confirmed => return Ok(state),
            _ => PauseError::Stuck(self.id),
        };
        self.release(holder)?;
        Err(error)
    }

    /// Waits until it, which was released, is no longer in the state in which it was held since
    /// `since`.
    fn confirm_gone_on(&self, since: Instant, deadline: Instant) -> Result<(), PauseError> {
        match self.lifecycle.wait_gone_on(since, deadline) {
            true => Ok(()),
            false => Err(PauseError::Stuck(self.id)),
        }
    }
}
