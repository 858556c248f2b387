//! The ledger: every call is entered when it is made, and each target marks it when it runs. So a
//! call that is lost, runs twice, runs on the wrong CPU or with wrong data is found at once or at
//! the end of the run.
//!
//! The records are in the lab, where a monitor can judge them too. Nothing here takes part in the
//! protocols under test.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU64, Ordering};

use kit::counters::count;
use kit::lab::Record;
use kit::platform::{CpuId, Platform};
use kit::record::lane;
use kit::sync::ghost;
use kit::sync::mask::CpuMask;
use shared::ledger::{CallId, Lane};

use crate::ipi::csd::Call;
use crate::machine::Machine;
use crate::oracle::Oracle;

/// The calls of every CPU.
#[derive(Debug)]
pub struct Ledger {
    /// Last sequence number used, by CPU and lane.
    sequences: Box<[[AtomicU64; Lane::COUNT]]>,
}

impl Ledger {
    /// An empty ledger for `cpus` CPUs.
    pub fn new(cpus: usize) -> Self {
        Self {
            sequences: (0..cpus).map(|_| Default::default()).collect(),
        }
    }

    /// Enters a call from this CPU and returns its id, which must be the argument of its function.
    /// The call is made to CPUs of `targets`, perhaps not to all: the path leaves out those that
    /// are offline.
    ///
    /// The record may belong to an earlier call that is still under way. With interrupts on, this
    /// waits for that call. With interrupts off it cannot wait; but calls that are made then are
    /// complete when they return, so if the earlier call is not complete, it was lost.
    pub fn open<P: Platform>(
        &self,
        machine: &Machine<P>,
        func: u8,
        targets: &CpuMask,
        wait: bool,
    ) -> CallId {
        let (call, record) = self.next(machine, func);
        let head = record.head;
        record.begin(call, targets, 0, machine.platform.timestamp());
        head.wait.store(u16::from(wait), Ordering::Relaxed);
        // All executions that the call may cause are counted as expected before it can run
        // anywhere, so that at no moment more have run than are expected. Those that turn out not
        // to be due are subtracted again.
        let tally = machine.tally();
        count(&tally.calls_made, 1);
        count(&tally.calls_expected, targets.len() as u64);
        // Release: a reader that finds the record open finds the rest of it.
        head.open.store(1, Ordering::Release);
        call
    }

    /// Enters, among the calls of this CPU's task, what it is about to do that is no call: the deed
    /// with this number, about `cpu`.
    pub fn enter_deed<P: Platform>(&self, machine: &Machine<P>, deed: u16, cpu: CpuId) {
        let (call, record) = self.next(machine, 0);
        count(&machine.tally().deeds_entered, 1);
        let about = CpuMask::only(cpu, machine.cpus);
        record.begin(call, &about, deed, machine.platform.timestamp());
    }

