//! What a guest is to the kit: something that is made on a machine, runs on each of its CPUs, takes
//! its interrupts, and says at the end how it went.

use core::fmt;

use crate::lab::Lab;
use crate::options::Options;
use crate::platform::{Platform, Vector};

/// A guest, on machines of the kind `P`.
///
/// What goes wrong it reports to the lab ([`Lab::report`]), by the numbers of the oracles that it
/// declares in its manifest. A run passes if nothing was reported.
pub trait Specimen<P: Platform>: Sized + Sync + 'static {
    /// What it takes on its command line.
    type Options: Options;

    /// The guest that `options` ask for, on every CPU that `lab` describes.
    fn new(platform: P, options: &Self::Options, lab: Lab) -> Self;

    /// The machine it runs on.
    fn platform(&self) -> &P;

    /// This CPU's part of the run, which it begins with interrupts off. Every CPU calls it when it
    /// has started; it returns on each of them, and on one, when all is over, with [`Part::Over`].
    ///
    /// With [`Part::Left`] it returns on a CPU that goes offline, with interrupts off. The platform
    /// parks the CPU, and has it call this again when [`Platform::start_cpu`] has started it.
    fn run_cpu(&self) -> Part;

    /// The interrupt handler of `vector`, one of the guest's or the kit's own. Interrupts are off
    /// and stay off. [`handler::run`](crate::handler::run) does what every handler has to.
    fn handle(&self, vector: Vector);

    /// What there is to say at the end, once, when [`Specimen::run_cpu`] has returned with
    /// [`Part::Over`]. It may report what is only known then.
    fn verdict(&self) -> impl fmt::Display;
}

/// What a CPU has to do when its part of the run has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Part {
    /// Nothing: it is offline, interrupts off, until it is started again.
    Left,
    /// Nothing but take interrupts.
    Done,
    /// The run is over, and this CPU, of all, says how it went.
    Over,
}

/// What a CPU has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Fate {
    /// Go on.
    Stay,
    /// Nothing: it is offline, and returns to the platform to be parked.
    Leave,
}

impl From<Fate> for Part {
    fn from(fate: Fate) -> Self {
        match fate {
            Fate::Stay => Self::Done,
            Fate::Leave => Self::Left,
        }
    }
}
