//! What a terminal shows of a run while it goes on: the live table of `--watch`, which says what
//! each vCPU is doing and how fast, or one line on how far the run is. Everything in it comes from
//! counters that are kept anyway. It does not disturb vCPUs or guest: it reads memory four times a
//! second.

mod line;
mod table;

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vmm_sys_util::timerfd::TimerFd;

use super::operator::Operator;
use super::output::Output;
use crate::control::timer::timer;
use crate::lab::{CpuCounts, Lab};
use crate::machine::lifecycle::{Stall, State};
use crate::machine::message::HeldBy;
use crate::machine::threads::VcpuThreads;
use crate::stats::sources::{STATS, Status, status};
use crate::stats::window::{Meter, Sample};
use crate::writable::is_ready;

use line::{HowFar, Line};
use table::Row;

/// A terminal that can show text at its end and replace it: where the live display is drawn. The
/// program provides it, so that this library writes nothing that was not asked for.
pub trait Screen: fmt::Debug + Send + Sync {
    /// What it writes to. While that cannot be written to without waiting, nothing is shown.
    fn fd(&self) -> BorrowedFd<'_>;
    /// The number of lines and of columns.
    fn size(&self) -> (u16, u16);
    /// Shows `text` instead of what it showed before.
    fn show(&self, text: String);
    /// Removes what it shows, lets `write` write to the terminal, and shows it again below.
    fn above(&self, write: &mut dyn FnMut());
    /// Removes what it shows.
    fn clear(&self);
}

/// How often it is drawn.
const REFRESH: Duration = Duration::from_millis(250);

/// The counters at one moment.
#[derive(Debug, Clone)]
struct Reading {
    sample: Sample,
    guest: Vec<CpuCounts>,
}

/// What is drawn.
#[derive(Debug)]
enum Drawn {
    /// The table, with rates since the reading before.
    Table(Reading),
    Line(Line),
}

/// Where to draw what of a run while it goes on.
#[derive(Debug, Clone)]
pub enum Show {
    /// Nothing.
    Nothing,
    /// What each vCPU is doing and how fast, as `--watch` does.
    Table(Arc<dyn Screen>),
    /// One line on how far it is, of a run that takes longer than two seconds.
    Line(Arc<dyn Screen>),
}

/// The live display of one machine.
pub(super) struct Live<'a> {
    threads: &'a VcpuThreads,
    operator: Arc<Operator>,
    meter: Arc<Meter>,
    lab: Lab,
    timer: TimerFd,
    started: Instant,
    drawn: Drawn,
    screen: Arc<dyn Screen>,
}

impl<'a> Live<'a> {
    /// A display of what `show` says; `None` if that is nothing.
    ///
    /// # Errors
    /// The host gives no timer.
    pub fn new(
        show: Show,
        threads: &'a VcpuThreads,
        operator: &Arc<Operator>,
        meter: &Arc<Meter>,
        lab: &Lab,
    ) -> io::Result<Option<Self>> {
        let (screen, drawn) = match show {
            Show::Nothing => return Ok(None),
            Show::Table(screen) => (screen, Drawn::Table(Reading::now(meter, lab))),
            Show::Line(screen) => (screen, Drawn::Line(Line::default())),
        };
        let mut timer = timer()?;
        timer.reset(REFRESH, Some(REFRESH))?;
        Ok(Some(Self {
            threads,
            operator: Arc::clone(operator),
            meter: Arc::clone(meter),
            lab: lab.clone(),
            timer,
            started: Instant::now(),
            drawn,
            screen,
        }))
    }

    /// Readable when it is to be drawn.
    pub fn as_raw_fd(&self) -> RawFd {
        self.timer.as_raw_fd()
    }

    /// Whether it shares the terminal with the output by now.
    pub fn is_shown(&self) -> bool {
        match self.drawn {
            Drawn::Table(_) => true,
            Drawn::Line(_) => self.started.elapsed() >= line::DELAY,
        }
    }

