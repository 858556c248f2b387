//! The life of a vCPU: `Created → Running ⇄ Stalled(Paused) → Exited`. A change is requested by
//! whoever controls the machine and confirmed by the thread that carries the vCPU, once it has left
//! the guest. No KVM here: a [`Runner`] is anything that can be stepped and kicked.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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
    Exited,
}

/// Why a vCPU is kept out of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stall {
    /// It was paused, wherever it happened to be.
    Paused,
}

/// What the controlling side wants of a vCPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// To stay out of the guest.
    Pause,
    /// To run.
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
}

/// Entries that finishing one instruction can take: a page-crossing string instruction, generously.
const DRAIN_LIMIT: usize = 64;

/// The place of one vCPU, shared by the thread that carries it and those who control it.
#[derive(Debug)]
pub struct Seat {
    place: Mutex<Place>,
    changed: Condvar,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    request: Request,
    state: State,
}

impl Default for Seat {
    fn default() -> Self {
        let born = Place {
            request: Request::Pause,
            state: State::Created,
        };
        Self {
            place: Mutex::new(born),
            changed: Condvar::new(),
        }
    }
}

impl Seat {
    /// Asks for a change. The vCPU must be kicked afterwards, in case it is in the guest.
    pub fn ask(&self, request: Request) {
        self.lock().request = request;
        self.changed.notify_all();
    }

    /// The state that has been confirmed.
    pub fn state(&self) -> State {
        self.lock().state
    }

    /// Waits until the vCPU is out of the guest for now or for good, but not beyond `deadline`.
    /// Returns whether it is. After a request to pause or stop it then stays out.
    pub fn wait_out_of_guest(&self, deadline: Instant) -> bool {
        let mut place = self.lock();
        while place.state == State::Running {
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return false;
            }
            place = self
                .changed
                .wait_timeout(place, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }

    /// Carries `runner` through its life and returns how the guest ended on it, or `None` if it was
    /// stopped from outside.
    pub fn carry<R: Runner>(&self, runner: &mut R) -> Option<R::End> {
        let end = self.live(runner);
        self.leave();
        end
    }

    /// Marks the vCPU as gone, however its thread came to its end.
    pub fn leave(&self) {
        self.lock().state = State::Exited;
        self.changed.notify_all();
    }

    fn live<R: Runner>(&self, runner: &mut R) -> Option<R::End> {
        loop {
            // Cleared first, looked at second: a request made in between is seen by `admit`, and
            // one made later sets the kick again, so that the next step returns at once.
            runner.set_kick(false);
            let end = match self.admit() {
                Request::Run => run(runner),
                Request::Pause => {
                    let end = drain(runner);
                    if end.is_none() {
                        self.park();
                    }
                    end
                }
                Request::Stop => return drain(runner),
            };
            if end.is_some() {
                return end;
            }
        }
    }

    /// The latest request; if it is to run, the vCPU counts as running from here on. Both in one
    /// step, so that nobody sees it out of the guest who has just asked it to stay out.
    fn admit(&self) -> Request {
        let mut place = self.lock();
        if place.request == Request::Run {
            place.state = State::Running;
        }
        place.request
    }

    /// Confirms the pause and waits until something else is asked for.
    fn park(&self) {
        let mut place = self.lock();
        if place.state == State::Running {
            place.state = State::Stalled(Stall::Paused);
            self.changed.notify_all();
        }
        while place.request == Request::Pause {
            place = self
                .changed
                .wait(place)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the guest until it ends or is interrupted.
fn run<R: Runner>(runner: &mut R) -> Option<R::End> {
    loop {
        match runner.step() {
            Step::Continue => {}
            Step::Interrupted => return None,
            Step::Ended(end) => return Some(end),
        }
    }
}

/// Completes a port or memory access whose answer KVM has not yet taken over, without running
/// anything further, so that the registers show a state between two instructions.
fn drain<R: Runner>(runner: &mut R) -> Option<R::End> {
    for _ in 0..DRAIN_LIMIT {
        runner.set_kick(true);
        match runner.step() {
            Step::Continue => {}
            Step::Interrupted => break,
            Step::Ended(end) => return Some(end),
        }
    }
    None
}

#[cfg(test)]
#[path = "lifecycle_test.rs"]
mod tests;
