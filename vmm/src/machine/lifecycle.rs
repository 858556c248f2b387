//! The life of a vCPU: `Created → Running ⇄ Stalled(Paused | Held) → Exited(reason)`. A change is
//! requested by whoever controls the machine and confirmed by the thread that carries the vCPU,
//! once it has left the guest. No KVM here: a [`Runner`] is anything that can be stepped and
//! kicked.
//!
//! A vCPU runs when the machine as a whole is let go ([`Request::Run`]) and nobody holds this one.
//! Holds are counted, for each [`Holder`] apart, so that several can each keep a vCPU out of the
//! guest without knowing of each other, and none undoes what is another's.

use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long vCPUs may take to leave the guest. Hundreds of spinning ones on two cores take seconds.
pub const CONFIRMATION: Duration = Duration::from_secs(30);

/// Where a vCPU is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It has never been in the guest.
    Created,
    /// It is in the guest, or about to enter or to leave it.
    Running,
    /// It is out of the guest, with nothing half done, and stays out.
    Stalled(Stall),
    /// It will never enter the guest again.
    Exited(Exited),
}

impl State {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Stalled(Stall::Paused) => "paused",
            Self::Stalled(Stall::Held) => "held",
            Self::Exited(_) => "exited",
        }
    }
}

/// Why a vCPU will never enter the guest again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exited {
    /// The guest ended on it: it wrote to the exit port, or died.
    Ended,
    /// It was told to, because the run is over.
    Stopped,
    /// Its thread panicked, which is a bug of the VMM.
    Panicked,
}

impl fmt::Display for Exited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ended => "the guest has ended on it",
            Self::Stopped => "the run is over",
            Self::Panicked => "its thread has panicked",
        })
    }
}

/// Why a vCPU is kept out of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stall {
    /// It was paused, wherever it happened to be.
    Paused,
    /// It has come to where it was to be held, by itself.
    Held,
}

/// On whose behalf a vCPU is held out of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// Whoever drives the machine while it runs. What a vCPU comes to by itself, where it was to be
    /// held, is his too.
    Operator,
    /// What was planned before it ran.
    Plan,
    /// The VMM itself, which looks at the vCPU or tells KVM something about it, for a moment. This
    /// is nothing that was done to the guest, and does not count as an absence.
    Visit,
}

/// What the controlling side wants of a vCPU, as part of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// To stay out of the guest.
    Pause,
    /// To run, unless it is held.
    Run,
    /// To end.
    Stop,
}

/// What one entry into the guest led to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<E> {
    /// The guest can go on.
    Continue,
    /// The vCPU was kicked, and may be wanted elsewhere.
    Interrupted,
    /// It has come to where it is to be held. This is a hold like any other, to be undone once.
    Hold,
    /// The guest cannot go on.
    Ended(E),
}

/// A vCPU as the state machine sees it.
pub trait Runner {
    /// What is known when the guest cannot go on.
    type End;

    /// Enters the guest until something has happened. Returns at once if a kick is pending.
    fn step(&mut self) -> Step<Self::End>;

    /// Makes the next [`Runner::step`] return [`Step::Interrupted`] at once, or no longer.
    fn set_kick(&mut self, pending: bool);

    /// Hears that a hold has been confirmed, or that a held vCPU runs again. By the time it hears
    /// so, the state may be another.
    fn changed(&mut self, change: Change);
}

/// What a [`Runner`] hears of its own life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It has left the guest, this long after it was asked to.
    Stalled(Duration),
    /// It is held where it was to be held.
    Held,
    /// It is about to enter the guest again.
    Running,
}

/// How a hold found the vCPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldOutcome {
    /// Out of the guest, in this state. It stays there.
    Already(State),
    /// In the guest. It must be kicked, and confirms when it has left.
    Underway,
}

/// How often and for how long a vCPU was held out of the guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StallTotals {
    /// Times, the present one included.
    pub times: u64,
    /// Time in all, from the confirmation of a hold to the next entry into the guest.
    pub total: Duration,
}

/// A release without a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody holds it")]
pub struct NotHeld;

/// Entries that finishing one instruction can take: a page-crossing string instruction, generously.
const DRAIN_LIMIT: usize = 64;

/// The status of one vCPU, shared by the thread that carries it and those who control it.
#[derive(Debug)]
pub struct Lifecycle {
    status: Mutex<Status>,
    changed: Condvar,
}

/// Holds, by their holder.
#[derive(Debug, Clone, Copy, Default)]
struct Holds {
    operator: u32,
    plan: u32,
    visit: u32,
}

impl Holds {
    fn of(&mut self, holder: Holder) -> &mut u32 {
        match holder {
            Holder::Operator => &mut self.operator,
            Holder::Plan => &mut self.plan,
            Holder::Visit => &mut self.visit,
        }
    }

