//! The counters of each CPU. Each is counted where it happens. Nothing that a guest does, and no
//! oracle, depends on them. The manifest says what each figure is.
//!
//! A CPU's row of words in the lab begins with what the kit counts ([`CpuCounters`]). The rest
//! belongs to the guest, which lists its own counters with [`counters!`](crate::counters!).

use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering};

use shared::lab::{COUNTER_SLOTS, Counters, Transport};
use shared::manifest::CounterRole::Targets;
use shared::manifest::PROGRESS;

use crate::declare;
use crate::manifest::Record;
use crate::vector::{RANGE, Vector};

/// The first word of a row that belongs to the guest.
pub const GUEST: usize = 32;

/// What the kit counts on one CPU, as that CPU and its interrupt handlers write it.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct CpuCounters {
    /// Targets of the IPIs sent: deliveries owed, before several of them collapse into one.
    pub ipi_targets: AtomicU64,
    /// Iterations of loops that waited for another CPU.
    pub wait_spins: AtomicU64,
    /// Operations that send IPIs, by [`Transport`]: one per write or hypercall that starts
    /// deliveries.
    pub ipi_sent: [AtomicU64; Transport::ALL.len()],
    /// Handlers entered, by vector, from the first of [`RANGE`] on.
    received: [AtomicU64; RANGE.end as usize - RANGE.start as usize],
    reserved: [AtomicU64; GUEST - 8 - (RANGE.end as usize - RANGE.start as usize)],
}

const _: () = {
    assert!(size_of::<CpuCounters>() == GUEST * size_of::<AtomicU64>());
    assert!(align_of::<CpuCounters>() == align_of::<Counters>());
};

/// The word of a row that begins at byte `offset`.
const fn word(offset: usize) -> u32 {
    (offset / size_of::<AtomicU64>()) as u32
}

declare! {
    Record::counter(
        word(offset_of!(CpuCounters, ipi_targets)),
        "ipi_targets",
        "Targets of the IPIs sent: deliveries owed, before several of them collapse into one.",
    ).reckoned(Targets),
    Record::counter(
        word(offset_of!(CpuCounters, wait_spins)),
        "wait_spins",
        "Iterations of loops that waited for another CPU.",
    ),
    sent(Transport::Xapic, "sent_xapic"),
    sent(Transport::X2apic, "sent_x2apic"),
    sent(Transport::Wire, "sent_wire"),
    sent(Transport::X2apicCluster, "sent_x2apic_cluster"),
    sent(Transport::Shorthand, "sent_shorthand"),
    sent(Transport::Pv, "sent_pv"),
}

/// The counter `name`, of the operations that send by `transport`.
const fn sent(transport: Transport, name: &str) -> Record {
    let number = word(offset_of!(CpuCounters, ipi_sent)) + transport as u32;
    Record::counter(number, name, "Operations that sent IPIs by this transport.")
        .sent_by(transport.name())
        .with(PROGRESS)
}

/// Adds `amount` to a counter that only its own CPU writes; the addition is atomic all the same,
/// because an interrupt handler on that CPU may count in the middle of it.
#[inline]
pub fn count(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

impl CpuCounters {
    /// Records `operations` that each started an IPI, to `targets` CPUs in all.
    #[inline]
    pub fn count_ipi(&self, transport: Transport, operations: u64, targets: u64) {
        count(&self.ipi_sent[transport as usize], operations);
        count(&self.ipi_targets, targets);
    }

    /// Records one entry of the handler of `vector`.
    #[inline]
    pub fn count_received(&self, vector: Vector) {
        count(self.received(vector), 1);
    }

    /// How often the handler of `vector` was entered.
    #[inline]
    pub fn received(&self, vector: Vector) -> &AtomicU64 {
        &self.received[vector.index()]
    }

    /// Which word of a row counts the entries of the handler of `vector`.
    pub const fn number_of_received(vector: Vector) -> u32 {
        word(offset_of!(CpuCounters, received)) + vector.index() as u32
    }
}

/// A guest's own counters of one CPU.
///
/// # Safety
/// The type must consist of [`AtomicU64`]s and nothing else, of at most [`ROOM`]. Those that
/// [`counters!`](crate::counters!) makes do.
pub unsafe trait Row {}

/// Counters that a guest can have.
pub const ROOM: usize = COUNTER_SLOTS - GUEST;

/// Makes the counters of one CPU, `pub struct NAME { … }`, and declares each. The comment of a
/// counter is what reports say of it. After its name come the other properties of its [`Record`];
/// `number_of!` gives the number of another counter.
/// [`Lab::own_counters`](crate::lab::Lab::own_counters) finds them.
#[macro_export]
macro_rules! counters {
    (
        $(#[$about:meta])*
        pub struct $row:ident {
            $(#[doc = $text:literal] $name:ident $(. $how:ident($($value:expr),*))*;)+
        }
    ) => {
        $(#[$about])*
        #[derive(Debug)]
        #[repr(C)]
        pub struct $row {
            $(#[doc = $text] pub $name: ::core::sync::atomic::AtomicU64,)+
        }

        const _: () = assert!(
            size_of::<$row>()
                <= $crate::counters::ROOM * size_of::<::core::sync::atomic::AtomicU64>(),
            "more counters than a guest has room for"
        );

        // SAFETY: such words are all that it has, and the number of them was just checked.
        unsafe impl $crate::counters::Row for $row {}

        $crate::declare! {
            $($crate::manifest::Record::counter(
                $crate::number_of!($row, $name),
                stringify!($name),
                $text.trim_ascii(),
            )$(.$how($($value),*))*,)+
        }
    };
}

/// The number in the manifest of the counter `$name` of the guest's row `$row`.
#[macro_export]
macro_rules! number_of {
    ($row:ident, $name:ident) => {
        ($crate::counters::GUEST
            + ::core::mem::offset_of!($row, $name) / size_of::<::core::sync::atomic::AtomicU64>())
            as u32
    };
}
