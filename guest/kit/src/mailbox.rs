//! Mailboxes ([`shared::mailbox`]): every CPU of a guest does what its own tells it, one command at
//! a time, and nothing else. Whoever writes them, a script or a search, decides what is tried; this
//! module may neither choose, nor order, nor repeat. What a command means is the guest's
//! ([`Deeds`]).
//!
//! **The end.** A CPU told to finish counts itself in and goes on taking interrupts. When all are
//! in that were told, none of them does anything more, and every interrupt they sent is pending at
//! its target or has been taken. Each then takes all that are pending; when all have, nothing is in
//! flight between them, and the first of them has it judged what was left behind. CPUs that were
//! not told may hang for ever. What a wire still holds by then is not waited for: it is the
//! monitor's to deliver before.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, Ordering};

pub use shared::mailbox::Refusal;
use shared::mailbox::WAIT;
use shared::manifest::ARGUMENTS;

use crate::lab::{CpuMailbox, Lab};
use crate::platform::{CpuId, Doorbell, Platform, Vector};
use crate::probe;
use crate::specimen::{Fate, Part};
use crate::sync::atomic::{Ordering as SharedOrdering, fence};
use crate::sync::mask::{AtomicCpuMask, CpuMask};
use crate::sync::waiting::Waiting;

/// What a guest does when it is told.
pub trait Deeds<P: Platform> {
    /// The machine it runs on.
    fn platform(&self) -> &P;

    /// Where its mailboxes are.
    fn lab(&self) -> &Lab;

    /// Does what `command` says on this CPU, and returns what came of it, not below zero. The deed
    /// that ends the workload is done by [`Mailboxes::finish`], those that say how to wait by
    /// [`Mailboxes::set_awake`].
    ///
    /// # Errors
    /// If it cannot be done.
    fn obey(&self, command: &Command) -> Result<i64, Refusal>;

    /// Takes every interrupt that is pending at this CPU, as
    /// [`Pending`](crate::sync::pending::Pending) does.
    fn take_pending(&self);

    /// Reports what was left behind, when nothing is in flight. One CPU does, once, at the end.
    fn judge(&self);

    /// Does what is to be done between two commands, and again and again while this CPU waits for
    /// one with its interrupts on.
    fn between(&self) -> Fate {
        Fate::Stay
    }

    /// Whether [`Deeds::between`] has something to do, for which a CPU that sleeps is woken.
    fn has_something_between(&self) -> bool {
        false
    }

    /// The CPUs that are online.
    fn online(&self) -> CpuMask {
        CpuMask::all(self.lab().cpus())
    }
}

/// A command as it was found in a mailbox.
#[derive(Debug)]
pub struct Command {
    /// Which it is of those posted to this CPU, from 1.
    pub number: u64,
    /// The verb, by its number in the manifest.
    pub verb: u32,
    /// Its arguments that are no sets of CPUs, by position: a word as its place among the values of
    /// its key.
    pub arguments: [u64; ARGUMENTS],
    flags: u32,
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
            verb: mailbox.verb.load(Ordering::Relaxed),
            arguments: mailbox
                .arguments
                .each_ref()
                .map(|it| it.load(Ordering::Relaxed)),
            flags: mailbox.flags.load(Ordering::Relaxed),
            mask: (mask.len() == named as usize).then_some(mask),
        })
    }

    /// Whether it is to be waited until it is done everywhere.
    pub fn waits(&self) -> bool {
        self.flags & WAIT != 0
    }

    /// The CPUs that it is about.
    ///
    /// # Errors
    /// If it names some that the machine does not have.
    pub fn mask(&self) -> Result<CpuMask, Refusal> {
        self.mask.ok_or(Refusal::Invalid)
    }
}

/// Whether a command has been posted and not begun.
fn has_mail(mailbox: &CpuMailbox) -> bool {
    // Acquire pairs with the Release by which the command was posted: the rest of it is there.
    mailbox.posted.load(Ordering::Acquire) > mailbox.taken.load(Ordering::Relaxed)
}

/// The mailboxes of one machine, from the CPUs' side.
#[derive(Debug)]
pub struct Mailboxes {
    /// By CPU: whether it stays awake while it waits for commands.
    awake: Box<[AtomicBool]>,
    /// CPUs that are to finish.
    members: AtomicCpuMask,
    /// Those of them that have been told so.
    arrived: AtomicCpuMask,
    /// Those of them that have taken every interrupt.
    quiet: AtomicCpuMask,
    /// Set when the run is judged: whoever still looks has nothing more to do.
    over: AtomicBool,
}

impl Mailboxes {
    /// Those of the CPUs that `lab` describes, which say so from now on.
    pub fn new(lab: Lab) -> Self {
        let cpus = lab.cpus();
        for cpu in 0..cpus {
            lab.mailbox(cpu).listens.store(1, Ordering::Release);
        }
        Self {
            awake: (0..cpus).map(|_| AtomicBool::new(false)).collect(),
            members: AtomicCpuMask::none(cpus),
            arrived: AtomicCpuMask::none(cpus),
            quiet: AtomicCpuMask::none(cpus),
            over: AtomicBool::new(false),
        }
    }

