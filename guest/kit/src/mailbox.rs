//! Mailboxes ([`shared::mailbox`]): every CPU of a guest does what its own mailbox says, one
//! command at a time, and nothing else. What writes them, a script or a search, decides what is
//! tried; this module may neither choose, nor reorder, nor repeat a command. What a command means
//! is up to the guest ([`Deeds`]).
//!
//! **The end.** A CPU that is told to finish notes that it has arrived, and goes on taking
//! interrupts. When all that are to finish have arrived, none of them starts anything more, and
//! every interrupt that they sent has been taken or is pending at its target. Each then takes all
//! that are pending at it. When all have done so, nothing is in flight between them, and the first
//! of them has the guest judge what was left behind. CPUs that are not told to finish may hang for
//! ever. IPIs that the monitor still holds (`transport=wire`) are not waited for: the monitor must
//! deliver them before.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use shared::cpus::MASK_WORDS;
pub use shared::mailbox::Refusal;
use shared::mailbox::WAIT;
use shared::manifest::ARGUMENTS;

use crate::idle::idle_until;
use crate::lab::{CpuMailbox, Lab};
use crate::platform::{CpuId, Doorbell, Platform, Vector};
use crate::probe;
use crate::specimen::{Next, Part};
use crate::sync::atomic::{Ordering as SharedOrdering, fence};
use crate::sync::mask::{AtomicCpuMask, CpuMask};
use crate::sync::pending::Pending;
use crate::sync::waiting::Waiting;

/// How a guest carries out commands.
pub trait Deeds<P: Platform> {
    /// The machine it runs on.
    fn platform(&self) -> &P;

    /// The lab that holds its mailboxes.
    fn lab(&self) -> &Lab;

    /// Carries out `command` on this CPU, and returns its result, not below zero. The deed that
    /// ends the workload is carried out by [`Mailboxes::finish`], those that say how to wait by
    /// [`Mailboxes::set_awake`].
    ///
    /// # Errors
    /// If it cannot be done.
    fn obey(&self, command: &Command) -> Result<i64, Refusal>;

    /// Reports what was left behind. It is called once, at the end, on one CPU, when nothing is in
    /// flight.
    fn judge(&self);

    /// Does what is to be done between two commands. It is called again and again while this CPU
    /// waits for a command with its interrupts on.
    fn between(&self) -> Next {
        Next::Stay
    }

    /// Whether [`Deeds::between`] has something to do, so that this CPU must not sleep.
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
    /// Its number among the commands posted to this CPU, or of its program, from 1.
    pub number: u64,
    /// The verb, by its number in the manifest.
    pub verb: u32,
    /// Its arguments but for sets of CPUs, by position. A word is given by its place among the
    /// values of its key.
    pub arguments: [u64; ARGUMENTS],
    /// The number of the [program](crate::program) that goes with it, or 0.
    pub program: u64,
    flags: u32,
    /// `None` if it names CPUs that the machine does not have.
    mask: Option<CpuMask>,
}

impl Command {
    /// The command in `mailbox`, if there is one that has not been begun.
    fn waiting_in(mailbox: &CpuMailbox, cpus: usize) -> Option<Self> {
        has_mail(mailbox).then(|| Self {
            program: mailbox.program.load(Ordering::Relaxed),
            ..Self::read(
                mailbox.posted.load(Ordering::Relaxed),
                &mailbox.verb,
                &mailbox.flags,
                &mailbox.arguments,
                &mailbox.mask,
                cpus,
            )
        })
    }

    /// The command that these fields say, without a program.
    pub(crate) fn read(
        number: u64,
        verb: &AtomicU32,
        flags: &AtomicU32,
        arguments: &[AtomicU64; ARGUMENTS],
        words: &[AtomicU64; MASK_WORDS],
        cpus: usize,
    ) -> Self {
        let mut mask = CpuMask::all(cpus);
        let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
        let mut all = words.iter().map(load);
        mask.filter_words(|| all.next().expect("a mailbox's mask is as large as any"));
        let named: u32 = words.iter().map(|word| load(word).count_ones()).sum();
        Self {
            number,
            verb: verb.load(Ordering::Relaxed),
            arguments: arguments.each_ref().map(load),
            program: 0,
            flags: flags.load(Ordering::Relaxed),
            mask: (mask.len() == named as usize).then_some(mask),
        }
    }

