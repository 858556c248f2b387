//! `workload=puppet`: every CPU does what its mailbox tells it, one command at a time, and nothing else. The
//! commands are those of [`deeds`](super::deeds); whoever writes them, a script or a search, decides what is
//! tried. This module knows no story: it may neither choose, nor order, nor repeat what it is told.
//!
//! **The end.** A CPU told to finish counts itself in and goes on taking interrupts. When all are in that were
//! told, none of them makes another call, and every interrupt they sent is pending at its target or has been
//! taken. Each then sends itself the vector of the lowest priority, [`Vector::LAST`](kit::platform::Vector::LAST): when that has arrived,
//! so have all that were pending before it, without a call vector being sent that could rescue a lost call.
//! When all have taken theirs nothing is in flight between them, and the first of them looks for what was left
//! behind. It waits for no call: one that has not run by now is lost. CPUs that were not told may hang for
//! ever, in a call or elsewhere.
//!
//! What a wire still holds by then will not be waited for either: it is the monitor's to deliver before.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, Ordering};

use kit::lab::{CpuMailbox, Lab};
use kit::platform::{CpuId, Doorbell, Platform};
use kit::probe;
use kit::specimen::{Fate, Part};
use kit::sync::atomic::{Ordering as SharedOrdering, fence};
use kit::sync::mask::{AtomicCpuMask, CpuMask, Targets};
use kit::sync::waiting::Waiting;
use shared::mailbox::{ANSWERS, Refusal, WAIT};

use super::calls;
use super::deeds::Verb;
use super::functions::{Function, Workload};
use crate::ipi::Ipi;
use crate::ipi::csd::{Call, CallSingleData};
use crate::ipi::hotplug::HotplugError;
use crate::oracle::Oracle;

/// The puppets of one machine.
#[derive(Debug)]
pub struct Puppet {
    cpus: Box<[Own]>,
    /// By CPU: the descriptor of its own that carries [`Verb::CallAsync`].
    csds: &'static [CallSingleData],
    /// CPUs that are to finish.
    members: AtomicCpuMask,
    /// Those of them that have been told so.
    arrived: AtomicCpuMask,
    /// Those of them that have taken every interrupt.
    quiet: AtomicCpuMask,
    /// Set when the run is judged: whoever still looks has nothing more to do.
    over: AtomicBool,
}

/// What belongs to one CPU. It outlives the CPU's absence.
#[derive(Debug)]
#[repr(align(64))]
struct Own {
    /// The mask with which it calls many, and which others leave.
    mask: AtomicCpuMask,
    /// Whether it stays awake while it waits for commands.
    awake: AtomicBool,
}

/// A command as it was found in a mailbox.
#[derive(Debug)]
struct Command {
    number: u64,
    verb: Option<Verb>,
    flags: u32,
    argument: CpuId,
    /// `None` if it names CPUs that the machine does not have.
    mask: Option<CpuMask>,
}

impl Command {
    /// The command in `mailbox` that has not been begun, if there is one.
    fn waiting_in(mailbox: &CpuMailbox, cpus: usize) -> Option<Self> {
        if !has_mail(mailbox) {
            return None;
        }
        let mut mask = CpuMask::all(cpus);
        let mut words = mailbox.mask.iter().map(|word| word.load(Ordering::Relaxed));
        mask.filter_words(|| words.next().expect("a mailbox's mask is as large as any"));
        let named: u32 = (mailbox.mask.iter())
            .map(|word| word.load(Ordering::Relaxed).count_ones())
            .sum();
        Some(Self {
            number: mailbox.posted.load(Ordering::Relaxed),
            verb: Verb::try_from(mailbox.verb.load(Ordering::Relaxed)).ok(),
            flags: mailbox.flags.load(Ordering::Relaxed),
            argument: mailbox.arguments[0].load(Ordering::Relaxed) as CpuId,
            mask: (mask.len() == named as usize).then_some(mask),
        })
    }

    fn waits(&self) -> bool {
        self.flags & WAIT != 0
    }

    fn mask(&self) -> Result<CpuMask, Refusal> {
        self.mask.ok_or(Refusal::Invalid)
    }
}

/// Whether a command has been posted and not begun.
fn has_mail(mailbox: &CpuMailbox) -> bool {
    // Acquire pairs with the Release by which the command was posted: the rest of it is there.
    mailbox.posted.load(Ordering::Acquire) > mailbox.taken.load(Ordering::Relaxed)
}

