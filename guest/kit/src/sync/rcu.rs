//! Read-copy-update, as far as the `kmalloc` design needs it: what was taken off a list is freed
//! only after every CPU has passed a quiescent state, in which it holds no pointer to it.
//!
//! Handlers are read-side critical sections because their interrupts are off; other code enters one
//! with [`Rcu::read`]. A CPU is in a quiescent state whenever it begins to handle an interrupt
//! outside of such a section, or makes a call from task context. As in classic RCU (Linux 2.6.27,
//! `kernel/rcuclassic.c`) a grace period begins for all CPUs at once, and one at a time is under
//! way.

use alloc::boxed::Box;
use core::fmt;

use super::atomic::{AtomicU32, AtomicU64, Ordering};
use super::irq::irqs_off;
use super::mask::{AtomicCpuMask, CpuId, CpuMask};
use super::spin::SpinLock;
use crate::platform::Platform;

/// A grace period, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GracePeriod(u64);

impl GracePeriod {
    /// The one with that number.
    pub fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub fn number(self) -> u64 {
        self.0
    }
}

/// Grace periods of one machine.
#[repr(C, align(64))]
pub struct Rcu {
    /// Guards everything but `nesting`.
    lock: SpinLock,
    begun: AtomicU64,
    ended: AtomicU64,
    /// The last grace period that is waited for.
    wanted: AtomicU64,
    /// CPUs that have yet to pass a quiescent state in the grace period under way.
    owing: AtomicCpuMask,
    /// By CPU: how many read-side critical sections it is in, outside of its handlers.
    nesting: Box<[AtomicU32]>,
}

impl fmt::Debug for Rcu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rcu")
            .field("begun", &self.begun)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl Rcu {
    /// No grace period under way, on `cpus` CPUs.
    pub fn new(cpus: usize) -> Self {
        Self {
            lock: SpinLock::new(),
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            wanted: AtomicU64::new(0),
            owing: AtomicCpuMask::none(cpus),
            nesting: (0..cpus).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// Runs `body` as a read-side critical section in task context: interrupts that are taken
    /// meanwhile are no quiescent states.
    pub fn read<P: Platform, R>(&self, platform: &P, body: impl FnOnce() -> R) -> R {
        let nesting = &self.nesting[platform.this_cpu()];
        nesting.fetch_add(1, Ordering::Relaxed);
        let result = body();
        nesting.fetch_sub(1, Ordering::Relaxed);
        result
    }

    /// The grace period after which no CPU holds what was unlinked before this call. It begins at
    /// once, for the CPUs of `online`, or when the one under way is over: that one may have begun
    /// before the unlinking, and CPUs that have passed their quiescent state in it may have found
    /// the element since.
    pub fn grace_period<P: Platform>(
        &self,
        platform: &P,
        online: impl FnOnce() -> CpuMask,
    ) -> GracePeriod {
        self.locked(platform, || {
            let begun = self.begun.load(Ordering::Relaxed);
            if begun == self.ended.load(Ordering::Relaxed) {
                self.begin(begun + 1, &online());
            }
            let wanted = begun + 1;
            self.wanted.store(wanted, Ordering::Relaxed);
            GracePeriod(wanted)
        })
    }

    /// Whether `period` is over.
    pub fn is_over(&self, period: GracePeriod) -> bool {
        // Acquire pairs with the Release in `pass`: what the readers did is done.
        self.ended.load(Ordering::Acquire) >= period.0
    }

    /// This CPU is in a quiescent state, unless it is in a read-side critical section. `online` is
    /// called if that begins another grace period.
    pub fn quiescent<P: Platform>(&self, platform: &P, online: impl FnOnce() -> CpuMask) {
        let me = platform.this_cpu();
        // Read without the lock, perhaps too early: the CPU will pass here again.
        if self.owing.contains(me, Ordering::Relaxed)
            && self.nesting[me].load(Ordering::Relaxed) == 0
        {
            self.pass(platform, me, online);
        }
    }

    /// `cpu`, which is going offline and is in no critical section, will pass no more quiescent
    /// states.
    pub fn leave<P: Platform>(&self, platform: &P, cpu: CpuId, online: impl FnOnce() -> CpuMask) {
        self.pass(platform, cpu, online);
    }

    /// The CPUs that hold up the grace period under way.
    pub fn owing(&self, cpus: usize) -> CpuMask {
        self.owing.load(cpus)
    }

    fn pass<P: Platform>(&self, platform: &P, cpu: CpuId, online: impl FnOnce() -> CpuMask) {
        self.locked(platform, || {
            if !self.owing.remove(cpu, Ordering::Relaxed) || !self.owing.is_empty() {
                return;
            }
            let ended = self.begun.load(Ordering::Relaxed);
            self.ended.store(ended, Ordering::Release);
            if self.wanted.load(Ordering::Relaxed) > ended {
                self.begin(ended + 1, &online());
            }
        });
    }

    fn begin(&self, period: u64, online: &CpuMask) {
        self.owing.store(online, Ordering::Relaxed);
        self.begun.store(period, Ordering::Relaxed);
    }

    fn locked<P: Platform, R>(&self, platform: &P, body: impl FnOnce() -> R) -> R {
        irqs_off(platform, || self.lock.with(platform, body))
    }
}
