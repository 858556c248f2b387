//! Probes: named steps of the guest's code, at which the host can hold a CPU.
//!
//! [`probe!`](crate::probe!) marks a step. It costs a load of one word and a branch that is not
//! taken. If the host has armed the point, to hold a CPU or to trace, the platform is told. A probe
//! may not change what the code around it does: it takes no lock, does not touch the interrupt
//! flag, and evaluates its arguments only when it is armed. The names are explained in
//! `docs/probes.md`.

use crate::platform::{Platform, Point};

/// Marks a step of the code: `probe!(platform, "queue.visit", call, detail)`. `call` is the raw id
/// of the call at hand, `detail` a further value for the trace. Either is left out where there is
/// none, and evaluated only when the point is armed.
///
/// Where one step concerns several targets, `probe!(platform, "ipi.send", for target in targets =>
/// call, detail)` marks it once for each.
///
/// The name belongs to the step, not to the design: a step that does the same in two designs has
/// the same name in both.
#[macro_export]
macro_rules! probe {
    ($platform:expr, $name:literal, for $item:pat in $items:expr => $call:expr, $detail:expr) => {{
        // SAFETY: the section holds points and nothing else, as its readers expect.
        #[unsafe(link_section = ".probes")]
        static POINT: $crate::platform::Point =
            $crate::platform::Point::new($name, file!(), line!());
        if $crate::probe::is_built($name) && POINT.armed() != 0 {
            for $item in $items {
                $crate::probe::reached(&$platform, &POINT, $call, $detail);
            }
        }
    }};
    ($platform:expr, $name:literal) => {
        $crate::probe!($platform, $name, 0)
    };
    ($platform:expr, $name:literal, $call:expr) => {
        $crate::probe!($platform, $name, $call, 0)
    };
    ($platform:expr, $name:literal, $call:expr, $detail:expr) => {
        $crate::probe!($platform, $name, for () in [()] => $call, $detail)
    };
}

/// Whether the image has the point `name`. Every image has all points, except the one built to
/// measure what unarmed points cost (feature `unprobed`): it has only those with which the bench
/// says what it has measured.
#[doc(hidden)]
pub const fn is_built(name: &str) -> bool {
    !cfg!(feature = "unprobed")
        || matches!(name.as_bytes(), [b'b', b'e', b'n', b'c', b'h', b'.', ..])
}

/// Tells `platform` that this CPU has come to `point`, which is armed.
#[doc(hidden)]
#[cold]
#[inline(never)]
pub fn reached<P: Platform>(platform: &P, point: &'static Point, call: u64, detail: u64) {
    platform.reached(point, call, detail);
}
