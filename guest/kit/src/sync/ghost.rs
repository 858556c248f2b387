//! Ghost state: what the oracles record besides the protocol, in `core`'s atomics, because it must
//! not count as one of the protocol's accesses. When orders are explored, the order of these
//! accesses matters too, since an oracle sees something else if it looks before or after a change.
//! So each is announced here. In every other build this does nothing.

#[cfg(feature = "explore")]
use super::{event::Event, stops::tell};

/// An oracle is about to read `place`.
#[inline(always)]
pub fn reads<T>(place: &T) {
    #[cfg(feature = "explore")]
    // Ghost state is in no store buffer, so that it does not matter how much is read.
    tell(Event::Load(core::ptr::from_ref(place).addr(), 1));
    let _ = place;
}

/// An oracle's record at `place` is about to change.
#[inline(always)]
pub fn changes<T>(place: &T) {
    #[cfg(feature = "explore")]
    tell(Event::Change(core::ptr::from_ref(place).addr()));
    let _ = place;
}

/// An oracle's record at `place` is about to change, in a way that commutes with other such
/// changes.
#[inline(always)]
pub fn marks<T>(place: &T) {
    #[cfg(feature = "explore")]
    tell(Event::Mark(core::ptr::from_ref(place).addr()));
    let _ = place;
}
