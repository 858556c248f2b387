//! The guest that C files make: its CPUs do what they are told, by the functions of the table, or
//! what a workload of the C files has them do.

use alloc::boxed::Box;
use core::fmt;
#[cfg(not(feature = "explore"))]
use core::sync::atomic::AtomicU64;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use kit::counters::count;
use kit::declare;
use kit::handler;
use kit::lab::Lab;
use kit::mailbox::{Command, Deeds, Mailboxes, Refusal};
use kit::manifest::{Argument, ENDS, Record, SourceRole};
use kit::options::Options as _;
use kit::platform::{Platform, Vector};
use kit::program;
use kit::specimen::{Next, Part, Specimen};
use kit::sync::barrier::Barrier;
use kit::sync::mask::CpuMask;
#[cfg(not(feature = "explore"))]
use kit::sync::waiting::report_if_long;

use shared::ledger::CallId;

use crate::counters::CCounters;
use crate::ledger::Ledger;
use crate::table::{CCommand, CHotplug, Entry, VECTORS, Work, construct, entries};
use crate::words::{self, Words};

/// The verb of the deed that ends the workload. Those of C files are below.
pub const FINISH: u32 = 1 << 16;

declare! {
    Record::deed(FINISH, "finish", &[Argument::Cpus], "Ends the workload.").with(ENDS),
    Record::source(SourceRole::SkipFile, "/ckit/src/"),
}

/// The number of CPUs, for constructors as well.
pub static CPUS: AtomicU32 = AtomicU32::new(0);

/// The number of those that are started at boot, likewise.
pub static CPUS_AT_BOOT: AtomicU32 = AtomicU32::new(0);

/// The guest.
#[derive(Debug)]
pub struct CGuest<P> {
    platform: P,
    lab: Lab,
    mailboxes: Mailboxes,
    ledger: Ledger,
    /// How CPUs leave and come, if they can.
    hotplug: Option<&'static CHotplug>,
    /// By CPU: whether it has left and not come back, or was not started at boot.
    is_away: Box<[AtomicBool]>,
    barrier: Barrier,
    /// By CPU: since when it has waited in a loop, or since it last told the host; 0 if it does not
    /// wait.
    #[cfg(not(feature = "explore"))]
    waits_since: Box<[AtomicU64]>,
    /// What each CPU does by itself, if it is not told what to do.
    work: Option<Work>,
    /// By the place of the vector in [`VECTORS`]. Not looked for in the table at each interrupt,
    /// which would take longer than most handlers.
    handlers: [Option<extern "C" fn()>; VECTORS.len()],
}

impl<P: Platform> CGuest<P> {
    /// Carries out the program with this number on this CPU. `refused` is told each result below
    /// zero.
    pub fn do_program(&self, number: u32, refused: extern "C" fn(i64)) {
        for command in program::commands(&self.lab, number.into()) {
            let result = match command.is_known() {
                true => tell(&command),
                false => Err(Refusal::Invalid),
            };
            let result = result.unwrap_or_else(|refusal| refusal as i64);
            if result < 0 {
                refused(result);
            }
        }
    }

    /// Takes every interrupt that is pending at this CPU, whose interrupts are on.
    pub fn take_pending(&self) {
        self.mailboxes.take_pending(&self.platform);
    }

    /// The calls that C files have entered.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// This CPU's part of the run, until it leaves.
    fn until_it_leaves(&self) -> Part {
        if let Some(hotplug) = self.hotplug {
            (hotplug.starts)();
        }
        self.platform.irqs_enable();
        if let Some(work) = self.work {
            (work.part)();
            if !self.online().contains(self.platform.this_cpu()) {
                return Part::Left;
            }
            if work.ends_with_the_first {
                return self.end_with_the_first();
            }
            let all = CpuMask::all(self.lab.cpus());
            self.mailboxes.finish_with(self, &all);
        }
        self.mailboxes.run(self)
    }

    /// The end of a bench, in which nothing that CPU 0 has sent is under way once it returns.
    fn end_with_the_first(&self) -> Part {
        if self.platform.this_cpu() != 0 {
            return Part::Done;
        }
        self.judge();
        Part::Over
    }

    /// This CPU begins to wait for others.
    #[cfg(not(feature = "explore"))]
    pub fn begins_to_wait(&self) {
        let since = &self.waits_since[self.platform.this_cpu()];
        since.store(self.platform.timestamp(), Ordering::Relaxed);
    }

    /// It has looked in vain. If it has for long, the host hears of it, which may then let another
    /// CPU run.
    #[cfg(not(feature = "explore"))]
    pub fn still_waits(&self) {
        let since = &self.waits_since[self.platform.this_cpu()];
        match since.load(Ordering::Relaxed) {
            0 => {}
            then => since.store(report_if_long(&self.platform, then), Ordering::Relaxed),
        }
    }

    /// It has found what it waited for.
    #[cfg(not(feature = "explore"))]
    pub fn waits_no_more(&self) {
        self.waits_since[self.platform.this_cpu()].store(0, Ordering::Relaxed);
    }

    /// The barrier of a workload's CPUs: those that start at boot.
    pub fn barrier(&self) -> &Barrier {
        &self.barrier
    }

