//! What every interrupt handler does besides its own work: it counts that it was entered, and
//! passes a point when it begins and one when it ends.

use shared::manifest::PointRole;

use crate::declare;
use crate::lab::Lab;
use crate::manifest::Record;
use crate::platform::{Platform, Vector};
use crate::probe;

declare! {
    Record::point("irq.enter", PointRole::HandlerBegin),
    Record::point("irq.exit", PointRole::HandlerEnd),
}

/// Runs `body` as the handler of `vector` on this CPU, and counts it.
#[inline(always)]
pub fn run<P: Platform>(platform: &P, lab: &Lab, vector: Vector, body: impl FnOnce()) {
    probe!(*platform, "irq.enter", 0, u64::from(vector.number()));
    (lab.counters(platform.this_cpu())).count_received(vector);
    body();
    probe!(*platform, "irq.exit", 0, u64::from(vector.number()));
}
