//! The functions that the workloads' calls run. Each run is marked in the ledger. Two of the
//! functions make a further call, which is all that the contract allows a function. Those that do
//! what a [program](kit::program) says can also break it.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU64, Ordering};

use kit::platform::{CpuId, Platform};
use kit::sync::mask::CpuMask;
use kit::sync::spin::SpinLock;
use shared::ledger::CallId;
use shared::program::PROGRAMS;

use super::deeds::Verb;
use super::obey;
use super::objects::Objects;
use crate::ipi::csd::{Call, CallSingleData};
use crate::ipi::{Functions, Ipi};
use crate::ledger::Ledger;
use crate::machine::Machine;
use crate::oracle::Oracle;

/// What the function of a call does besides marking the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// Nothing more.
    Plain,
    /// Nothing more; it differs from `Plain` so that a mix-up of functions is seen.
    Other,
    /// Calls its own CPU, which runs that call inline.
    Nested,
    /// Makes a second call, which the first caller has prepared with
    /// [`LedgerFunctions::prepare_relay`].
    Relay,
    /// Stops the [`Stopwatch`].
    Timed,
    /// Takes a lock, which all CPUs that run it share, and lets it go.
    Locking,
    /// Carries out the program with this number.
    Program(u8),
}

impl Function {
    /// All but those that carry out programs, by number.
    const FIXED: [Self; 6] = [
        Self::Plain,
        Self::Other,
        Self::Nested,
        Self::Relay,
        Self::Timed,
        Self::Locking,
    ];

    /// The number of the function that carries out program 0, if there were one: they are counted
    /// from 1.
    const PROGRAMS_FROM: u8 = 16;

    /// Its number, by which the ledger knows it.
    fn number(self) -> u8 {
        match self {
            Self::Program(program) => Self::PROGRAMS_FROM + program,
            fixed => {
                let place = Self::FIXED.iter().position(|it| *it == fixed);
                place.expect("all others are fixed") as u8
            }
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        let program = || number.checked_sub(Self::PROGRAMS_FROM).map(Self::Program);
        let fixed = Self::FIXED.get(usize::from(number)).copied();
        fixed.or_else(program)
    }
}

// A number has room for every program.
const _: () = assert!((Function::PROGRAMS_FROM as u32) + PROGRAMS <= u8::MAX as u32);

/// A call that was prepared by one CPU, and is made by the target of another call.
#[derive(Debug)]
struct Relay {
    csd: CallSingleData,
    /// Id of the prepared call.
    call: AtomicU64,
    /// Where it goes.
    target: AtomicU64,
}

/// How long the last call took from just before it was made to the beginning of its function. One
/// CPU makes such calls, and waits for each.
#[derive(Debug, Default)]
pub struct Stopwatch {
    started: AtomicU64,
    took: AtomicU64,
}

impl Stopwatch {
    /// A call is about to be made, at `now`.
    pub fn start(&self, now: u64) {
        self.started.store(now, Ordering::Relaxed);
    }

    /// Its function begins, at `now`. The clocks of two CPUs need not be equal to the cycle.
    fn stop(&self, now: u64) {
        let started = self.started.load(Ordering::Relaxed);
        self.took
            .store(now.saturating_sub(started), Ordering::Relaxed);
    }

    /// How long the call took, once it has been waited for.
    pub fn took(&self) -> u64 {
        self.took.load(Ordering::Relaxed)
    }
}

/// The workloads' functions, and the ledger in which their runs are entered.
#[derive(Debug)]
pub struct LedgerFunctions {
    ledger: Ledger,
    /// By the CPU that prepares the relay.
    relays: &'static [Relay],
    /// Of the calls of [`Function::Timed`].
    pub stopwatch: Stopwatch,
    /// What [`Function::Locking`] takes.
    lock: SpinLock,
    /// What deeds act on.
    pub objects: Objects,
}

impl LedgerFunctions {
    /// The functions for `cpus` CPUs.
    pub fn new(cpus: usize) -> Self {
        let relays: Box<[Relay]> = (0..cpus)
            .map(|_| Relay {
                csd: CallSingleData::new(),
                call: AtomicU64::new(0),
                target: AtomicU64::new(0),
            })
            .collect();
        Self {
            ledger: Ledger::new(cpus),
            relays: Box::leak(relays),
            stopwatch: Stopwatch::default(),
            lock: SpinLock::new(),
            objects: Objects::new(cpus),
        }
    }

    /// Enters a call to CPUs of `targets` in the ledger and returns what to hand to the path.
    pub fn enter<P: Platform>(
        &self,
        machine: &Machine<P>,
        function: Function,
        targets: &CpuMask,
        wait: bool,
    ) -> Call {
        let id = self.ledger.open(machine, function.number(), targets, wait);
        Call {
            func: u32::from(id.function()),
            info: id.raw(),
        }
    }

