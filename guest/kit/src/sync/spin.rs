//! The spin lock. It guards no data of its own: what it protects is also read without it, by
//! walkers that are allowed to see it change, and is therefore made of atomics.

use super::atomic::{AtomicU32, Ordering};
use crate::platform::Platform;
use crate::probe;

/// A test-and-set lock.
///
/// It is not fair. A ticket lock, which Linux had in 2009, hands the lock to a vCPU whether or not
/// it is running, and then everybody waits for the scheduler of the host.
#[derive(Debug)]
pub struct SpinLock {
    held: AtomicU32,
}

impl SpinLock {
    /// A lock that nobody holds.
    #[allow(
        clippy::new_without_default,
        reason = "a lock is made on purpose, never by deriving"
    )]
    pub fn new() -> Self {
        Self {
            held: AtomicU32::new(0),
        }
    }

    /// Takes the lock, runs `body`, and lets it go.
    ///
    /// A lock that is also taken by an interrupt handler must be taken with interrupts off, or the
    /// handler waits for the code it interrupted; that is the caller's to see to.
    pub fn with<P: Platform, R>(&self, platform: &P, body: impl FnOnce() -> R) -> R {
        #[cfg(any(feature = "census", feature = "explore"))]
        super::witness::announce_lock(&self.held);
        // Acquire pairs with the Release below: the previous holder's writes are visible.
        while self
            .held
            .compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            while self.held.load(Ordering::Relaxed) != 0 {
                probe!(*platform, "spin.relax");
                platform.relax();
            }
        }
        let result = body();
        self.held.store(0, Ordering::Release);
        result
    }
}
