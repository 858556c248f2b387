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
        Event::Load(address) => stop(Kind::Load, address),
        Event::Store(address) => stop(Kind::Store, address),
        Event::ReadModifyWrite(address) => stop(Kind::ReadModifyWrite, address),
        Event::Mark(address) => stop(Kind::Mark, address),
        Event::Lock(address) => stop(Kind::Lock, address),
        // Between stops only one CPU runs, and what it writes is visible at once.
        Event::Fence => {}
    }
}

/// Stops before this CPU disables interrupts: it is the last moment at which it can take one.
#[inline(always)]
pub fn before_irqs_off() {
    stop(Kind::IrqsOff, 0);
}

#[inline(always)]
fn stop(kind: Kind, address: usize) {
    stop_before(Access::new(kind, address as u64).word());
}
