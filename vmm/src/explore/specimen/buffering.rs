//! Which stores wait in store buffers. Follows from the memory model, and from what is known about
//! the memory that CPUs share: a store to a word that no other context can access at the same time
//! takes effect at once, since nobody can tell. Plain data.

use std::collections::BTreeSet;

use crate::explore::memory::Memory;
use crate::explore::sharing::Sharing;

/// Which stores wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Buffering {
    /// None: memory is sequentially consistent.
    Nothing,
    /// Those to these addresses. While a buffer holds anything, the releases of locks wait behind
    /// it as well.
    Addresses(BTreeSet<u64>),
    /// All.
    Everything,
}

impl Buffering {
    /// Before anything is known of the memory that CPUs share. `reduces` says whether the search
    /// passes over accesses that nobody else can meet.
    pub fn new(memory: Memory, reduces: bool) -> Self {
        match memory {
            Memory::SequentiallyConsistent => Self::Nothing,
            Memory::Tso if reduces => Self::Addresses(BTreeSet::new()),
            Memory::Tso => Self::Everything,
        }
    }

    /// Whether a store to `address` waits.
    pub fn holds(&self, address: u64) -> bool {
        match self {
            Self::Nothing => false,
            Self::Addresses(addresses) => addresses.contains(&address),
            Self::Everything => true,
        }
    }

    /// Follows what `sharing` knows by now.
    pub fn follow(&mut self, sharing: &Sharing) {
        if let Self::Addresses(addresses) = self {
            addresses.clone_from(sharing.contended());
        }
    }

    /// Whether `sharing` has learnt of addresses to which stores have to wait, and which are not
    /// among these.
    pub fn is_behind(&self, sharing: &Sharing) -> bool {
        // Knowledge only grows.
        matches!(self, Self::Addresses(addresses) if addresses.len() != sharing.contended().len())
    }

    /// The addresses, ascending, if there are any to name.
    pub fn addresses(&self) -> Vec<u64> {
        match self {
            Self::Addresses(addresses) => addresses.iter().copied().collect(),
            Self::Nothing | Self::Everything => Vec::new(),
        }
    }
}
