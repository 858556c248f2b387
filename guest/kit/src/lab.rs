//! The lab pages as the guest sees them: tallies, counters, call records, findings, mailboxes and
//! armed probes, as atomics.
//!
//! A monitor that knows the lab supplies the memory. Under any other the guest keeps the same
//! records in memory of its own, for its own verdict. Only this module turns lab offsets into
//! references.

use alloc::alloc::{alloc_zeroed, handle_alloc_error};
use core::fmt::{self, Write};
use core::mem::{offset_of, size_of};
use core::ptr::NonNull;
use core::slice;
use core::sync::atomic::{AtomicI64, AtomicU16, AtomicU32, AtomicU64, Ordering};

use shared::cpus::MASK_WORDS;
use shared::exit::ExitCode;
use shared::lab::{
    ALIGN, Contexts, Counters, Finding, Header, Layout, LayoutError, MAX_FINDINGS, ORACLE_SLOTS,
    Tally, Words,
};
use shared::ledger::{CallId, Lane, RecordHead};
use shared::mailbox::{ANSWERS, Mailbox};
use shared::manifest::ARGUMENTS;
use shared::probe::Arms;
use shared::trace::{RingHead, ring_records};

use crate::counters::{self, CpuCounters, count};
use crate::platform::CpuId;
use crate::program::LabProgram;
use crate::trace::{AtomicRecord, AtomicRingHead, Ring};

/// Call records of one CPU.
const RECORDS: u64 = Lane::COUNT as u64 * shared::lab::SLOTS as u64;

/// A lab this guest writes to. Copies name the same memory, which lives as long as the guest.
#[derive(Clone, Copy, Debug)]
pub struct Lab {
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the memory behind `base` is never freed, and everything `Lab` hands out of it is made of
// atomics, so any CPU may hold and use a copy.
unsafe impl Send for Lab {}
// SAFETY: as above; a shared reference gives no more than a copy does.
unsafe impl Sync for Lab {}

/// One CPU's [`Tally`], as that CPU and its interrupt handlers write it.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct CpuTally {
    /// See [`Tally::calls_made`].
    pub calls_made: AtomicU64,
    /// See [`Tally::calls_expected`].
    pub calls_expected: AtomicU64,
    /// See [`Tally::calls_executed`].
    pub calls_executed: AtomicU64,
    /// See [`Tally::deeds_entered`].
    pub deeds_entered: AtomicU64,
    _reserved: [AtomicU64; 4],
}

const _: () = {
    assert!(size_of::<CpuTally>() == size_of::<Tally>());
    assert!(offset_of!(CpuTally, deeds_entered) == offset_of!(Tally, deeds_entered));
    assert!(offset_of!(CpuTally, calls_made) == offset_of!(Tally, calls_made));
    assert!(offset_of!(CpuTally, calls_expected) == offset_of!(Tally, calls_expected));
    assert!(offset_of!(CpuTally, calls_executed) == offset_of!(Tally, calls_executed));
};

/// One CPU's [`Mailbox`], as that CPU sees it.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct CpuMailbox {
    /// See [`Mailbox::posted`].
    pub posted: AtomicU64,
    /// See [`Mailbox::verb`].
    pub verb: AtomicU32,
    /// See [`Mailbox::flags`].
    pub flags: AtomicU32,
    /// See [`Mailbox::arguments`].
    pub arguments: [AtomicU64; ARGUMENTS],
    /// See [`Mailbox::taken`].
    pub taken: AtomicU64,
    /// See [`Mailbox::done`].
    pub done: AtomicU64,
    /// See [`Mailbox::result`].
    pub result: AtomicI64,
    /// See [`Mailbox::call`].
    pub call: AtomicU64,
    /// See [`Mailbox::listens`].
    pub listens: AtomicU64,
    /// See [`Mailbox::answer`].
    pub answer: [AtomicU16; ANSWERS],
    /// See [`Mailbox::mask`].
    pub mask: [AtomicU64; MASK_WORDS],
    /// See [`Mailbox::program`].
    pub program: AtomicU64,
    reserved: [AtomicU64; 4],
}

