//! What a CPU does by a deed that any of its contexts can carry out, its task or the function of a
//! call: it makes a call, takes or releases a lock, or reads or writes a word. What only a task can
//! do is in [`puppet`](super::puppet). May not decide what is done.

use core::sync::atomic::{AtomicU64, Ordering};

use kit::counters::count;
use kit::mailbox::{Command, Refusal};
use kit::platform::{CpuId, Platform};
use kit::program;
use kit::sync::atomic::Ordering as SharedOrdering;
use kit::sync::mask::CpuMask;
use shared::ledger::CallId;
use shared::program::PROGRAMS;

use super::calls;
use super::deeds::Verb;
use super::functions::{Function, LedgerFunctions};
use super::objects::Held;
use crate::ipi::Ipi;
use crate::ipi::csd::{Call, CallSingleData};
use crate::oracle::Oracle;
use crate::vectors::TIMER;

/// The context that carries out a deed, on the CPU that this code runs on.
pub(super) struct Context<'a, P: Platform> {
    /// The path of the machine.
    pub ipi: &'a Ipi<P, LedgerFunctions>,
    /// The locks that this context has.
    pub held: &'a Held,
    /// Where the id of a call is left before the call is made, since it may never return.
    pub made: Option<&'a AtomicU64>,
    /// The call in whose function this is.
    pub inside: Option<Call>,
}

/// Why a context has not carried out a deed.
#[derive(Debug)]
pub(super) enum Refused {
    /// It breaks the contract, which has been reported.
    Breach,
    /// Another reason.
    Other(Refusal),
}

impl From<Refusal> for Refused {
    fn from(why: Refusal) -> Self {
        Self::Other(why)
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Breach => Self::Invalid,
            Refused::Other(why) => why,
        }
    }
}

/// Carries out the program with this number, in the function of `inside`, or in the handler of
/// another interrupt. What is refused is left out. Nobody asks for an answer, so that what makes no
/// sense there is reported; a target that is offline makes sense.
pub(super) fn program<P: Platform>(
    ipi: &Ipi<P, LedgerFunctions>,
    number: u64,
    inside: Option<Call>,
) {
    let held = Held::none();
    let context = Context {
        ipi,
        held: &held,
        made: None,
        inside,
    };
    let machine = &ipi.machine;
    for command in program::commands(&machine.lab, number) {
        let known = Verb::try_from(command.verb)
            .ok()
            .filter(|_| command.is_known());
        let refused = match known {
            Some(verb) => context.obey(verb, &command).err(),
            None => Some(Refusal::Invalid.into()),
        };
        let Some(refused) = refused else { continue };
        count(&machine.counters().deeds_refused, 1);
        if !matches!(refused, Refused::Breach | Refused::Other(Refusal::Offline)) {
            let call = inside.map_or(0, |call| call.info);
            machine.report(Oracle::Contract, call, command.verb.into());
        }
    }
}

