//! What the designs differ in: how a walk is counted, and how the end of all of them is waited for.

use core::fmt;

use kit::platform::Platform;
use kit::sync::atomic::{Ordering, fence};

use crate::machine::Machine;

/// How walks are counted, so that their end can be waited for.
pub trait Grace<P: Platform>: fmt::Debug + Send + Sync {
    /// What [`Grace::exit`] must know of the entry.
    type Entry;

    /// This CPU begins a walk. What it does next is ordered after this.
    fn enter(&self, machine: &Machine<P>) -> Self::Entry;

    /// This CPU ends its walk.
    fn exit(&self, machine: &Machine<P>, entry: Self::Entry);

    /// Waits until every walk that had begun when this was called has ended. Interrupts are on, and
    /// this CPU is not inside a walk.
    fn wait(&self, machine: &Machine<P>);

    /// Reports a state that must not be when no CPU walks.
    fn audit(&self, machine: &Machine<P>);
}

/// The fence between the announcement of a walk and its first load from the list, and the same
/// fence between the removal of an element and the loads of the announcements. One of the two CPUs
/// must see the other (store buffering, as in Dekker's algorithm): a store and a later load from
/// another address are what x86 does reorder.
pub(super) fn announce() {
    fence(Ordering::SeqCst);
}