const _: () = {
    assert!(size_of::<CpuMailbox>() == size_of::<Mailbox>());
    assert!(offset_of!(CpuMailbox, posted) == offset_of!(Mailbox, posted));
    assert!(offset_of!(CpuMailbox, verb) == offset_of!(Mailbox, verb));
    assert!(offset_of!(CpuMailbox, flags) == offset_of!(Mailbox, flags));
    assert!(offset_of!(CpuMailbox, arguments) == offset_of!(Mailbox, arguments));
    assert!(offset_of!(CpuMailbox, taken) == offset_of!(Mailbox, taken));
    assert!(offset_of!(CpuMailbox, done) == offset_of!(Mailbox, done));
    assert!(offset_of!(CpuMailbox, result) == offset_of!(Mailbox, result));
    assert!(offset_of!(CpuMailbox, call) == offset_of!(Mailbox, call));
    assert!(offset_of!(CpuMailbox, listens) == offset_of!(Mailbox, listens));
    assert!(offset_of!(CpuMailbox, answer) == offset_of!(Mailbox, answer));
    assert!(offset_of!(CpuMailbox, mask) == offset_of!(Mailbox, mask));
    assert!(offset_of!(CpuMailbox, program) == offset_of!(Mailbox, program));
};

/// The fixed part of a call record, as [`RecordHead`].
#[derive(Debug)]
#[repr(C)]
pub struct AtomicHead {
    /// See [`RecordHead::id`].
    pub id: AtomicU64,
    /// See [`RecordHead::open`].
    pub open: AtomicU32,
    /// See [`RecordHead::wait`].
    pub wait: AtomicU16,
    /// See [`RecordHead::deed`].
    pub deed: AtomicU16,
    /// See [`RecordHead::made_tsc`].
    pub made_tsc: AtomicU64,
    /// See [`RecordHead::returned_tsc`].
    pub returned_tsc: AtomicU64,
}

const _: () = {
    assert!(size_of::<AtomicHead>() == size_of::<RecordHead>());
    assert!(offset_of!(AtomicHead, open) == offset_of!(RecordHead, open));
    assert!(offset_of!(AtomicHead, wait) == offset_of!(RecordHead, wait));
    assert!(offset_of!(AtomicHead, deed) == offset_of!(RecordHead, deed));
    assert!(offset_of!(AtomicHead, made_tsc) == offset_of!(RecordHead, made_tsc));
    assert!(offset_of!(AtomicHead, returned_tsc) == offset_of!(RecordHead, returned_tsc));
};

/// One call record.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The fixed part.
    pub head: &'a AtomicHead,
    /// The CPUs the call was made to, 64 to a word.
    pub targets: &'a [AtomicU64],
    /// The CPUs it has run on.
    pub ran: &'a [AtomicU64],
}

impl Lab {
    /// Opens the lab that a monitor supplies.
    ///
    /// # Errors
    /// If the header there is not one this guest understands, or announces more than `limit` bytes.
    ///
    /// # Safety
    /// `base` must be aligned to [`ALIGN`], and the `limit` bytes from there must be memory that
    /// nothing else in the guest uses, mapped for as long as the guest runs.
    pub unsafe fn open(base: NonNull<u8>, limit: u64) -> Result<Self, LayoutError> {
        if limit < size_of::<Header>() as u64 {
            return Err(LayoutError::Sections);
        }
        // SAFETY: the range holds a header by the check above, is aligned by the caller's word, and
        // any bit pattern is a valid `Header`.
        let header = unsafe { base.cast::<Header>().read() };
        let layout = Layout::from_header(&header)?;
        if layout.size > limit {
            return Err(LayoutError::Sections);
        }
        Ok(Self { base, layout })
    }

