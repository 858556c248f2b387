//! The queue of calls made to one CPU (`call_single_queue`): a list of descriptors in order of
//! arrival, and a lock. Any CPU pushes; only the CPU it belongs to takes, all at once.

use core::ptr;

use super::csd::CallSingleData;
use crate::platform::Platform;
use crate::sync::atomic::{AtomicPtr, Ordering};
use crate::sync::spin::SpinLock;

/// One CPU's queue. `head` and `tail` change only under `lock`, which orders everything here.
#[derive(Debug)]
pub struct SingleQueue {
    lock: SpinLock,
    head: AtomicPtr<CallSingleData>,
    tail: AtomicPtr<CallSingleData>,
}

impl SingleQueue {
    /// An empty queue.
    pub(super) fn new() -> Self {
        Self {
            lock: SpinLock::new(),
            head: AtomicPtr::new(ptr::null_mut()),
            tail: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Appends `csd` and says whether the queue was empty. Interrupts must be off.
    ///
    /// # Safety
    /// `csd` must be on no queue, and stay where it is until its lock is released after it has run.
    pub(super) unsafe fn push<P: Platform>(&self, platform: &P, csd: &CallSingleData) -> bool {
        csd.next.store(ptr::null_mut(), Ordering::Relaxed);
        let new = ptr::from_ref(csd).cast_mut();
        self.lock.with(platform, || {
            let tail = self.tail.load(Ordering::Relaxed);
            // SAFETY: a descriptor reached from the queue is alive by the promise under which it
            // was pushed: it is unlocked only after `drain` has taken it off.
            match unsafe { tail.as_ref() } {
                Some(tail) => tail.next.store(new, Ordering::Relaxed),
                None => self.head.store(new, Ordering::Relaxed),
            }
            self.tail.store(new, Ordering::Relaxed);
            tail.is_null()
        })
    }

    /// Takes everything off the queue. Only the CPU it belongs to may, with interrupts off.
    ///
    /// The queue is taken under its lock even if it looks empty from outside: a look without the
    /// lock can be older than the interrupt that it answers (Linux 15d0d3b33712).
    pub(super) fn drain<P: Platform>(&self, platform: &P) -> Drained {
        let next = self.lock.with(platform, || {
            let head = self.head.load(Ordering::Relaxed);
            self.head.store(ptr::null_mut(), Ordering::Relaxed);
            self.tail.store(ptr::null_mut(), Ordering::Relaxed);
            head
        });
        Drained { next }
    }

    /// Whether nothing is queued, at a time when nobody pushes.
    pub(super) fn is_empty(&self) -> bool {
        self.head.load(Ordering::Relaxed).is_null()
    }
}

/// The descriptors that were taken off a queue, oldest first. Each is the drainer's from the time it
/// is yielded until it unlocks it.
#[derive(Debug)]
pub(super) struct Drained {
    next: *mut CallSingleData,
}

impl Iterator for Drained {
    type Item = &'static CallSingleData;

    /// The next descriptor. Its successor is read here and now, before the caller can unlock it and
    /// its owner can abandon it. The lifetime is the longest there is because the owner's promise
    /// to `push` has no name in the type system; it really ends at the unlock.
    fn next(&mut self) -> Option<Self::Item> {
        // SAFETY: the chain was pushed under the promise that each descriptor stays until its lock
        // is released, and this iterator holds the only way to it until it is yielded.
        let csd = unsafe { self.next.as_ref() }?;
        self.next = csd.next.load(Ordering::Relaxed);
        Some(csd)
    }
}
