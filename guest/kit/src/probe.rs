//! Probes: the named steps of the path, at which a host can hold a CPU.
//!
//! [`probe!`](crate::probe!) marks a step. It costs a look at one word of memory and a branch that
//! is not taken, unless a host has armed the point, to hold a CPU or to trace; then the platform is
//! told. A probe may not change what the code around it does: it takes no lock, touches no
//! interrupt flag, and what it says of the call at hand is looked up only when it is armed. The
//! names are explained in `docs/probes.md`.

use crate::platform::{Platform, Point};

/// Marks a step of the code: `probe!(platform, "queue.visit", call, detail)`. `call` is the raw id
/// of the call at hand, `detail` what a trace is to say beside it; both are left out where there is
/// none, and evaluated only when the point is armed.
///
/// Where one step is towards several,
/// `probe!(platform, "ipi.send", for target in targets => call, detail)` marks it once for each.
///
/// The name belongs to the step, not to the design: what does the same in two of them has the same
/// name.
#[macro_export]
macro_rules! probe {
    ($platform:expr, $name:literal, for $item:pat in $items:expr => $call:expr, $detail:expr) => {{
        // SAFETY: the section holds points and nothing else, as whoever reads it expects.
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

/// Whether the image has the point `name`: all have all, but the one that shows what points cost
/// that nobody has armed. That keeps those of the bench, by which it says what it has measured.
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
