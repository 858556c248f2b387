//! The call descriptor and its lock (`struct call_single_data`, `csd_lock`, `csd_unlock`).
//!
//! A descriptor is in use from the moment its owner locks it until the CPU that ran the call
//! unlocks it. Completion and reusability are the same event, as since Linux 6e2756376c70.

use core::ptr;

use kit::declare;
use kit::manifest::Record;
use kit::platform::Platform;
use kit::probe;
use kit::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};

use super::memory::Contents;
use crate::machine::Machine;

/// A function to run and its argument.
///
/// The function is a number, not an address: a descriptor that is read after its memory was reused
/// then names a function that does not exist. An oracle reports that, and the CPU does not jump to
/// a wrong address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Which function.
    pub func: u32,
    /// Its argument.
    pub info: u64,
}

impl Call {
    /// A call that runs nothing. It only has its target take an interrupt.
    pub const NOTHING: Self = Self {
        func: u32::MAX,
        info: 0,
    };
}

declare!([2] {
    let about = "Waits for a call descriptor that was locked.";
    Record::wait("csd.lock.wait", "csd.lock.over", "csd wait", "csd_wait", about)
});

/// In use: queued, or about to be, and not yet run (`CSD_FLAG_LOCK`).
const LOCK: u32 = 1;

/// One queueable call.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct CallSingleData {
    flags: AtomicU32,
    func: AtomicU32,
    info: AtomicU64,
    /// The next descriptor on the same queue; belongs to the queue.
    pub(super) next: AtomicPtr<CallSingleData>,
    /// Its place in the pool it was allocated from, where it goes back to after it has run
    /// (`CSD_FLAG_ALLOC`).
    pub(super) place: Option<usize>,
}

impl Default for CallSingleData {
    fn default() -> Self {
        Self::new()
    }
}

impl Contents for CallSingleData {
    fn fill(&self, byte: u8) {
        let word = u32::from_ne_bytes([byte; 4]);
        self.flags.store(word, Ordering::Relaxed);
        self.func.store(word, Ordering::Relaxed);
        self.info
            .store(u64::from_ne_bytes([byte; 8]), Ordering::Relaxed);
    }
}

impl CallSingleData {
    /// A descriptor that is not in use.
    pub fn new() -> Self {
        Self {
            flags: AtomicU32::new(0),
            func: AtomicU32::new(0),
            info: AtomicU64::new(0),
            next: AtomicPtr::new(ptr::null_mut()),
            place: None,
        }
    }

    /// The descriptor at `place` in a pool.
    pub(super) fn in_pool(place: usize) -> Self {
        Self {
            place: Some(place),
            ..Self::new()
        }
    }

    /// Locks the descriptor for `call`, after waiting until its previous call has run. The payload
    /// is still to be written.
    ///
    /// A load and a store, not an atomic exchange: only the owner ever locks a descriptor, and from
    /// one context, so nothing can come between the two.
    pub fn lock<P: Platform>(&self, machine: &Machine<P>, call: Call) {
        self.wait(machine);
        self.flags.store(LOCK, Ordering::Relaxed);
        // The barrier of the thread (generic-ipi, Feb 2009, Paul E. McKenney's question): a CPU
        // that sees the new payload must see the descriptor locked. On x86 it is a compiler
        // barrier.
        if machine.rules.csd_barrier {
            fence(Ordering::Release);
        }
        probe!(machine.platform, "csd.locked", call.info);
    }

    /// Waits until the descriptor is not in use (`csd_lock_wait`). What the function wrote is
    /// visible afterwards.
    pub fn wait<P: Platform>(&self, machine: &Machine<P>) {
        // Acquire pairs with the Release in `unlock`.
        let is_free = || self.flags.load(Ordering::Acquire) & LOCK == 0;
        if !is_free() {
            probe!(machine.platform, "csd.lock.wait", self.call().info);
            machine.spin_until(is_free);
            probe!(machine.platform, "csd.lock.over");
        }
    }

    /// Unlocks the descriptor that carried `call`. From here on the owner may reuse or free it, so
    /// the caller may not touch it again.
    pub fn unlock<P: Platform>(&self, machine: &Machine<P>, call: Call) {
        debug_assert!(self.is_locked(), "a call descriptor was unlocked twice");
        probe!(machine.platform, "csd.unlock", call.info);
        self.flags.store(0, Ordering::Release);
        probe!(machine.platform, "csd.unlocked", call.info);
    }

    /// Whether it is in use.
    pub fn is_locked(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & LOCK != 0
    }

    /// Writes the payload. Only the owner, while it holds the lock and before it queues.
    pub fn carry(&self, call: Call) {
        self.func.store(call.func, Ordering::Relaxed);
        self.info.store(call.info, Ordering::Relaxed);
    }

    /// Reads the payload. It is made visible by the queue that the descriptor was found on.
    pub fn call(&self) -> Call {
        Call {
            func: self.func.load(Ordering::Relaxed),
            info: self.info.load(Ordering::Relaxed),
        }
    }
}
