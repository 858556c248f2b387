//! Words of guest memory by name: the static they hang from, then fields and indices, such as
//! `GUEST.ipi.singles.per_cpu[1].queue.lock.held`. [`types`] reads from the image's debug
//! information what the guest's memory is made of, [`walk`] follows that through a photograph of
//! the memory. Both are the guest's, and neither is trusted: what makes no sense has no name.

pub mod types;
pub mod walk;

use types::Types;
use walk::Names;

/// The names of the words in `memory`, which gives the eight bytes at an address that is a multiple
/// of eight, by the debug information of `image`; none if it has none, or only line tables.
pub fn names(image: &[u8], memory: impl Fn(u64) -> Option<u64>) -> Names {
    Names::find(&Types::read(image), memory)
}