    /// Whether it asks for nothing that this kit does not know.
    pub fn is_known(&self) -> bool {
        self.flags & !WAIT == 0
    }

    /// Whether the CPU is to wait until it has been done everywhere.
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
    /// By CPU: whether it spins while it waits for commands, instead of sleeping.
    awake: Box<[AtomicBool]>,
    /// CPUs that are to finish.
    members: AtomicCpuMask,
    /// Those of them that have begun to.
    arrived: AtomicCpuMask,
    /// Those of them that have since taken every pending interrupt.
    quiet: AtomicCpuMask,
    /// Set when the run has been judged: a CPU that still waits for commands has nothing more to
    /// do.
    over: AtomicBool,
    /// How CPUs know that they have taken every interrupt.
    pending: Pending,
}

impl Mailboxes {
    /// The mailboxes of the CPUs that `lab` describes. From now on the lab says that they take
    /// commands.
    pub fn new(lab: Lab) -> Self {
        for cpu in 0..lab.cpus() {
            lab.mailbox(cpu).listens.store(1, Ordering::Release);
        }
        Self::unheard(lab)
    }

    /// Those of CPUs that take no commands, and of which each says itself that it has done what it
    /// had to do ([`Mailboxes::finish_with`]).
    pub fn unheard(lab: Lab) -> Self {
        let cpus = lab.cpus();
        Self {
            awake: (0..cpus).map(|_| AtomicBool::new(false)).collect(),
            members: AtomicCpuMask::none(cpus),
            arrived: AtomicCpuMask::none(cpus),
            quiet: AtomicCpuMask::none(cpus),
            over: AtomicBool::new(false),
            pending: Pending::new(cpus),
        }
    }

    /// This CPU's part of the run. If the CPU had gone offline, it continues where it was.
    pub fn run<P: Platform>(&self, deeds: &impl Deeds<P>) -> Part {
        let platform = deeds.platform();
        let me = platform.this_cpu();
        let mailbox = deeds.lab().mailbox(me);
        while !self.arrived.contains(me, SharedOrdering::Relaxed) {
            let done = || has_mail(mailbox) || self.over.load(Ordering::Relaxed);
            if self.wait(deeds, done) == Next::Leave {
                return Part::Left;
            }
            if self.over.load(Ordering::Acquire) {
                platform.irqs_enable();
                return Part::Done;
            }
            if let Some(command) = Command::waiting_in(mailbox, deeds.lab().cpus()) {
                // A reader that finds the command begun finds no call of an earlier command.
                mailbox.call.store(0, Ordering::Relaxed);
                mailbox.taken.store(command.number, Ordering::Release);
                let result = match command.is_known() {
                    true => deeds.obey(&command),
                    false => Err(Refusal::Invalid),
                };
                let result = result.unwrap_or_else(|refusal| refusal as i64);
                mailbox.result.store(result, Ordering::Relaxed);
                mailbox.done.store(command.number, Ordering::Release);
                platform.ring(Doorbell::Done);
            }
        }
        self.end(deeds)
    }

    /// What the mailboxes need to know of an interrupt. The guest's handler of every vector calls
    /// this, on the CPU that has taken the interrupt.
    pub fn handle<P: Platform>(&self, platform: &P, vector: Vector) {
        if vector == Vector::LAST {
            self.pending.has_caught_up(platform.this_cpu());
        }
    }

    /// Takes every interrupt that is pending at this CPU, whose interrupts are on.
    pub fn take_pending<P: Platform>(&self, platform: &P) {
        self.pending.take(platform);
    }

