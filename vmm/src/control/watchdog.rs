//! Finds out when a machine hangs. Only looks: the event loop ends the run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::lab::Lab;
use crate::machine::devices::Console;
use crate::machine::threads::VcpuThreads;
use crate::stats::window::Meter;

/// Most time that counts between two looks, however late the second one comes.
const LONGEST_TICK: Duration = Duration::from_secs(1);

/// Notices when nothing moves any more. Time in which a vCPU is stalled does not count: it is
/// stalled on purpose, and the other vCPUs may have to wait for it.
pub(super) struct Watchdog<'a> {
    limit: Duration,
    threads: &'a VcpuThreads,
    lab: Lab,
    console: Arc<Console>,
    meter: Arc<Meter>,
    seen: u64,
    /// Total time that each vCPU was stalled up to the last look.
    held: Vec<Duration>,
    looked: Instant,
    idle: Duration,
}

impl<'a> Watchdog<'a> {
    pub fn new(
        limit: Duration,
        threads: &'a VcpuThreads,
        lab: &Lab,
        console: &Arc<Console>,
        meter: &Arc<Meter>,
    ) -> Self {
        Self {
            limit,
            threads,
            lab: lab.clone(),
            console: Arc::clone(console),
            meter: Arc::clone(meter),
            seen: 0,
            held: vec![Duration::ZERO; threads.len() as usize],
            looked: Instant::now(),
            idle: Duration::ZERO,
        }
    }

    /// For how long nothing has moved, if that is too long.
    pub fn look(&mut self) -> Option<Duration> {
        // Each of these only grows, so that their sum stands still only if all of them do.
        let seen = self
            .lab
            .progress()
            .wrapping_add(self.console.written())
            .wrapping_add(self.meter.guest_exits());
        // A guest without a lab does not say how far it is. Its timers and its IPIs do.
        let seen = match self.lab.is_told() {
            true => seen,
            false => seen.wrapping_add(self.meter.kvm_exits()),
        };
        // A process that was stopped for an hour, by ^Z or by a debugger, was not idle for an hour.
        let passed = self.looked.elapsed().min(LONGEST_TICK);
        self.looked = Instant::now();
        let held = self.longest_hold();
        self.idle = if seen == self.seen {
            self.idle + passed.saturating_sub(held)
        } else {
            Duration::ZERO
        };
        self.seen = seen;
        (self.idle >= self.limit).then_some(self.limit)
    }

    /// The longest time that a vCPU was stalled since the last look.
    fn longest_hold(&mut self) -> Duration {
        let mut longest = Duration::ZERO;
        for (held, totals) in self.held.iter_mut().zip(self.threads.stall_totals()) {
            longest = longest.max(totals.total.saturating_sub(*held));
            *held = totals.total;
        }
        longest
    }
}