    /// The record of the next call from this CPU, which is not open, and the call's id.
    fn next<'a, P: Platform>(&self, machine: &'a Machine<P>, func: u8) -> (CallId, Record<'a>) {
        let me = machine.this_cpu();
        let lane = lane(&machine.platform);
        let sequence = self.sequences[me][lane as usize].fetch_add(1, Ordering::Relaxed) + 1;
        let call = CallId::new(me as u16, func, lane, sequence);
        let record = machine
            .lab
            .record(call)
            .expect("this CPU has records in the lab");
        match lane {
            // The record was never used.
            _ if record.head.open.load(Ordering::Relaxed) == 0 => {}
            Lane::Task => machine.spin_until(|| record.is_complete()),
            Lane::Handler if !record.is_complete() => {
                machine.report(Oracle::Lost, record.head.id.load(Ordering::Relaxed), 0);
            }
            Lane::Handler => {}
        }
        record.head.open.store(0, Ordering::Relaxed);
        (call, record)
    }

    /// Marks that `call` runs on this CPU, now, and reports whatever is wrong with that.
    ///
    /// Returns the function to run, or `None` if `call` is no call at all.
    pub fn ran<P: Platform>(&self, machine: &Machine<P>, call: Call) -> Option<u8> {
        let me = machine.this_cpu();
        count(&machine.tally().calls_executed, 1);
        let id = CallId::from_raw(call.info);
        let Some(record) = machine.lab.open_record(call.info) else {
            machine.report(Oracle::StaleArgument, call.info, u64::from(call.func));
            return None;
        };
        if call.func != u32::from(id.function()) {
            machine.report(Oracle::WrongFunction, call.info, u64::from(call.func));
        }
        let (word, bit) = (me / 64, 1 << (me % 64));
        if record.targets[word].load(Ordering::Relaxed) & bit == 0 {
            machine.report(Oracle::WrongCpu, call.info, me as u64);
        }
        // Release pairs with the Acquire in `is_complete`: the caller that finds the call complete
        // finds what its function did.
        ghost::marks(&record.ran[word]);
        if record.ran[word].fetch_or(bit, Ordering::Release) & bit != 0 {
            machine.report(Oracle::Duplicate, call.info, me as u64);
        }
        Some(id.function())
    }

    /// Notes that `call` has returned to its caller, and to which CPUs it was made, if any. If the
    /// caller waited, it must have run on all of them.
    pub fn returned<P: Platform>(&self, machine: &Machine<P>, call: CallId, targets: &CpuMask) {
        let record = machine
            .lab
            .record(call)
            .expect("the ledger gave out this id");
        // The caller may have had another CPU make the call, but it is counted for the caller.
        let owed = &machine.lab.tally(call.source().into()).calls_expected;
        count(owed, record.was_made_to(targets));
        record
            .head
            .returned_tsc
            .store(machine.platform.timestamp(), Ordering::Relaxed);
        if record.head.wait.load(Ordering::Relaxed) != 0 && !record.is_complete() {
            machine.report(Oracle::EarlyReturn, call.raw(), 0);
        }
    }

    /// Reports every open call that has not run everywhere, and closes those that have. Only when
    /// nothing is in flight, so that none can run any more.
    pub fn audit<P: Platform>(&self, machine: &Machine<P>) {
        for record in (0..machine.cpus).flat_map(|cpu| machine.lab.records_of(cpu)) {
            if record.head.open.load(Ordering::Relaxed) == 0 {
                continue;
            }
            if record.is_complete() {
                record.head.open.store(0, Ordering::Relaxed);
            } else {
                machine.report(Oracle::Lost, record.head.id.load(Ordering::Relaxed), 0);
            }
        }
    }

    /// Corrects the expected executions of the calls that have not returned to their callers, and
    /// perhaps never will. Only when nothing is in flight. Such a call counts as made to those of
    /// its possible targets that are online or have run it, since its caller has not said to which
    /// it was made.
    pub fn forgive_unreturned<P: Platform>(&self, machine: &Machine<P>) {
        let online = machine.online();
        for cpu in 0..machine.cpus {
            let inside = |record: &Record<'_>| {
                record.head.open.load(Ordering::Relaxed) != 0
                    && record.head.returned_tsc.load(Ordering::Relaxed) == 0
            };
            for record in machine.lab.records_of(cpu).filter(inside) {
                let masks = record.targets.iter().zip(record.ran).zip(online.words());
                for ((target, ran), online) in masks {
                    let could_run = online | ran.load(Ordering::Relaxed);
                    let forgiven = target.fetch_and(could_run, Ordering::Relaxed) & !could_run;
                    let expected = &machine.lab.tally(cpu).calls_expected;
                    expected.fetch_sub(forgiven.count_ones().into(), Ordering::Relaxed);
                }
            }
        }
    }

    /// Waits until every call of `cpu` has run everywhere, and closes it. `cpu` must be this CPU or
    /// offline.
    pub fn settle<P: Platform>(&self, machine: &Machine<P>, cpu: CpuId) {
        for record in machine.lab.records_of(cpu) {
            if record.head.open.load(Ordering::Relaxed) != 0 {
                machine.spin_until(|| record.is_complete());
                record.head.open.store(0, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use kit::lab::Lab;
    use kit::threads::Alone;

    use super::*;

    fn machine() -> Machine<Alone> {
        Machine::new(Alone, 2, Lab::allocate(2).unwrap())
    }

    /// The oracles that fired, in order.
    fn oracles(machine: &Machine<Alone>) -> Vec<Oracle> {
        machine
            .lab
            .findings()
            .map(|finding| Oracle::try_from(finding.oracle).unwrap())
            .collect()
    }

    fn call(id: CallId) -> Call {
        Call {
            func: u32::from(id.function()),
            info: id.raw(),
        }
    }

    #[test]
    fn a_call_that_runs_once_where_it_should_is_fine() {
        let (machine, ledger) = (machine(), Ledger::new(2));
        let id = ledger.open(&machine, 1, &CpuMask::only(0, 2), true);
        assert_eq!(ledger.ran(&machine, call(id)), Some(1));
        ledger.returned(&machine, id, &CpuMask::only(0, 2));
        ledger.settle(&machine, 0);
        assert_eq!(oracles(&machine), []);
    }

    #[test]
    fn a_second_run_is_a_duplicate() {
        let (machine, ledger) = (machine(), Ledger::new(2));
        let id = ledger.open(&machine, 0, &CpuMask::only(0, 2), false);
        ledger.ran(&machine, call(id));
        ledger.ran(&machine, call(id));
        assert_eq!(oracles(&machine), [Oracle::Duplicate]);
    }

    #[test]
    fn a_run_elsewhere_is_on_the_wrong_cpu() {
        let (machine, ledger) = (machine(), Ledger::new(2));
        let id = ledger.open(&machine, 0, &CpuMask::only(1, 2), false);
        ledger.ran(&machine, call(id));
        assert_eq!(oracles(&machine), [Oracle::WrongCpu]);
    }

    #[test]
    fn another_function_with_this_argument_is_wrong() {
        let (machine, ledger) = (machine(), Ledger::new(2));
        let id = ledger.open(&machine, 2, &CpuMask::only(0, 2), false);
        let torn = Call {
            func: 3,
            ..call(id)
        };
        ledger.ran(&machine, torn);
        assert_eq!(oracles(&machine), [Oracle::WrongFunction]);
    }

    #[test]
    fn an_argument_that_is_no_open_call_is_stale() {
        let (machine, ledger) = (machine(), Ledger::new(2));
        let id = ledger.open(&machine, 0, &CpuMask::only(0, 2), false);
        ledger.ran(&machine, call(id));
        ledger.settle(&machine, 0);
        for info in [id.raw(), 0, u64::MAX, id.raw() + 1] {
            assert_eq!(ledger.ran(&machine, Call { func: 0, info }), None);
        }
        assert_eq!(oracles(&machine), [Oracle::StaleArgument; 4]);
    }

    #[test]
    fn a_call_that_never_ran_is_lost() {
        let (machine, ledger) = (machine(), Ledger::new(2));
        let ran = ledger.open(&machine, 0, &CpuMask::only(0, 2), false);
        ledger.open(&machine, 0, &CpuMask::all(2), false);
        ledger.ran(&machine, call(ran));
        ledger.audit(&machine);
        assert_eq!(oracles(&machine), [Oracle::Lost]);
    }

    #[test]
    fn a_waiting_call_that_returns_before_it_ran_returns_early() {
        let (machine, ledger) = (machine(), Ledger::new(2));
        let id = ledger.open(&machine, 0, &CpuMask::only(1, 2), true);
        ledger.returned(&machine, id, &CpuMask::only(1, 2));
        assert_eq!(oracles(&machine), [Oracle::EarlyReturn]);
    }

    #[test]
    fn a_call_that_was_made_to_fewer_cpus_owes_no_more() {
        let (machine, ledger) = (machine(), Ledger::new(2));
        let id = ledger.open(&machine, 0, &CpuMask::all(2), true);
        ledger.ran(&machine, call(id));
        ledger.returned(&machine, id, &CpuMask::only(0, 2));
        let refused = ledger.open(&machine, 0, &CpuMask::all(2), true);
        ledger.returned(&machine, refused, &CpuMask::none(2));
        ledger.settle(&machine, 0);
        assert_eq!(oracles(&machine), []);
    }

    #[test]
    fn no_more_runs_than_is_owed_at_any_moment() {
        let (machine, ledger) = (machine(), Ledger::new(2));
        let owed = || machine.lab.tally(0).calls_expected.load(Ordering::Relaxed);
        let executed = || machine.lab.tally(0).calls_executed.load(Ordering::Relaxed);
        let id = ledger.open(&machine, 0, &CpuMask::all(2), false);
        ledger.ran(&machine, call(id));
        assert_eq!((executed(), owed()), (1, 2), "while the caller is inside");
        ledger.returned(&machine, id, &CpuMask::only(0, 2));
        assert_eq!((executed(), owed()), (1, 1), "one was offline");
    }

    #[test]
    fn a_caller_that_does_not_come_back_owes_what_can_have_run() {
        let (machine, ledger) = (machine(), Ledger::new(2));
        let id = ledger.open(&machine, 0, &CpuMask::all(2), true);
        ledger.ran(&machine, call(id));
        machine.set_online(1, false);
        ledger.forgive_unreturned(&machine);
        ledger.audit(&machine);
        let expected = &machine.lab.tally(0).calls_expected;
        assert_eq!(expected.load(Ordering::Relaxed), 1);
        assert_eq!(oracles(&machine), []);

        let lost = ledger.open(&machine, 0, &CpuMask::only(0, 2), true);
        ledger.forgive_unreturned(&machine);
        ledger.audit(&machine);
        let first = machine.lab.findings().next();
        assert_eq!(first.map(|finding| finding.call), Some(lost.raw()));
        assert_eq!(oracles(&machine), [Oracle::Lost]);
    }

    #[test]
    fn more_findings_than_are_kept_are_counted() {
        let machine = machine();
        for _ in 0..shared::lab::MAX_FINDINGS + 5 {
            machine.report(Oracle::Contract, 0, 0);
        }
        assert_eq!(machine.lab.findings_made(), shared::lab::MAX_FINDINGS + 5);
        assert_eq!(
            machine.lab.findings().count(),
            shared::lab::MAX_FINDINGS as usize
        );
        // One of another kind is not lost among them.
        machine.report(Oracle::WrongCpu, 0, 0);
        let found = |oracle| machine.lab.found(oracle as u32).load(Ordering::Relaxed);
        assert_eq!(
            (found(Oracle::Contract), found(Oracle::WrongCpu)),
            (u64::from(shared::lab::MAX_FINDINGS) + 5, 1)
        );
        let said = crate::summary::RunSummary::of(machine.lab, 0).to_string();
        assert!(said.contains("in all 1 wrong-cpu, 69 contract\n"), "{said}");
    }
}