    /// Makes a lab in the guest's own memory, for a machine of `cpus` CPUs whose monitor supplies
    /// none. It is never freed.
    ///
    /// # Errors
    /// For a number of CPUs no lab can describe.
    pub fn allocate(cpus: u32) -> Result<Self, LayoutError> {
        let layout = Layout::new(cpus)?;
        let memory = core::alloc::Layout::from_size_align(layout.size as usize, ALIGN as usize)
            .expect("a lab is far smaller than the address space, and ALIGN is a power of two");
        // SAFETY: the size is that of a lab, which is never zero.
        let Some(base) = NonNull::new(unsafe { alloc_zeroed(memory) }) else {
            handle_alloc_error(memory);
        };
        // SAFETY: freshly allocated, large enough for a header and aligned to a page.
        unsafe { base.cast::<Header>().write(layout.header()) };
        Ok(Self { base, layout })
    }

    /// Clears everything that was recorded, for tests that run many short machines in turn. Only
    /// bare metal writes traces, so there are none to clear.
    #[cfg(shuttle)]
    pub fn clear(&self) {
        let body = self.layout.counters.offset;
        for word in self.words(body, (self.layout.rings.offset - body) as usize / 8) {
            word.store(0, Ordering::Relaxed);
        }
        self.header_u32(offset_of!(Header, findings_made))
            .store(0, Ordering::Relaxed);
    }

    /// Number of CPUs the lab describes.
    #[inline]
    pub fn cpus(&self) -> usize {
        self.layout.cpus as usize
    }

    /// The tally of `cpu`.
    #[inline]
    pub fn tally(&self, cpu: CpuId) -> &CpuTally {
        self.at(self.layout.tallies.entry(cpu as u64))
    }

    /// What the kit counts on `cpu`.
    #[inline]
    pub fn counters(&self, cpu: CpuId) -> &CpuCounters {
        self.at(self.layout.counters.entry(cpu as u64))
    }

    /// What the guest counts on `cpu`, in the rest of the row. `T` must be the same type everywhere
    /// in a guest.
    #[inline]
    pub fn own_counters<T: counters::Row>(&self, cpu: CpuId) -> &T {
        const {
            let first = counters::GUEST * size_of::<AtomicU64>();
            assert!(first + size_of::<T>() <= size_of::<Counters>());
            assert!(align_of::<T>() <= align_of::<AtomicU64>());
        }
        let row = self.layout.counters.entry(cpu as u64);
        self.at(row.map(|row| row + (counters::GUEST * size_of::<AtomicU64>()) as u64))
    }

    /// The mailbox of `cpu`.
    #[inline]
    pub fn mailbox(&self, cpu: CpuId) -> &CpuMailbox {
        self.at(self.layout.mailboxes.entry(cpu as u64))
    }

    /// The program with this number, from 1, if the lab has a place for it.
    pub fn program(&self, number: u64) -> Option<&LabProgram> {
        let place = self.layout.programs.entry(number.checked_sub(1)?)?;
        Some(self.at(Some(place)))
    }

    /// Writes the program with this number, as a monitor does.
    #[cfg(any(test, feature = "threads"))]
    pub fn write_program(&self, number: u64, program: &shared::program::Program) {
        let place = self.layout.programs.entry(number - 1);
        let place =
            self.pointer::<shared::program::Program>(place.expect("the lab has a place for it"));
        // SAFETY: the place lies within the lab, and no CPU looks at it before it is told to.
        unsafe { place.write(*program) };
    }

    /// Whether probe `point`, by its index in the image's section, is armed for `cpu`.
    pub fn is_armed(&self, cpu: CpuId, point: usize) -> bool {
        let row = (self.layout.arms.entry(cpu as u64)).expect("the lab has a row for every CPU");
        let words = self.words(row, size_of::<Arms>() / 8);
        words
            .get(point / 64)
            .is_some_and(|word| word.load(Ordering::Relaxed) >> (point % 64) & 1 != 0)
    }

    /// Writes where `cpu` keeps its stacks.
    pub fn set_stacks(&self, cpu: CpuId, task: [u64; 2], handler: [u64; 2]) {
        let places = [offset_of!(Contexts, task), offset_of!(Contexts, handler)];
        let words = self.words(self.contexts(cpu), size_of::<Contexts>() / 8);
        for (place, stack) in places.into_iter().zip([task, handler]) {
            for (word, bound) in words[place / 8..].iter().zip(stack) {
                word.store(bound, Ordering::Relaxed);
            }
        }
    }

