//! What a guest's points are armed for: who is to be held where, and which are traced. Writes the
//! arm bits and decides what happens when a CPU comes to a point; the holding itself is the vCPU's
//! own thread's part.

use std::sync::{Mutex, MutexGuard, PoisonError};

use shared::ledger::CallId;
use shared::probe::{Arms, HELD, TRACED};

use crate::lab::Lab;
use crate::machine::points::{Point, Points};

/// When a CPU is to be held at points of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// The name of the points.
    pub name: String,
    /// Only with this call at hand.
    pub call: Option<u64>,
    /// How often the CPU is to come there, the time that it is held included; at least 1.
    pub nth: u64,
}

impl Watch {
    /// The first time that it comes to a point called `name`, whatever call is at hand.
    pub fn at(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            call: None,
            nth: 1,
        }
    }

    /// Only with `call` at hand.
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

/// There is no such point.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the guest image has no probe \"{name}\"; it has {known}")]
pub struct NoSuchPoint {
    name: String,
    known: String,
}

/// A watch, and the points it means by their place in the section.
#[derive(Debug)]
struct ArmedWatch {
    watch: Watch,
    points: Vec<usize>,
}

/// What all points of a machine are armed for.
#[derive(Debug)]
struct ArmedPoints {
    by_cpu: Vec<Vec<ArmedWatch>>,
    /// By their place in the section.
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
    /// No watches yet, on the `points` of an image that uses `lab`.
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

    /// Watches for `cpu`, of which there must be one, to come to a point.
    ///
    /// # Errors
    /// [`NoSuchPoint`] lists those there are.
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
            let name = watch.name;
            return Err(NoSuchPoint { name, known });
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

    /// Has every CPU write into the trace that it comes to a point with one of these names; those
    /// there are.
    pub fn trace(&self, names: &[String]) {
        let mut armed_points = self.armed_points();
        let is_meant = |name: &String| names.contains(name);
        let traced = self.points.iter().filter(|point| is_meant(&point.name));
        armed_points.traced = traced.map(|point| point.index).collect();
        self.points
            .iter()
            .for_each(|point| self.write_point(point, &armed_points));
    }

    /// Watches `cpu` no longer.
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

    /// `cpu` has come to the point at `address`, with `call` at hand. Returns whether it is to be
    /// held there; then the watch that wanted it is over.
    ///
    /// What the guest says is checked: only an armed point holds anybody.
    pub fn reached(&self, cpu: u32, address: u64, call: u64) -> bool {
        let Some(point) = self.points.at(address) else {
            return false;
        };
        let mut armed_points = self.armed_points();
        let Some(armed) = armed_points.by_cpu.get_mut(cpu as usize) else {
            return false;
        };
        let mut is_over = None;
        for (index, ArmedWatch { watch, points }) in armed.iter_mut().enumerate() {
            let meant = points.contains(&point.index) && watch.call.is_none_or(|it| it == call);
            if meant {
                watch.nth = watch.nth.saturating_sub(1);
                if watch.nth == 0 {
                    is_over.get_or_insert(index);
                }
            }
        }
        let Some(index) = is_over else { return false };
        let over = armed.remove(index);
        self.write(cpu, &over.points, &armed_points);
        true
    }

    /// Writes what is armed for `cpu`, and of each of `changed` what it is armed for. In this order
    /// a CPU that comes to a point meanwhile finds its own bit no older than the point's word.
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
