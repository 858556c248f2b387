//! Wakes the threads that wait for something to happen in a machine, and says how long they wait. A
//! notification has no content: a thread that wakes looks again at what it waits for.

use std::fmt;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a wait goes on without looking. The guest gives no notice when it writes to memory.
const UNANNOUNCED: Duration = Duration::from_millis(1);

/// How long a caller waits.
#[derive(Clone, Copy)]
pub struct Wait<'a> {
    /// The time that was asked for.
    pub(super) limit: Duration,
    /// The deadline, if the wait has begun.
    deadline: Option<Instant>,
    given_up: Option<&'a dyn Fn() -> bool>,
}

impl<'a> Wait<'a> {
    /// Waits for `limit` at most.
    pub fn up_to(limit: Duration) -> Self {
        Self {
            limit,
            deadline: None,
            given_up: None,
        }
    }

    /// The same, but ends early if `given_up` returns `true`. It is called about every millisecond.
    pub fn unless(limit: Duration, given_up: &'a dyn Fn() -> bool) -> Self {
        Self {
            limit,
            deadline: None,
            given_up: Some(given_up),
        }
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.is_some_and(|given_up| given_up())
    }

    /// The same with a limit that is `longer` by this much, and begun now. So several waits in a
    /// row take no longer than one.
    pub(in crate::control) fn begun(self, longer: Duration) -> Self {
        let wait = Self {
            limit: self.limit + longer,
            ..self
        };
        let deadline = Some(wait.deadline());
        Self { deadline, ..wait }
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline.unwrap_or_else(|| Instant::now() + self.limit)
    }
}

impl fmt::Debug for Wait<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wait")
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

/// A condition variable with a generation counter.
#[derive(Debug, Default)]
pub(in crate::control) struct Notifier {
    generation: Mutex<u64>,
    changed: Condvar,
}

impl Notifier {
    /// Wakes all waiting threads: something has happened.
    pub fn publish(&self) {
        let mut generation = self
            .generation
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *generation = generation.wrapping_add(1);
        self.changed.notify_all();
    }

    /// Calls `look` after each notification, and about every millisecond without one, until it
    /// finds something or `deadline` has passed. It is called at least once.
    pub fn wait<T>(&self, deadline: Instant, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        loop {
            let seen = *self
                .generation
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if let Some(found) = look() {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return None;
            }
            let generation = self
                .generation
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            // A notification that came during `look` ends this wait at once.
            let _ = self
                .changed
                .wait_timeout_while(generation, left.min(UNANNOUNCED), |now| *now == seen)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}
