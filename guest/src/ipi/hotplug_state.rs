//! What the CPUs share about the one of them that leaves or comes: that there is one, which it is,
//! and why it could not. How it leaves and comes is in [`hotplug`](super::hotplug).

use core::fmt;

use kit::platform::CpuId;
use kit::sync::atomic::{AtomicU32, Ordering};

use super::memory::NoMemory;

/// Why a CPU did not leave, or did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HotplugError {
    /// Another CPU is leaving or coming (`-EBUSY`).
    Busy,
    /// There is no such CPU, it is where it was to be, or it is one that cannot leave: the first,
    /// and the one that asks (`-EINVAL`).
    Invalid,
    /// A notifier vetoed it, for want of memory (`-ENOMEM`).
    Vetoed,
    /// It was started and did not come (`-EIO`).
    NotStarted,
}

impl From<NoMemory> for HotplugError {
    fn from(_: NoMemory) -> Self {
        Self::Vetoed
    }
}

impl fmt::Display for HotplugError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Busy => "another CPU is on its way",
            Self::Invalid => "this CPU cannot be asked to",
            Self::Vetoed => "there is no memory for this CPU",
            Self::NotStarted => "the CPU did not start",
        })
    }
}

impl core::error::Error for HotplugError {}

/// No CPU.
const NONE: u32 = u32::MAX;

/// Which CPU is leaving or coming.
#[derive(Debug)]
pub(super) struct HotplugState {
    /// Held while a CPU leaves or comes (`cpu_add_remove_lock`).
    busy: AtomicU32,
    /// The CPU that is to leave without a stop.
    leaving: AtomicU32,
}

impl HotplugState {
    pub(super) fn new() -> Self {
        Self {
            busy: AtomicU32::new(0),
            leaving: AtomicU32::new(NONE),
        }
    }

    /// Asks `cpu` to leave without a stop.
    pub(super) fn ask_to_leave(&self, cpu: CpuId) {
        self.leaving.store(cpu as u32, Ordering::Release);
    }

    /// Whether `cpu` is the one that is asked to leave without a stop.
    pub(super) fn is_to_leave(&self, cpu: CpuId) -> bool {
        self.leaving.load(Ordering::Acquire) == cpu as u32
    }

    /// The CPU that was asked to leave without a stop has done so.
    pub(super) fn has_left(&self) {
        self.leaving.store(NONE, Ordering::Release);
    }

    /// Whether no CPU is asked to leave without a stop.
    pub(super) fn nobody_leaves(&self) -> bool {
        self.leaving.load(Ordering::Acquire) == NONE
    }

    /// Runs `body`, unless another CPU is leaving or coming.
    pub(super) fn exclusively<R>(
        &self,
        body: impl FnOnce() -> Result<R, HotplugError>,
    ) -> Result<R, HotplugError> {
        self.busy
            .compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed)
            .map_err(|_| HotplugError::Busy)?;
        let result = body();
        self.busy.store(0, Ordering::Release);
        result
    }
}
