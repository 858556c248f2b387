//! The listener that is told of accesses in a build with the feature `census`: a function, set per
//! thread.

use std::cell::Cell;

use super::event::Event;

std::thread_local! {
    static LISTENER: Cell<fn(Event)> = const { Cell::new(ignore) };
}

pub(super) fn ignore(_: Event) {}

/// From now on tells `listener` of every access of this thread. The listener must not use the
/// atomics of [`witness`](super::witness) itself.
pub fn listen(listener: fn(Event)) {
    LISTENER.set(listener);
}

/// Tells the listener.
pub(super) fn tell(event: Event) {
    LISTENER.get()(event);
}
