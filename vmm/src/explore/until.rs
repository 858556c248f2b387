//! How long a search or a replay may go on: until a signal arrives, or its time is up. The guest is
//! untrusted, so this is checked wherever the guest could delay the VMM.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::stop_reason::StopReason;

/// The conditions that stop a search or a replay from outside.
#[derive(Clone)]
pub struct Until {
    interrupted: Arc<dyn Fn() -> bool + Send + Sync>,
    deadline: Option<Instant>,
}

impl Until {
    /// Until `interrupted` says that a signal has arrived, or until `time` from now, if given.
    pub fn new(
        interrupted: impl Fn() -> bool + Send + Sync + 'static,
        time: Option<Duration>,
    ) -> Self {
        Self {
            interrupted: Arc::new(interrupted),
            // A time that overflows the clock is no limit.
            deadline: time.and_then(|time| Instant::now().checked_add(time)),
        }
    }

    /// Why to stop now, if one of the conditions holds.
    pub fn is_over(&self) -> Option<StopReason> {
        if (self.interrupted)() {
            return Some(StopReason::Signal);
        }
        let is_late = |deadline| Instant::now() >= deadline;
        self.deadline
            .is_some_and(is_late)
            .then_some(StopReason::Time)
    }
}

impl fmt::Debug for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Until")
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_signal_counts_before_the_time() {
        let no_time = Some(Duration::ZERO);
        assert_eq!(Until::new(|| false, None).is_over(), None);
        assert_eq!(Until::new(|| false, Some(Duration::MAX)).is_over(), None);
        assert_eq!(
            Until::new(|| false, no_time).is_over(),
            Some(StopReason::Time)
        );
        assert_eq!(
            Until::new(|| true, no_time).is_over(),
            Some(StopReason::Signal)
        );
        // The closure can share state with the rest of the program.
        let wish = Arc::new(AtomicBool::new(false));
        let wished = Arc::clone(&wish);
        let until = Until::new(move || wished.load(Ordering::Relaxed), None);
        assert_eq!(until.is_over(), None);
        wish.store(true, Ordering::Relaxed);
        assert_eq!(until.is_over(), Some(StopReason::Signal));
    }
}
