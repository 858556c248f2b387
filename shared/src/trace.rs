//! Trace rings: which points each CPU came to, and when. The guest writes its rings without exits,
//! and the VMM reads them while the guest runs.
//!
//! What is traced are [points](crate::probe): one that is armed with
//! [`TRACED`](crate::probe::TRACED) puts a [`Record`] into the ring of the CPU that comes to it. A
//! handler can interrupt its CPU in the middle of that and write a record of its own, so a place is
//! claimed first, and is valid once its [`Record::number`] is written. A full ring drops new
//! records and counts them; the guest never waits for its reader.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Records in all rings of a lab together, about: on a large machine each ring is shorter.
const ALL_RECORDS: u32 = 1 << 17;

/// Fewest and most records in a ring.
const RECORDS: (u32, u32) = (128, 4096);

/// Start of a ring.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct RingHead {
    /// Guest: places that were claimed since boot.
    pub claimed: u64,
    /// Guest: records that found the ring full.
    pub dropped: u64,
    /// VMM: places that are free again, since boot.
    pub read: u64,
    /// Room for more.
    pub reserved: [u64; 5],
}

const _: () = assert!(size_of::<RingHead>() == 64);

/// One visit of a CPU to a point.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Record {
    /// The TSC.
    pub tsc: u64,
    /// The call at hand, or 0.
    pub call: u64,
    /// A further value, whose meaning depends on the point.
    pub detail: u64,
    /// The point, by its place in the section.
    pub point: u32,
    /// The low 32 bits of its place since boot, plus one. Written last.
    pub number: u32,
}

const _: () = assert!(size_of::<Record>() == 32);

/// Records in each ring of a machine with `cpus` CPUs, a power of two.
pub const fn ring_records(cpus: u32) -> u32 {
    let (fewest, most) = RECORDS;
    let share = ALL_RECORDS / if cpus == 0 { 1 } else { cpus };
    if share >= most {
        most
    } else if share <= fewest {
        fewest
    } else {
        1 << share.ilog2()
    }
}

/// Bytes from one ring to the next.
pub const fn ring_stride(cpus: u32) -> u64 {
    size_of::<RingHead>() as u64 + ring_records(cpus) as u64 * size_of::<Record>() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_are_powers_of_two_and_never_large_in_all() {
        for cpus in 0..=1024 {
            let records = ring_records(cpus);
            assert!(records.is_power_of_two() && (128..=4096).contains(&records));
            assert!(u64::from(cpus) * ring_stride(cpus) <= 5 << 20);
            assert!(ring_stride(cpus).is_multiple_of(64));
        }
    }
}
