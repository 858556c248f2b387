//! How those who wait for a machine hear that something has happened. Carries no content: whoever wakes
//! looks for himself.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a wait goes on without looking: what a guest writes to memory it does not announce.
const UNANNOUNCED: Duration = Duration::from_millis(1);

/// A place to wait for news.
#[derive(Debug, Default)]
pub(in crate::control) struct News {
    editions: Mutex<u64>,
    out: Condvar,
}

impl News {
    /// Something has happened.
    pub fn publish(&self) {
        let mut editions = self.editions.lock().unwrap_or_else(PoisonError::into_inner);
        *editions = editions.wrapping_add(1);
        self.out.notify_all();
    }

    /// Looks with `look` whenever there is news, and now and then when there is none, until it finds
    /// something or `deadline` has passed. It looks once in any case.
    pub fn wait<T>(&self, deadline: Instant, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        loop {
            let seen = *self.editions.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(found) = look() {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return None;
            }
            let editions = self.editions.lock().unwrap_or_else(PoisonError::into_inner);
            // What was published while `look` looked is not waited for again.
            let _ = self
                .out
                .wait_timeout_while(editions, left.min(UNANNOUNCED), |now| *now == seen)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}