impl Puppet {
    /// Puppets for the CPUs that `lab` describes, whose mailboxes say so from now on.
    pub fn new(lab: Lab) -> Self {
        let cpus = lab.cpus();
        for cpu in 0..cpus {
            lab.mailbox(cpu).listens.store(1, Ordering::Release);
        }
        let own = |_| Own {
            mask: AtomicCpuMask::none(cpus),
            awake: AtomicBool::new(false),
        };
        let csds: Box<[_]> = (0..cpus).map(|_| CallSingleData::new()).collect();
        Self {
            cpus: (0..cpus).map(own).collect(),
            csds: Box::leak(csds),
            members: AtomicCpuMask::none(cpus),
            arrived: AtomicCpuMask::none(cpus),
            quiet: AtomicCpuMask::none(cpus),
            over: AtomicBool::new(false),
        }
    }

    /// This CPU's part, from where it was when it left, if it did.
    pub fn run<P: Platform>(&self, ipi: &Ipi<P, Workload>) -> Part {
        let machine = &ipi.machine;
        let me = machine.this_cpu();
        let mailbox = machine.lab.mailbox(me);
        while !self.arrived.contains(me, SharedOrdering::Relaxed) {
            if self.wait_for_mail(ipi, mailbox) == Fate::Leave {
                return Part::Left;
            }
            if self.over.load(Ordering::Acquire) {
                machine.platform.irqs_enable();
                return Part::Done;
            }
            if let Some(command) = Command::waiting_in(mailbox, machine.cpus) {
                // Whoever finds the command begun finds no call of an earlier one.
                mailbox.call.store(0, Ordering::Relaxed);
                mailbox.taken.store(command.number, Ordering::Release);
                let result = self.obey(ipi, mailbox, &command);
                let result = result.unwrap_or_else(|refusal| refusal as i64);
                mailbox.result.store(result, Ordering::Relaxed);
                mailbox.done.store(command.number, Ordering::Release);
                machine.platform.ring(Doorbell::Done);
            }
        }
        self.finish(ipi)
    }

    /// Returns when there is a command, or nothing will come any more. Meanwhile this CPU takes part in a
    /// stop, unless it has its interrupts off: whoever wants one then waits, as in Linux.
    fn wait_for_mail<P: Platform>(&self, ipi: &Ipi<P, Workload>, mailbox: &CpuMailbox) -> Fate {
        let platform = &ipi.machine.platform;
        let is_awake = &self.cpus[ipi.machine.this_cpu()].awake;
        let done = || has_mail(mailbox) || self.over.load(Ordering::Relaxed);
        let irqs_on = platform.irqs_enabled();
        if irqs_on && !is_awake.load(Ordering::Relaxed) {
            return ipi.idle_until(done);
        }
        let _waiting = Waiting::begin(platform);
        loop {
            if irqs_on && ipi.cond_resched() == Fate::Leave {
                return Fate::Leave;
            }
            if done() {
                return Fate::Stay;
            }
            probe!(*platform, "spin.relax");
            platform.relax();
        }
    }

    /// Does what `command` says.
    fn obey<P: Platform>(
        &self,
        ipi: &Ipi<P, Workload>,
        mailbox: &CpuMailbox,
        command: &Command,
    ) -> Result<i64, Refusal> {
        let machine = &ipi.machine;
        let platform = &machine.platform;
        let (me, cpus) = (machine.this_cpu(), machine.cpus);
        let own = &self.cpus[me];
        let wait = command.waits();
        if command.flags & !WAIT != 0 {
            return Err(Refusal::Invalid);
        }
        // One function after the other, so that a mix-up of two calls is one of their functions too.
        let function = [Function::Other, Function::Plain][command.number as usize % 2];
        // The call is known to the mailbox before it is made: it may never return.
        let call = |among: &CpuMask, make: &mut dyn FnMut(Call) -> CpuMask| {
            calls::entered(ipi, among, function, wait, |call| {
                mailbox.call.store(call.info, Ordering::Release);
                make(call)
            });
        };
        match command.verb.ok_or(Refusal::Invalid)? {
            Verb::CallSingle => {
                let target = existing(command.argument, cpus)?;
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
                let target = existing(command.argument, cpus)?;
                if wait {
                    return Err(Refusal::Invalid);
                }
                if target != me && self.csds[me].is_locked() {
                    may_wait(ipi)?;
                }
                let mut result = Ok(());
                call(&CpuMask::only(target, cpus), &mut |call| {
                    result = ipi.call_single_async(target, &self.csds[me], call);
                    made_to(target, cpus, result.is_ok())
                });
                result.map_err(|_| Refusal::Offline)?;
            }
            Verb::CallMany => {
                let mut among = command.mask()?;
                may_wait_for(ipi, &among)?;
                own.mask.store(&among, SharedOrdering::Relaxed);
                among.remove(me);
                call(&among, &mut |call| ipi.call_many(&own.mask, call, wait));
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
                ipi.take_pending();
            }
            // Both wait for others, with interrupts on.
            Verb::Offline | Verb::Online if !platform.irqs_enabled() => {
                return Err(Refusal::Invalid);
            }
            Verb::Offline => ipi.cpu_down(command.argument).map_err(why)?,
            Verb::Online => ipi.cpu_up(command.argument).map_err(why)?,
            Verb::Spin => own.awake.store(true, Ordering::Relaxed),
            Verb::Idle => own.awake.store(false, Ordering::Relaxed),
            Verb::LeaveMask => {
                let caller = self.cpus.get(command.argument).ok_or(Refusal::Invalid)?;
                caller.mask.remove(me, SharedOrdering::Relaxed);
            }
            Verb::Queue => {
                let mut found = [0; ANSWERS];
                let queued = ipi.read_queue(&mut found).ok_or(Refusal::Unsupported)?;
                for (answer, element) in mailbox.answer.iter().zip(found).take(queued) {
                    answer.store(element as u16, Ordering::Relaxed);
                }
                return Ok(queued as i64);
            }
            Verb::Finish => {
                let members = command.mask()?;
                if !members.contains(me) {
                    return Err(Refusal::Invalid);
                }
                platform.irqs_enable();
                self.arrive(ipi, &members);
            }
        }
        Ok(0)
    }

