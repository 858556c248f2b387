//! Carries out planned stalls on a running machine, inside the event loop: one timer for all of
//! them, and no waiting. A stall counts from the confirmation that the vCPU is out of the guest,
//! and a presence from its return. So on a slow host the plan is late, but nothing of it is lost.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::timerfd::TimerFd;

use super::pace::Pace;
use super::{PlannedStall, StallSummary, Stalls, StealPeriod, StealPlan};
use crate::control::recorder::Recorder;
use crate::control::timer::timer;
use crate::machine::lifecycle::CONFIRMATION;
use crate::machine::lifecycle::{HoldOutcome, Holder, Stall, State};
use crate::machine::threads::VcpuThreads;
use crate::stats::marks::Actor;

/// The start of the workload, announced by a vCPU thread and taken by the event loop.
#[derive(Debug)]
pub(in crate::control) struct WorkloadStart {
    at: OnceLock<Instant>,
    announced: EventFd,
}

impl WorkloadStart {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            at: OnceLock::new(),
            announced: EventFd::new(EFD_NONBLOCK)?,
        })
    }

    /// Announces it. Only the first time counts.
    pub fn announce(&self) {
        if self.at.set(Instant::now()).is_ok() {
            // Cannot be full after one write.
            let _ = self.announced.write(1);
        }
    }

    /// The time of the start, once, after it was announced.
    fn take(&self) -> Option<Instant> {
        let announced = self.announced.read().is_ok();
        self.at.get().filter(|_| announced).copied()
    }
}

/// The stalls of one kind on one vCPU, carried out one after the other.
#[derive(Debug)]
struct Track {
    cpu: u32,
    kind: StallKind,
    phase: Phase,
}

#[derive(Debug)]
enum StallKind {
    Once(PlannedStall),
    Steal {
        plan: Box<StealPlan>,
        pace: Pace,
        /// The period that is being carried out.
        planned: StealPeriod,
    },
}

/// The state of a track. If it waits for a time, that is in [`StallDriver::due`].
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// The vCPU is left alone.
    Present {
        /// Since when.
        since: Instant,
    },
    /// It was asked to leave the guest.
    Leaving {
        /// Since when the vCPU was left alone.
        present: Instant,
        /// When it was asked to leave.
        asked: Instant,
    },
    /// It is out of the guest.
    Away {
        /// For how long the vCPU was left alone.
        present: Duration,
        /// Since when it is away.
        since: Instant,
    },
    /// It was released, and is not back in the guest yet.
    Returning {
        /// For how long the vCPU was left alone.
        present: Duration,
        /// Since when it is away.
        since: Instant,
    },
    /// Nothing more is planned.
    Over,
}

/// The stalls of a run, while it runs.
#[derive(Debug)]
pub(in crate::control) struct StallDriver<'a> {
    threads: &'a VcpuThreads,
    start: Arc<WorkloadStart>,
    /// Records what is stalled, for a trace.
    recorder: &'a Recorder,
    timer: TimerFd,
    tracks: Vec<Track>,
    /// The tracks of a vCPU, by index.
    of_vcpu: BTreeMap<u32, Vec<usize>>,
    /// When a track, by index, is to be looked at again.
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    started: Option<Instant>,
    /// When a vCPU has last left the guest, as far as is known here.
    last_left: Option<Instant>,
}

impl<'a> StallDriver<'a> {
    /// A driver that does nothing until [`StallDriver::start`].
    pub fn new(
        stalls: &Stalls,
        threads: &'a VcpuThreads,
        start: &Arc<WorkloadStart>,
        recorder: &'a Recorder,
    ) -> io::Result<Self> {
        let mut driver = Self {
            threads,
            start: Arc::clone(start),
            recorder,
            timer: timer()?,
            tracks: Vec::new(),
            of_vcpu: BTreeMap::new(),
            due: BinaryHeap::new(),
            started: None,
            last_left: None,
        };
        for stall in &stalls.once {
            driver.add(stall.cpu, StallKind::Once(*stall));
        }
        if let Some(steal) = &stalls.steal {
            for cpu in (0..threads.len()).filter(|cpu| steal.takes_from(*cpu)) {
                let mut plan = Box::new(steal.plan(cpu));
                let planned = plan.next().unwrap_or_default();
                let kind = StallKind::Steal {
                    plan,
                    pace: Pace::new(steal),
                    planned,
                };
                driver.add(cpu, kind);
            }
        }
        Ok(driver)
    }

    fn add(&mut self, cpu: u32, kind: StallKind) {
        self.of_vcpu.entry(cpu).or_default().push(self.tracks.len());
        self.tracks.push(Track {
            cpu,
            kind,
            phase: Phase::Over,
        });
    }

    /// Readable when the workload has begun and [`StallDriver::start`] has not been called.
    pub fn start_announced(&self) -> &EventFd {
        &self.start.announced
    }

    /// Begins, if the workload has begun.
    pub fn start(&mut self) -> io::Result<()> {
        let Some(at) = self.start.take() else {
            return Ok(());
        };
        self.started = Some(at);
        for index in 0..self.tracks.len() {
            self.present(index, at);
        }
        self.carry_on()
    }

    /// Does what is due, and sets the timer for what comes next.
    pub fn carry_on(&mut self) -> io::Result<()> {
        let now = Instant::now();
        while let Some(Reverse((_, index))) =
            self.due.peek().filter(|next| next.0.0 <= now).copied()
        {
            self.due.pop();
            match self.tracks[index].phase {
                Phase::Present { since } => self.leave(index, since),
                Phase::Away { present, since } => self.let_go(index, present, since),
                Phase::Leaving { .. } | Phase::Returning { .. } | Phase::Over => {}
            }
        }
        self.wind()
    }

