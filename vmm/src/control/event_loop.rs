//! The event loop of a run. It watches the vCPUs, requests to end the machine, the guest's console,
//! the clock, planned stalls, delayed IPIs, the trace and the live display. It only finds out that
//! the run is over; the caller winds it up.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use vmm_sys_util::timerfd::TimerFd;

use super::ending::Ending;
use super::error::ControlError;
use super::live::Live;
use super::operator::Operator;
use super::output::Output;
use super::stall::{StallDriver, StallSummary};
use super::timer::timer;
use super::watchdog::Watchdog;
use crate::machine::devices::Console;
use crate::machine::exit::Death;
use crate::machine::threads::{self, End, ThreadsError, VcpuThreads};

/// How often the limits are checked, what is no whole line yet is taken from the console, and a slow
/// reader of it is tried again.
const TICK: Duration = Duration::from_millis(100);

const VCPUS: u32 = 0;
const CONSOLE: u32 = 1;
const CLOCK: u32 = 2;
const START: u32 = 3;
const STALLS: u32 = 4;
const END_REQUEST: u32 = 5;
const ALARM: u32 = 6;
const TRACE: u32 = 7;
const LIVE: u32 = 8;

/// The limits at which the loop ends a run.
pub(super) struct TimeLimits<'a> {
    /// End the run after this time.
    pub timeout: Option<Duration>,
    /// Ends the run when nothing moves any more.
    pub watchdog: Option<Watchdog<'a>>,
}

/// Everything that the loop watches.
pub(super) struct EventLoop<'a> {
    vcpus: Arc<threads::Events>,
    operator: Arc<Operator>,
    stalls: StallDriver<'a>,
    console: Arc<Console>,
    output: Option<Output>,
    /// The display that shares the terminal with the output, if there is one.
    live: Option<Live<'a>>,
    clock: TimerFd,
    started: Instant,
    limits: TimeLimits<'a>,
    ending: Option<Result<Ending, ControlError>>,
}

impl<'a> EventLoop<'a> {
    pub fn new(
        threads: &'a VcpuThreads,
        operator: &Arc<Operator>,
        stalls: StallDriver<'a>,
        console: &Arc<Console>,
        output: Output,
        limits: TimeLimits<'a>,
    ) -> Result<Self, ControlError> {
        let mut clock = timer().map_err(|e| ControlError::Prepare("create a timer", e.into()))?;
        clock
            .reset(TICK, Some(TICK))
            .map_err(|e| ControlError::Prepare("start a timer", e.into()))?;
        Ok(Self {
            vcpus: Arc::clone(threads.events()),
            operator: Arc::clone(operator),
            stalls,
            console: Arc::clone(console),
            output: Some(output),
            live: None,
            clock,
            started: Instant::now(),
            limits,
            ending: None,
        })
    }

    /// Draws a live display while the machine runs.
    pub fn show(&mut self, live: Live<'a>) {
        self.live = Some(live);
    }

    /// What ended the run, if anything has, with the summary of its planned stalls and the output,
    /// which can have something left to write.
    pub fn take_ending(&mut self) -> Option<Result<(Ending, StallSummary, Output), ControlError>> {
        let ending = self.ending.take()?;
        // The display is removed, and later output is written in its place.
        self.live = None;
        let output = self.output.take()?;
        Some(ending.map(|ending| (ending, self.stalls.summary(), output)))
    }

    /// The first ending is the one that counts.
    fn end(&mut self, ending: Ending) {
        self.ending.get_or_insert(Ok(ending));
    }

