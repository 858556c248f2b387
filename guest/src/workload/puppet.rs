//! `workload=puppet`: every CPU does what its mailbox tells it, one command at a time, and nothing
//! else ([`kit::mailbox`]). The commands are those of [`deeds`](super::deeds). What writes them, a
//! script or a search, decides what is tried: this module may neither choose, nor reorder, nor
//! repeat commands.
//!
//! **The end.** A CPU takes what is pending at it by sending itself the vector of the lowest
//! priority: when that has been taken, so have all that were pending before. No call vector is sent
//! for this, which could hide the loss of a call. The end waits for no call: one that has not run
//! by then is lost.

use alloc::boxed::Box;

use core::sync::atomic::Ordering;

use kit::lab::Lab;
use kit::mailbox::{Command, Deeds, Mailboxes};
use kit::platform::{CpuId, Platform, Vector};
use kit::specimen::{Next, Part};
use kit::sync::atomic::Ordering as SharedOrdering;
use kit::sync::mask::{AtomicCpuMask, CpuMask};
use shared::mailbox::{ANSWERS, Refusal};

use super::calls;
use super::deeds::Verb;
use super::functions::{Function, LedgerFunctions};
use crate::ipi::Ipi;
use crate::ipi::csd::{Call, CallSingleData};
use crate::ipi::hotplug::HotplugError;
use crate::oracle::Oracle;

/// The puppets of one machine.
#[derive(Debug)]
pub struct Puppet {
    mailboxes: Mailboxes,
    /// By CPU: the mask with which it calls many, and which other CPUs can leave. It is kept while
    /// the CPU is offline.
    masks: Box<[OwnMask]>,
    /// By CPU: its own descriptor, which carries [`Verb::CallAsync`].
    csds: &'static [CallSingleData],
}

/// The mask of one CPU, in a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
struct OwnMask(AtomicCpuMask);

impl Puppet {
    /// Puppets for the CPUs that `lab` describes. From now on the lab says that they take commands.
    pub fn new(lab: Lab) -> Self {
        let cpus = lab.cpus();
        let csds: Box<[_]> = (0..cpus).map(|_| CallSingleData::new()).collect();
        Self {
            mailboxes: Mailboxes::new(lab),
            masks: (0..cpus)
                .map(|_| OwnMask(AtomicCpuMask::none(cpus)))
                .collect(),
            csds: Box::leak(csds),
        }
    }

    /// This CPU's part of the run. If the CPU had gone offline, it continues where it was.
    pub fn run<P: Platform>(&self, ipi: &Ipi<P, LedgerFunctions>) -> Part {
        self.mailboxes.run(&PuppetDeeds { puppet: self, ipi })
    }

    /// What the puppets need to be told of an interrupt, on the CPU that has taken it.
    pub fn handle<P: Platform>(&self, platform: &P, vector: Vector) {
        self.mailboxes.handle(platform, vector);
    }
}

/// How puppets carry out commands, with the path of their machine.
struct PuppetDeeds<'a, P: Platform> {
    puppet: &'a Puppet,
    ipi: &'a Ipi<P, LedgerFunctions>,
}

