//! The interface of the designs that carry calls to many CPUs.

use kit::platform::Platform;
use kit::sync::mask::{CpuMask, Targets};

use crate::ipi::csd::Call;
use crate::ipi::notifier::Notifier;
use crate::machine::Machine;

/// A design that carries calls to many.
pub trait ManyQueue<P: Platform>: Notifier<P> + Send + Sync {
    /// Has every other online CPU of `mask` run `call`, and returns those; see
    /// [`Ipi::call_many`](crate::ipi::Ipi::call_many). Interrupts are on.
    fn call(&self, machine: &Machine<P>, mask: &dyn Targets, call: Call, wait: bool) -> CpuMask;

    /// The handler of [`MANY`](crate::vectors::MANY), interrupts off: gives `run`
    /// every call that waits for this CPU, and returns how many there were.
    fn handle(&self, machine: &Machine<P>, run: &dyn Fn(Call)) -> usize;

    /// Reads which elements are on the global queue, from the head on, into `found` as far as there
    /// is room, and returns how many there are. An element is given by the CPU that owns it, or by
    /// its number where none does. `None` if the design has no global queue. See
    /// [`ElementList::read`](super::list::ElementList).
    fn read(&self, found: &mut [usize]) -> Option<usize>;

    /// Whether so much memory waits for its grace period that a caller which can wait for one
    /// should do so before it calls.
    fn is_short_of_memory(&self) -> bool {
        false
    }

    /// Reports a state that must not be when nothing is in flight.
    fn audit(&self, machine: &Machine<P>);
}