    /// Whether `address` is on the stack of the interrupt handlers of `cpu`.
    pub fn is_on_handler_stack(&self, cpu: CpuId, address: usize) -> bool {
        let words = self.words(self.contexts(cpu), size_of::<Contexts>() / 8);
        let bound =
            |at: usize| words[offset_of!(Contexts, handler) / 8 + at].load(Ordering::Relaxed);
        (bound(0)..bound(1)).contains(&(address as u64))
    }

    /// How many loops that wait for other CPUs `cpu` is in. Only that CPU writes it.
    #[cfg(feature = "explore")]
    pub fn waits(&self, cpu: CpuId) -> &AtomicU64 {
        let words = self.words(self.contexts(cpu), size_of::<Contexts>() / 8);
        &words[offset_of!(Contexts, waits) / 8]
    }

    fn contexts(&self, cpu: CpuId) -> u64 {
        (self.layout.contexts.entry(cpu as u64)).expect("the lab has a row for every CPU")
    }

    /// Writes the effective options of the run.
    pub fn set_words(&self, effective: impl fmt::Display) {
        let mut words = Words::EMPTY;
        // A text that is too long is not written at all: a part of it would be taken for the whole.
        if write!(words, "{effective}").is_err() {
            return;
        }
        if let Some(offset) = self.layout.words.entry(0) {
            // SAFETY: the entry lies within the lab, and only the first CPU writes it, once.
            unsafe { self.pointer::<Words>(offset).write_volatile(words) };
        }
    }

