//! Userspace exits of one vCPU, counted by reason where they happen. Written by one thread, read by
//! any.

use std::sync::atomic::{AtomicU64, Ordering};

use shared::ports::Doorbell;

use super::devices::Effect;
use super::exit::Exit;

/// Reasons for which a vCPU exits to the VMM, by the names that reports use.
pub const REASONS: [&str; 10] = [
    "pio", "doorbell", "exit", "mmio", "hlt", "signal", "waiting", "wire", "debug", "other",
];

/// Index in [`REASONS`] of the exits that the VMM itself causes by a signal.
const SIGNAL: usize = 5;

/// Index in [`REASONS`] of the exits of a vCPU that waits in a loop. They are no progress.
pub const WAITING: usize = 6;

/// Exits by reason, in the order of [`REASONS`].
pub type ExitCounts = [u64; REASONS.len()];

/// Running counts of one vCPU.
#[derive(Debug, Default)]
pub struct ExitCounters([AtomicU64; REASONS.len()]);

impl ExitCounters {
    /// Counts one exit and returns the index of its reason in [`REASONS`]. [`Exit::Again`] is not
    /// counted: KVM came out on its own account.
    pub fn count(&self, exit: &Exit) -> Option<usize> {
        let reason = match exit {
            Exit::Pio(Effect::None | Effect::Line | Effect::Entry | Effect::Stop) => 0,
            Exit::Pio(Effect::Doorbell(Doorbell::Waiting)) => WAITING,
            Exit::Pio(Effect::Doorbell(_)) => 1,
            Exit::Pio(Effect::GuestExit(_) | Effect::PowerOff | Effect::Reset) => 2,
            Exit::Mmio => 3,
            Exit::Hlt => 4,
            Exit::Interrupted => SIGNAL,
            Exit::Pio(Effect::Dispatch(_)) => 7,
            Exit::Debug(_) => 8,
            Exit::Dead(_) => 9,
            Exit::Again => return None,
        };
        self.0[reason].fetch_add(1, Ordering::Relaxed);
        Some(reason)
    }

    /// The counts so far.
    pub fn counts(&self) -> ExitCounts {
        std::array::from_fn(|reason| self.0[reason].load(Ordering::Relaxed))
    }

    /// Exits that the guest caused, those of waiting loops left out.
    pub fn caused_by_guest(&self) -> u64 {
        self.counts()
            .iter()
            .enumerate()
            .filter(|(reason, _)| ![SIGNAL, WAITING].contains(reason))
            .fold(0, |sum, (_, count)| sum.wrapping_add(*count))
    }
}
