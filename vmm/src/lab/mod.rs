//! The lab pages seen from the host. The VMM's own layout says where everything is. What the guest
//! has written there is copied out before it is read, and is not trusted. Knows guest memory, and
//! must not touch KVM.

pub mod call_name;
pub mod capped;
pub mod command;
mod contradictions;
pub(crate) mod counts;
pub mod deed;
pub mod deed_refusal;
mod exploration;
pub mod finding;
pub mod judge;
pub mod judgement;
pub mod mailbox;
pub mod oracles;
pub mod programs;
pub mod rings;
mod words;

use std::sync::{Arc, Mutex};

use shared::lab::{Counters, Finding, Header, Layout, MAX_FINDINGS, Section, Tally};
use shared::ledger::{CallId, Lane, RecordHead};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::cpus::CpuSet;
use crate::manifest::Manifest;
use command::Command;
pub use counts::CounterValues;

/// The lab of one machine.
#[derive(Debug, Clone)]
pub struct Lab {
    memory: GuestMemoryMmap,
    base: u64,
    layout: Layout,
    manifest: Arc<Manifest>,
    is_told: bool,
    /// The programs that were written into it, in their order.
    kept_programs: Arc<Mutex<Vec<Vec<Command>>>>,
}

/// One call record, copied out of the ledger.
#[derive(Debug, Clone)]
pub struct Record {
    /// The CPU in whose row it is.
    pub row: u32,
    /// Its index in that row.
    pub index: u32,
    /// Its fixed part.
    pub head: RecordHead,
    /// CPUs the call was made to.
    pub targets: CpuSet,
    /// CPUs on which it has run.
    pub ran: CpuSet,
}

impl Record {
    /// Whether it is a call's, and not that of another deed.
    pub fn is_call(&self) -> bool {
        self.head.deed == 0
    }
}

/// Why there is no lab apart from the guest's memory.
#[derive(Debug, thiserror::Error)]
pub enum UntoldError {
    /// It does not fit into the address space.
    #[error("{0} bytes are more than this host can address")]
    TooLarge(u64),
    /// No memory.
    #[error(transparent)]
    Memory(#[from] vm_memory::mmap::FromRangesError),
    /// It was not written.
    #[error(transparent)]
    Write(#[from] GuestMemoryError),
}

/// What one CPU has counted.
#[derive(Debug, Clone)]
pub struct CpuCounts {
    /// Its counts of calls.
    pub tally: Tally,
    /// Its counters.
    pub counts: CounterValues,
}

/// What all CPUs have counted together. Sums wrap, because a broken guest can write anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Calls made.
    pub made: u64,
    /// Executions that these calls owe.
    pub expected: u64,
    /// Executions that were counted.
    pub executed: u64,
    /// The counters.
    pub counts: CounterValues,
}

#[cfg(test)]
impl Lab {
    /// The lab of a machine of two CPUs, in memory of its own, for the tests of its parts.
    fn of_two() -> Self {
        let layout = Layout::new(2).unwrap();
        let size = usize::try_from(layout.size).unwrap();
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0x1000), size)]).unwrap();
        Self::prepare(memory, 0x1000, layout).unwrap()
    }
}

impl Lab {
    /// Writes the header of `layout` at the guest-physical address `base`, which the guest finds on
    /// its command line.
    ///
    /// # Errors
    /// The lab does not lie within guest memory.
    pub fn prepare(
        memory: GuestMemoryMmap,
        base: u64,
        layout: Layout,
    ) -> Result<Self, GuestMemoryError> {
        memory.write_slice(layout.header().as_bytes(), GuestAddress(base))?;
        // Write the last byte too, so that all later accesses are known to be within memory.
        memory.write_slice(&[0], GuestAddress(base + layout.size - 1))?;
        Ok(Self {
            memory,
            base,
            layout,
            manifest: Arc::default(),
            is_told: true,
            kept_programs: Arc::default(),
        })
    }

