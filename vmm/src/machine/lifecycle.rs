//! The life of a vCPU: `Created → Running ⇄ Stalled(Paused | Held) → Exited(reason)`. A change is
//! requested by the code that controls the machine, and confirmed by the vCPU's thread once the
//! vCPU has left the guest. This module must not touch KVM: a [`Runner`] is anything that can be
//! stepped and kicked.
//!
//! A vCPU runs when the machine as a whole runs ([`Request::Run`]) and this vCPU has no hold. Holds
//! are counted per [`Holder`]. So several holders can keep a vCPU out of the guest without knowing
//! of each other, and none can undo a hold of another.

use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::clock;

/// How long a vCPU may take to leave the guest, and of several that were asked, the next one.
/// Hundreds of vCPUs that spin on two cores take seconds, and more where the host has other work.
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
    /// The name of the state in reports.
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
    /// It was stopped, because the run is over.
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
    /// It has come by itself to the point or instruction at which it was to be held.
    Held,
}

/// On whose behalf a vCPU is held out of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// The operator, that is, a script or a client that drives the machine while it runs. The hold
    /// at a point that a vCPU reaches by itself belongs to the operator too.
    Operator,
    /// The plan of stalls that was made before the run.
    Plan,
    /// The VMM itself, for a moment in which it inspects the vCPU or sets its debug registers. This
    /// is not done to the guest on purpose, and does not count as a stall.
    Visit,
    /// A debugger that is attached (`--gdb`), which stops all vCPUs at once. It has one hold of each at
    /// most. They are counted apart, and are no stalls.
    Debugger,
}

/// What the machine as a whole wants of each of its vCPUs.
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
    /// The vCPU was kicked; the request has to be read again.
    Interrupted,
    /// It has come to a point at which it is to be held, on this behalf. This counts as one hold.
    Hold(Holder),
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

    /// Called when a hold has been confirmed, or when a held vCPU runs again. That was `at` this
    /// time of [`clock::now`], before anybody else could see it; the state may have changed once
    /// more by now.
    fn changed(&mut self, change: Change, at: u64);
}

/// A change of state that a [`Runner`] is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It has left the guest, this long after it was asked to.
    Stalled(Duration),
    /// It is held at the point or instruction at which it was to be held.
    Held,
    /// It is about to enter the guest again.
    Running,
}

/// Where the vCPU was when it was held.
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
    /// Number of stalls, the present one included.
    pub times: u64,
    /// Total time, each stall from the confirmation of the hold to the next entry into the guest.
    pub total: Duration,
}

/// There is no hold to release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody holds it")]
pub struct NotHeld;

/// Most entries that completing one instruction can take. A string instruction across a page
/// boundary takes a few.
const DRAIN_LIMIT: usize = 64;

/// The state machine of one vCPU, shared by the vCPU's thread and the code that controls it.
#[derive(Debug)]
pub struct Lifecycle {
    status: Mutex<Status>,
    changed: Condvar,
}

/// Number of holds, by holder.
#[derive(Debug, Clone, Copy, Default)]
struct Holds {
    operator: u32,
    plan: u32,
    visit: u32,
    debugger: u32,
}

impl Holds {
    fn of(&mut self, holder: Holder) -> &mut u32 {
        match holder {
            Holder::Operator => &mut self.operator,
            Holder::Plan => &mut self.plan,
            Holder::Visit => &mut self.visit,
            Holder::Debugger => &mut self.debugger,
        }
    }

    fn add(&mut self, holder: Holder) {
        match holder {
            Holder::Debugger => self.debugger = 1,
            _ => *self.of(holder) += 1,
        }
    }

    fn are_any(&self) -> bool {
        self.visit > 0 || self.debugger > 0 || self.are_a_stall()
    }

    /// Whether one of the holds counts as a stall.
    fn are_a_stall(&self) -> bool {
        self.operator > 0 || self.plan > 0
    }
}

