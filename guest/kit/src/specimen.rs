//! What a guest is to the kit: it is made on a machine, runs on each of its CPUs, handles its
//! interrupts, and says at the end how the run went.

use core::fmt;

use crate::lab::Lab;
use crate::options::Options;
use crate::platform::{Platform, Vector};

/// A guest, on machines of the kind `P`.
///
/// It reports what goes wrong to the lab ([`Lab::report`]), by the number of the oracle, as
/// declared in its manifest. A run passes if nothing was reported.
pub trait Specimen<P: Platform>: Sized + Sync + 'static {
    /// What it takes on its command line.
    type Options: Options;

    /// The guest that `options` ask for, on the CPUs that `lab` describes.
    fn new(platform: P, options: &Self::Options, lab: Lab) -> Self;

    /// The machine it runs on.
    fn platform(&self) -> &P;

    /// This CPU's part of the run. Every CPU calls it once it has started, with interrupts off. It
    /// returns on each of them, and on exactly one, when the run is over, with [`Part::Over`].
    ///
    /// On a CPU that goes offline it returns [`Part::Left`], with interrupts off. The platform then
    /// parks the CPU. When [`Platform::start_cpu`] has started it again, it calls this again.
    fn run_cpu(&self) -> Part;

    /// The interrupt handler of `vector`, which is one of the guest's or one of the kit's.
    /// Interrupts are off and stay off. [`handler::run`](crate::handler::run) does what every
    /// handler has to do.
    fn handle(&self, vector: Vector);

    /// What to print at the end. It is called once, when [`Specimen::run_cpu`] has returned
    /// [`Part::Over`], and may report what is only known then.
    fn verdict(&self) -> impl fmt::Display;
}

/// How a CPU's part of the run has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Part {
    /// The CPU is offline, with interrupts off, until it is started again.
    Left,
    /// The CPU has nothing more to do but take interrupts.
    Done,
    /// The run is over, and this CPU prints how it went.
    Over,
}

/// What a CPU has to do after a point at which it can be taken offline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Next {
    /// Go on.
    Stay,
    /// Return to the platform to be parked: it is offline.
    Leave,
}

impl From<Next> for Part {
    fn from(next: Next) -> Self {
        match next {
            Next::Stay => Self::Done,
            Next::Leave => Self::Left,
        }
    }
}