    /// Counts this CPU in, which is to finish with the rest of `members`.
    fn arrive<P: Platform>(&self, ipi: &Ipi<P, Workload>, members: &CpuMask) {
        self.members.insert_all(members, SharedOrdering::Relaxed);
        // Release: who finds it here finds whom it comes with, and has been sent what it sent.
        (self.arrived).insert(ipi.machine.this_cpu(), SharedOrdering::Release);
        // Of two that come at once one must see the other, and the last wakes all: who is not the last has
        // nothing to tell anybody.
        fence(SharedOrdering::SeqCst);
        if self.all_in(ipi, &self.arrived) {
            self.wake(ipi, &self.members);
        }
    }

    /// Whether all who are to finish are in `set`. One that is away is not waited for: it was served before it
    /// went.
    fn all_in<P: Platform>(&self, ipi: &Ipi<P, Workload>, set: &AtomicCpuMask) -> bool {
        let machine = &ipi.machine;
        let members = self.members.load(machine.cpus);
        let there = set.load(machine.cpus);
        fence(SharedOrdering::Acquire);
        let online = machine.online();
        let words = members.words().iter().zip(there.words());
        (words.zip(online.words())).all(|((member, there), online)| member & online & !there == 0)
    }

    /// The rest of a CPU's part that has been told to finish; see the module's description.
    fn finish<P: Platform>(&self, ipi: &Ipi<P, Workload>) -> Part {
        let machine = &ipi.machine;
        let me = machine.this_cpu();
        if ipi.idle_until(|| self.all_in(ipi, &self.arrived)) == Fate::Leave {
            return Part::Left;
        }
        ipi.take_pending();
        self.quiet.insert(me, SharedOrdering::Release);

        let members = self.members.load(machine.cpus);
        let first = members.iter().find(|cpu| machine.is_online(*cpu));
        if let Some(first) = first.filter(|first| *first != me) {
            ipi.wake(&CpuMask::only(first, machine.cpus));
            return Part::Done;
        }
        if ipi.idle_until(|| self.all_in(ipi, &self.quiet)) == Fate::Leave {
            return Part::Left;
        }
        ipi.functions.forgive_unreturned(machine);
        ipi.audit();
        ipi.functions.audit(machine);
        self.over.store(true, Ordering::Release);
        self.wake(ipi, &CpuMask::all(machine.cpus));
        Part::Over
    }

    fn wake<P: Platform>(&self, ipi: &Ipi<P, Workload>, cpus: &dyn Targets) {
        ipi.wake(&ipi.machine.others_online(cpus));
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

/// Whether this CPU may do what waits for another. With interrupts off it breaks the contract, which is
/// reported as the path does; but the path goes on, and may never come back.
fn may_wait<P: Platform>(ipi: &Ipi<P, Workload>) -> Result<(), Refusal> {
    if ipi.machine.platform.irqs_enabled() {
        return Ok(());
    }
    ipi.machine.report(Oracle::Contract, 0, 0);
    Err(Refusal::Invalid)
}

/// As [`may_wait`], if there is anybody in `mask` to wait for.
fn may_wait_for<P: Platform>(ipi: &Ipi<P, Workload>, mask: &CpuMask) -> Result<(), Refusal> {
    if ipi.machine.others_online(mask).is_empty() {
        return Ok(());
    }
    may_wait(ipi)
}

fn why(error: HotplugError) -> Refusal {
    match error {
        HotplugError::Busy => Refusal::Busy,
        HotplugError::Invalid => Refusal::Invalid,
        HotplugError::Vetoed => Refusal::NoMemory,
        HotplugError::NotStarted => Refusal::NotStarted,
    }
}