#[derive(Debug, Clone, Copy)]
struct Status {
    request: Request,
    state: State,
    /// When it entered that state.
    since: Instant,
    /// The holds that keep it out of the guest.
    holds: Holds,
    /// Whether one of the operator's holds is that of a point which the vCPU reached by itself.
    at_point: bool,
    /// When the first hold that is not confirmed yet was requested.
    asked: Option<Instant>,
    stalls: Stopwatch,
    /// The times for which a debugger has stopped it.
    debugged: Stopwatch,
}

/// Counts stalls, and measures them.
#[derive(Debug, Clone, Copy, Default)]
struct Stopwatch {
    /// When the present one began, if there is one.
    since: Option<Instant>,
    /// Total time of those that have ended, and number of those that have begun.
    ended: StallTotals,
}

impl Stopwatch {
    fn begin(&mut self) {
        if self.since.is_none() {
            self.since = Some(Instant::now());
            self.ended.times += 1;
        }
    }

    /// Returns whether there was one.
    fn end(&mut self) -> bool {
        let began = self.since.take();
        self.ended.total += began.map_or(Duration::ZERO, |began| began.elapsed());
        began.is_some()
    }

    fn totals(&self) -> StallTotals {
        let now = self.since.map_or(Duration::ZERO, |began| began.elapsed());
        StallTotals {
            total: self.ended.total + now,
            ..self.ended
        }
    }
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
        if self.holds.are_a_stall() {
            self.stalls.begin();
        }
        if self.holds.debugger > 0 {
            self.debugged.begin();
        }
    }

    /// Returns whether there was a stall.
    fn end_stall(&mut self) -> bool {
        self.debugged.end();
        self.stalls.end()
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
            stalls: Stopwatch::default(),
            debugged: Stopwatch::default(),
        };
        Self {
            status: Mutex::new(born),
            changed: Condvar::new(),
        }
    }
}

impl Lifecycle {
    /// Sets the request. The vCPU must be kicked afterwards, in case it is in the guest.
    pub fn ask(&self, request: Request) {
        self.lock().request = request;
        self.changed.notify_all();
    }

    /// Keeps the vCPU out of the guest until [`Lifecycle::release`], whatever else is asked for.
    ///
    /// # Errors
    /// Why it has exited, if it has: there is nothing to hold then.
    pub fn hold(&self, holder: Holder) -> Result<HoldOutcome, Exited> {
        let mut status = self.lock();
        if let State::Exited(why) = status.state {
            return Err(why);
        }
        status.holds.add(holder);
        if status.state != State::Running {
            // The thread reads the holds under the same lock before it enters the guest.
            status.begin_stall();
            return Ok(HoldOutcome::Already(status.state));
        }
        if matches!(holder, Holder::Operator | Holder::Plan) {
            status.asked.get_or_insert_with(Instant::now);
        }
        Ok(HoldOutcome::Underway)
    }

    /// Undoes one [`Lifecycle::hold`] of this holder. The vCPU runs on when the last hold is
    /// undone. A hold that was not confirmed by then never will be.
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

    /// Undoes all holds of this holder.
    pub fn release_all(&self, holder: Holder) {
        let mut status = self.lock();
        *status.holds.of(holder) = 0;
        self.go_on(&mut status);
    }

    /// Lets the vCPU run on if it has no hold any more.
    fn go_on(&self, status: &mut Status) {
        if !status.holds.are_a_stall() {
            status.asked = None;
        }
        if status.holds.debugger == 0 {
            status.debugged.end();
        }
        if !status.holds.are_any() {
            self.changed.notify_all();
        }
    }

    /// Called by the vCPU's own thread: holds the vCPU at the point that it has reached.
    fn hold_here(&self, holder: Holder) {
        let mut status = self.lock();
        status.holds.add(holder);
        status.at_point |= holder == Holder::Operator;
    }

    /// The state that was confirmed last, and when.
    pub fn state(&self) -> (State, Instant) {
        let status = self.lock();
        (status.state, status.since)
    }

    /// How often and for how long it has been stalled so far.
    pub fn stall_totals(&self) -> StallTotals {
        self.lock().stalls.totals()
    }

    /// How often and for how long a debugger has stopped it so far.
    pub fn debugged_totals(&self) -> StallTotals {
        self.lock().debugged.totals()
    }

