//! The trace of one CPU, as that CPU and its handlers write it. Writing takes no lock, rings no
//! doorbell and never waits. Where the rings lie, [`Lab`](crate::lab::Lab) knows.

use core::mem::{offset_of, size_of};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use shared::trace::{Record, RingHead};

use crate::counters::count;

/// As [`RingHead`].
#[derive(Debug)]
#[repr(C, align(64))]
pub struct AtomicRingHead {
    /// See [`RingHead::claimed`].
    pub claimed: AtomicU64,
    /// See [`RingHead::dropped`].
    pub dropped: AtomicU64,
    /// See [`RingHead::read`].
    pub read: AtomicU64,
    /// See [`RingHead::reserved`].
    pub reserved: [AtomicU64; 5],
}

const _: () = {
    assert!(size_of::<AtomicRingHead>() == size_of::<RingHead>());
    assert!(offset_of!(AtomicRingHead, dropped) == offset_of!(RingHead, dropped));
    assert!(offset_of!(AtomicRingHead, read) == offset_of!(RingHead, read));
};

/// As [`Record`].
#[derive(Debug)]
#[repr(C)]
pub struct AtomicRecord {
    /// See [`Record::tsc`].
    pub tsc: AtomicU64,
    /// See [`Record::call`].
    pub call: AtomicU64,
    /// See [`Record::detail`].
    pub detail: AtomicU64,
    /// See [`Record::point`].
    pub point: AtomicU32,
    /// See [`Record::number`].
    pub number: AtomicU32,
}

const _: () = {
    assert!(size_of::<AtomicRecord>() == size_of::<Record>());
    assert!(offset_of!(AtomicRecord, call) == offset_of!(Record, call));
    assert!(offset_of!(AtomicRecord, detail) == offset_of!(Record, detail));
    assert!(offset_of!(AtomicRecord, point) == offset_of!(Record, point));
    assert!(offset_of!(AtomicRecord, number) == offset_of!(Record, number));
};

/// The ring of one CPU.
#[derive(Clone, Copy, Debug)]
pub struct Ring<'a> {
    head: &'a AtomicRingHead,
    records: &'a [AtomicRecord],
}

impl<'a> Ring<'a> {
    /// The ring with that head, of a power of two of records.
    pub fn new(head: &'a AtomicRingHead, records: &'a [AtomicRecord]) -> Self {
        debug_assert!(records.len().is_power_of_two());
        Self { head, records }
    }

    /// Writes a record, unless the ring is full. Only on its own CPU, in any context.
    pub fn append(&self, tsc: u64, point: usize, call: u64, detail: u64) {
        let Some(place) = self.claim() else {
            count(&self.head.dropped, 1);
            return;
        };
        let record = &self.records[place as usize & (self.records.len() - 1)];
        record.tsc.store(tsc, Ordering::Relaxed);
        record.call.store(call, Ordering::Relaxed);
        record.detail.store(detail, Ordering::Relaxed);
        record.point.store(point as u32, Ordering::Relaxed);
        // Release: a reader that sees this number sees the rest.
        record.number.store(place as u32 + 1, Ordering::Release);
    }

    /// Claims a place in the ring. A handler may interrupt this and claim one too, but no other CPU
    /// does.
    fn claim(&self) -> Option<u64> {
        let claimed = &self.head.claimed;
        // Acquire: the record that is overwritten has been read.
        let has_room = |place: u64| {
            place.wrapping_sub(self.head.read.load(Ordering::Acquire)) < self.records.len() as u64
        };
        claimed
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |place| {
                has_room(place).then_some(place + 1)
            })
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Lab;

    #[test]
    fn a_full_ring_drops_what_is_new_and_counts_it() {
        let lab = Lab::allocate(2).unwrap();
        let ring = lab.ring(1);
        let size = ring.records.len() as u64;
        for tsc in 0..size + 3 {
            ring.append(tsc, 7, 8, 9);
        }
        assert_eq!(ring.head.claimed.load(Ordering::Relaxed), size);
        assert_eq!(ring.head.dropped.load(Ordering::Relaxed), 3);
        assert_eq!(ring.records[0].tsc.load(Ordering::Relaxed), 0);
        assert_eq!(lab.ring(0).head.claimed.load(Ordering::Relaxed), 0);

        // With two read there is room for two.
        ring.head.read.store(2, Ordering::Relaxed);
        for tsc in 100..103 {
            ring.append(tsc, 1, 2, 3);
        }
        assert_eq!(ring.head.dropped.load(Ordering::Relaxed), 4);
        let first = &ring.records[0];
        assert_eq!(first.tsc.load(Ordering::Relaxed), 100);
        assert_eq!(u64::from(first.number.load(Ordering::Relaxed)), size + 1);
        assert_eq!(first.point.load(Ordering::Relaxed), 1);
    }
}