    /// This CPU's part, from where it was when it left, if it did.
    pub fn run<P: Platform>(&self, deeds: &impl Deeds<P>) -> Part {
        let platform = deeds.platform();
        let me = platform.this_cpu();
        let mailbox = deeds.lab().mailbox(me);
        while !self.arrived.contains(me, SharedOrdering::Relaxed) {
            let done = || has_mail(mailbox) || self.over.load(Ordering::Relaxed);
            if self.wait(deeds, done) == Fate::Leave {
                return Part::Left;
            }
            if self.over.load(Ordering::Acquire) {
                platform.irqs_enable();
                return Part::Done;
            }
            if let Some(command) = Command::waiting_in(mailbox, deeds.lab().cpus()) {
                // Whoever finds the command begun finds no call of an earlier one.
                mailbox.call.store(0, Ordering::Relaxed);
                mailbox.taken.store(command.number, Ordering::Release);
                let result = match command.flags & !WAIT {
                    0 => deeds.obey(&command),
                    _ => Err(Refusal::Invalid),
                };
                let result = result.unwrap_or_else(|refusal| refusal as i64);
                mailbox.result.store(result, Ordering::Relaxed);
                mailbox.done.store(command.number, Ordering::Release);
                platform.ring(Doorbell::Done);
            }
        }
        self.end(deeds)
    }

    /// From now on `cpu` stays awake while it waits for commands, or sleeps, as at first.
    pub fn set_awake(&self, cpu: CpuId, awake: bool) {
        self.awake[cpu].store(awake, Ordering::Relaxed);
    }

    /// This CPU is to finish with the rest of the CPUs of `command`, of which it must be one.
    ///
    /// # Errors
    /// If it is not.
    pub fn finish<P: Platform>(
        &self,
        deeds: &impl Deeds<P>,
        command: &Command,
    ) -> Result<i64, Refusal> {
        let me = deeds.platform().this_cpu();
        let members = command.mask()?;
        if !members.contains(me) {
            return Err(Refusal::Invalid);
        }
        deeds.platform().irqs_enable();
        self.members.insert_all(&members, SharedOrdering::Relaxed);
        // Release: who finds it here finds whom it comes with, and has been sent what it sent.
        self.arrived.insert(me, SharedOrdering::Release);
        // Of two that come at once one must see the other, and the last wakes all: who is not the
        // last has nothing to tell anybody.
        fence(SharedOrdering::SeqCst);
        if self.all_in(deeds, &self.arrived) {
            wake(deeds, &self.members.load(deeds.lab().cpus()));
        }
        Ok(0)
    }

    /// Waits until `done`. A CPU that has its interrupts off, or is to stay awake, does not sleep.
    fn wait<P: Platform>(&self, deeds: &impl Deeds<P>, done: impl Fn() -> bool) -> Fate {
        let platform = deeds.platform();
        let irqs_on = platform.irqs_enabled();
        if irqs_on && !self.awake[platform.this_cpu()].load(Ordering::Relaxed) {
            return sleep(deeds, done);
        }
        let _waiting = Waiting::begin(platform);
        loop {
            if irqs_on && deeds.between() == Fate::Leave {
                return Fate::Leave;
            }
            if done() {
                return Fate::Stay;
            }
            probe!(*platform, "spin.relax");
            platform.relax();
        }
    }

    /// Whether all who are to finish are in `set`. One that is away is not waited for: it was
    /// served before it went.
    fn all_in<P: Platform>(&self, deeds: &impl Deeds<P>, set: &AtomicCpuMask) -> bool {
        let cpus = deeds.lab().cpus();
        let members = self.members.load(cpus);
        let there = set.load(cpus);
        fence(SharedOrdering::Acquire);
        let online = deeds.online();
        let words = members.words().iter().zip(there.words());
        (words.zip(online.words())).all(|((member, there), online)| member & online & !there == 0)
    }

    /// The rest of a CPU's part that has been told to finish; see the module's description.
    fn end<P: Platform>(&self, deeds: &impl Deeds<P>) -> Part {
        let cpus = deeds.lab().cpus();
        let me = deeds.platform().this_cpu();
        if sleep(deeds, || self.all_in(deeds, &self.arrived)) == Fate::Leave {
            return Part::Left;
        }
        deeds.take_pending();
        self.quiet.insert(me, SharedOrdering::Release);

        let members = self.members.load(cpus);
        let online = deeds.online();
        let first = members.iter().find(|cpu| online.contains(*cpu));
        if let Some(first) = first.filter(|first| *first != me) {
            wake(deeds, &CpuMask::only(first, cpus));
            return Part::Done;
        }
        if sleep(deeds, || self.all_in(deeds, &self.quiet)) == Fate::Leave {
            return Part::Left;
        }
        deeds.judge();
        self.over.store(true, Ordering::Release);
        wake(deeds, &CpuMask::all(cpus));
        Part::Over
    }
}

/// Sleeps until `done`, with what is to be done between two commands.
fn sleep<P: Platform>(deeds: &impl Deeds<P>, done: impl Fn() -> bool) -> Fate {
    loop {
        if deeds.between() == Fate::Leave {
            return Fate::Leave;
        }
        if done() {
            return Fate::Stay;
        }
        let is_wanted = || done() || deeds.has_something_between();
        deeds.platform().idle_unless(&is_wanted);
    }
}

/// Wakes those of `cpus` that are online, but this one.
fn wake<P: Platform>(deeds: &impl Deeds<P>, cpus: &CpuMask) {
    let me = deeds.platform().this_cpu();
    let mut others = CpuMask::none(deeds.lab().cpus());
    let online = deeds.online();
    (cpus
        .iter()
        .filter(|cpu| *cpu != me && online.contains(*cpu)))
    .for_each(|cpu| others.insert(cpu));
    deeds.platform().send_ipi_mask(&others, Vector::WAKE);
}
