//! Collects a trace while the machine runs: turns it on and off, and empties the guest's rings
//! before they are full. Does not interpret the records.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::manifest::PointRole;
use shared::trace::Record;
use vmm_sys_util::timerfd::TimerFd;

use super::timer::timer;
use crate::lab::Lab;
use crate::lab::rings::Rings;
use crate::machine::Machine;
use crate::machine::clock;
use crate::machine::journal::Journal;
use crate::machine::points::Points;
use crate::manifest::Manifest;
use crate::stats::marks::{Mark, Marks};
use crate::stats::meaning::{self, Meanings};
use crate::stats::trace::{RawCpuTrace, Trace};

/// How often the rings are emptied. A CPU that does nothing but trace takes about ten times as long
/// to fill a ring of 4,096 records.
const EMPTYING: Duration = Duration::from_millis(2);

/// Most records that are kept in all, which is 128 MiB; later ones are only counted.
const MOST: usize = 1 << 22;

/// What is traced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tracing {
    /// What a time line needs: the guest's lanes, handlers, IPIs, and what the host records.
    pub timeline: bool,
    /// How long each round of a benchmark took, or its loop.
    pub rounds: bool,
}

impl Tracing {
    /// Nothing.
    pub const NOTHING: Self = Self {
        timeline: false,
        rounds: false,
    };

    /// Those of the points of an image that are traced.
    fn points(self, all: &[String], manifest: &Manifest) -> Vec<String> {
        let timeline = (self.timeline).then(|| meaning::of_timeline(all, manifest));
        let of_rounds = [PointRole::Round, PointRole::Delivered, PointRole::Total];
        let of_rounds = of_rounds.into_iter().filter(|_| self.rounds);
        let rounds = of_rounds.flat_map(|role| manifest.points_of(role).map(str::to_owned));
        timeline.into_iter().flatten().chain(rounds).collect()
    }
}

/// What has been collected.
#[derive(Debug)]
struct Collected {
    is_on: bool,
    rings: Rings,
    records: Vec<Vec<Record>>,
    kept: usize,
    /// By CPU, the number of records for which there was no room.
    lost: Vec<u64>,
}

/// The trace of one machine.
#[derive(Debug)]
pub(in crate::control) struct Tracer {
    tracing: Tracing,
    collected: Mutex<Collected>,
    timer: Mutex<TimerFd>,
    journals: Vec<Arc<Journal>>,
    offsets: Vec<Result<u64, String>>,
    points: Vec<String>,
    meanings: Meanings,
    /// The points that are traced.
    traced: Vec<String>,
    tsc_khz: u32,
}

impl Tracer {
    /// A tracer of `tracing` for `machine`, which has not run yet. It is off.
    ///
    /// # Errors
    /// The host gives no timer.
    pub fn new(tracing: Tracing, machine: &Machine, lab: Lab, points: &Points) -> io::Result<Self> {
        let offset = |vcpu: &crate::machine::vcpu::Vcpu| {
            clock::offset(vcpu.fd()).map_err(|error| {
                format!("KVM does not say how far the guest's TSC is away: {error}")
            })
        };
        let cpus = machine.vcpus.len();
        let first = machine.vcpus.first();
        let points: Vec<_> = points.iter().map(|point| point.name.clone()).collect();
        let meanings = Meanings::new(&points, lab.manifest());
        let traced = tracing.points(&points, lab.manifest());
        Ok(Self {
            tracing,
            collected: Mutex::new(Collected {
                is_on: false,
                rings: Rings::new(lab),
                records: vec![Vec::new(); cpus],
                kept: 0,
                lost: vec![0; cpus],
            }),
            timer: Mutex::new(timer()?),
            journals: machine
                .vcpus
                .iter()
                .map(|vcpu| Arc::clone(vcpu.journal()))
                .collect(),
            offsets: machine.vcpus.iter().map(offset).collect(),
            points,
            meanings,
            traced,
            tsc_khz: first
                .and_then(|vcpu| vcpu.fd().get_tsc_khz().ok())
                .unwrap_or(0),
        })
    }

    /// Whether it traces what a time line shows.
    pub fn is_of_timeline(&self) -> bool {
        self.tracing.timeline
    }

    /// What was done, with times of the guest's TSC; nothing, if it is not known how far that is
    /// away.
    pub fn place(&self, marks: Marks) -> Marks {
        let Some(Ok(offset)) = self.offsets.first() else {
            return Marks::default();
        };
        let guest = |host: u64| host.wrapping_add(*offset);
        let list = marks.list.into_iter().map(|mark| Mark {
            from: guest(mark.from),
            to: guest(mark.to),
            ..mark
        });
        Marks {
            list: list.collect(),
            ..marks
        }
    }

    /// The points that are to be armed when it is on.
    pub fn points_when_on(&self) -> &[String] {
        &self.traced
    }

    /// Readable when the rings are to be emptied.
    pub fn as_raw_fd(&self) -> RawFd {
        self.timer().as_raw_fd()
    }

    /// Turns collecting on or off. Arming the guest's points is the caller's part.
    pub fn turn(&self, on: bool) {
        self.collected().is_on = on;
        for journal in &self.journals {
            journal.record(on && self.tracing.timeline);
        }
        let mut timer = self.timer();
        // Setting an existing timer does not fail.
        let _ = if on {
            timer.reset(EMPTYING, Some(EMPTYING))
        } else {
            timer.clear()
        };
    }

    /// The timer has expired: empties the rings.
    pub fn tick(&self) {
        let _ = self.timer().wait();
        self.collected().empty(Rings::take);
    }

    /// The trace. To be called once no vCPU runs any more.
    pub fn trace(&self) -> Trace {
        let mut collected = self.collected();
        collected.empty(Rings::take_last);
        let Collected {
            rings,
            records,
            lost,
            ..
        } = &mut *collected;
        let raw = (0_u32..)
            .zip(records.iter_mut())
            .zip(lost)
            .zip(self.journals.iter().zip(&self.offsets))
            .map(|(((cpu, records), lost), (journal, offset))| RawCpuTrace {
                records: std::mem::take(records),
                dropped: rings.dropped(cpu).saturating_add(*lost),
                journal: journal.take(),
                offset: offset.clone(),
            });
        let (points, meanings) = (self.points.clone(), self.meanings.clone());
        Trace::new(raw.collect(), points, meanings, self.tsc_khz)
    }

    fn collected(&self) -> MutexGuard<'_, Collected> {
        self.collected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn timer(&self) -> MutexGuard<'_, TimerFd> {
        self.timer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collected {
    fn empty(&mut self, take: impl Fn(&mut Rings, u32, &mut Vec<Record>)) {
        for (cpu, records) in (0..).zip(&mut self.records) {
            let before = records.len();
            take(&mut self.rings, cpu, records);
            let room = MOST - self.kept;
            let came = records.len() - before;
            if came > room {
                records.truncate(before + room);
                self.lost[cpu as usize] += (came - room) as u64;
            }
            self.kept += came.min(room);
        }
    }
}
