//! The designs that carry calls to many CPUs, each in a file of its own, behind one interface.
//!
//! A design decides where a call is kept, when its memory may be reused, and how a CPU that walks
//! the queue is kept from missing a call. Everything that the designs share is elsewhere.

pub(crate) mod grace;
mod kmalloc;
mod llist;
mod locked;
pub(crate) mod lockless;
mod many_queue;

use alloc::boxed::Box;
use alloc::sync::Arc;

use kit::declare;
use kit::declare_values;
use kit::manifest::Record;
use kit::platform::Platform;
use shared::manifest::{Measure, PointRole};

use super::list::End;
use super::single::Singles;
use grace::{Counters, CountingRcu, Graced, SharedRefs};
use kmalloc::Kmalloc;
use llist::Llist;
use locked::Locked;
use lockless::{Lockless, Stage};
pub use many_queue::ManyQueue;

declare! {
    Record::point("queue.run", PointRole::Run),
    Record::word("queue", "The design that carries calls to many.").measured_as(Measure::Design),
}
declare_values!("queue", QueueKind, BROKEN if is_broken);

/// The designs by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueKind {
    /// Elements on the heap, freed after a grace period: Linux 2.6.27 and 2.6.28. Broken when there
    /// is no memory.
    Kmalloc,
    /// Per-CPU elements with a lock, inserted at the tail. Broken on purpose: loses calls.
    Fifo,
    /// Per-CPU elements with a lock, inserted at the head: Linux 2.6.30.
    Filo,
    /// Tail insertion; reuse after every CPU's own counter of walks has moved.
    Counters,
    /// As `Counters`, without the fence when a walk begins. Broken on purpose.
    CountersNofence,
    /// Tail insertion; reuse after counters that CPUs share have run dry.
    SharedRefs,
    /// As `SharedRefs`, without the bias. Broken on purpose.
    SharedRefsNaive,
    /// Tail insertion; reuse after one global counter was seen at zero.
    CountingRcu,
    /// Per-CPU elements without a lock: Linux 2.6.32. Broken, as it was.
    Lockless,
    /// As `Lockless`, with the repair of Linux 2.6.38. Broken, as it was.
    Lockless2011a,
    /// As `Lockless`, with all repairs: Linux 2.6.39.
    Fixed2011,
    /// A descriptor per pair of CPUs, a lock-free list per target: Linux 3.13 and on.
    Llist,
}

impl QueueKind {
    /// Every design.
    pub const ALL: [Self; 12] = [
        Self::Kmalloc,
        Self::Fifo,
        Self::Filo,
        Self::Counters,
        Self::CountersNofence,
        Self::SharedRefs,
        Self::SharedRefsNaive,
        Self::CountingRcu,
        Self::Lockless,
        Self::Lockless2011a,
        Self::Fixed2011,
        Self::Llist,
    ];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kmalloc => "kmalloc",
            Self::Fifo => "fifo",
            Self::Filo => "filo",
            Self::Counters => "counters",
            Self::CountersNofence => "counters-nofence",
            Self::SharedRefs => "shared-refs",
            Self::SharedRefsNaive => "shared-refs-naive",
            Self::CountingRcu => "counting-rcu",
            Self::Lockless => "lockless",
            Self::Lockless2011a => "lockless-2011a",
            Self::Fixed2011 => "fixed-2011",
            Self::Llist => "llist",
        }
    }

    /// Whether the design is kept for what is wrong with it.
    pub const fn is_broken(self) -> bool {
        matches!(
            self,
            Self::Fifo
                | Self::CountersNofence
                | Self::SharedRefsNaive
                | Self::Lockless
                | Self::Lockless2011a
        )
    }

    /// Whether calls to one CPU, too, take their descriptors from the heap.
    pub fn allocates_singles(self) -> bool {
        self == Self::Kmalloc
    }

    /// The design, for a machine of `cpus` CPUs whose calls to one CPU go through `singles`.
    pub fn build<P: Platform>(self, cpus: usize, singles: &Arc<Singles>) -> Box<dyn ManyQueue<P>> {
        match self {
            Self::Kmalloc => Box::new(Kmalloc::new(cpus, singles.clone())),
            Self::Fifo => Box::new(Locked::new(cpus, End::Tail)),
            Self::Filo => Box::new(Locked::new(cpus, End::Head)),
            Self::Counters => Box::new(Graced::new(cpus, Counters::new(cpus, true))),
            Self::CountersNofence => Box::new(Graced::new(cpus, Counters::new(cpus, false))),
            Self::SharedRefs => Box::new(Graced::new(cpus, SharedRefs::new(cpus, true))),
            Self::SharedRefsNaive => Box::new(Graced::new(cpus, SharedRefs::new(cpus, false))),
            Self::CountingRcu => Box::new(Graced::new(cpus, CountingRcu::new())),
            Self::Lockless => Box::new(Lockless::new(cpus, Stage::AsOf2009)),
            Self::Lockless2011a => Box::new(Lockless::new(cpus, Stage::FirstRepair)),
            Self::Fixed2011 => Box::new(Lockless::new(cpus, Stage::Fixed)),
            Self::Llist => Box::new(Llist::new(cpus)),
        }
    }
}