impl<P: Platform> Context<'_, P> {
    /// Carries out `command`, whose verb is `verb`, and returns its result.
    ///
    /// # Errors
    /// If it cannot be done, or not in any context.
    pub fn obey(&self, verb: Verb, command: &Command) -> Result<i64, Refused> {
        let ipi = self.ipi;
        let machine = &ipi.machine;
        let objects = &ipi.functions.objects;
        let (me, cpus) = (machine.this_cpu(), machine.cpus);
        let [first, second, ..] = command.arguments;
        let about = first as CpuId;
        let wait = command.waits();
        match verb {
            Verb::CallSingle => {
                let target = existing(about, cpus)?;
                if target != me {
                    self.may_wait()?;
                }
                let mut result = Ok(());
                self.call(command, &CpuMask::only(target, cpus), &mut |call| {
                    result = ipi.call_single(target, call, wait);
                    made_to(target, cpus, result.is_ok())
                });
                result.map_err(|_| Refusal::Offline)?;
            }
            Verb::CallAsync => {
                let target = existing(about, cpus)?;
                if wait {
                    return Err(Refusal::Invalid.into());
                }
                let csd = objects.csd_of(me);
                self.call_over(csd, command, target)?;
            }
            Verb::Requeue => {
                let inside = self.inside.ok_or(Refusal::Invalid)?;
                let target = existing(about, cpus)?;
                let source = CpuId::from(CallId::from_raw(inside.info).source());
                let csd = objects.csd_of(existing(source, cpus)?);
                // While its function runs, nobody else can use it.
                if csd.call() != inside {
                    return Err(Refusal::Invalid.into());
                }
                self.call_over(csd, command, target)?;
            }
            Verb::CallMany => {
                let mut among = command.mask()?;
                self.may_wait_for(&among)?;
                let own = objects.mask_of(me).ok_or(Refusal::Invalid)?;
                own.store(&among, SharedOrdering::Relaxed);
                among.remove(me);
                self.call(command, &among, &mut |call| ipi.call_many(own, call, wait));
            }
            Verb::CallAll => {
                let mut others = CpuMask::all(cpus);
                others.remove(me);
                self.may_wait_for(&others)?;
                self.call(command, &others, &mut |call| ipi.call_all(call, wait));
            }
            Verb::OnEach => {
                let all = CpuMask::all(cpus);
                self.may_wait_for(&all)?;
                self.call(command, &all, &mut |call| ipi.on_each_cpu(call, wait));
            }
            Verb::CallAny => {
                let mask = command.mask()?;
                if !mask.contains(me) {
                    self.may_wait_for(&mask)?;
                }
                let mut result = Err(Refusal::Offline);
                self.call(command, &mask, &mut |call| {
                    let chosen = ipi.call_any(&mask, call, wait);
                    result = chosen.map_err(|_| Refusal::Offline);
                    chosen.map_or_else(|_| CpuMask::none(cpus), |cpu| CpuMask::only(cpu, cpus))
                });
                return Ok(result.map(|cpu| cpu as i64)?);
            }
            Verb::CallCond => {
                let mask = command.mask()?;
                let word = objects.word(second)?;
                self.may_wait_for(&mask)?;
                let holds =
                    |cpu: CpuId| cpu < 64 && word.load(SharedOrdering::Acquire) >> cpu & 1 != 0;
                self.call(command, &mask, &mut |call| {
                    ipi.on_each_cpu_cond(&mask, &holds, call, wait)
                });
            }
            Verb::Timer => {
                objects.timer_of(me).set(first, command.program);
                if first != 0 {
                    machine.platform.send_ipi(me, TIMER);
                }
            }
            Verb::LeaveMask => {
                let theirs = objects.mask_of(about).ok_or(Refusal::Invalid)?;
                theirs.remove(me, SharedOrdering::Relaxed);
            }
            Verb::Lock => {
                let (number, lock) = objects.lock(first)?;
                lock.lock(&machine.platform);
                self.held.insert(number);
            }
            Verb::Unlock => {
                let (number, lock) = objects.lock(first)?;
                if !self.held.remove(number) {
                    machine.report(Oracle::Contract, 0, first);
                    return Err(Refused::Breach);
                }
                lock.unlock();
            }
            // Release pairs with the Acquire below: who finds the value finds what was written
            // before it.
            Verb::SetWord => objects.word(first)?.store(second, SharedOrdering::Release),
            Verb::SpinUntil => {
                let word = objects.word(first)?;
                machine.spin_until(|| word.load(SharedOrdering::Acquire) == second);
            }
            _ => return Err(Refusal::Invalid.into()),
        }
        Ok(0)
    }

    /// Makes the call that `command` is to `target`, over the descriptor `csd`.
    fn call_over(
        &self,
        csd: &'static CallSingleData,
        command: &Command,
        target: CpuId,
    ) -> Result<(), Refused> {
        let machine = &self.ipi.machine;
        let cpus = machine.cpus;
        if target != machine.this_cpu() && csd.is_locked() {
            self.may_wait()?;
        }
        let mut result = Ok(());
        self.call(command, &CpuMask::only(target, cpus), &mut |call| {
            result = self.ipi.call_single_async(target, csd, call);
            made_to(target, cpus, result.is_ok())
        });
        result.map_err(|_| Refusal::Offline)?;
        Ok(())
    }

    /// Has `make` make the call that `command` is, to CPUs of `among`.
    fn call(&self, command: &Command, among: &CpuMask, make: &mut dyn FnMut(Call) -> CpuMask) {
        let function = match command.program {
            program @ 1.. if program <= PROGRAMS.into() => Function::Program(program as u8),
            // Two functions in turn, so that a mix-up of two calls mixes up their functions too.
            _ => [Function::Other, Function::Plain][command.number as usize % 2],
        };
        calls::entered(self.ipi, among, function, command.waits(), |call| {
            if let Some(made) = self.made {
                made.store(call.info, Ordering::Release);
            }
            make(call)
        });
    }

    /// Checks that this CPU may wait for another. With interrupts off it may not, by the contract.
    /// That is reported here as the path would report it; but the path would go on, and might never
    /// return.
    fn may_wait(&self) -> Result<(), Refused> {
        let machine = &self.ipi.machine;
        if machine.platform.irqs_enabled() {
            return Ok(());
        }
        machine.report(Oracle::Contract, 0, 0);
        Err(Refused::Breach)
    }

    /// As [`Context::may_wait`], if there is any other CPU in `mask` to wait for.
    fn may_wait_for(&self, mask: &CpuMask) -> Result<(), Refused> {
        if self.ipi.machine.others_online(mask).is_empty() {
            return Ok(());
        }
        self.may_wait()
    }
}

/// `cpu`, if the machine has it.
fn existing(cpu: CpuId, cpus: usize) -> Result<CpuId, Refusal> {
    if cpu < cpus {
        Ok(cpu)
    } else {
        Err(Refusal::Offline)
    }
}

fn made_to(target: CpuId, cpus: usize, made: bool) -> CpuMask {
    if made {
        CpuMask::only(target, cpus)
    } else {
        CpuMask::none(cpus)
    }
}