    /// Waits until the vCPU is stalled or has exited, but not beyond `deadline`. Returns whether it
    /// is. After a request to pause or stop it then stays out of the guest.
    pub fn wait_out_of_guest(&self, deadline: Instant) -> bool {
        self.wait_while(deadline, |status| status.state == State::Running)
    }

    /// Waits until the vCPU, which was released, has left the state that it entered at `since`, but
    /// not beyond `deadline`. Returns `true` if it has, and also if another hold keeps it in that
    /// state.
    pub fn wait_gone_on(&self, since: Instant, deadline: Instant) -> bool {
        self.wait_while(deadline, |status| {
            status.since == since
                && matches!(status.state, State::Stalled(_))
                && status.wanted() == Request::Run
        })
    }

    /// Waits while `stays` returns `true`, but not beyond `deadline`. Returns whether that has
    /// ended.
    fn wait_while(&self, deadline: Instant, stays: impl Fn(&Status) -> bool) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let stays = |status: &mut Status| stays(status);
        let waited = self.changed.wait_timeout_while(self.lock(), left, stays);
        let waited = waited.unwrap_or_else(PoisonError::into_inner);
        !waited.1.timed_out()
    }

    /// Drives `runner` until the vCPU exits. Returns how the guest ended on it, or `None` if it was
    /// stopped from outside.
    pub fn drive<R: Runner>(&self, runner: &mut R) -> Option<R::End> {
        let end = self.run_until_exit(runner);
        self.mark_exited(match end {
            Some(_) => Exited::Ended,
            None => Exited::Stopped,
        });
        end
    }

    /// Marks the vCPU as exited, for whatever reason its thread ends.
    pub fn mark_exited(&self, why: Exited) {
        let mut status = self.lock();
        status.end_stall();
        status.enter(State::Exited(why));
        self.changed.notify_all();
    }

    fn run_until_exit<R: Runner>(&self, runner: &mut R) -> Option<R::End> {
        loop {
            // The kick is cleared before the request is read. `admit` sees a request that is made
            // in between; a later one sets the kick again, so that the next step returns at once.
            runner.set_kick(false);
            let end = match self.admit(runner) {
                Request::Run => self.run(runner),
                Request::Pause => {
                    // Only a vCPU that has entered the guest can have something half done.
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

    /// Reads what is wanted now. If that is to run, the vCPU counts as running from here on. Both
    /// happen under one lock: otherwise a caller that has just held the vCPU could see it out of
    /// the guest although it is about to enter.
    fn admit<R: Runner>(&self, runner: &mut R) -> Request {
        let mut status = self.lock();
        let wanted = status.wanted();
        if wanted == Request::Run && status.state != State::Running {
            status.enter(State::Running);
            status.at_point = false;
            let at = clock::now();
            self.changed.notify_all();
            if status.end_stall() {
                drop(status);
                runner.changed(Change::Running, at);
            }
        }
        wanted
    }

    /// Confirms the pause and waits until something else is wanted.
    fn park<R: Runner>(&self, runner: &mut R) {
        let mut status = self.lock();
        // The request may have changed since; then there is nothing to confirm.
        if status.state == State::Running && status.wanted() == Request::Pause {
            let stall = match status.at_point {
                true => Stall::Held,
                false => Stall::Paused,
            };
            status.enter(State::Stalled(stall));
            status.begin_stall();
            let at = clock::now();
            self.changed.notify_all();
            let asked = status.asked.take();
            let latency = asked.map(|asked| status.since.saturating_duration_since(asked));
            drop(status);
            if let Some(latency) = latency {
                runner.changed(Change::Stalled(latency), at);
            }
            if stall == Stall::Held {
                runner.changed(Change::Held, at);
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

    /// Runs the guest until it ends, is interrupted, or reaches a point at which it is to be held.
    fn run<R: Runner>(&self, runner: &mut R) -> Option<R::End> {
        loop {
            match runner.step() {
                Step::Continue => {}
                Step::Interrupted => return None,
                Step::Hold(holder) => {
                    self.hold_here(holder);
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
                Step::Hold(holder) => self.hold_here(holder),
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
