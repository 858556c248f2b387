//! The ledger: which call was made to which CPUs, and on which it ran.
//!
//! Every source CPU owns a row of call records. A record is opened when a call is made, each target
//! marks itself in it when the function runs there, and it is reused only after every target has
//! run. What a CPU does besides calls can be entered too, in its order among them ([`RecordHead::deed`]).
//! The function's argument *is* the [`CallId`], so a function that runs with a torn, stale or
//! invented argument is detected at once.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Identity of one cross-CPU call, and at the same time the argument its function receives.
///
/// | bits | meaning |
/// | --- | --- |
/// | 63..48 | the source CPU |
/// | 47..40 | which of the workload's functions must run |
/// | 39 | the lane: 0 for calls from task context, 1 for calls made by an interrupt handler |
/// | 38..0 | sequence number in that lane, from 1 |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallId(u64);

/// Which context of the source CPU made the call. Each has records of its own, because a handler
/// that interrupts a call being entered must not disturb it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Ordinary code with interrupts on.
    Task = 0,
    /// An IPI handler, interrupts off.
    Handler = 1,
}

impl Lane {
    /// Number of lanes.
    pub const COUNT: usize = 2;
}

const SEQUENCE_BITS: u32 = 39;
const LANE_SHIFT: u32 = 39;
const FUNCTION_SHIFT: u32 = 40;
const SOURCE_SHIFT: u32 = 48;

impl CallId {
    /// Composes an id. `sequence` counts from 1, so that no id is zero; only its low 39 bits count.
    pub fn new(source: u16, function: u8, lane: Lane, sequence: u64) -> Self {
        Self(
            u64::from(source) << SOURCE_SHIFT
                | u64::from(function) << FUNCTION_SHIFT
                | (lane as u64) << LANE_SHIFT
                | sequence & ((1 << SEQUENCE_BITS) - 1),
        )
    }

    /// Interprets a raw argument as an id. Only the ledger can tell whether it names an open call.
    pub fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The id as the 64-bit argument that travels with the call.
    pub fn raw(self) -> u64 {
        self.0
    }

    /// The CPU that made the call.
    pub fn source(self) -> u16 {
        (self.0 >> SOURCE_SHIFT) as u16
    }

    /// The function that must run.
    pub fn function(self) -> u8 {
        (self.0 >> FUNCTION_SHIFT) as u8
    }

    /// The context that made the call.
    pub fn lane(self) -> Lane {
        if self.0 >> LANE_SHIFT & 1 == 0 {
            Lane::Task
        } else {
            Lane::Handler
        }
    }

    /// Sequence number within the lane, from 1.
    pub fn sequence(self) -> u64 {
        self.0 & ((1 << SEQUENCE_BITS) - 1)
    }

    /// Index of the record that holds this call in its source's row of `2 * slots` records.
    pub fn record_index(self, slots: u32) -> u32 {
        self.lane() as u32 * slots + (self.sequence() % u64::from(slots)) as u32
    }
}

/// Fixed part of a call record. Two CPU masks of `mask_words` 64-bit words follow it in memory:
/// first the CPUs the call was made to, then those on which it has run.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RecordHead {
    /// [`CallId::raw`] of the call, 0 while the record has never been used.
    pub id: u64,
    /// Non-zero while the call is open: it was made, and its source has not yet found it complete.
    pub open: u32,
    /// Non-zero if the caller waits for completion.
    pub wait: u16,
    /// 0 of a call. Otherwise this is no call but something else that the CPU has done, by the number
    /// of the deed in the manifest: it was about the one CPU that the first mask holds, and is never
    /// open.
    pub deed: u16,
    /// TSC when the call was made, in cycles.
    pub made_tsc: u64,
    /// TSC when the call returned to its caller, in cycles; 0 until then.
    pub returned_tsc: u64,
}

const _: () = assert!(size_of::<RecordHead>() == 32);

/// Bytes from one record to the next for masks of `mask_words` words, a multiple of 64.
pub const fn record_stride(mask_words: u32) -> u64 {
    (size_of::<RecordHead>() as u64 + 2 * 8 * mask_words as u64).next_multiple_of(64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_gives_back_what_it_was_made_of() {
        let id = CallId::new(1023, 0xa7, Lane::Handler, 123_456);
        assert_eq!(
            (id.source(), id.function(), id.lane(), id.sequence()),
            (1023, 0xa7, Lane::Handler, 123_456)
        );
        assert_eq!(CallId::from_raw(id.raw()), id);
    }

    /// What a guest writes as an id is any number: here, every one with up to two ones or zeroes.
    #[test]
    fn any_number_names_a_record_that_there_is() {
        let bits = (0..64).flat_map(|one| (0..64).map(move |other| 1 << one | 1 << other));
        for raw in bits.flat_map(|bits: u64| [bits, !bits, bits - 1]) {
            let id = CallId::from_raw(raw);
            for slots in [1, 3, 64, u32::MAX / 2] {
                assert!(id.record_index(slots) < 2 * slots, "{raw:#x} of {slots}");
            }
            let again = CallId::new(id.source(), id.function(), id.lane(), id.sequence());
            assert_eq!(again.raw(), raw);
        }
    }

    #[test]
    fn lanes_use_disjoint_records() {
        let task = CallId::new(0, 0, Lane::Task, 9).record_index(8);
        let handler = CallId::new(0, 0, Lane::Handler, 9).record_index(8);
        assert_eq!((task, handler), (1, 9));
    }
}
