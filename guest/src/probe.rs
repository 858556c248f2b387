//! Probes: named points at which a monitor can hold a CPU ([`shared::probe`]). Where nobody has armed one it
//! is a load and a branch that is not taken; it takes no part in what it stands beside, and checkers of the
//! portable code do not see it.

/// Marks a step: `probe!(machine.platform, "queue.visit", call)`. What is about to be done has not been
/// begun. The call at hand is an id, or left out where there is none; it is looked at only by a CPU that
/// the probe is armed for.
///
/// Names belong to steps and not to designs: the same step has the same name in all of them.
macro_rules! probe {
    ($platform:expr, $name:literal) => {
        probe!($platform, $name, 0)
    };
    ($platform:expr, $name:literal, $call:expr) => {{
        #[cfg_attr(feature = "image", unsafe(link_section = ".probes"))]
        static POINT: ::shared::probe::Point = ::shared::probe::Point::new($name, file!(), line!());
        if cfg!(feature = "image") && POINT.is_armed() {
            $crate::platform::Platform::reached(&$platform, &POINT, &|| $call);
        }
    }};
}

pub(crate) use probe;
