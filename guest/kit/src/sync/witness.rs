//! The atomics of `core` with a witness, which is told of every access just before it happens: the
//! address, and the kind of access. Only two builds use them: `census`, on the host, in which a
//! program counts what each queue design costs (`make designs`); and `explore`, on bare metal, in
//! which a monitor decides before each access which CPU goes on ([`stops`](super::stops)).
//!
//! What an access costs, or which others it conflicts with, is up to the witness.

use core::sync::atomic as real;

#[cfg(not(feature = "explore"))]
use super::listener::tell;
#[cfg(feature = "explore")]
use super::stops::tell;

use super::event::Event;

pub use real::Ordering;

/// As [`core::sync::atomic::fence`]. Only a full one is an event: the weaker are no instruction on
/// x86.
#[inline]
pub fn fence(order: Ordering) {
    real::fence(order);
    if order == Ordering::SeqCst {
        tell(Event::Fence);
    }
}

#[inline]
fn tell_store(address: usize, bytes: usize, order: Ordering) {
    tell(if order == Ordering::SeqCst {
        Event::Exchange(address, bytes)
    } else {
        Event::Store(address, bytes)
    });
}

/// Tries to take the lock whose word is `held`.
pub(super) fn take_lock(held: &AtomicU32) -> Result<u32, u32> {
    tell(Event::Lock(held.address()));
    // Acquire pairs with the Release of `release_lock`.
    held.0
        .compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed)
}

/// Releases the lock whose word is `held`.
pub(super) fn release_lock(held: &AtomicU32) {
    tell(Event::Release(held.address()));
    held.0.store(0, Ordering::Release);
}

/// As [`core::sync::atomic::AtomicPtr`].
#[derive(Debug)]
#[repr(transparent)]
pub struct AtomicPtr<T>(real::AtomicPtr<T>);

#[allow(missing_docs, reason = "they are core's")]
impl<T> AtomicPtr<T> {
    #[inline]
    pub fn new(value: *mut T) -> Self {
        Self(real::AtomicPtr::new(value))
    }

    #[inline]
    pub fn load(&self, order: Ordering) -> *mut T {
        tell(Event::Load(
            core::ptr::from_ref(self).addr(),
            size_of::<Self>(),
        ));
        self.0.load(order)
    }

    #[inline]
    pub fn store(&self, value: *mut T, order: Ordering) {
        tell_store(core::ptr::from_ref(self).addr(), size_of::<Self>(), order);
        self.0.store(value, order);
    }
}

/// An integer, with its read-modify-writes that take an operand and return the old value.
macro_rules! integer {
    ($name:ident, $value:ty: $($operation:ident)*) => {
        #[doc = concat!("As [`core::sync::atomic::", stringify!($name), "`].")]
        #[derive(Debug)]
        #[repr(transparent)]
        pub struct $name(real::$name);

        #[allow(missing_docs, reason = "they are core's")]
        impl $name {
            #[inline]
            pub fn new(value: $value) -> Self {
                Self(real::$name::new(value))
            }

            #[inline]
            pub fn load(&self, order: Ordering) -> $value {
                tell(Event::Load(self.address(), size_of::<Self>()));
                self.0.load(order)
            }

            #[inline]
            pub fn store(&self, value: $value, order: Ordering) {
                tell_store(self.address(), size_of::<Self>(), order);
                self.0.store(value, order);
            }

            $(#[inline]
            pub fn $operation(&self, operand: $value, order: Ordering) -> $value {
                tell(Event::ReadModifyWrite(self.address(), size_of::<Self>()));
                self.0.$operation(operand, order)
            })*

            #[inline]
            fn address(&self) -> usize {
                core::ptr::from_ref(self).addr()
            }
        }
    };
}

integer!(AtomicU32, u32: swap fetch_add fetch_sub);
integer!(AtomicU64, u64: swap fetch_add fetch_and fetch_or);

#[allow(missing_docs, reason = "they are core's")]
impl AtomicU32 {
    #[inline]
    pub fn compare_exchange(
        &self,
        current: u32,
        new: u32,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u32, u32> {
        tell(Event::ReadModifyWrite(self.address(), size_of::<Self>()));
        self.0.compare_exchange(current, new, success, failure)
    }

    /// It never fails spuriously, or what is counted would depend on the host.
    #[inline]
    pub fn compare_exchange_weak(
        &self,
        current: u32,
        new: u32,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u32, u32> {
        self.compare_exchange(current, new, success, failure)
    }

    /// The same loop as in `core`, so that each of its accesses is told.
    #[inline]
    pub fn fetch_update(
        &self,
        success: Ordering,
        failure: Ordering,
        mut update: impl FnMut(u32) -> Option<u32>,
    ) -> Result<u32, u32> {
        let mut seen = self.load(failure);
        while let Some(new) = update(seen) {
            match self.compare_exchange_weak(seen, new, success, failure) {
                Ok(before) => return Ok(before),
                Err(now) => seen = now,
            }
        }
        Err(seen)
    }
}

#[cfg(all(test, not(any(loom, shuttle, feature = "explore"))))]
mod tests {
    use super::*;
    use crate::sync::listener::{ignore, listen};
    use std::cell::RefCell;

    std::thread_local! {
        static HEARD: RefCell<Vec<Event>> = const { RefCell::new(Vec::new()) };
    }

    #[test]
    fn every_access_is_told_in_order_and_has_its_effect() {
        let (word, flag) = (AtomicU64::new(5), AtomicU32::new(0));
        listen(|event| HEARD.with_borrow_mut(|heard| heard.push(event)));
        assert_eq!(word.load(Ordering::Relaxed), 5);
        word.store(6, Ordering::Release);
        fence(Ordering::Release);
        fence(Ordering::SeqCst);
        assert_eq!(word.fetch_and(2, Ordering::AcqRel), 6);
        let failed = flag.compare_exchange(1, 2, Ordering::AcqRel, Ordering::Relaxed);
        assert_eq!(failed, Err(0));
        let updated = flag.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |seen| Some(seen + 7));
        assert_eq!(updated, Ok(0));
        flag.store(1, Ordering::SeqCst);
        listen(ignore);
        assert_eq!(word.load(Ordering::Relaxed), 2);
        let (word, flag) = (word.address(), flag.address());
        assert_eq!(
            HEARD.take(),
            [
                Event::Load(word, 8),
                Event::Store(word, 8),
                Event::Fence,
                Event::ReadModifyWrite(word, 8),
                Event::ReadModifyWrite(flag, 4),
                Event::Load(flag, 4),
                Event::ReadModifyWrite(flag, 4),
                Event::Exchange(flag, 4),
            ]
        );
    }
}