    /// From now on `cpu` spins while it waits for commands, or sleeps, as it does at first.
    pub fn set_awake(&self, cpu: CpuId, awake: bool) {
        self.awake[cpu].store(awake, Ordering::Relaxed);
    }

    /// Has this CPU finish, with the rest of the CPUs that `command` names. It must be one of them.
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
        self.finish_with(deeds, &members);
        Ok(0)
    }

    /// Has this CPU, one of `members`, finish with the others of them. What is left of its part is
    /// [`Mailboxes::run`].
    pub fn finish_with<P: Platform>(&self, deeds: &impl Deeds<P>, members: &CpuMask) {
        let me = deeds.platform().this_cpu();
        deeds.platform().irqs_enable();
        self.members.insert_all(members, SharedOrdering::Relaxed);
        // Release: a CPU that sees this one here also sees the members, and what it sent before.
        self.arrived.insert(me, SharedOrdering::Release);
        // Of two CPUs that arrive at once, at least one must see the other: the last to arrive
        // wakes all.
        fence(SharedOrdering::SeqCst);
        if self.all_in(deeds, &self.arrived) {
            wake(deeds, &self.members.load(deeds.lab().cpus()));
        }
    }

    /// Waits until `done`. A CPU that has its interrupts off, or is to stay awake, does not sleep.
    fn wait<P: Platform>(&self, deeds: &impl Deeds<P>, done: impl Fn() -> bool) -> Next {
        let platform = deeds.platform();
        let irqs_on = platform.irqs_enabled();
        if irqs_on && !self.awake[platform.this_cpu()].load(Ordering::Relaxed) {
            return sleep(deeds, done);
        }
        let _waiting = Waiting::begin(platform);
        loop {
            if irqs_on && deeds.between() == Next::Leave {
                return Next::Leave;
            }
            if done() {
                return Next::Stay;
            }
            probe!(*platform, "spin.relax");
            platform.relax();
        }
    }

    /// Whether all CPUs that are to finish are in `set`. One that is offline is not waited for:
    /// what was pending at it was served before it left.
    fn all_in<P: Platform>(&self, deeds: &impl Deeds<P>, set: &AtomicCpuMask) -> bool {
        let cpus = deeds.lab().cpus();
        let members = self.members.load(cpus);
        let there = set.load(cpus);
        fence(SharedOrdering::Acquire);
        let online = deeds.online();
        let words = members.words().iter().zip(there.words());
        (words.zip(online.words())).all(|((member, there), online)| member & online & !there == 0)
    }

    /// The rest of this CPU's part, once it has begun to finish; see the description of the module.
    fn end<P: Platform>(&self, deeds: &impl Deeds<P>) -> Part {
        let cpus = deeds.lab().cpus();
        let me = deeds.platform().this_cpu();
        if sleep(deeds, || self.all_in(deeds, &self.arrived)) == Next::Leave {
            return Part::Left;
        }
        self.take_pending(deeds.platform());
        self.quiet.insert(me, SharedOrdering::Release);

        let members = self.members.load(cpus);
        let online = deeds.online();
        let first = members.iter().find(|cpu| online.contains(*cpu));
        if let Some(first) = first.filter(|first| *first != me) {
            wake(deeds, &CpuMask::only(first, cpus));
            return Part::Done;
        }
        if sleep(deeds, || self.all_in(deeds, &self.quiet)) == Next::Leave {
            return Part::Left;
        }
        deeds.judge();
        self.over.store(true, Ordering::Release);
        wake(deeds, &CpuMask::all(cpus));
        Part::Over
    }
}

/// Sleeps until `done`, and does meanwhile what is to be done between two commands.
fn sleep<P: Platform>(deeds: &impl Deeds<P>, done: impl Fn() -> bool) -> Next {
    idle_until(
        deeds.platform(),
        done,
        || deeds.between(),
        || deeds.has_something_between(),
    )
}

/// Wakes the CPUs of `cpus` that are online, but for this one.
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
