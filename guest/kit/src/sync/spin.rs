//! The spin lock. It owns no data: what it protects is also read without it, by walks that may see
//! it change, and is therefore made of atomics.

use super::atomic::{AtomicU32, Ordering};
use crate::platform::Platform;
use crate::probe;

/// A test-and-set lock.
///
/// It is not fair. A ticket lock, as Linux had in 2009, hands the lock to a vCPU whether or not
/// that vCPU runs, and then all others wait for the scheduler of the host.
#[derive(Debug)]
pub struct SpinLock {
    held: AtomicU32,
}

impl SpinLock {
    /// A free lock.
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
    /// If interrupt handlers take the lock too, the caller must have interrupts off, or a handler
    /// could wait for the code that it interrupted.
    pub fn with<P: Platform, R>(&self, platform: &P, body: impl FnOnce() -> R) -> R {
        self.lock(platform);
        let result = body();
        self.unlock();
        result
    }

    /// Takes the lock, once it is free. A context that has it already waits for ever.
    pub fn lock<P: Platform>(&self, platform: &P) {
        let mut taken = self.take();
        while taken.is_err() {
            while self.held.load(Ordering::Relaxed) != 0 {
                probe!(*platform, "spin.relax");
                platform.relax();
            }
            taken = self.exchange();
        }
    }

    /// Releases the lock. Only the context that has taken it may.
    pub fn unlock(&self) {
        self.release();
    }

    // With a witness, which takes an attempt for more than an access to a word.
    #[cfg(any(feature = "census", feature = "explore"))]
    fn take(&self) -> Result<u32, u32> {
        super::witness::take_lock(&self.held)
    }

    #[cfg(any(feature = "census", feature = "explore"))]
    fn release(&self) {
        super::witness::release_lock(&self.held);
    }

    #[cfg(not(any(feature = "census", feature = "explore")))]
    fn take(&self) -> Result<u32, u32> {
        self.exchange()
    }

    #[cfg(not(any(feature = "census", feature = "explore")))]
    fn release(&self) {
        self.held.store(0, Ordering::Release);
    }

    fn exchange(&self) -> Result<u32, u32> {
        // Acquire pairs with the Release of `release`: the previous holder's writes are visible.
        self.held
            .compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed)
    }
}
