//! What each CPU counts of what it does, each where it happens. Nothing that the guest does or its oracles say
//! depends on it; what the oracles judge is the [tally](crate::lab::CpuTally). Whoever reads it knows from the
//! manifest what each figure is: to add one, add it to the list here, and count it where it happens.

use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering};

use shared::lab::{Counters, Transport};
use shared::manifest::CounterRole::{Departed, Empty, Received, SentForCalls, Targets};
use shared::manifest::PROGRESS;

use crate::declare;
use crate::manifest::Record;
use crate::platform::Vector;

/// Which word of a CPU's row a counter is.
macro_rules! number_of {
    ($name:ident) => {
        (offset_of!(CpuCounters, $name) / size_of::<AtomicU64>()) as u32
    };
}

/// Makes the counters of one CPU, and declares each. What is said about it here is what reports say.
macro_rules! counters {
    ($(#[doc = $text:literal] $name:ident $(. $how:ident($($value:expr),*))*;)+) => {
        /// The counters of one CPU, as that CPU and its interrupt handlers write them.
        #[derive(Debug)]
        #[repr(C, align(64))]
        pub struct CpuCounters {
            $(#[doc = $text] pub $name: AtomicU64,)+
            /// Operations that send IPIs, by [`Transport`]: one per write or hypercall that starts deliveries.
            pub ipi_sent: [AtomicU64; Transport::ALL.len()],
        }

        declare! {
            $(Record::counter(number_of!($name), stringify!($name), $text.trim_ascii())$(.$how($($value),*))*,)+
        }

    };
}

counters! {
    /// Times the handler of the single vector was entered.
    single_received.reckoned(Received).with(PROGRESS);
    /// Times the handler of the many vector was entered.
    many_received.reckoned(Received).with(PROGRESS);
    /// Times the handler of the wake vector was entered.
    wake_received.reckoned(Received).with(PROGRESS);
    /// Handlers of calls that found nothing to do: an earlier one had done it.
    empty_received.reckoned(Empty);
    /// Targets of the IPIs sent: deliveries owed, before several of them collapse into one.
    ipi_targets.reckoned(Targets);
    /// Iterations of a loop that waited for a call descriptor or for completion.
    wait_spins;
    /// Elements of the global queue that walks stood on.
    visits.shown("walks", "visits", "stood on {} elements", "walk_visits_total");
    /// Elements in the longest walk along the global queue.
    longest_walk.largest().part_of(number_of!(visits))
        .shown("walks", "longest", "the longest on {}", "longest_walk_elements");
    /// Times a CPU was taken offline.
    cpus_taken_down.reckoned(Departed).with(PROGRESS).shown("hotplug", "taken_down", "{} times down", "cpus_taken_down_total");
    /// Times a CPU was brought online, after the boot.
    cpus_brought_up.with(PROGRESS).shown("hotplug", "brought_up", "{} times up", "cpus_brought_up_total");
    /// Requests for memory while the path was in use.
    allocations.shown("memory", "requests", "{} requests", "memory_requests_total");
    /// Requests for memory that were refused.
    refused.part_of(number_of!(allocations))
        .shown("memory", "refused", "{} refused", "memory_requests_refused_total");
    /// Times the handler of the vector was entered by which a CPU learns that it has taken all others.
    last_received.reckoned(Received).with(PROGRESS);
    /// Times the handler of the vector was entered that is sent only to be measured.
    measured_received.reckoned(Received).with(PROGRESS);
    /// Operations that sent IPIs of the single and many vectors: those by which calls are told to their targets.
    call_ipis_sent.reckoned(SentForCalls);
}

const _: () = {
    assert!(size_of::<CpuCounters>() <= size_of::<Counters>());
    assert!(align_of::<CpuCounters>() == align_of::<Counters>());
};

/// The counter of what goes by `transport`, which is also known as `name`.
const fn sent(transport: Transport, name: &str) -> Record {
    let number = number_of!(ipi_sent) + transport as u32;
    Record::counter(number, name, "Operations that sent IPIs by this transport.")
        .sent_by(transport.name())
        .with(PROGRESS)
}

declare! {
    sent(Transport::Xapic, "sent_xapic"),
    sent(Transport::X2apic, "sent_x2apic"),
    sent(Transport::Wire, "sent_wire"),
    sent(Transport::X2apicCluster, "sent_x2apic_cluster"),
    sent(Transport::Shorthand, "sent_shorthand"),
    sent(Transport::Pv, "sent_pv"),
}

/// Adds `amount` to a counter that only its own CPU writes; the addition is atomic all the same,
/// because an interrupt handler on that CPU may count in the middle of it.
pub fn count(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

impl CpuCounters {
    /// Records `operations` writes that each started an IPI of `vector`, to `targets` CPUs in all.
    pub fn count_ipi(&self, vector: Vector, transport: Transport, operations: u64, targets: u64) {
        count(&self.ipi_sent[transport as usize], operations);
        if matches!(vector, Vector::Single | Vector::Many) {
            count(&self.call_ipis_sent, operations);
        }
        count(&self.ipi_targets, targets);
    }

    /// Records a walk along the global queue that stood on `visits` elements.
    pub fn count_walk(&self, visits: u64) {
        count(&self.visits, visits);
        self.longest_walk.fetch_max(visits, Ordering::Relaxed);
    }

    /// Records one entry of the handler of `vector`.
    pub fn count_received(&self, vector: Vector) {
        let counter = match vector {
            Vector::Single => &self.single_received,
            Vector::Many => &self.many_received,
            Vector::Wake => &self.wake_received,
            Vector::Last => &self.last_received,
            Vector::Measured => &self.measured_received,
        };
        count(counter, 1);
    }
}
