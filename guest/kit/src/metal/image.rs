//! The guest of an image, as the rest of bare metal sees it: its type, where its interrupts enter,
//! and the one instance that runs.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicPtr, Ordering};

use super::platform::Metal;
use crate::platform::Vector;
use crate::specimen::Specimen;

/// The entry of an interrupt, in assembler: it returns by `iretq`, so that no code may call it.
pub type Entry = extern "C" fn();

/// The guest of an image. [`guest!`](crate::guest!) implements this.
pub trait Image: 'static {
    /// Its type.
    type Guest: Specimen<Metal>;

    /// The entries of the guest's own vectors.
    const ENTRIES: &'static [(Vector, Entry)];

    /// The place of the instance that runs; null until it is made.
    fn place() -> &'static AtomicPtr<Self::Guest>;
}

/// Makes `guest` the instance that handles interrupts from now on.
pub(super) fn install<I: Image>(guest: I::Guest) {
    I::place().store(Box::leak(Box::new(guest)), Ordering::Release);
}

/// The instance, which is installed before any CPU but the first runs, and before the first IPI.
pub(super) fn guest<I: Image>() -> &'static I::Guest {
    // SAFETY: null, or what `install` leaked.
    unsafe { I::place().load(Ordering::Acquire).as_ref() }.expect("the guest is installed first")
}
