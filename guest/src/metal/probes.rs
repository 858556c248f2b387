//! Armed probes on bare metal: whether this CPU is to be held here, and the word to the monitor that it has
//! come. What is armed is the monitor's to say, in the lab and in the points themselves.

use core::arch::asm;
use core::ptr;

use guest::platform::Platform;
use shared::ports::{DOORBELL, Doorbell};
use shared::probe::Point;

use super::platform::Metal;

/// This CPU has come to `point`, which is armed for somebody.
#[cold]
#[inline(never)]
pub fn reached(metal: &Metal, point: &'static Point, call: &dyn Fn() -> u64) {
    if !metal.has_doorbell || !metal.lab.is_armed(metal.this_cpu(), index(point)) {
        return;
    }
    let point = ptr::from_ref(point).addr();
    // In registers, since this CPU can be interrupted between two stores and come to another point.
    // SAFETY: the port is the monitor's; it may hold this CPU for long and change its own pages of the
    // lab, of which the block, as one that may touch memory, keeps the compiler from knowing anything.
    unsafe {
        asm!(
            "out dx, eax",
            in("dx") DOORBELL,
            in("eax") Doorbell::Reached as u32,
            in("rdi") point,
            in("rsi") call(),
            options(nostack, preserves_flags),
        );
    }
}

/// The place of `point` among all of the image.
fn index(point: &'static Point) -> usize {
    unsafe extern "C" {
        static probes_start: u8;
    }
    let start = (&raw const probes_start).addr();
    (ptr::from_ref(point).addr() - start) / size_of::<Point>()
}
