//! What the event loop watches while the machine runs: the ends of vCPUs, signals, the guest's
//! console, and the clock. It only finds out that the run is over; winding up is its caller's part.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use vmm_sys_util::timerfd::TimerFd;

use super::output::{Output, Stream};
use super::signals::Signals;
use super::{ControlError, Ending, Limits};
use crate::lab::Lab;
use crate::machine::devices::Console;
use crate::machine::threads::{self, Crew, End};
use crate::stats::window::Meter;

/// How often the clock is looked at, and a slow reader of the console tried again.
const TICK: Duration = Duration::from_millis(100);
/// Time that one tick can stand for, however late it comes.
const LONGEST_TICK: Duration = Duration::from_secs(1);

const VCPUS: u32 = 0;
const SIGNALS: u32 = 1;
const CONSOLE: u32 = 2;
const CLOCK: u32 = 3;

/// Everything the loop watches.
pub(super) struct Bench {
    vcpus: Arc<threads::Events>,
    signals: Signals,
    console: Arc<Console>,
    output: Option<Output>,
    clock: TimerFd,
    started: Instant,
    timeout: Option<Duration>,
    watchdog: Option<Watchdog>,
    ending: Option<Result<Ending, ControlError>>,
}

impl Bench {
    pub fn new(
        crew: &Crew,
        signals: Signals,
        console: &Arc<Console>,
        stream: Stream,
        lab: &Lab,
        meter: &Arc<Meter>,
        limits: Limits,
    ) -> Result<Self, ControlError> {
        let mut clock =
            TimerFd::new().map_err(|e| ControlError::Prepare("create a timer", e.into()))?;
        clock
            .reset(TICK, Some(TICK))
            .map_err(|e| ControlError::Prepare("start a timer", e.into()))?;
        let output = Output::new(stream).map_err(|e| ControlError::Prepare("use the output", e))?;
        Ok(Self {
            vcpus: Arc::clone(crew.events()),
            signals,
            console: Arc::clone(console),
            output: Some(output),
            clock,
            started: Instant::now(),
            timeout: limits.timeout,
            watchdog: limits.watchdog.map(|limit| {
                Watchdog::new(limit, lab.clone(), Arc::clone(console), Arc::clone(meter))
            }),
            ending: None,
        })
    }

    /// What ended the run, if anything has, and the output with what is left to write.
    pub fn take_ending(&mut self) -> Option<Result<(Ending, Output), ControlError>> {
        let ending = self.ending.take()?;
        let output = self.output.take()?;
        Some(ending.map(|ending| (ending, output)))
    }

    /// The first ending is the one that counts.
    fn end(&mut self, ending: Ending) {
        self.ending.get_or_insert(Ok(ending));
    }

    fn vcpu_ended(&mut self) {
        if let Some(threads::Event::Ended { vcpu, end }) = self.vcpus.take() {
            self.end(match end {
                End::GuestExit(code) => Ending::GuestExit { vcpu, code },
                End::Dead(death) => Ending::Dead { vcpu, death },
                End::Panicked => Ending::Panicked { vcpu },
            });
        }
    }

    fn tick(&mut self) {
        // How many ticks were missed does not matter.
        let _ = self.clock.wait();
        if let Some(limit) = self
            .timeout
            .filter(|limit| self.started.elapsed() >= *limit)
        {
            self.end(Ending::TimeOut(limit));
        }
        if let Some(idle) = self.watchdog.as_mut().and_then(Watchdog::look) {
            self.end(Ending::NoProgress(idle));
        }
    }

    fn pump(&mut self) {
        if let Some(output) = &mut self.output {
            output.pump(&self.console);
        }
    }
}

impl MutEventSubscriber for Bench {
    fn init(&mut self, ops: &mut EventOps) {
        let watched = [
            (self.vcpus.pending().as_raw_fd(), VCPUS),
            (self.signals.as_raw_fd(), SIGNALS),
            (self.console.filled().as_raw_fd(), CONSOLE),
            (self.clock.as_raw_fd(), CLOCK),
        ];
        for (fd, what) in watched {
            if let Err(error) = ops.add(Events::with_data_raw(fd, what, EventSet::IN)) {
                self.ending.get_or_insert(Err(ControlError::Loop(error)));
            }
        }
    }

    fn process(&mut self, events: Events, _: &mut EventOps) {
        match events.data() {
            VCPUS => self.vcpu_ended(),
            SIGNALS => {
                if let Some(signal) = self.signals.take() {
                    self.end(Ending::Signal(signal));
                }
            }
            CLOCK => self.tick(),
            _ => {}
        }
        // Whatever woke the loop, it is a good moment to write on.
        self.pump();
    }
}

/// Notices when nothing moves any more.
struct Watchdog {
    limit: Duration,
    lab: Lab,
    console: Arc<Console>,
    meter: Arc<Meter>,
    seen: u64,
    looked: Instant,
    idle: Duration,
}

impl Watchdog {
    fn new(limit: Duration, lab: Lab, console: Arc<Console>, meter: Arc<Meter>) -> Self {
        Self {
            limit,
            lab,
            console,
            meter,
            seen: 0,
            looked: Instant::now(),
            idle: Duration::ZERO,
        }
    }

    /// For how long nothing has moved, if that is too long.
    fn look(&mut self) -> Option<Duration> {
        // Each of these only grows, so that their sum stands still only if all of them do.
        let seen = self
            .lab
            .progress()
            .wrapping_add(self.console.written())
            .wrapping_add(self.meter.guest_exits());
        // A process that was stopped for an hour, by ^Z or by a debugger, was not idle for an hour.
        let passed = self.looked.elapsed().min(LONGEST_TICK);
        self.looked = Instant::now();
        self.idle = if seen == self.seen {
            self.idle + passed
        } else {
            Duration::ZERO
        };
        self.seen = seen;
        (self.idle >= self.limit).then_some(self.limit)
    }
}