    /// Enters in the ledger that this CPU is about to do `verb`, which is no call, about `cpu`.
    pub fn enter_deed<P: Platform>(&self, machine: &Machine<P>, verb: Verb, cpu: CpuId) {
        self.ledger.enter_deed(machine, verb as u16, cpu);
    }

    /// Notes that the path has returned from `call`, which it made to `targets`, if any.
    pub fn returned<P: Platform>(&self, machine: &Machine<P>, call: Call, targets: &CpuMask) {
        let id = CallId::from_raw(call.info);
        self.ledger.returned(machine, id, targets);
    }

    /// Enters a call to `target`, which the next [`Function::Relay`] of this CPU will make, after
    /// the previous one has run. The relay itself must be a waiting call to one CPU.
    pub fn prepare_relay<P: Platform>(&self, machine: &Machine<P>, target: CpuId) {
        let relay = &self.relays[machine.this_cpu()];
        relay.csd.wait(machine);
        let targets = CpuMask::only(target, machine.cpus);
        let call = self.enter(machine, Function::Plain, &targets, false);
        relay.call.store(call.info, Ordering::Relaxed);
        relay.target.store(target as u64, Ordering::Relaxed);
    }

    /// Cancels the relay that was prepared last.
    pub fn cancel_relay<P: Platform>(&self, machine: &Machine<P>) {
        let call = CallId::from_raw(self.relays[machine.this_cpu()].call.load(Ordering::Relaxed));
        self.ledger
            .returned(machine, call, &CpuMask::none(machine.cpus));
    }

    /// Waits until every call this CPU entered has run everywhere.
    pub fn settle<P: Platform>(&self, machine: &Machine<P>) {
        self.settle_for(machine, machine.this_cpu());
    }

    /// As [`LedgerFunctions::settle`], for `cpu`, which is offline.
    pub fn settle_for<P: Platform>(&self, machine: &Machine<P>, cpu: CpuId) {
        self.relays[cpu].csd.wait(machine);
        self.ledger.settle(machine, cpu);
    }

    /// Reports every call that has not run everywhere, when nothing is in flight.
    pub fn audit<P: Platform>(&self, machine: &Machine<P>) {
        self.ledger.audit(machine);
    }

    /// Corrects the expected executions of the calls that have not returned to their callers, when
    /// nothing is in flight.
    pub fn forgive_unreturned<P: Platform>(&self, machine: &Machine<P>) {
        self.ledger.forgive_unreturned(machine);
    }

    fn nest<P: Platform>(&self, ipi: &Ipi<P, Self>) {
        let machine = &ipi.machine;
        let me = machine.this_cpu();
        let targets = CpuMask::only(me, machine.cpus);
        let call = self.enter(machine, Function::Plain, &targets, true);
        if ipi.call_single(me, call, true).is_err() {
            machine.report(Oracle::Contract, call.info, me as u64);
        }
        self.returned(machine, call, &targets);
    }

    fn relay<P: Platform>(&self, ipi: &Ipi<P, Self>, from: CpuId) {
        let Some(relay) = self.relays.get(from) else {
            return;
        };
        let info = relay.call.load(Ordering::Relaxed);
        let call = Call {
            func: u32::from(CallId::from_raw(info).function()),
            info,
        };
        let target = relay.target.load(Ordering::Relaxed) as CpuId;
        let targets = match ipi.call_single_async(target, &relay.csd, call) {
            Ok(()) => CpuMask::only(target, ipi.machine.cpus),
            Err(_) => CpuMask::none(ipi.machine.cpus),
        };
        self.returned(&ipi.machine, call, &targets);
    }
}

impl<P: Platform> Functions<P> for LedgerFunctions {
    fn run(&self, ipi: &Ipi<P, Self>, call: Call) {
        let machine = &ipi.machine;
        if machine.platform.irqs_enabled() {
            machine.report(Oracle::InterruptsOn, call.info, 0);
        }
        let function = self
            .ledger
            .ran(machine, call)
            .and_then(Function::from_number);
        match function {
            Some(Function::Nested) => self.nest(ipi),
            Some(Function::Relay) => {
                self.relay(ipi, usize::from(CallId::from_raw(call.info).source()));
            }
            Some(Function::Timed) => self.stopwatch.stop(machine.platform.timestamp()),
            Some(Function::Locking) => self.lock.with(&machine.platform, || {}),
            Some(Function::Program(program)) => obey::program(ipi, program.into(), Some(call)),
            Some(Function::Plain | Function::Other) | None => {}
        }
    }
}
