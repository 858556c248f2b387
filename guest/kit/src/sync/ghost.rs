//! Ghost state: what the oracles keep beside the protocol, in `core`'s atomics, because it must not
//! count as one of the protocol's accesses. Its order matters all the same to whoever explores
//! orders: an oracle that looks before something happens, or after, sees something else. So an
//! access to it is said here, and is nothing in every other build.

#[cfg(feature = "explore")]
use super::{event::Event, stops::tell};

/// An oracle is about to read `place`.
#[inline(always)]
pub fn reads<T>(place: &T) {
    #[cfg(feature = "explore")]
    tell(Event::Load(core::ptr::from_ref(place).addr()));
    let _ = place;
}

/// An oracle's record at `place` is about to change.
#[inline(always)]
pub fn changes<T>(place: &T) {
    #[cfg(feature = "explore")]
    tell(Event::ReadModifyWrite(core::ptr::from_ref(place).addr()));
    let _ = place;
}

/// An oracle's record at `place` is about to change, in a way that does not depend on other such
/// changes.
#[inline(always)]
pub fn marks<T>(place: &T) {
    #[cfg(feature = "explore")]
    tell(Event::Mark(core::ptr::from_ref(place).addr()));
    let _ = place;
}
