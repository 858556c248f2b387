//! `workload=puppet`: every CPU does what its mailbox says ([`shared::mailbox`]), and nothing else. What the
//! commands are for, and in which order they come, is known only to whoever posts them.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use shared::mailbox::{Refusal, Verb, WAIT};
use shared::ports::Doorbell;

use super::calls::entered;
use super::functions::{Function, Workload};
use crate::ipi::Ipi;
use crate::ipi::csd::{Call, CallSingleData};
use crate::ipi::hotplug::{Fate, HotplugError};
use crate::lab::AtomicMailbox;
use crate::platform::{CpuId, Platform};
use crate::sync::atomic::Ordering as SharedOrdering;
use crate::sync::mask::{AtomicCpuMask, CpuMask};

/// IPI vectors, each of which can be pending on a CPU.
const VECTORS: usize = 3;

/// What belongs to one CPU.
#[derive(Debug)]
#[repr(align(64))]
struct Strings {
    /// The mask with which it calls many, from which others can take themselves.
    mask: AtomicCpuMask,
    /// The descriptor with which it calls one without waiting.
    csd: &'static CallSingleData,
    /// Whether it stays awake while there is nothing to do.
    awake: AtomicBool,
    /// The last [`Stage`] it has come to.
    reached: AtomicU32,
}

/// The way to the end, which those that are told to finish go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Working,
    /// It makes no more calls.
    Done,
    /// Nobody makes calls any more, and every interrupt that was sent to it has been taken.
    Quiet,
    Over,
}

/// The puppets of one machine.
#[derive(Debug)]
pub struct Puppet {
    cpus: Box<[Strings]>,
    /// The [`Stage`] that CPUs are to come to.
    stage: AtomicU32,
    /// The CPU that looks for what was left behind.
    judge: AtomicU32,
}

/// What came of a command.
type Outcome = Result<i64, Refusal>;

impl From<HotplugError> for Refusal {
    fn from(error: HotplugError) -> Self {
        match error {
            HotplugError::Busy => Self::Busy,
            HotplugError::Invalid => Self::Invalid,
            HotplugError::Vetoed => Self::NoMemory,
            HotplugError::NotStarted => Self::NotStarted,
        }
    }
}

impl Puppet {
    /// The puppets of a machine of `cpus` CPUs.
    pub fn new(cpus: usize) -> Self {
        Self {
            cpus: (0..cpus)
                .map(|_| Strings {
                    mask: AtomicCpuMask::none(cpus),
                    csd: Box::leak(Box::new(CallSingleData::new())),
                    awake: AtomicBool::new(false),
                    reached: AtomicU32::new(Stage::Working as u32),
                })
                .collect(),
            stage: AtomicU32::new(Stage::Done as u32),
            judge: AtomicU32::new(0),
        }
    }

    /// The CPU that has looked for what was left behind, once one has.
    pub fn judge(&self) -> CpuId {
        self.judge.load(Ordering::Relaxed) as CpuId
    }

    /// This CPU's part: command after command, until it is told to finish, or has to leave.
    pub fn run<P: Platform>(&self, ipi: &Ipi<P, Workload>) -> Fate {
        let platform = &ipi.machine.platform;
        let me = ipi.machine.this_cpu();
        let mailbox = ipi.machine.lab.mailbox(me);
        loop {
            if self.wait(ipi, mailbox) == Fate::Leave {
                return Fate::Leave;
            }
            let number = mailbox.posted.load(Ordering::Acquire);
            mailbox.call.store(0, Ordering::Relaxed);
            mailbox.taken.store(number, Ordering::Release);
            let verb = Verb::try_from(mailbox.verb.load(Ordering::Relaxed));
            let done = |outcome: Outcome| {
                let result = outcome.unwrap_or_else(|why| why as i64);
                mailbox.result.store(result, Ordering::Relaxed);
                // Release: who sees that it is done sees what came of it.
                mailbox.done.store(number, Ordering::Release);
                platform.ring(Doorbell::Done);
            };
            if verb == Ok(Verb::Finish) {
                let members = mask_of(ipi, mailbox);
                done(Ok(0));
                self.finish(ipi, &members);
                return Fate::Stay;
            }
            done(match verb {
                Ok(verb) => self.obey(ipi, verb, mailbox),
                Err(_) => Err(Refusal::Invalid),
            });
        }
    }

