//! What the designs differ in: how a walk is counted, and how the end of all of them is waited for.

use core::fmt;

use kit::platform::Platform;
use kit::sync::atomic::{Ordering, fence};

use crate::machine::Machine;

/// A way to know that every walk that had begun is over.
pub trait Grace<P: Platform>: fmt::Debug + Send + Sync {
    /// What [`Grace::exit`] must know of the entry.
    type Entry;

    /// This CPU begins a walk. What it does next is ordered behind this.
    fn enter(&self, machine: &Machine<P>) -> Self::Entry;

    /// This CPU ends its walk.
    fn exit(&self, machine: &Machine<P>, entry: Self::Entry);

    /// Waits until every walk that had begun when this was called has ended. Interrupts are on, and
    /// this CPU is not inside a walk.
    fn wait(&self, machine: &Machine<P>);

    /// Reports what must not be when nobody walks.
    fn audit(&self, machine: &Machine<P>);
}

/// The fence after a walk's announcement and before its first look at the list; and its twin
/// between the removal of an element and the look at the announcements. One of the two CPUs must
/// see the other (Dekker): a store and a later load of another place are what x86 does reorder.
pub(super) fn announce() {
    fence(Ordering::SeqCst);
}
