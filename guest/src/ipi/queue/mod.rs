//! The designs that carry calls to many CPUs, each in a file of its own, behind one interface.
//!
//! A design decides where a call is kept, who may reuse it when, and how a CPU that walks the queue
//! is kept from losing its way. Everything it shares with the others is outside.

mod locked;

use alloc::boxed::Box;

use super::csd::Call;
use super::list::End;
use crate::machine::Machine;
use crate::platform::Platform;
use crate::sync::mask::CpuMask;
use locked::Locked;

/// A design that carries calls to many.
pub trait ManyQueue<P: Platform>: Send + Sync {
    /// Has every other online CPU of `mask` run `call`; see [`super::Ipi::call_many`]. Interrupts
    /// are on.
    fn call(&self, machine: &Machine<P>, mask: &CpuMask, call: Call, wait: bool);

    /// The handler of [`Vector::Many`](crate::platform::Vector::Many), interrupts off: gives `run`
    /// every call that waits for this CPU, and returns how many there were.
    fn handle(&self, machine: &Machine<P>, run: &dyn Fn(Call)) -> usize;

    /// Reports whatever is not as it must be when nothing is in flight.
    fn audit(&self, machine: &Machine<P>);
}

/// The designs by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueKind {
    /// Per-CPU elements, inserted at the head, each with a lock: Linux 2.6.30.
    Filo,
}

impl QueueKind {
    /// Every design.
    pub const ALL: [Self; 1] = [Self::Filo];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Filo => "filo",
        }
    }

    /// The design of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The design, for a machine of `cpus` CPUs.
    pub fn build<P: Platform>(self, cpus: usize) -> Box<dyn ManyQueue<P>> {
        match self {
            Self::Filo => Box::new(Locked::new(cpus, End::Head)),
        }
    }
}
