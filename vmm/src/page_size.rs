//! The size of a page of guest memory on x86, for all that count memory in pages.

/// Bytes of a page: the smallest that x86 has, and the unit of KVM's dirty log.
pub const PAGE_SIZE: usize = 4096;