    /// Draws it, and above it the lines that `output` has, if that is a terminal. It is taken to be
    /// the same terminal.
    pub fn refresh(&mut self, output: &mut Output) {
        // How many expirations were missed does not matter.
        let _ = self.timer.wait();
        if !self.is_shown() {
            return;
        }
        let text = self.text();
        if is_ready(self.screen.fd(), Duration::ZERO) {
            if output.is_terminal() && output.has_lines() {
                self.screen.above(&mut || output.write_lines());
            }
            self.screen.show(text);
        }
    }

    fn text(&mut self) -> String {
        let (time, size) = (self.started.elapsed(), self.screen.size());
        match &mut self.drawn {
            Drawn::Line(line) => {
                let online = self.lab.is_told().then(|| self.lab.header().cpus_online);
                let how_far = HowFar::of(&self.lab.totals(), online);
                line.render(&how_far, self.threads.len(), time, size.1)
            }
            Drawn::Table(last) => {
                let now = Reading::now(&self.meter, &self.lab);
                let last = std::mem::replace(last, now.clone());
                let rows: Vec<_> = (0..self.threads.len())
                    .map(|id| self.row(id, &last, &now))
                    .collect();
                table::render(&rows, time, size)
            }
        }
    }

    /// What a vCPU did between two readings.
    fn row(&self, id: u32, last: &Reading, now: &Reading) -> Row {
        let index = id as usize;
        let length = now.sample.at - last.sample.at;
        let length = length.as_secs_f64().max(f64::MIN_POSITIVE);
        // A guest can write anything into its counters; a rate that makes no sense does no harm.
        let rate = |count: &dyn Fn(&Reading) -> Option<u64>| {
            Some(count(now)?.wrapping_sub(count(last)?) as f64 / length)
        };
        let guest = |count: fn(&CpuCounts) -> u64| {
            let counted = rate(&|reading: &Reading| reading.guest.get(index).map(count));
            counted.filter(|_| self.lab.is_told())
        };
        let user = |reading: &Reading| {
            let exits = reading.sample.exits.get(index)?;
            Some(exits.iter().fold(0_u64, |sum, it| sum.wrapping_add(*it)))
        };
        Row {
            id,
            state: self.state(id, now),
            sent: guest(|counted| counted.counts.sent),
            received: guest(|counted| counted.counts.received),
            calls: guest(|counted| counted.tally.calls_made),
            exits: match (self.meter.known_sources()).and_then(|known| status(known, STATS)) {
                Some(Status::Ok) => {
                    rate(&|reading: &Reading| self.kvm(reading, index, STATS)).ok_or("-")
                }
                Some(status) => Err(status.name()),
                None => Err("-"),
            },
            user_exits: rate(&user).unwrap_or(0.0),
        }
    }

    /// The value of KVM's statistic `name` for a vCPU.
    fn kvm(&self, reading: &Reading, index: usize, name: &str) -> Option<u64> {
        let field = self.meter.vcpu_field(name)?;
        field.of(reading.sample.kvm.get(index)?).first().copied()
    }

    fn state(&self, id: u32, now: &Reading) -> String {
        let Ok((state, _)) = self.threads.state(id) else {
            return String::new();
        };
        let held_by = self.threads.held_by(id);
        match (state, held_by) {
            // This statistic of KVM is 1 while a vCPU waits for an interrupt. Older kernels do not
            // have it.
            (State::Running, _) if self.kvm(now, id as usize, "blocking") == Some(1) => {
                "halted".to_owned()
            }
            (State::Stalled(Stall::Held), Some(HeldBy::Point { point, .. })) => {
                let name = self.operator.probe_name(point);
                format!("held at {}", name.unwrap_or("?"))
            }
            (State::Stalled(Stall::Held), Some(HeldBy::Address(address))) => {
                format!("held at {address:#x}")
            }
            (state, _) => state.name().to_owned(),
        }
    }
}

impl Drop for Live<'_> {
    fn drop(&mut self) {
        self.screen.clear();
    }
}

impl Reading {
    fn now(meter: &Meter, lab: &Lab) -> Self {
        Self {
            sample: meter.sample(),
            guest: lab.counted().collect(),
        }
    }
}
