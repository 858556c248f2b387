//! The live table of `--watch`: what each vCPU is doing, and how fast. Everything in it comes from counters that
//! are kept anyway; it asks nothing of any vCPU or guest, and costs a look at memory four times a second.

mod screen;
mod table;

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vmm_sys_util::timerfd::TimerFd;

use super::operator::Operator;
use super::output::Output;
use crate::lab::{Counted, Lab};
use crate::machine::holding::HeldBy;
use crate::machine::lifecycle::{Stall, State};
use crate::machine::threads::Crew;
use crate::stats::sources::{STATS, Status, status};
use crate::stats::window::{Meter, Sample};

use screen::Screen;
use table::Row;

/// How often the table is drawn.
const REFRESH: Duration = Duration::from_millis(250);

/// What the counters said at one moment.
struct Seen {
    sample: Sample,
    guest: Vec<Counted>,
}

/// The live table of one machine.
pub(super) struct Live<'a> {
    crew: &'a Crew,
    operator: Arc<Operator>,
    meter: Arc<Meter>,
    lab: Lab,
    timer: TimerFd,
    started: Instant,
    last: Seen,
    screen: Screen,
}

impl<'a> Live<'a> {
    /// A table of the vCPUs of `crew` on standard error.
    ///
    /// # Errors
    /// The host gives no timer.
    pub fn new(
        crew: &'a Crew,
        operator: &Arc<Operator>,
        meter: &Arc<Meter>,
        lab: &Lab,
    ) -> io::Result<Self> {
        let mut timer = TimerFd::new()?;
        timer.reset(REFRESH, Some(REFRESH))?;
        Ok(Self {
            crew,
            operator: Arc::clone(operator),
            meter: Arc::clone(meter),
            lab: lab.clone(),
            timer,
            started: Instant::now(),
            last: Seen::now(meter, lab),
            screen: Screen::default(),
        })
    }

    /// Readable when the table is to be drawn.
    pub fn as_raw_fd(&self) -> RawFd {
        self.timer.as_raw_fd()
    }

    /// Draws the table anew, and above it the lines that `output` holds if it is a terminal.
    pub fn refresh(&mut self, output: &mut Output) {
        // How many times were missed does not matter.
        let _ = self.timer.wait();
        let now = Seen::now(&self.meter, &self.lab);
        let rows: Vec<_> = (0..self.crew.len()).map(|id| self.row(id, &now)).collect();
        let time = self.started.elapsed();
        self.screen
            .draw(output, |size| table::render(&rows, time, size));
        self.last = now;
    }

    fn row(&self, id: u32, now: &Seen) -> Row {
        let index = id as usize;
        let length = now.sample.at - self.last.sample.at;
        let length = length.as_secs_f64().max(f64::MIN_POSITIVE);
        // A guest can write what it likes into its counters; a rate that makes no sense does no harm.
        let rate = |count: &dyn Fn(&Seen) -> Option<u64>| {
            Some(count(now)?.wrapping_sub(count(&self.last)?) as f64 / length)
        };
        let guest = |count: fn(&Counted) -> u64| {
            rate(&|seen: &Seen| seen.guest.get(index).map(count)).unwrap_or(0.0)
        };
        let user = |seen: &Seen| {
            let exits = seen.sample.exits.get(index)?;
            Some(exits.iter().fold(0_u64, |sum, it| sum.wrapping_add(*it)))
        };
        Row {
            id,
            state: self.state(id, now),
            sent: guest(|counted| counted.counts.sent),
            received: guest(|counted| counted.counts.received),
            calls: guest(|counted| counted.tally.calls_made),
            exits: match status(self.meter.sources(), STATS) {
                Some(Status::Ok) => rate(&|seen: &Seen| self.kvm(seen, index, STATS)).ok_or("-"),
                Some(status) => Err(status.name()),
                None => Err("-"),
            },
            user_exits: rate(&user).unwrap_or(0.0),
        }
    }

    /// What KVM counts as `name` of a vCPU.
    fn kvm(&self, seen: &Seen, index: usize, name: &str) -> Option<u64> {
        let field = self.meter.vcpu_field(name)?;
        field.of(seen.sample.kvm.get(index)?).first().copied()
    }

    fn state(&self, id: u32, now: &Seen) -> String {
        let Ok((state, _)) = self.crew.state(id) else {
            return String::new();
        };
        let held_by = self.crew.held_by(id);
        match (state, held_by) {
            // KVM says so of one that waits for an interrupt, where it knows this statistic.
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

impl Seen {
    fn now(meter: &Meter, lab: &Lab) -> Self {
        Self {
            sample: meter.sample(),
            guest: lab.counted().collect(),
        }
    }
}
