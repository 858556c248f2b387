//! The ledger of calls, for C files that make some: each is entered when it is made, and marked
//! where it runs ([`shared::ledger`]). The VMM judges the same records; what a CPU can see at once
//! is reported here.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU64, Ordering};

use kit::counters::count;
use kit::declare;
use kit::lab::Lab;
use kit::manifest::Record as Declared;
use kit::platform::Platform;
use kit::record::lane;
use kit::sync::ghost;
use kit::sync::mask::CpuMask;
use shared::ledger::{CallId, Lane};

/// The first oracle that is not for C files to declare.
pub const FIRST_ORACLE: u32 = 28;
const STALE: u32 = 28;
const DUPLICATE: u32 = 29;
const EARLY: u32 = 30;
const LOST: u32 = 31;

declare! {
    Declared::oracle(STALE, "stale-argument", "ran with the id of no open call"),
    Declared::oracle(DUPLICATE, "duplicate", "ran twice on a target"),
    Declared::oracle(EARLY, "early-return", "returned before it had run everywhere"),
    Declared::oracle(LOST, "lost", "never ran on a target"),
}

/// The calls of every CPU.
#[derive(Debug)]
pub struct Ledger {
    lab: Lab,
    /// Last sequence number used, by CPU and lane.
    sequences: Box<[[AtomicU64; Lane::COUNT]]>,
}

impl Ledger {
    /// An empty ledger in `lab`.
    pub fn new(lab: Lab) -> Self {
        Self {
            lab,
            sequences: (0..lab.cpus()).map(|_| Default::default()).collect(),
        }
    }

    /// Enters a call from this CPU to `targets`, and returns its id. A record is used again after
    /// 64 calls: if that one has not run everywhere by then, it is reported as lost. Its id carries
    /// the number of the program that its function carries out, or 0.
    pub fn made<P: Platform>(
        &self,
        platform: &P,
        targets: &CpuMask,
        waits: bool,
        program: u8,
    ) -> CallId {
        let me = platform.this_cpu();
        let lane = lane(platform);
        let sequence = self.sequences[me][lane as usize].fetch_add(1, Ordering::Relaxed) + 1;
        let call = CallId::new(me as u16, program, lane, sequence);
        let record = self.lab.record(call).expect("this CPU has records");
        let head = record.head;
        if head.open.load(Ordering::Relaxed) != 0 && !record.is_complete() {
            self.report(platform, LOST, head.id.load(Ordering::Relaxed));
        }
        head.open.store(0, Ordering::Relaxed);
        record.begin(call, targets, 0, platform.timestamp());
        head.wait.store(u16::from(waits), Ordering::Relaxed);
        let tally = self.lab.tally(me);
        count(&tally.calls_made, 1);
        count(&tally.calls_expected, targets.len() as u64);
        // Release: a reader that finds the record open finds the rest of it.
        head.open.store(1, Ordering::Release);
        call
    }

    /// Corrects to which CPUs the call with this raw id was made, by this CPU.
    pub fn was_made_to<P: Platform>(&self, platform: &P, call: u64, targets: &CpuMask) {
        let Some(record) = self.lab.record(CallId::from_raw(call)) else {
            self.report(platform, STALE, call);
            return;
        };
        let owed = &self.lab.tally(platform.this_cpu()).calls_expected;
        count(owed, record.was_made_to(targets));
    }

    /// Whether this CPU's next call has room: whether the one whose record it takes has run
    /// everywhere.
    pub fn has_room<P: Platform>(&self, platform: &P) -> bool {
        let me = platform.this_cpu();
        let lane = lane(platform);
        let sequence = self.sequences[me][lane as usize].load(Ordering::Relaxed) + 1;
        let next = CallId::new(me as u16, 0, lane, sequence);
        let record = self.lab.record(next).expect("this CPU has records");
        record.head.open.load(Ordering::Relaxed) == 0 || record.is_complete()
    }

    /// Marks that the call with this raw id runs on this CPU, now.
    pub fn ran<P: Platform>(&self, platform: &P, call: u64) {
        let me = platform.this_cpu();
        count(&self.lab.tally(me).calls_executed, 1);
        let Some(record) = self.lab.open_record(call) else {
            self.report(platform, STALE, call);
            return;
        };
        let (word, bit) = (me / 64, 1 << (me % 64));
        ghost::marks(&record.ran[word]);
        if record.ran[word].fetch_or(bit, Ordering::Release) & bit != 0 {
            self.report(platform, DUPLICATE, call);
        }
    }

    /// Notes that the call has returned to its caller. One that waits must have run everywhere.
    pub fn returned<P: Platform>(&self, platform: &P, call: u64) {
        let Some(record) = self.lab.record(CallId::from_raw(call)) else {
            self.report(platform, STALE, call);
            return;
        };
        let head = record.head;
        head.returned_tsc
            .store(platform.timestamp(), Ordering::Relaxed);
        if head.wait.load(Ordering::Relaxed) != 0 && !record.is_complete() {
            self.report(platform, EARLY, call);
        }
    }

    /// Reports every open call that has not run everywhere, and closes those that have. Only when
    /// nothing is in flight.
    pub fn audit<P: Platform>(&self, platform: &P) {
        for record in (0..self.lab.cpus()).flat_map(|cpu| self.lab.records_of(cpu)) {
            if record.head.open.load(Ordering::Relaxed) == 0 {
                continue;
            }
            if record.is_complete() {
                record.head.open.store(0, Ordering::Relaxed);
            } else {
                self.report(platform, LOST, record.head.id.load(Ordering::Relaxed));
            }
        }
    }

    fn report<P: Platform>(&self, platform: &P, oracle: u32, call: u64) {
        let (me, now) = (platform.this_cpu(), platform.timestamp());
        self.lab.report(oracle, me, call, now, 0);
    }
}