    fn are_any(&self) -> bool {
        self.visit > 0 || self.are_a_stall()
    }

    /// Whether the guest misses the vCPU because somebody wants it to.
    fn are_a_stall(&self) -> bool {
        self.operator > 0 || self.plan > 0
    }
}

#[derive(Debug, Clone, Copy)]
struct Status {
    request: Request,
    state: State,
    /// When it came into that state.
    since: Instant,
    /// How many keep it out of the guest, each for reasons of its own.
    holds: Holds,
    /// Whether one of the operator's is of its own doing, because of where it has come.
    at_point: bool,
    /// When the first hold was asked for that is not confirmed yet.
    asked: Option<Instant>,
    /// Since when it has been out of the guest because of a hold.
    stalled_since: Option<Instant>,
    /// What has come to an end of such times, and how many began.
    totals: StallTotals,
}

impl Status {
    fn wanted(&self) -> Request {
        match self.request {
            Request::Run if self.holds.are_any() => Request::Pause,
            request => request,
        }
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.since = Instant::now();
    }

    fn begin_stall(&mut self) {
        if self.stalled_since.is_none() && self.holds.are_a_stall() {
            self.stalled_since = Some(Instant::now());
            self.totals.times += 1;
        }
    }

    /// Returns whether there was one.
    fn end_stall(&mut self) -> bool {
        let began = self.stalled_since.take();
        self.totals.total += began.map_or(Duration::ZERO, |began| began.elapsed());
        began.is_some()
    }
}

impl Default for Lifecycle {
    fn default() -> Self {
        let born = Status {
            request: Request::Pause,
            state: State::Created,
            since: Instant::now(),
            holds: Holds::default(),
            at_point: false,
            asked: None,
            stalled_since: None,
            totals: StallTotals::default(),
        };
        Self {
            status: Mutex::new(born),
            changed: Condvar::new(),
        }
    }
}

impl Lifecycle {
    /// Asks for a change. The vCPU must be kicked afterwards, in case it is in the guest.
    pub fn ask(&self, request: Request) {
        self.lock().request = request;
        self.changed.notify_all();
    }

    /// Keeps the vCPU out of the guest until [`Lifecycle::release`], whatever else is asked for.
    ///
    /// # Errors
    /// It has exited, so that there is nothing to hold.
    pub fn hold(&self, holder: Holder) -> Result<HoldOutcome, Exited> {
        let mut status = self.lock();
        if let State::Exited(why) = status.state {
            return Err(why);
        }
        *status.holds.of(holder) += 1;
        if status.state != State::Running {
            // The thread looks again, under the same lock, before it enters the guest.
            status.begin_stall();
            return Ok(HoldOutcome::Already(status.state));
        }
        if holder != Holder::Visit {
            status.asked.get_or_insert_with(Instant::now);
        }
        Ok(HoldOutcome::Underway)
    }

    /// Undoes one [`Lifecycle::hold`] of this holder. The vCPU goes on when the last is undone; a hold
    /// that was not confirmed until then never will be.
    ///
    /// # Errors
    /// [`NotHeld`] if the holder has no hold left to undo.
    pub fn release(&self, holder: Holder) -> Result<(), NotHeld> {
        let mut status = self.lock();
        let holds = status.holds.of(holder);
        *holds = holds.checked_sub(1).ok_or(NotHeld)?;
        self.go_on(&mut status);
        Ok(())
    }

    /// Undoes whatever holds this holder has.
    pub fn release_all(&self, holder: Holder) {
        let mut status = self.lock();
        *status.holds.of(holder) = 0;
        self.go_on(&mut status);
    }

    /// Lets the vCPU go on if nobody holds it any more.
    fn go_on(&self, status: &mut Status) {
        if !status.holds.are_a_stall() {
            status.asked = None;
        }
        if !status.holds.are_any() {
            self.changed.notify_all();
        }
    }

    /// The vCPU's own thread keeps it out of the guest, because of where it has come.
    fn hold_here(&self) {
        let mut status = self.lock();
        status.holds.operator += 1;
        status.at_point = true;
    }

    /// The state that has been confirmed, and when that was.
    pub fn state(&self) -> (State, Instant) {
        let status = self.lock();
        (status.state, status.since)
    }

    /// How much of its life was taken away from it so far.
    pub fn stall_totals(&self) -> StallTotals {
        let status = self.lock();
        let now = status
            .stalled_since
            .map_or(Duration::ZERO, |began| began.elapsed());
        StallTotals {
            total: status.totals.total + now,
            ..status.totals
        }
    }