    /// Waits for a command. With interrupts off a CPU takes no part in anything else.
    fn wait<P: Platform>(&self, ipi: &Ipi<P, Workload>, mailbox: &AtomicMailbox) -> Fate {
        let platform = &ipi.machine.platform;
        let me = ipi.machine.this_cpu();
        let taken = mailbox.taken.load(Ordering::Relaxed);
        let has_mail = || mailbox.posted.load(Ordering::Acquire) != taken;
        if !platform.irqs_enabled() {
            while !has_mail() {
                platform.relax();
            }
            return Fate::Stay;
        }
        if !self.cpus[me].awake.load(Ordering::Relaxed) {
            return ipi.idle_until(has_mail);
        }
        while !has_mail() {
            if ipi.cond_resched() == Fate::Leave {
                return Fate::Leave;
            }
            platform.relax();
        }
        Fate::Stay
    }

    fn obey<P: Platform>(
        &self,
        ipi: &Ipi<P, Workload>,
        verb: Verb,
        mailbox: &AtomicMailbox,
    ) -> Outcome {
        let machine = &ipi.machine;
        let me = machine.this_cpu();
        let mine = &self.cpus[me];
        let argument = mailbox.argument.load(Ordering::Relaxed);
        // No CPU has the last number, whatever the argument is.
        let cpu = CpuId::try_from(argument).unwrap_or(CpuId::MAX);
        let wait = mailbox.flags.load(Ordering::Relaxed) & WAIT != 0;
        match verb {
            Verb::CallSingle | Verb::CallAsync => self.call_one(ipi, verb, cpu, wait),
            Verb::CallMany => {
                let mut targets = mask_of(ipi, mailbox);
                mine.mask.store(&targets, SharedOrdering::Relaxed);
                targets.remove(me);
                self.call(ipi, &targets, wait, |call| {
                    ipi.call_many(&mine.mask, call, wait)
                });
                Ok(0)
            }
            Verb::CallAll => {
                let mut others = CpuMask::all(machine.cpus);
                others.remove(me);
                self.call(ipi, &others, wait, |call| ipi.call_all(call, wait));
                Ok(0)
            }
            Verb::OnEach => {
                let all = CpuMask::all(machine.cpus);
                self.call(ipi, &all, wait, |call| ipi.on_each_cpu(call, wait));
                Ok(0)
            }
            Verb::CallAny => {
                let targets = mask_of(ipi, mailbox);
                let mut result = Err(Refusal::Offline);
                self.call(ipi, &targets, wait, |call| {
                    match ipi.call_any(&targets, call, wait) {
                        Ok(cpu) => {
                            result = Ok(cpu as i64);
                            CpuMask::only(cpu, machine.cpus)
                        }
                        Err(_) => CpuMask::none(machine.cpus),
                    }
                });
                result
            }
            Verb::IrqsOff => {
                machine.platform.irqs_disable();
                Ok(0)
            }
            Verb::IrqsOn => {
                machine.platform.irqs_enable();
                Ok(0)
            }
            Verb::Offline => Ok(ipi.cpu_down(cpu).map(|()| 0)?),
            Verb::Online => Ok(ipi.cpu_up(cpu).map(|()| 0)?),
            Verb::Spin | Verb::Idle => {
                mine.awake.store(verb == Verb::Spin, Ordering::Relaxed);
                Ok(0)
            }
            Verb::LeaveMask => {
                let owner = self.cpus.get(cpu).ok_or(Refusal::Invalid)?;
                owner.mask.remove(me, SharedOrdering::Relaxed);
                Ok(0)
            }
            Verb::Queue => {
                let mut places = mailbox.answer.iter();
                let length = ipi.queue_order(&mut |owner| {
                    if let Some(place) = places.next() {
                        place.store(owner as u16, Ordering::Relaxed);
                    }
                });
                length
                    .map(|length| length as i64)
                    .ok_or(Refusal::Unsupported)
            }
            Verb::Finish => Err(Refusal::Invalid),
        }
    }