impl<P: Platform> Deeds<P> for PuppetDeeds<'_, P> {
    fn platform(&self) -> &P {
        &self.ipi.machine.platform
    }

    fn lab(&self) -> &Lab {
        &self.ipi.machine.lab
    }

    fn judge(&self) {
        let machine = &self.ipi.machine;
        self.ipi.functions.forgive_unreturned(machine);
        self.ipi.audit();
        self.ipi.functions.audit(machine);
    }

    fn between(&self) -> Next {
        self.ipi.cond_resched()
    }

    fn has_something_between(&self) -> bool {
        self.ipi.is_wanted()
    }

    fn online(&self) -> CpuMask {
        self.ipi.machine.online()
    }

    fn obey(&self, command: &Command) -> Result<i64, Refusal> {
        let Self { puppet, ipi } = *self;
        let machine = &ipi.machine;
        let platform = &machine.platform;
        let (me, cpus) = (machine.this_cpu(), machine.cpus);
        let mailbox = machine.lab.mailbox(me);
        let OwnMask(own) = &puppet.masks[me];
        let about = command.arguments[0] as CpuId;
        let wait = command.waits();
        // Two functions in turn, so that a mix-up of two calls mixes up their functions too.
        let function = [Function::Other, Function::Plain][command.number as usize % 2];
        // The mailbox has the call's id before the call is made, since it may never return.
        let call = |among: &CpuMask, make: &mut dyn FnMut(Call) -> CpuMask| {
            calls::entered(ipi, among, function, wait, |call| {
                mailbox.call.store(call.info, Ordering::Release);
                make(call)
            });
        };
        match Verb::try_from(command.verb).map_err(|_| Refusal::Invalid)? {
            Verb::CallSingle => {
                let target = existing(about, cpus)?;
                if target != me {
                    may_wait(ipi)?;
                }
                let mut result = Ok(());
                call(&CpuMask::only(target, cpus), &mut |call| {
                    result = ipi.call_single(target, call, wait);
                    made_to(target, cpus, result.is_ok())
                });
                result.map_err(|_| Refusal::Offline)?;
            }
            Verb::CallAsync => {
                let target = existing(about, cpus)?;
                if wait {
                    return Err(Refusal::Invalid);
                }
                if target != me && puppet.csds[me].is_locked() {
                    may_wait(ipi)?;
                }
                let mut result = Ok(());
                call(&CpuMask::only(target, cpus), &mut |call| {
                    result = ipi.call_single_async(target, &puppet.csds[me], call);
                    made_to(target, cpus, result.is_ok())
                });
                result.map_err(|_| Refusal::Offline)?;
            }
            Verb::CallMany => {
                let mut among = command.mask()?;
                may_wait_for(ipi, &among)?;
                own.store(&among, SharedOrdering::Relaxed);
                among.remove(me);
                call(&among, &mut |call| ipi.call_many(own, call, wait));
            }
            Verb::CallAll => {
                let mut others = CpuMask::all(cpus);
                others.remove(me);
                may_wait_for(ipi, &others)?;
                call(&others, &mut |call| ipi.call_all(call, wait));
            }
            Verb::OnEach => {
                let all = CpuMask::all(cpus);
                may_wait_for(ipi, &all)?;
                call(&all, &mut |call| ipi.on_each_cpu(call, wait));
            }
            Verb::CallAny => {
                let mask = command.mask()?;
                if !mask.contains(me) {
                    may_wait_for(ipi, &mask)?;
                }
                let mut result = Err(Refusal::Offline);
                call(&mask, &mut |call| {
                    let chosen = ipi.call_any(&mask, call, wait);
                    result = chosen.map_err(|_| Refusal::Offline);
                    chosen.map_or_else(|_| CpuMask::none(cpus), |cpu| CpuMask::only(cpu, cpus))
                });
                return result.map(|cpu| cpu as i64);
            }
            Verb::IrqsOff => platform.irqs_disable(),
            Verb::IrqsOn => {
                platform.irqs_enable();
                puppet.mailboxes.take_pending(platform);
            }
            // Both wait for other CPUs, with interrupts on.
            Verb::Offline | Verb::Online if !platform.irqs_enabled() => {
                return Err(Refusal::Invalid);
            }
            Verb::Offline => ipi.cpu_down(about).map_err(refusal)?,
            Verb::Online => ipi.cpu_up(about).map_err(refusal)?,
            Verb::Spin => puppet.mailboxes.set_awake(me, true),
            Verb::Idle => puppet.mailboxes.set_awake(me, false),
            Verb::LeaveMask => {
                let OwnMask(theirs) = puppet.masks.get(about).ok_or(Refusal::Invalid)?;
                theirs.remove(me, SharedOrdering::Relaxed);
            }
            Verb::Queue => {
                let mut found = [0; ANSWERS];
                let queued = ipi.read_queue(&mut found).ok_or(Refusal::Unsupported)?;
                for (answer, element) in mailbox.answer.iter().zip(found).take(queued) {
                    answer.store(element as u16, Ordering::Relaxed);
                }
                return Ok(queued as i64);
            }
            Verb::Finish => return puppet.mailboxes.finish(self, command),
        }
        Ok(0)
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

/// Checks that this CPU may wait for another. With interrupts off it may not, by the contract. That
/// is reported here as the path would report it; but the path would go on, and might never return.
fn may_wait<P: Platform>(ipi: &Ipi<P, LedgerFunctions>) -> Result<(), Refusal> {
    if ipi.machine.platform.irqs_enabled() {
        return Ok(());
    }
    ipi.machine.report(Oracle::Contract, 0, 0);
    Err(Refusal::Invalid)
}

/// As [`may_wait`], if there is any other CPU in `mask` to wait for.
fn may_wait_for<P: Platform>(ipi: &Ipi<P, LedgerFunctions>, mask: &CpuMask) -> Result<(), Refusal> {
    if ipi.machine.others_online(mask).is_empty() {
        return Ok(());
    }
    may_wait(ipi)
}

fn refusal(error: HotplugError) -> Refusal {
    match error {
        HotplugError::Busy => Refusal::Busy,
        HotplugError::Invalid => Refusal::Invalid,
        HotplugError::Vetoed => Refusal::NoMemory,
        HotplugError::NotStarted => Refusal::NotStarted,
    }
}
