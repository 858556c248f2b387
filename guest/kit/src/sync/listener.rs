//! Who hears of accesses in a build with the feature `census`: a function of the thread they happen
//! on.

use std::cell::Cell;

use super::event::Event;

std::thread_local! {
    static LISTENER: Cell<fn(Event)> = const { Cell::new(ignore) };
}

pub(super) fn ignore(_: Event) {}

/// Has `listener` hear of everything this thread does from here on. It must not use the atomics of
/// [`witness`](super::witness) itself.
pub fn listen(listener: fn(Event)) {
    LISTENER.set(listener);
}

/// Tells the listener.
pub(super) fn tell(event: Event) {
    LISTENER.get()(event);
}
