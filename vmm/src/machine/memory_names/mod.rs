//! Names of words of guest memory: the static they are reached from, then fields and indices, such
//! as `GUEST.ipi.singles.per_cpu[1].queue.lock.held`. [`types`] reads the guest's statics and types
//! from the image's debug information; [`per_cpu`] finds the copies that each CPU has
//! of some, and [`walk`] follows them through a snapshot of the memory. All this
//! comes from the guest and is not trusted: what makes no sense gets no name.

mod per_cpu;
pub mod types;
pub mod walk;

use types::Types;
use walk::Names;

/// The names of the words in `memory`, by the debug information of `image`. `memory` returns the
/// eight bytes at an address that is a multiple of eight. There are no names if the image has no
/// debug information, or only line tables.
pub fn names(image: &[u8], memory: impl Fn(u64) -> Option<u64>) -> Names {
    let mut types = Types::read(image);
    per_cpu::put_copies(&mut types, image, &memory);
    Names::find(&types, memory)
}