    /// All there are so far: this loop can be one of a thousand threads that want the processor.
    fn vcpu_events(&mut self) {
        for event in self.vcpus.take_all() {
            match event {
                threads::Event::Ended { vcpu, end } => self.end(match end {
                    End::GuestExit(code) => Ending::GuestExit { vcpu, code },
                    End::PowerOff => Ending::PowerOff { vcpu },
                    End::Reset => Ending::Reset { vcpu },
                    // A way to reset a PC (`reboot=t`), if the kernel has said that it will.
                    End::Dead(Death::TripleFault) if self.operator.kernel_log().restarts() => {
                        Ending::Reset { vcpu }
                    }
                    End::Dead(death) => Ending::Dead { vcpu, death },
                    End::Panicked => Ending::Panicked { vcpu },
                }),
                threads::Event::Changed { vcpu, held_by } => {
                    self.operator.publish();
                    if let Some(by) = held_by {
                        self.operator.announce_hold(vcpu, by);
                    }
                    let wound = self.stalls.changed(vcpu);
                    self.need(wound);
                }
            }
        }
    }

    /// Ends the run if its stalls cannot go on.
    fn need(&mut self, wound: io::Result<()>) {
        if let Err(error) = wound {
            let error = ControlError::Prepare("set the timer for stalls", error);
            self.ending.get_or_insert(Err(error));
        }
    }

    fn tick(&mut self) {
        // How many ticks were missed does not matter.
        let _ = self.clock.wait();
        if let Some(limit) = self
            .limits
            .timeout
            .filter(|limit| self.started.elapsed() >= *limit)
        {
            self.end(Ending::TimeOut(limit));
        }
        self.operator.announce_findings();
        let idle = self.limits.watchdog.as_mut().and_then(Watchdog::look);
        // An operator that drives the machine may let it stand still for any time.
        if let Some(idle) = idle.filter(|_| !self.operator.is_attended()) {
            self.end(Ending::NoProgress(idle));
        }
        if let Some(vcpu) = self.stalls.stuck() {
            let error = ControlError::Threads(ThreadsError::Stuck(vcpu));
            self.ending.get_or_insert(Err(error));
        }
    }

    fn draw(&mut self) {
        if let (Some(live), Some(output)) = (&mut self.live, &mut self.output) {
            live.refresh(output);
        }
    }

    fn pump(&mut self) {
        if let Some(output) = &mut self.output {
            let is_shared = self.live.as_ref().is_some_and(Live::is_shown);
            if is_shared && output.is_terminal() {
                // This is written when the display is drawn, which has to make room for it.
                output.take(&self.console);
            } else {
                output.pump(&self.console);
            }
        }
    }
}

impl MutEventSubscriber for EventLoop<'_> {
    fn init(&mut self, ops: &mut EventOps) {
        let watched = [
            (self.vcpus.pending().as_raw_fd(), VCPUS),
            (self.console.filled().as_raw_fd(), CONSOLE),
            (self.clock.as_raw_fd(), CLOCK),
            (self.stalls.start_announced().as_raw_fd(), START),
            (self.stalls.as_raw_fd(), STALLS),
            (self.operator.ending_requested().as_raw_fd(), END_REQUEST),
            (self.operator.alarm_fd(), ALARM),
        ];
        let trace = self.operator.trace_fd().map(|fd| (fd, TRACE));
        let live = self.live.as_ref().map(|live| (live.as_raw_fd(), LIVE));
        for (fd, what) in watched.into_iter().chain(trace).chain(live) {
            if let Err(error) = ops.add(Events::with_data_raw(fd, what, EventSet::IN)) {
                self.ending.get_or_insert(Err(ControlError::Loop(error)));
            }
        }
    }

    fn process(&mut self, events: Events, _: &mut EventOps) {
        match events.data() {
            VCPUS => self.vcpu_events(),
            CLOCK => self.tick(),
            START => {
                let wound = self.stalls.start();
                self.need(wound);
            }
            STALLS => {
                let wound = self.stalls.carry_on();
                self.need(wound);
            }
            END_REQUEST => {
                if let Some(ending) = self.operator.requested_ending() {
                    self.end(ending);
                }
            }
            ALARM => self.operator.deliver_due(),
            TRACE => self.operator.collect_trace(),
            LIVE => self.draw(),
            _ => {}
        }
        // Whatever woke the loop, more of the console may go out now.
        self.pump();
    }
}
