//! Pausing and resuming vCPUs of a running machine, one or all. A pause is *confirmed*: when it
//! returns, the vCPU's thread has left `KVM_RUN`. Scripts, plans and the control socket build on
//! this; nothing here knows of them.
//!
//! A pause is a hold, and holds are counted: each pause is undone by one resume, and the vCPU runs
//! when it has no hold. A paused vCPU's local APIC goes on accepting interrupts. So to the other
//! CPUs it looks like one with its interrupts off.
//!
//! [`VcpuThreads::pause`] is for the operator and waits for the confirmation. Planned stalls are
//! carried out in the event loop, which must not wait: they use [`VcpuThreads::hold`], and read
//! [`VcpuThreads::state`] after each [`Event::Changed`](super::threads::Event).

use std::time::Instant;

use vm_memory::GuestMemoryMmap;

use super::lifecycle::{CONFIRMATION, HoldOutcome, Holder, StallTotals, State};
use super::pause_error::PauseError;
use super::pause_latency::PauseLatency;
use super::threads::{VcpuThread, VcpuThreads, first_late};

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
    /// it is held: [`State::Stalled`], or [`State::Created`] if it has not entered the guest yet.
    ///
    /// # Errors
    /// [`PauseError`] if there is no such vCPU, or if it has exited, perhaps during the wait. It is
    /// not held then.
    pub fn pause(&self, id: u32) -> Result<State, PauseError> {
        self.thread(id)?.keep_out(Holder::Operator)
    }

    /// Undoes one pause of vCPU `id`, or its hold at a point. If that was the last hold, waits
    /// until the vCPU has left the state in which it was held, so that a caller that waits for
    /// [`State::Stalled`] afterwards does not find the old stall.
    ///
    /// # Errors
    /// [`PauseError::NotPaused`] if it was not, [`PauseError::NoSuchVcpu`], or
    /// [`PauseError::Stuck`] if its thread does not run in time.
    pub fn resume(&self, id: u32) -> Result<(), PauseError> {
        let thread = self.thread(id)?;
        let since = thread.lifecycle.state().1;
        thread.release(Holder::Operator)?;
        match (thread.lifecycle).wait_gone_on(since, Instant::now() + CONFIRMATION) {
            true => Ok(()),
            false => Err(PauseError::Stuck(id)),
        }
    }

    /// Undoes every pause of vCPU `id`, and its hold at a point. It then runs, unless a planned
    /// stall keeps it out.
    ///
    /// # Errors
    /// [`PauseError::NoSuchVcpu`].
    pub fn let_go(&self, id: u32) -> Result<(), PauseError> {
        self.thread(id)?.lifecycle.release_all(Holder::Operator);
        Ok(())
    }

    /// As [`VcpuThreads::pause`] on behalf of `holder`, without waiting: [`HoldOutcome::Underway`]
    /// is confirmed once [`VcpuThreads::state`] is [`State::Stalled`], which an
    /// [`Event::Changed`](super::threads::Event) announces. The hold counts from now on and has to
    /// be released, confirmed or not.
    ///
    /// # Errors
    /// As [`VcpuThreads::pause`].
    pub fn hold(&self, id: u32, holder: Holder) -> Result<HoldOutcome, PauseError> {
        self.thread(id)?.hold(holder)
    }

    /// Undoes one hold of `holder`. The vCPU runs on if that was the last hold; this does not wait
    /// for it.
    ///
    /// # Errors
    /// As [`VcpuThreads::resume`].
    pub fn release(&self, id: u32, holder: Holder) -> Result<(), PauseError> {
        self.thread(id)?.release(holder)
    }

    /// Pauses every vCPU that has not exited. When it returns all of them are out of the guest at
    /// once, so that memory and registers belong to one moment.
    ///
    /// # Errors
    /// [`PauseError::Stuck`] names one that did not confirm. None is held then.
    pub fn pause_all(&self) -> Result<(), PauseError> {
        self.hold_all(Holder::Operator).map(|_| ())
    }

    /// Holds every vCPU that has not exited, and returns them once all are out of the guest. One that
    /// has exited is out of the guest for good.
    ///
    /// # Errors
    /// As [`VcpuThreads::pause_all`].
    pub(super) fn hold_all(&self, holder: Holder) -> Result<Vec<&VcpuThread>, PauseError> {
        // All are asked before the first is waited for, so that this takes as long as the slowest
        // vCPU and not as long as all of them together.
        let held: Vec<_> = self
            .list
            .iter()
            .filter(|thread| thread.hold(holder).is_ok())
            .collect();
        let stuck = first_late(&held, |it, deadline| {
            it.lifecycle.wait_out_of_guest(deadline)
        });
        let Some(stuck) = stuck else { return Ok(held) };
        for thread in &held {
            thread.release(holder)?;
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
        let has_gone_on = |(thread, since): &(&VcpuThread, Instant), deadline| {
            thread.lifecycle.wait_gone_on(*since, deadline)
        };
        first_late(&released, has_gone_on)
            .map_or(Ok(()), |(thread, _)| Err(PauseError::Stuck(thread.id)))
    }

    /// Runs `body` while every vCPU is out of the guest, for a moment that is no stall: nothing but
    /// `body` changes memory then.
    ///
    /// # Errors
    /// [`PauseError::Stuck`] names one that does not leave the guest.
    pub fn with_all_out<T>(
        &self,
        body: impl FnOnce(&GuestMemoryMmap) -> T,
    ) -> Result<T, PauseError> {
        let held = self.hold_all(Holder::Visit)?;
        let done = body(&self.memory);
        // Each hold is undone, and there was one.
        held.iter()
            .for_each(|thread| _ = thread.release(Holder::Visit));
        Ok(done)
    }

    /// How often and for how long each vCPU was stalled so far, in order.
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

    /// Holds the vCPU, and waits for the state in which it is held.
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
}