    /// The trace ring of `cpu`.
    pub fn ring(&self, cpu: CpuId) -> Ring<'_> {
        let start = self.layout.rings.entry(cpu as u64);
        let head: &AtomicRingHead = self.at(start);
        let records =
            start.expect("the lab has a ring for every CPU") + size_of::<RingHead>() as u64;
        let count = ring_records(self.layout.cpus) as usize;
        // SAFETY: as in `at`; the layout has room for that many records in each ring.
        let records: &[AtomicRecord] =
            unsafe { slice::from_raw_parts(self.pointer(records), count) };
        Ring::new(head, records)
    }

    /// The call record that `call` occupies, or `None` if no CPU of this machine can have made it.
    #[inline]
    pub fn record(&self, call: CallId) -> Option<Record<'_>> {
        let slots = shared::lab::SLOTS;
        let row = u64::from(call.source()) * RECORDS;
        self.nth_record(row + u64::from(call.record_index(slots)))
    }

    /// Every call record `cpu` owns, used or not.
    pub fn records_of(&self, cpu: CpuId) -> impl Iterator<Item = Record<'_>> {
        let row = cpu as u64 * RECORDS;
        (row..row + RECORDS).filter_map(|number| self.nth_record(number))
    }

    #[inline]
    fn nth_record(&self, number: u64) -> Option<Record<'_>> {
        let start = self.layout.ledger.entry(number)?;
        let words = self.layout.mask_words as usize;
        let masks = start + size_of::<RecordHead>() as u64;
        Some(Record {
            head: self.at(Some(start)),
            targets: self.words(masks, words),
            ran: self.words(masks + 8 * words as u64, words),
        })
    }

    /// Reports that a property does not hold: the one with the number `oracle`, 1 to 31, in the
    /// guest's manifest. The first [`MAX_FINDINGS`] findings are kept; all are counted, by oracle.
    pub fn report(&self, oracle: u32, cpu: CpuId, call: u64, tsc: u64, seen: u64) {
        debug_assert!((1..ORACLE_SLOTS as u32).contains(&oracle));
        #[cfg(feature = "explore")]
        crate::sync::stops::before_next();
        count(self.found(oracle), 1);
        let made = self.header_u32(offset_of!(Header, findings_made));
        let index = made.fetch_add(1, Ordering::Relaxed);
        if index >= MAX_FINDINGS {
            return;
        }
        if let Some(offset) = self.layout.findings.entry(u64::from(index)) {
            let finding = Finding {
                oracle,
                cpu: cpu as u32,
                call,
                tsc,
                seen,
            };
            // SAFETY: the entry lies within the lab, and no other CPU writes it, since its index
            // was drawn by `fetch_add`.
            unsafe { self.pointer::<Finding>(offset).write_volatile(finding) };
        }
    }

    /// How many findings of the oracle with this number there are so far.
    pub fn found(&self, oracle: u32) -> &AtomicU64 {
        self.at(self.layout.found.entry(oracle.into()))
    }

    /// Number of findings so far, kept or not.
    pub fn findings_made(&self) -> u32 {
        self.header_u32(offset_of!(Header, findings_made))
            .load(Ordering::Relaxed)
    }

    /// The exit code of a run that is over: it passes if nothing was reported.
    pub fn conclusion(&self) -> ExitCode {
        match self.findings_made() {
            0 => ExitCode::Pass,
            _ => ExitCode::Fail,
        }
    }

    /// The findings that were kept. To be called only when no CPU can report any more.
    pub fn findings(&self) -> impl Iterator<Item = Finding> + '_ {
        (0..self.findings_made().min(MAX_FINDINGS)).filter_map(|index| {
            let offset = self.layout.findings.entry(u64::from(index))?;
            // SAFETY: the entry lies within the lab, and any bit pattern is a `Finding`.
            Some(unsafe { self.pointer::<Finding>(offset).read_volatile() })
        })
    }

    /// Counts in the header that a CPU has come up which was not started at boot.
    pub fn count_cpu_online(&self) {
        self.header_u32(offset_of!(Header, cpus_online))
            .fetch_add(1, Ordering::Relaxed);
    }

    /// Says how many CPUs were started at boot.
    pub fn set_cpus_online(&self, cpus: usize) {
        self.header_u32(offset_of!(Header, cpus_online))
            .store(cpus as u32, Ordering::Relaxed);
    }

    /// Stamps the header with the TSC at which the guest's own code began.
    pub fn set_boot_tsc(&self, tsc: u64) {
        self.header_u64(offset_of!(Header, boot_tsc))
            .store(tsc, Ordering::Relaxed);
    }

    /// Stamps the header with the TSC at which the workload began.
    pub fn set_workload_tsc(&self, tsc: u64) {
        self.header_u64(offset_of!(Header, workload_tsc))
            .store(tsc, Ordering::Relaxed);
    }

    fn header_u32(&self, offset: usize) -> &AtomicU32 {
        self.at(Some(offset as u64))
    }

    fn header_u64(&self, offset: usize) -> &AtomicU64 {
        self.at(Some(offset as u64))
    }

    /// The `T` at `offset`, which the layout has just produced.
    #[inline]
    fn at<T>(&self, offset: Option<u64>) -> &T {
        let offset = offset.expect("the lab has an entry for every CPU of the machine");
        // SAFETY: inside the lab and aligned, as `pointer` says; this module keeps only atomics
        // there, for which any bit pattern is valid, and the lab is never freed.
        unsafe { &*self.pointer(offset) }
    }

    /// `count` mask words at `offset`.
    #[inline]
    fn words(&self, offset: u64, count: usize) -> &[AtomicU64] {
        // SAFETY: as in `at`; a record's stride has room for both masks (`record_stride`), and a
        // row of the armed probes for its words.
        unsafe { slice::from_raw_parts(self.pointer(offset), count) }
    }

    /// Where `offset` is. Offsets come from the layout that was checked when the lab was opened, so
    /// they lie inside it, and are aligned for what the layout keeps there.
    #[inline]
    fn pointer<T>(&self, offset: u64) -> *mut T {
        debug_assert!(offset + size_of::<T>() as u64 <= self.layout.size);
        self.base.as_ptr().wrapping_add(offset as usize).cast()
    }
}