    /// Waits until the vCPU is out of the guest for now or for good, but not beyond `deadline`.
    /// Returns whether it is. After a request to pause or stop it then stays out.
    pub fn wait_out_of_guest(&self, deadline: Instant) -> bool {
        self.wait_while(deadline, |status| status.state == State::Running)
    }

    /// Waits until the vCPU, which was released, has left the state into which it came at `since`,
    /// but not beyond `deadline`. Returns whether it has, or will not as long as it is held.
    pub fn wait_gone_on(&self, since: Instant, deadline: Instant) -> bool {
        self.wait_while(deadline, |status| {
            status.since == since
                && matches!(status.state, State::Stalled(_))
                && status.wanted() == Request::Run
        })
    }

    /// Waits as long as `stays` says so, but not beyond `deadline`. Returns whether it no longer
    /// does.
    fn wait_while(&self, deadline: Instant, stays: impl Fn(&Status) -> bool) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let stays = |status: &mut Status| stays(status);
        let waited = self.changed.wait_timeout_while(self.lock(), left, stays);
        let waited = waited.unwrap_or_else(PoisonError::into_inner);
        !waited.1.timed_out()
    }

    /// Carries `runner` through its life and returns how the guest ended on it, or `None` if it was
    /// stopped from outside.
    pub fn drive<R: Runner>(&self, runner: &mut R) -> Option<R::End> {
        let end = self.run_until_exit(runner);
        self.mark_exited(match end {
            Some(_) => Exited::Ended,
            None => Exited::Stopped,
        });
        end
    }

    /// Marks the vCPU as gone, however its thread came to its end.
    pub fn mark_exited(&self, why: Exited) {
        let mut status = self.lock();
        status.end_stall();
        status.enter(State::Exited(why));
        self.changed.notify_all();
    }

    fn run_until_exit<R: Runner>(&self, runner: &mut R) -> Option<R::End> {
        loop {
            // Cleared first, looked at second: a request made in between is seen by `admit`, and
            // one made later sets the kick again, so that the next step returns at once.
            runner.set_kick(false);
            let end = match self.admit(runner) {
                Request::Run => self.run(runner),
                Request::Pause => {
                    // Only what has been in the guest since it was last out can be half done.
                    let inside = self.state().0 == State::Running;
                    let end = inside.then(|| self.drain(runner)).flatten();
                    if end.is_none() {
                        self.park(runner);
                    }
                    end
                }
                Request::Stop => return self.drain(runner),
            };
            if end.is_some() {
                return end;
            }
        }
    }

    /// What is wanted now; if it is to run, the vCPU counts as running from here on. Both in one
    /// step, so that nobody sees it out of the guest who has just asked it to stay out.
    fn admit<R: Runner>(&self, runner: &mut R) -> Request {
        let mut status = self.lock();
        let wanted = status.wanted();
        if wanted == Request::Run && status.state != State::Running {
            status.enter(State::Running);
            status.at_point = false;
            self.changed.notify_all();
            if status.end_stall() {
                drop(status);
                runner.changed(Change::Running);
            }
        }
        wanted
    }

    /// Confirms the pause and waits until something else is wanted.
    fn park<R: Runner>(&self, runner: &mut R) {
        let mut status = self.lock();
        // What was wanted may have changed since; then there is nothing to confirm.
        if status.state == State::Running && status.wanted() == Request::Pause {
            let stall = match status.at_point {
                true => Stall::Held,
                false => Stall::Paused,
            };
            status.enter(State::Stalled(stall));
            status.begin_stall();
            self.changed.notify_all();
            let asked = status.asked.take();
            let latency = asked.map(|asked| status.since.saturating_duration_since(asked));
            drop(status);
            if let Some(latency) = latency {
                runner.changed(Change::Stalled(latency));
            }
            if stall == Stall::Held {
                runner.changed(Change::Held);
            }
            status = self.lock();
        }
        while status.wanted() == Request::Pause {
            status = self
                .changed
                .wait(status)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Runs the guest until it ends, is interrupted, or has come to where it is to be held.
    fn run<R: Runner>(&self, runner: &mut R) -> Option<R::End> {
        loop {
            match runner.step() {
                Step::Continue => {}
                Step::Interrupted => return None,
                Step::Hold => {
                    self.hold_here();
                    return None;
                }
                Step::Ended(end) => return Some(end),
            }
        }
    }

    /// Completes a port or memory access whose answer KVM has not yet taken over, without running
    /// anything further, so that the registers show a state between two instructions.
    fn drain<R: Runner>(&self, runner: &mut R) -> Option<R::End> {
        for _ in 0..DRAIN_LIMIT {
            runner.set_kick(true);
            match runner.step() {
                Step::Continue => {}
                Step::Interrupted => break,
                Step::Hold => self.hold_here(),
                Step::Ended(end) => return Some(end),
            }
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "lifecycle_test.rs"]
mod tests;
