//! What the ledgers of guests do with a record of a call: begin it, say to which CPUs the call was
//! made, and find out where it has run. Which calls are entered, and what is reported of them, is for
//! each guest.

use core::sync::atomic::Ordering;

use shared::ledger::{CallId, Lane};

use crate::lab::{Lab, Record};
use crate::platform::Platform;
use crate::sync::ghost;
use crate::sync::mask::CpuMask;

impl Lab {
    /// The record of the call with this raw id, if that is entered and not closed.
    pub fn open_record(&self, call: u64) -> Option<Record<'_>> {
        self.record(CallId::from_raw(call)).filter(|record| {
            // Acquire pairs with the Release by which its ledger opens it.
            record.head.open.load(Ordering::Acquire) != 0
                && record.head.id.load(Ordering::Relaxed) == call
        })
    }
}

impl Record<'_> {
    /// Begins the record, which is not open, with what is to be known of `call`, or of the `deed`
    /// that has its id. It is not waited for, unless that is said afterwards.
    pub fn begin(&self, call: CallId, targets: &CpuMask, deed: u16, now: u64) {
        let head = self.head;
        head.deed.store(deed, Ordering::Relaxed);
        head.wait.store(0, Ordering::Relaxed);
        for ((target, ran), word) in self.targets.iter().zip(self.ran).zip(targets.words()) {
            target.store(*word, Ordering::Relaxed);
            ran.store(0, Ordering::Relaxed);
        }
        head.made_tsc.store(now, Ordering::Relaxed);
        head.returned_tsc.store(0, Ordering::Relaxed);
        // Release: whoever finds the id does not take a deed for a call that nobody has run.
        head.id.store(call.raw(), Ordering::Release);
    }

    /// Corrects to which CPUs the call was made. Returns how many more executions are expected, which
    /// is less than zero, and so wraps around, if it was made to fewer.
    pub fn was_made_to(&self, targets: &CpuMask) -> u64 {
        let mut entered = 0;
        for (target, word) in self.targets.iter().zip(targets.words()) {
            entered += u64::from(target.swap(*word, Ordering::Relaxed).count_ones());
        }
        (targets.len() as u64).wrapping_sub(entered)
    }

    /// Whether the call has run on all of its targets, or the record was never used.
    pub fn is_complete(&self) -> bool {
        self.targets.iter().zip(self.ran).all(|(targets, ran)| {
            ghost::reads(ran);
            targets.load(Ordering::Relaxed) & !ran.load(Ordering::Acquire) == 0
        })
    }
}

/// The context in which this CPU makes calls now.
pub fn lane<P: Platform>(platform: &P) -> Lane {
    match platform.irqs_enabled() {
        true => Lane::Task,
        false => Lane::Handler,
    }
}
