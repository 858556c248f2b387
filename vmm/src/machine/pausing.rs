//! Pausing and resuming vCPUs of a running machine, one or all, *confirmed*: it is known that the
//! vCPU's thread has left `KVM_RUN`. Says nothing of why or when; scripts, plans and sockets are
//! built on this.
//!
//! A pause is a hold, and holds are counted: who pauses a vCPU resumes it once, and it runs when
//! nobody holds it. A paused vCPU's local APIC goes on accepting interrupts, so that to the others
//! it looks like a CPU with its interrupts off.
//!
//! [`Crew::pause`] is the operator's, and waits for the confirmation. What was planned must not
//! wait: it uses [`Crew::hold`] and looks at [`Crew::state`] again whenever an
//! [`Event::Changed`](super::threads::Event) tells it to.

use std::time::Instant;

use super::lifecycle::{Absence, CONFIRMATION, Held, Holder, State};
use super::pause_error::PauseError;
use super::pause_latency::Latency;
use super::threads::{Crew, Member};

impl Crew {
    /// Number of vCPUs.
    pub fn len(&self) -> u32 {
        u32::try_from(self.members.len()).unwrap_or(u32::MAX)
    }

    /// Whether there is no vCPU.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The state that vCPU `id` has confirmed, and when it did.
    ///
    /// # Errors
    /// [`PauseError::NoSuchVcpu`].
    pub fn state(&self, id: u32) -> Result<(State, Instant), PauseError> {
        Ok(self.member(id)?.seat.state())
    }

    /// Holds vCPU `id` out of the guest and waits for the confirmation. Returns the state in which
    /// it is held: [`State::Stalled`], or [`State::Created`] if it had not been let into the guest
    /// yet, and then it will not be.
    ///
    /// # Errors
    /// [`PauseError`] if there is no such vCPU, or if it has exited, perhaps while being waited
    /// for. It is then not held.
    pub fn pause(&self, id: u32) -> Result<State, PauseError> {
        self.member(id)?.keep_out(Holder::Operator)
    }

    /// Undoes one pause of vCPU `id`, or that it was held where it came. If nobody else holds it,
    /// waits until it is no longer in the state in which it was held: who looks for
    /// [`State::Stalled`] afterwards does not find what he has just ended.
    ///
    /// # Errors
    /// [`PauseError::NotPaused`] if it was not, [`PauseError::NoSuchVcpu`], or
    /// [`PauseError::Stuck`] if its thread does not get to it.
    pub fn resume(&self, id: u32) -> Result<(), PauseError> {
        let member = self.member(id)?;
        let since = member.seat.state().1;
        member.release(Holder::Operator)?;
        member.confirm_gone_on(since, Instant::now() + CONFIRMATION)
    }

    /// Undoes every pause of vCPU `id`, and that it was held where it came. It runs if nothing
    /// planned keeps it out.
    ///
    /// # Errors
    /// [`PauseError::NoSuchVcpu`].
    pub fn let_go(&self, id: u32) -> Result<(), PauseError> {
        self.member(id)?.seat.release_all(Holder::Operator);
        Ok(())
    }

    /// As [`Crew::pause`] on behalf of `holder`, without waiting: [`Held::Underway`] is confirmed
    /// once [`Crew::state`] is [`State::Stalled`], which an
    /// [`Event::Changed`](super::threads::Event) announces. The vCPU is held from now on, and to be
    /// released, whether that has happened or not.
    ///
    /// # Errors
    /// As [`Crew::pause`].
    pub fn hold(&self, id: u32, holder: Holder) -> Result<Held, PauseError> {
        self.member(id)?.hold(holder)
    }

    /// Undoes one hold of `holder`. The vCPU runs on if that was the last, which is not waited for.
    ///
    /// # Errors
    /// As [`Crew::resume`].
    pub fn release(&self, id: u32, holder: Holder) -> Result<(), PauseError> {
        self.member(id)?.release(holder)
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
            .members
            .iter()
            .filter(|member| member.hold(Holder::Operator).is_ok())
            .collect();
        let deadline = Instant::now() + CONFIRMATION;
        let stuck = held
            .iter()
            .find(|member| !member.seat.wait_out_of_guest(deadline));
        let Some(stuck) = stuck else { return Ok(()) };
        for member in &held {
            member.release(Holder::Operator)?;
        }
        Err(PauseError::Stuck(stuck.id))
    }

    /// As [`Crew::resume`] of every vCPU that is paused.
    ///
    /// # Errors
    /// [`PauseError::Stuck`].
    pub fn resume_all(&self) -> Result<(), PauseError> {
        let released: Vec<_> = self
            .members
            .iter()
            .filter_map(|member| {
                let since = member.seat.state().1;
                member.release(Holder::Operator).ok()?;
                Some((member, since))
            })
            .collect();
        let deadline = Instant::now() + CONFIRMATION;
        released
            .into_iter()
            .try_for_each(|(member, since)| member.confirm_gone_on(since, deadline))
    }

    /// How often and for how long each vCPU was paused so far, in order.
    pub fn absences(&self) -> Vec<Absence> {
        self.members
            .iter()
            .map(|member| member.seat.absence())
            .collect()
    }

    /// How long pauses took from request to confirmation, so far. `None` if none had to be waited
    /// for.
    pub fn pause_latency(&self) -> Option<Latency> {
        self.latencies.summary()
    }

    pub(super) fn member(&self, id: u32) -> Result<&Member, PauseError> {
        self.members
            .get(id as usize)
            .ok_or_else(|| PauseError::NoSuchVcpu {
                id,
                last: self.len().saturating_sub(1),
            })
    }
}

impl Member {
    pub(super) fn hold(&self, holder: Holder) -> Result<Held, PauseError> {
        let held = self.seat.hold(holder);
        let held = held.map_err(|why| PauseError::Exited { id: self.id, why })?;
        if held == Held::Underway {
            self.kick();
        }
        Ok(held)
    }

    pub(super) fn release(&self, holder: Holder) -> Result<(), PauseError> {
        let released = self.seat.release(holder);
        released.map_err(|_| PauseError::NotPaused(self.id))
    }

    /// Holds it, and waits for the state in which it is held.
    pub(super) fn keep_out(&self, holder: Holder) -> Result<State, PauseError> {
        if let Held::Already(state) = self.hold(holder)? {
            return Ok(state);
        }
        let confirmed = self.seat.wait_out_of_guest(Instant::now() + CONFIRMATION);
        let error = match self.seat.state().0 {
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
        match self.seat.wait_gone_on(since, deadline) {
            true => Ok(()),
            false => Err(PauseError::Stuck(self.id)),
        }
    }
}
