//! Who hears of accesses in a build with the feature `explore`: the image, which stops there if its
//! monitor wants that, so that the monitor can decide who goes on. What an access is to it is said
//! in [`shared::stop`].

use shared::stop::{Access, Kind};

use super::event::Event;

unsafe extern "C" {
    /// Stops before the access that `word` describes ([`Access`]), if the monitor wants that. The
    /// image has it, in assembler: the accesses are many, and whoever emulates them feels each
    /// instruction.
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
        // Between stops one CPU runs at a time, and what it writes is seen at once.
        Event::Fence => {}
    }
}

/// Stops before this CPU disables interrupts: the last moment at which it can take one.
#[inline(always)]
pub fn before_irqs_off() {
    stop(Kind::IrqsOff, 0);
}

#[inline(always)]
fn stop(kind: Kind, address: usize) {
    stop_before(Access::new(kind, address as u64).word());
}