    /// The lab of a guest that is told of none: in memory of its own, where nothing is ever written.
    ///
    /// # Errors
    /// The host has no memory for it.
    pub fn untold(layout: Layout) -> Result<Self, UntoldError> {
        let size = usize::try_from(layout.size).map_err(|_| UntoldError::TooLarge(layout.size))?;
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), size)])?;
        Ok(Self {
            is_told: false,
            ..Self::prepare(memory, 0, layout)?
        })
    }

    /// Whether the guest was told where it is. Else nothing that is read from it says anything.
    pub fn is_told(&self) -> bool {
        self.is_told
    }

    /// The same lab, of a guest with this manifest.
    pub fn knowing(self, manifest: Arc<Manifest>) -> Self {
        Self { manifest, ..self }
    }

    /// The guest's manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The number of CPUs it has room for.
    pub fn cpus(&self) -> u32 {
        self.layout.cpus
    }

    /// The header as it is now. The guest writes only its last four fields.
    pub fn header(&self) -> Header {
        self.read(0)
    }

    /// Whether the guest has ever written to it.
    pub fn is_used(&self) -> bool {
        self.header().as_bytes() != self.layout.header().as_bytes()
            || self.tallies().any(|tally| is_anything(&tally))
            || self.rows().any(|row| is_anything(&row))
            || self.found().iter().any(|count| *count != 0)
            || self.records().next().is_some()
    }

    /// What every CPU has counted, in order.
    pub fn counted(&self) -> impl Iterator<Item = CpuCounts> {
        self.tallies()
            .zip(self.rows())
            .map(|(tally, row)| CpuCounts {
                tally,
                counts: CounterValues::of(&row, &self.manifest),
            })
    }

    /// What all CPUs have counted, added up.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals {
            counts: self.counts(),
            ..Totals::default()
        };
        for tally in self.tallies() {
            let add = |sum: &mut u64, value: u64| *sum = sum.wrapping_add(value);
            add(&mut totals.made, tally.calls_made);
            add(&mut totals.expected, tally.calls_expected);
            add(&mut totals.executed, tally.calls_executed);
        }
        totals
    }

    /// The counters of all CPUs, added up.
    pub fn counts(&self) -> CounterValues {
        CounterValues::of_all(self.rows(), &self.manifest)
    }

    /// A number that changes whenever a CPU makes progress. Iterations of waiting loops are no
    /// progress: a CPU that waits for ever makes those too. Of the guest's counters, those are
    /// included that its manifest marks as progress.
    pub fn progress(&self) -> u64 {
        let Totals {
            made,
            executed,
            counts,
            ..
        } = self.totals();
        let counters = self.manifest.counters.iter().zip(counts.values);
        let moved = counters.filter(|(counter, _)| counter.progress);
        [made, executed]
            .into_iter()
            .chain(moved.map(|(_, value)| value))
            .fold(u64::from(self.header().cpus_online), u64::wrapping_add)
    }

    /// The counts of calls of each CPU, in order.
    fn tallies(&self) -> impl Iterator<Item = Tally> {
        self.entries(self.layout.tallies)
    }

    /// The raw counters of each CPU, in order.
    fn rows(&self) -> impl Iterator<Item = Counters> {
        self.entries(self.layout.counters)
    }

    /// The findings for which there was room.
    pub fn findings(&self) -> Vec<Finding> {
        let section = self.layout.findings;
        let kept = self.header().findings_made.min(MAX_FINDINGS);
        (0..u64::from(kept))
            .filter_map(|index| section.entry(index))
            .map(|at| self.read(at))
            .collect()
    }

    /// How many findings the guest made, indexed by the number of the oracle.
    pub fn found(&self) -> Vec<u64> {
        self.entries(self.layout.found).collect()
    }

    /// The records of all calls in the ledger.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        self.records_and_deeds().filter(Record::is_call)
    }

    /// All records of the ledger that have been used: of calls, and of deeds that are no calls.
    pub fn records_and_deeds(&self) -> impl Iterator<Item = Record> {
        (0..self.layout.ledger.count).filter_map(|number| self.nth_record(number))
    }

    /// The record of `call`; `None` if a later call has taken its place. The call was complete
    /// then.
    pub fn record(&self, call: CallId) -> Option<Record> {
        let slots = self.slots();
        let row = u64::from(call.source()) * Lane::COUNT as u64 * u64::from(slots);
        self.nth_record(row + u64::from(call.record_index(slots)))
            .filter(|record| record.head.id == call.raw() && record.is_call())
    }

    /// The record of the call with this name, as [`Lab::record`].
    pub fn record_named(&self, source: u32, lane: Lane, sequence: u64) -> Option<Record> {
        let source = u16::try_from(source).ok()?;
        // Where a record is does not depend on the function that it calls.
        let slots = self.slots();
        let row = u64::from(source) * Lane::COUNT as u64 * u64::from(slots);
        let index = CallId::new(source, 0, lane, sequence).record_index(slots);
        let record = self.nth_record(row + u64::from(index));
        record.filter(Record::is_call).filter(|record| {
            let id = CallId::from_raw(record.head.id);
            (id.source(), id.lane(), id.sequence()) == (source, lane, sequence)
        })
    }

    fn nth_record(&self, number: u64) -> Option<Record> {
        let section = self.layout.ledger;
        let per_row = (section.count / u64::from(self.layout.cpus)).max(1);
        let at = section.entry(number)?;
        let head: RecordHead = self.read(at);
        if head.id == 0 {
            return None;
        }
        let masks = at + size_of::<RecordHead>() as u64;
        let mask_bytes = u64::from(self.layout.mask_words) * 8;
        Some(Record {
            row: u32::try_from(number / per_row).ok()?,
            index: u32::try_from(number % per_row).ok()?,
            head,
            targets: self.mask(masks),
            ran: self.mask(masks + mask_bytes),
        })
    }

    /// Records in each lane of a CPU.
    pub fn slots(&self) -> u32 {
        let lanes = u64::from(self.layout.cpus) * Lane::COUNT as u64;
        u32::try_from(self.layout.ledger.count / lanes)
            .unwrap_or(1)
            .max(1)
    }

    fn entries<T: FromZeros + FromBytes + IntoBytes>(
        &self,
        section: Section,
    ) -> impl Iterator<Item = T> {
        (0..section.count)
            .filter_map(move |index| section.entry(index))
            .map(|at| self.read(at))
    }

    fn mask(&self, offset: u64) -> CpuSet {
        let mut words = vec![0_u64; self.layout.mask_words as usize];
        self.copy(offset, words.as_mut_bytes());
        CpuSet::from_words(words)
    }

    fn read<T: FromZeros + FromBytes + IntoBytes>(&self, offset: u64) -> T {
        let mut value = T::new_zeroed();
        self.copy(offset, value.as_mut_bytes());
        value
    }

    fn copy(&self, offset: u64, bytes: &mut [u8]) {
        // `prepare` has reached both ends of the range, which lies in one piece of RAM. If a read
        // fails all the same, the result is zeroes, as in an untouched lab.
        if self
            .memory
            .read_slice(bytes, GuestAddress(self.base + offset))
            .is_err()
        {
            bytes.fill(0);
        }
    }
}

fn is_anything(value: &(impl IntoBytes + zerocopy::Immutable)) -> bool {
    value.as_bytes().iter().any(|byte| *byte != 0)
}