    /// Handles a change of state of a vCPU.
    pub fn changed(&mut self, vcpu: u32) -> io::Result<()> {
        let Some(indices) = self.of_vcpu.get(&vcpu).cloned() else {
            return Ok(());
        };
        let Ok((state, since)) = self.threads.state(vcpu) else {
            return Ok(());
        };
        for index in indices {
            match (self.tracks[index].phase, state) {
                (Phase::Leaving { present, .. }, State::Stalled(_)) => {
                    self.away(index, present, since);
                }
                (
                    Phase::Returning {
                        present,
                        since: left,
                    },
                    State::Running,
                ) => {
                    let went = StealPeriod {
                        present,
                        away: since.saturating_duration_since(left),
                    };
                    self.back(index, &went, since);
                }
                (_, State::Exited(_)) => self.tracks[index].phase = Phase::Over,
                // The event is outdated, and a newer one will follow.
                _ => {}
            }
        }
        self.wind()
    }

    /// A vCPU that does not leave the guest, if there is one, although none has left it for
    /// [`CONFIRMATION`]. Where they leave one after the other, the host is slow and not stuck. It is
    /// its own word that counts, since this loop can be late too.
    pub fn stuck(&self) -> Option<u32> {
        let stuck = |track: &&Track| match track.phase {
            Phase::Leaving { asked, .. } => {
                let since = self.last_left.map_or(asked, |last| last.max(asked));
                since.elapsed() > CONFIRMATION
                    && (self.threads.state(track.cpu))
                        .is_ok_and(|(state, _)| state == State::Running)
            }
            _ => false,
        };
        self.tracks.iter().find(stuck).map(|track| track.cpu)
    }

    /// What was carried out, and what was missed.
    pub fn summary(&self) -> StallSummary {
        let missed = |track: &Track| match (&track.kind, track.phase) {
            (StallKind::Once(stall), Phase::Present { .. }) => Some(*stall),
            (StallKind::Once(stall), _) if self.started.is_none() => Some(*stall),
            _ => None,
        };
        StallSummary {
            asked: !self.tracks.is_empty(),
            time: self.started.map(|started| started.elapsed()),
            missed: self.tracks.iter().filter_map(missed).collect(),
        }
    }

    /// The vCPU is left alone from `since` on.
    fn present(&mut self, index: usize, since: Instant) {
        let track = &mut self.tracks[index];
        track.phase = Phase::Present { since };
        let time = match &track.kind {
            StallKind::Once(stall) => stall.at,
            StallKind::Steal { pace, planned, .. } => pace.presence(planned),
        };
        self.due.push(Reverse((since + time, index)));
    }

    /// Asks the vCPU to leave. It has been left alone since `present`, for the planned time.
    fn leave(&mut self, index: usize, present: Instant) {
        let now = Instant::now();
        let track = &mut self.tracks[index];
        track.phase = Phase::Leaving {
            present,
            asked: now,
        };
        let by = match track.kind {
            StallKind::Once(_) => Actor::Planned,
            StallKind::Steal { .. } => Actor::Steal,
        };
        let cpu = track.cpu;
        (self.recorder).note(by, cpu, Stall::Paused, || format!("stalls CPU {cpu}"));
        match self.threads.hold(track.cpu, Holder::Plan) {
            Ok(HoldOutcome::Underway) => {}
            Ok(HoldOutcome::Already(_)) => self.away(index, present, now),
            // It has exited, so there is nothing more to stall.
            Err(_) => track.phase = Phase::Over,
        }
    }

    /// The vCPU, which was left alone since `present`, is out of the guest since `since`.
    fn away(&mut self, index: usize, present: Instant, since: Instant) {
        self.last_left = self.last_left.max(Some(since));
        let track = &mut self.tracks[index];
        track.phase = Phase::Away {
            present: since.saturating_duration_since(present),
            since,
        };
        let time = match &track.kind {
            StallKind::Once(stall) => stall.length,
            StallKind::Steal { planned, .. } => planned.away,
        };
        self.due.push(Reverse((since + time, index)));
    }

    /// Releases the vCPU. It has been out of the guest since `since`, for the planned time.
    fn let_go(&mut self, index: usize, present: Duration, since: Instant) {
        let track = &mut self.tracks[index];
        // This track holds it, and nothing else undoes that.
        let _ = self.threads.release(track.cpu, Holder::Plan);
        track.phase = match &track.kind {
            StallKind::Once(_) => Phase::Over,
            StallKind::Steal { .. } => Phase::Returning { present, since },
        };
    }

    /// The vCPU is back in the guest since `since`.
    fn back(&mut self, index: usize, went: &StealPeriod, since: Instant) {
        if let StallKind::Steal {
            plan,
            pace,
            planned,
        } = &mut self.tracks[index].kind
        {
            pace.enter(planned, went);
            *planned = plan.next().unwrap_or_default();
        }
        self.present(index, since);
    }

    /// Sets the timer to the next time at which there is something to do. Setting it also clears an
    /// expiration, so that the timer never has to be read.
    fn wind(&mut self) -> io::Result<()> {
        let wait = match self.due.peek() {
            // Zero would stop it.
            Some(Reverse((next, _))) => next
                .saturating_duration_since(Instant::now())
                .max(Duration::from_nanos(1)),
            None => Duration::ZERO,
        };
        self.timer.reset(wait, None).map_err(io::Error::from)
    }
}

impl AsRawFd for StallDriver<'_> {
    fn as_raw_fd(&self) -> RawFd {
        self.timer.as_raw_fd()
    }
}