    /// This CPU, not in a handler, has entered `call`. If it is the first one of the command that it
    /// carries out, its mailbox says so; others are of the program of that one.
    pub fn has_entered(&self, call: CallId) {
        let first = &self.lab.mailbox(self.platform.this_cpu()).call;
        if first.load(Ordering::Relaxed) == 0 {
            // Release: whoever finds the id finds the record.
            first.store(call.raw(), Ordering::Release);
        }
    }

    /// Whether this CPU has gone offline, at a point where it can.
    pub fn goes_offline(&self) -> bool {
        self.between() == Next::Leave
    }
}

impl<P: Platform> Specimen<P> for CGuest<P> {
    type Options = Words;

    fn new(platform: P, words: &Words, lab: Lab) -> Self {
        CPUS.store(lab.cpus() as u32, Ordering::Relaxed);
        let at_boot = words.cpus_at_boot(lab.cpus()) as u32;
        CPUS_AT_BOOT.store(at_boot, Ordering::Relaxed);
        construct();
        let work = words::work();
        Self {
            platform,
            lab,
            mailboxes: match work {
                None => Mailboxes::new(lab),
                Some(_) => Mailboxes::unheard(lab),
            },
            ledger: Ledger::new(lab),
            hotplug: entries().find_map(|entry| match entry {
                Entry::Hotplug(hotplug) => Some(hotplug),
                _ => None,
            }),
            is_away: (0..lab.cpus())
                .map(|cpu| AtomicBool::new(cpu >= at_boot as usize))
                .collect(),
            barrier: Barrier::new(at_boot as usize),
            #[cfg(not(feature = "explore"))]
            waits_since: (0..lab.cpus()).map(|_| AtomicU64::new(0)).collect(),
            work,
            handlers: VECTORS.map(|vector| {
                entries().find_map(|entry| match entry {
                    Entry::Handler(number, handler) if number == vector.number() => Some(handler),
                    _ => None,
                })
            }),
        }
    }

    fn platform(&self) -> &P {
        &self.platform
    }

    fn run_cpu(&self) -> Part {
        let me = self.platform.this_cpu();
        #[cfg(feature = "image")]
        crate::intended::starts(me);
        let is_away = &self.is_away[me];
        let counters: &CCounters = self.lab.own_counters(me);
        if is_away.swap(false, Ordering::Relaxed) {
            count(&counters.brought_up, 1);
        }
        let part = self.until_it_leaves();
        if part == Part::Left {
            is_away.store(true, Ordering::Relaxed);
            count(&counters.taken_down, 1);
        }
        part
    }

    fn handle(&self, vector: Vector) {
        handler::run(&self.platform, &self.lab, vector, || {
            self.mailboxes.handle(&self.platform, vector);
            let place = vector.number().checked_sub(VECTORS[0].number());
            let handler = place.and_then(|place| self.handlers.get(usize::from(place)));
            if let Some(handler) = handler.copied().flatten() {
                handler();
            }
        });
    }

    fn verdict(&self) -> impl fmt::Display {
        Verdict(self.lab.findings_made())
    }
}

/// Has the C function of its deed carry out `command`, and returns the function's result.
fn tell(command: &Command) -> Result<i64, Refusal> {
    let deed = entries().find_map(|entry| match entry {
        Entry::Deed(verb, function) if verb == command.verb => Some(function),
        _ => None,
    });
    let mut told = CCommand {
        arguments: command.arguments,
        cpus: [0; 16],
        waits: command.waits().into(),
        program: command.program as u32,
    };
    let mask = command.mask()?;
    for (word, its) in told.cpus.iter_mut().zip(mask.words()) {
        *word = *its;
    }
    Ok(deed.ok_or(Refusal::Invalid)?(&raw const told))
}

/// What is printed at the end.
struct Verdict(u32);

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("pass"),
            findings => write!(f, "fail: {findings} findings"),
        }
    }
}

impl<P: Platform> Deeds<P> for CGuest<P> {
    fn platform(&self) -> &P {
        &self.platform
    }

    fn lab(&self) -> &Lab {
        &self.lab
    }

    fn obey(&self, command: &Command) -> Result<i64, Refusal> {
        if command.verb == FINISH {
            return self.mailboxes.finish(self, command);
        }
        match tell(command)? {
            result @ 0.. => Ok(result),
            refused => Err(Refusal::try_from(refused).unwrap_or(Refusal::Invalid)),
        }
    }

    fn between(&self) -> Next {
        match self.hotplug {
            Some(hotplug) if (hotplug.between)() => Next::Leave,
            _ => Next::Stay,
        }
    }

    fn has_something_between(&self) -> bool {
        self.hotplug.is_some_and(|hotplug| (hotplug.is_wanted)())
    }

    fn online(&self) -> CpuMask {
        let mut online = CpuMask::all(self.lab.cpus());
        if let Some(hotplug) = self.hotplug {
            let mut words = 0..;
            online.filter_words(|| words.next().map_or(0, |word| (hotplug.online)(word)));
        }
        online
    }

    fn judge(&self) {
        for entry in entries() {
            if let Entry::Judge(judge) = entry {
                judge();
            }
        }
        self.ledger.audit(&self.platform);
    }
}
