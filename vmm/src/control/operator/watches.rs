//! What the points of a guest are armed for: which CPUs are to be held at which points, and which
//! points are traced. Writes the arm bits, and decides whether a CPU that comes to a point is held;
//! the vCPU's own thread holds it.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use shared::ledger::CallId;
use shared::probe::{Arms, HELD, TRACED};

use crate::closest::did_you_mean;
use crate::lab::Lab;
use crate::lab::call_name::CallName;
use crate::machine::points::{Point, Points};

/// When a CPU is to be held at points of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// The name of the points.
    pub name: String,
    /// Only with this call as the current one.
    pub call: Option<u64>,
    /// At which time that the CPU comes there it is held, from 1.
    pub nth: u64,
}

impl Watch {
    /// The first time that it comes to a point called `name`, with any call.
    pub fn at(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            call: None,
            nth: 1,
        }
    }

    /// Only with `call` as the current one.
    #[must_use]
    pub fn with_call(self, call: CallId) -> Self {
        Self {
            call: Some(call.raw()),
            ..self
        }
    }

    /// Not before the `nth` time, from 1.
    #[must_use]
    pub fn nth(self, nth: u64) -> Self {
        Self { nth, ..self }
    }
}

/// Counts a passage for each of the watches that are meant, and returns the place of the first of
/// which it was the last.
pub(super) fn first_over<'a>(meant: impl Iterator<Item = Option<&'a mut Watch>>) -> Option<usize> {
    let mut first = None;
    for (index, watch) in meant.enumerate() {
        let Some(watch) = watch else { continue };
        watch.nth = watch.nth.saturating_sub(1);
        if watch.nth == 0 {
            first.get_or_insert(index);
        }
    }
    first
}

/// As the place at which a CPU is held: `queue.visit, time 2, with call 0:0:1`.
impl fmt::Display for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if self.nth > 1 {
            write!(f, ", time {}", self.nth)?;
        }
        match self.call {
            Some(call) => write!(f, ", with {}", CallName(CallId::from_raw(call))),
            None => Ok(()),
        }
    }
}

/// There is no such point.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the guest image has no probe \"{name}\"; it has {known}{guess}")]
pub struct NoSuchPoint {
    name: String,
    known: String,
    guess: String,
}

/// A watch with its points, as places in the image's section.
#[derive(Debug)]
struct ArmedWatch {
    watch: Watch,
    points: Vec<usize>,
}

/// What the points of a machine are armed for.
#[derive(Debug)]
struct ArmedPoints {
    by_cpu: Vec<Vec<ArmedWatch>>,
    /// The traced points, as places in the section.
    traced: Vec<usize>,
}

/// The watches of one machine.
#[derive(Debug)]
pub(in crate::control) struct Watches {
    points: Points,
    lab: Lab,
    armed_points: Mutex<ArmedPoints>,
}

impl Watches {
    /// No watches yet, for the `points` of the image that uses `lab`.
    pub fn new(points: Points, lab: Lab) -> Self {
        let by_cpu = (0..lab.cpus()).map(|_| Vec::new()).collect();
        let traced = Vec::new();
        Self {
            points,
            lab,
            armed_points: Mutex::new(ArmedPoints { by_cpu, traced }),
        }
    }

    /// The points there are.
    pub fn points(&self) -> &Points {
        &self.points
    }

    /// Adds a watch for `cpu`, which must exist.
    ///
    /// # Errors
    /// [`NoSuchPoint`] lists the points there are.
    pub fn arm(&self, cpu: u32, watch: Watch) -> Result<(), NoSuchPoint> {
        let points: Vec<_> = self.points.named(&watch.name).map(|it| it.index).collect();
        if points.is_empty() {
            let mut names: Vec<_> = self.points.iter().map(|point| &*point.name).collect();
            names.sort_unstable();
            names.dedup();
            let known = match names.join(", ") {
                none if none.is_empty() => "none".to_owned(),
                some => some,
            };
            let guess = did_you_mean(&watch.name, names);
            let name = watch.name;
            return Err(NoSuchPoint { name, known, guess });
        }
        let mut armed_points = self.armed_points();
        if let Some(armed) = armed_points.by_cpu.get_mut(cpu as usize) {
            armed.push(ArmedWatch {
                watch,
                points: points.clone(),
            });
        }
        self.write(cpu, &points, &armed_points);
        Ok(())
    }

