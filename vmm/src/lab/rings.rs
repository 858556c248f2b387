//! Reads the trace rings of the lab while the guest writes them. The reader keeps its own position.
//! From the guest it takes only whether a place is filled, and at most one ring's worth of records
//! at a time.

use std::mem::offset_of;
use std::sync::atomic::Ordering;

use shared::trace::{Record, RingHead, ring_records};
use vm_memory::{Bytes, GuestAddress};

use super::Lab;

/// Reads the rings of one lab, from the first record on.
#[derive(Debug)]
pub struct Rings {
    lab: Lab,
    /// How many places of each ring were read so far.
    read: Vec<u64>,
}

impl Rings {
    /// A reader that has read nothing yet.
    pub fn new(lab: Lab) -> Self {
        let read = vec![0; lab.cpus() as usize];
        Self { lab, read }
    }

    /// Takes what `cpu` has written since the last time, in the order of places, and frees the
    /// places. Times can go backwards: an interrupt handler can write between the claim of a place
    /// and its record.
    pub fn take(&mut self, cpu: u32, records: &mut Vec<Record>) {
        self.read_on(cpu, records, |_| false);
    }

    /// Takes what is left once `cpu` does not run any more. It may have been stopped while it wrote
    /// a record, with whole ones after it.
    pub fn take_last(&mut self, cpu: u32, records: &mut Vec<Record>) {
        let claimed = self.head(cpu).claimed;
        self.read_on(cpu, records, |place| place < claimed);
    }

    /// Reads up to a place that is not filled, unless `skip` says to skip that place.
    fn read_on(&mut self, cpu: u32, records: &mut Vec<Record>, skip: impl Fn(u64) -> bool) {
        let Some(start) = self.lab.layout.rings.entry(cpu.into()) else {
            return;
        };
        let Some(read) = self.read.get_mut(cpu as usize) else {
            return;
        };
        let capacity = u64::from(ring_records(self.lab.layout.cpus));
        let first = *read;
        while *read - first < capacity {
            let index = *read & (capacity - 1);
            let at = start + (size_of::<RingHead>() as u64) + index * size_of::<Record>() as u64;
            let number = self.lab.memory.load::<u32>(
                self.lab.address(at + offset_of!(Record, number) as u64),
                Ordering::Acquire,
            );
            // A filled place has the low half of its number plus one.
            let filled = (*read).wrapping_add(1) & u64::from(u32::MAX);
            if number.ok().map(u64::from) == Some(filled) {
                records.push(self.lab.read(at));
            } else if !skip(*read) {
                break;
            }
            *read += 1;
        }
        if *read != first {
            let head = self.lab.address(start + offset_of!(RingHead, read) as u64);
            // Release: the records were read before their places are freed. The store cannot fail,
            // since `prepare` has reached both ends of the lab.
            let _ = self.lab.memory.store(*read, head, Ordering::Release);
        }
    }

    /// How many records `cpu` says it could not write.
    pub fn dropped(&self, cpu: u32) -> u64 {
        self.head(cpu).dropped
    }

    fn head(&self, cpu: u32) -> RingHead {
        let head = self.lab.layout.rings.entry(cpu.into());
        head.map_or_else(RingHead::default, |at| self.lab.read(at))
    }
}

impl Lab {
    fn address(&self, offset: u64) -> GuestAddress {
        GuestAddress(self.base + offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    fn write(lab: &Lab, cpu: u64, place: u32, number: u32) {
        let index = u64::from(place) & u64::from(ring_records(2) - 1);
        let at = lab.layout.rings.entry(cpu).unwrap() + 64 + 32 * index;
        let record = Record {
            tsc: place.into(),
            number,
            ..Record::default()
        };
        lab.memory
            .write_slice(record.as_bytes(), lab.address(at))
            .unwrap();
    }

    fn times(rings: &mut Rings, cpu: u32) -> Vec<u64> {
        let mut records = Vec::new();
        rings.take(cpu, &mut records);
        records.iter().map(|record| record.tsc).collect()
    }

    #[test]
    fn records_are_taken_once_and_only_when_they_are_whole() {
        let lab = Lab::of_two();
        let mut rings = Rings::new(lab.clone());
        assert!(times(&mut rings, 1).is_empty());
        write(&lab, 1, 0, 1);
        write(&lab, 1, 2, 3);
        assert_eq!(times(&mut rings, 1), [0]);
        write(&lab, 1, 1, 2);
        assert_eq!(times(&mut rings, 1), [1, 2]);
        assert!(times(&mut rings, 1).is_empty());
        assert!(times(&mut rings, 0).is_empty());
        assert!(times(&mut rings, 9).is_empty());
        let head = lab.read::<RingHead>(lab.layout.rings.entry(1).unwrap());
        assert_eq!(head.read, 3);
        // The slot of the first record is used again.
        let again = ring_records(2);
        for place in 3..=again {
            write(&lab, 1, place, place + 1);
        }
        assert_eq!(times(&mut rings, 1).len(), again as usize - 2);
    }

    #[test]
    fn what_is_behind_a_broken_record_is_taken_at_last() {
        let lab = Lab::of_two();
        let mut rings = Rings::new(lab.clone());
        write(&lab, 0, 0, 1);
        write(&lab, 0, 2, 3);
        let at = lab.layout.rings.entry(0).unwrap();
        let head = RingHead {
            claimed: 3,
            ..RingHead::default()
        };
        lab.memory
            .write_slice(head.as_bytes(), lab.address(at))
            .unwrap();
        assert_eq!(times(&mut rings, 0), [0]);
        let mut records = Vec::new();
        rings.take_last(0, &mut records);
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].tsc, 2);
    }

    proptest! {
        #[test]
        fn no_ring_holds_more_than_it_can(
            numbers in proptest::collection::vec(any::<u32>(), 0..50), at in 0_u32..5000,
        ) {
            let lab = Lab::of_two();
            let mut rings = Rings::new(lab.clone());
            for place in 0..ring_records(2) {
                write(&lab, 0, place, place + 1);
            }
            for (place, number) in (at..).zip(numbers) {
                write(&lab, 0, place, number);
            }
            prop_assert!(times(&mut rings, 0).len() <= ring_records(2) as usize);
        }
    }
}