    fn call_one<P: Platform>(
        &self,
        ipi: &Ipi<P, Workload>,
        verb: Verb,
        target: CpuId,
        wait: bool,
    ) -> Outcome {
        let machine = &ipi.machine;
        if target >= machine.cpus {
            return Err(Refusal::Offline);
        }
        let csd = self.cpus[machine.this_cpu()].csd;
        let made = CpuMask::only(target, machine.cpus);
        let mut result = Ok(0);
        self.call(ipi, &made, wait && verb == Verb::CallSingle, |call| {
            let outcome = match verb {
                Verb::CallAsync => ipi.call_single_async(target, csd, call),
                _ => ipi.call_single(target, call, wait),
            };
            if outcome.is_ok() {
                made
            } else {
                result = Err(Refusal::Offline);
                CpuMask::none(machine.cpus)
            }
        });
        result
    }

    /// Makes a call, of which the mailbox says before it is made which it is: it may not return.
    fn call<P: Platform>(
        &self,
        ipi: &Ipi<P, Workload>,
        among: &CpuMask,
        wait: bool,
        make: impl FnOnce(Call) -> CpuMask,
    ) {
        let mailbox = ipi.machine.lab.mailbox(ipi.machine.this_cpu());
        entered(ipi, among, Function::Plain, wait, |call| {
            mailbox.call.store(call.info, Ordering::Release);
            make(call)
        });
    }

    /// Ends this CPU's part, with those of `members` that are online. When all of them are at it nobody
    /// makes calls any more, and each takes what interrupts were sent to it; then the first of them looks for what was left
    /// behind. It waits for no call: one that has not run by then never will.
    fn finish<P: Platform>(&self, ipi: &Ipi<P, Workload>, members: &CpuMask) {
        let machine = &ipi.machine;
        let me = machine.this_cpu();
        machine.platform.irqs_enable();
        // Everybody finds the same, as nobody comes or goes any more.
        let is_there = |cpu: &CpuId| machine.is_online(*cpu);
        let judge = members.iter().find(is_there).unwrap_or(me);
        if me == judge {
            self.reach(ipi, Stage::Done, judge);
            self.gather(ipi, members, Stage::Done);
            self.open(ipi, members, Stage::Quiet);
            self.reach(ipi, Stage::Quiet, judge);
            self.gather(ipi, members, Stage::Quiet);
            ipi.audit();
            ipi.functions.audit(machine);
            self.judge.store(judge as u32, Ordering::Relaxed);
            self.open(ipi, members, Stage::Over);
            return;
        }
        for stage in [Stage::Done, Stage::Quiet, Stage::Over] {
            let may_go = || self.stage.load(Ordering::Acquire) >= stage as u32;
            // Nobody takes a CPU down any more.
            let _stays = ipi.idle_until(may_go);
            self.reach(ipi, stage, judge);
        }
    }

    /// This CPU has come to `stage`. To be quiet it takes every interrupt that is pending, of which there
    /// can be one of each vector.
    fn reach<P: Platform>(&self, ipi: &Ipi<P, Workload>, stage: Stage, judge: CpuId) {
        let machine = &ipi.machine;
        if stage == Stage::Quiet {
            for _ in 0..VECTORS {
                machine.platform.ring(Doorbell::Done);
            }
        }
        let me = machine.this_cpu();
        self.cpus[me].reached.store(stage as u32, Ordering::Release);
        if me != judge {
            ipi.wake(&CpuMask::only(judge, machine.cpus));
        }
    }

    fn gather<P: Platform>(&self, ipi: &Ipi<P, Workload>, members: &CpuMask, stage: Stage) {
        for cpu in members.iter().filter(|cpu| ipi.machine.is_online(*cpu)) {
            let reached = &self.cpus[cpu].reached;
            let _stays = ipi.idle_until(|| reached.load(Ordering::Acquire) >= stage as u32);
        }
    }

    fn open<P: Platform>(&self, ipi: &Ipi<P, Workload>, members: &CpuMask, stage: Stage) {
        self.stage.store(stage as u32, Ordering::Release);
        ipi.wake(&ipi.machine.others_online(members));
    }
}

/// The CPUs of this machine that the mailbox names.
fn mask_of<P: Platform>(ipi: &Ipi<P, Workload>, mailbox: &AtomicMailbox) -> CpuMask {
    let mut words = mailbox.mask.iter();
    let mut mask = CpuMask::all(ipi.machine.cpus);
    mask.filter_words(|| words.next().map_or(0, |word| word.load(Ordering::Relaxed)));
    mask
}