    /// What `cpu` is armed for.
    pub fn armed(&self, cpu: u32) -> Vec<Watch> {
        let armed_points = self.armed_points();
        let armed = armed_points.by_cpu.get(cpu as usize);
        armed
            .into_iter()
            .flatten()
            .map(|armed| armed.watch.clone())
            .collect()
    }

    /// Traces the points with these names on every CPU, and no others. Names without a point are
    /// ignored.
    pub fn trace(&self, names: &[String]) {
        let mut armed_points = self.armed_points();
        let is_meant = |name: &String| names.contains(name);
        let traced = self.points.iter().filter(|point| is_meant(&point.name));
        armed_points.traced = traced.map(|point| point.index).collect();
        self.points
            .iter()
            .for_each(|point| self.write_point(point, &armed_points));
    }

    /// Removes all watches of `cpu`.
    pub fn disarm(&self, cpu: u32) {
        let mut armed_points = self.armed_points();
        let Some(armed) = armed_points.by_cpu.get_mut(cpu as usize) else {
            return;
        };
        let points: Vec<_> = std::mem::take(armed)
            .into_iter()
            .flat_map(|armed| armed.points)
            .collect();
        self.write(cpu, &points, &armed_points);
    }

    /// Handles that `cpu` has come to the point at `address`, with `call` as the current one.
    /// Returns whether the CPU is to be held there; the watch that says so is removed then.
    ///
    /// What the guest says is checked: a CPU is held only at a point that is armed for it.
    pub fn reached(&self, cpu: u32, address: u64, call: u64) -> bool {
        let Some(point) = self.points.at(address) else {
            return false;
        };
        let mut armed_points = self.armed_points();
        let Some(armed) = armed_points.by_cpu.get_mut(cpu as usize) else {
            return false;
        };
        let meant = armed.iter_mut().map(|ArmedWatch { watch, points }| {
            let is_meant = points.contains(&point.index);
            (is_meant && watch.call.is_none_or(|it| it == call)).then_some(watch)
        });
        let Some(index) = first_over(meant) else {
            return false;
        };
        let over = armed.remove(index);
        self.write(cpu, &over.points, &armed_points);
        true
    }

    /// Writes the arm bits of `cpu`, and then the words of the points in `changed`. In this order,
    /// a CPU that comes to a point meanwhile never finds its own bit older than the point's word.
    fn write(&self, cpu: u32, changed: &[usize], armed_points: &ArmedPoints) {
        let mut arms = Arms::default();
        for point in armed_points
            .by_cpu
            .get(cpu as usize)
            .into_iter()
            .flatten()
            .flat_map(|armed| &armed.points)
        {
            if let Some(word) = arms.get_mut(point / 64) {
                *word |= 1 << (point % 64);
            }
        }
        self.lab.arm(cpu, &arms);
        let changed = self.points.iter().filter(|it| changed.contains(&it.index));
        changed.for_each(|point| self.write_point(point, armed_points));
    }

    fn write_point(&self, point: &Point, armed_points: &ArmedPoints) {
        let mut held = armed_points.by_cpu.iter().flatten();
        let is_held = held.any(|armed| armed.points.contains(&point.index));
        let is_traced = armed_points.traced.contains(&point.index);
        let bit = |is_set, bit| if is_set { bit } else { 0 };
        let armed = bit(is_held, HELD) | bit(is_traced, TRACED);
        self.lab.arm_point(point.armed_address(), armed);
    }

    fn armed_points(&self) -> MutexGuard<'_, ArmedPoints> {
        self.armed_points
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
