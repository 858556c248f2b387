//! What is told of accesses in a build with the feature `explore`: the image, which stops before
//! each if its monitor wants that, so that the monitor can decide which CPU goes on. How an access
//! is described is said in [`shared::stop`].

use shared::stop::{Access, Kind};

use super::event::Event;

unsafe extern "C" {
    /// Stops before the access that `word` describes ([`Access`]), if the monitor wants that. The
    /// image defines it in assembler: there are many accesses, and a host that emulates them pays
    /// for each instruction.
    safe fn stop_before(word: u64);
}

/// Tells the image.
#[inline(always)]
pub(super) fn tell(event: Event) {
    match event {
        Event::Load(address, bytes) => stop(Kind::Load, address, bytes),
        Event::Store(address, bytes) => stop(Kind::Store, address, bytes),
        Event::Exchange(address) | Event::ReadModifyWrite(address) => {
            stop(Kind::ReadModifyWrite, address, 0);
        }
        Event::Change(address) => stop(Kind::Change, address, 0),
        Event::Mark(address) => stop(Kind::Mark, address, 0),
        Event::Lock(address) => stop(Kind::Lock, address, 0),
        Event::Fence => before_drain(),
    }
}

/// Stops before this CPU disables interrupts: it is the last moment at which it can take one.
#[inline(always)]
pub fn before_irqs_off() {
    stop(Kind::IrqsOff, 0, 0);
}

/// Stops before this CPU drains its store buffer.
#[inline(always)]
pub fn before_drain() {
    stop(Kind::Fence, 0, 0);
}

#[inline(always)]
fn stop(kind: Kind, address: usize, bytes: usize) {
    stop_before(Access::new(kind, address as u64, bytes as u64).word());
}
