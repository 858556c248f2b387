//! How those who wait for a machine hear that something has happened, and how long they wait.
//! Carries no content: whoever wakes looks for himself.

use std::fmt;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a wait goes on without looking: what a guest writes to memory it does not announce.
const UNANNOUNCED: Duration = Duration::from_millis(1);

/// How long somebody waits.
#[derive(Clone, Copy)]
pub struct Wait<'a> {
    /// For how long, as it was asked for.
    pub(super) limit: Duration,
    /// Until when, if that is known already.
    deadline: Option<Instant>,
    given_up: Option<&'a dyn Fn() -> bool>,
}

impl<'a> Wait<'a> {
    /// For `limit` at most.
    pub fn up_to(limit: Duration) -> Self {
        Self {
            limit,
            deadline: None,
            given_up: None,
        }
    }

    /// As long, unless `given_up` says that nobody waits any more. It is asked every millisecond or
    /// so.
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

    /// So much longer, and begun now: several waits one after the other take no longer than one.
    pub(super) fn begun(self, longer: Duration) -> Self {
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

/// A place to wait for news.
#[derive(Debug, Default)]
pub(in crate::control) struct Notifier {
    generation: Mutex<u64>,
    changed: Condvar,
}

impl Notifier {
    /// Something has happened.
    pub fn publish(&self) {
        let mut generation = self
            .generation
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *generation = generation.wrapping_add(1);
        self.changed.notify_all();
    }

    /// Looks with `look` whenever there is news, and now and then when there is none, until it
    /// finds something or `deadline` has passed. It looks once in any case.
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
            // What was published while `look` looked is not waited for again.
            let _ = self
                .changed
                .wait_timeout_while(generation, left.min(UNANNOUNCED), |now| *now == seen)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}
