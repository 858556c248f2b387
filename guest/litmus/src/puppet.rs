//! `workload=puppet`: every CPU does what its mailbox says, one deed at a time, so that what posts
//! them decides the order. What a CPU reads is kept, and the claim is judged by it at the end of
//! the test.
//!
//! Variables are accessed through [`kit::sync`], and what CPUs ask of each other's handlers is ghost
//! state: a search stops before each such access. What a CPU has read belongs to that CPU alone
//! until the end.

use alloc::boxed::Box;
use core::fmt;
use core::sync::atomic::AtomicUsize;

use kit::counters::count;
use kit::lab::Lab;
use kit::mailbox::{Command, Deeds, Mailboxes};
use kit::platform::{CpuId, Platform, Vector};
use kit::specimen::Part;
use kit::sync::atomic::{AtomicU64, Ordering, fence};
use kit::sync::ghost;
use shared::mailbox::Refusal;

use crate::condition::Place;
use crate::counters::CpuCounters;
use crate::deeds::Verb;
use crate::manifest::{FORBIDDEN, UNREAD};
use crate::options::Options;
use crate::program::Variable;
use crate::registers::{self, REGISTERS};
use crate::test::Claim;
use crate::vectors::ASKED;

/// The CPUs of a test, which do as they are told.
#[derive(Debug)]
pub struct Puppet {
    variables: Box<[Word]>,
    cpus: Box<[Own]>,
    claim: Option<Claim>,
    mailboxes: Mailboxes,
}

/// A variable, in a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
struct Word(AtomicU64);

/// What belongs to one CPU.
#[derive(Debug)]
#[repr(align(64))]
struct Own {
    /// A bit for each variable that its handler is to read. It is not part of the test: asking for
    /// one is no access of the test's, and orders none.
    asked: core::sync::atomic::AtomicU64,
    /// What it has read.
    loaded: Row,
    /// What its handlers have read.
    handled: Row,
}

/// The values that one CPU has read in one context, which alone writes them.
#[derive(Debug, Default)]
struct Row {
    count: AtomicUsize,
    values: [core::sync::atomic::AtomicU64; REGISTERS],
}

impl Row {
    /// Keeps `value`, if there is room: a claim cannot name a register beyond that. The access
    /// itself is made in any case.
    fn push(&self, value: u64) {
        let count = self.count.load(Ordering::Relaxed);
        if let Some(place) = self.values.get(count) {
            place.store(value, Ordering::Relaxed);
            self.count.store(count + 1, Ordering::Relaxed);
        }
    }

    fn get(&self, nth: usize) -> Option<i64> {
        let is_there = nth < self.count.load(Ordering::Relaxed);
        is_there.then(|| self.values[nth].load(Ordering::Relaxed).cast_signed())
    }
}

impl Puppet {
    /// For the CPUs that `lab` describes. From now on the lab says that they take commands.
    pub fn new(options: &Options, lab: Lab) -> Self {
        let cpus = lab.cpus();
        let own = |_| Own {
            asked: core::sync::atomic::AtomicU64::new(0),
            loaded: Row::default(),
            handled: Row::default(),
        };
        Self {
            variables: (options.initial().into_iter())
                .map(|value| Word(AtomicU64::new(value.cast_unsigned())))
                .collect(),
            cpus: (0..cpus).map(own).collect(),
            claim: options.claim().cloned(),
            mailboxes: Mailboxes::new(lab),
        }
    }

    /// This CPU's part of the run.
    pub fn run<P: Platform>(&self, platform: &P, lab: &Lab) -> Part {
        let cpu = PuppetDeeds {
            puppet: self,
            platform,
            lab,
        };
        self.mailboxes.run(&cpu)
    }

    /// The handler of `vector`.
    pub fn handle<P: Platform>(&self, platform: &P, lab: &Lab, vector: Vector) {
        self.mailboxes.handle(platform, vector);
        if vector == ASKED {
            let me = platform.this_cpu();
            let own = &self.cpus[me];
            ghost::changes(&own.asked);
            let asked = own.asked.swap(0, Ordering::Relaxed);
            for variable in Variable::ALL {
                if asked >> variable as usize & 1 != 0 {
                    count(&lab.own_counters::<CpuCounters>(me).deeds, 1);
                    let value = self.word(variable).load(Ordering::Relaxed);
                    own.handled.push(value);
                }
            }
        }
    }

    fn word(&self, variable: Variable) -> &AtomicU64 {
        &self.variables[variable as usize].0
    }

    /// The value in `place`, if it has one.
    fn value(&self, place: &Place) -> Option<i64> {
        let (cpu, name) = match place {
            Place::Variable(variable) => {
                return Some(self.word(*variable).load(Ordering::Relaxed).cast_signed());
            }
            Place::Register(cpu, name) => (*cpu, name),
        };
        let (own, (kind, nth)) = (self.cpus.get(cpu)?, registers::numbered(name)?);
        match kind {
            'r' => own.loaded.get(nth),
            _ => own.handled.get(nth),
        }
    }

    /// The outcome, when the test is over.
    pub fn outcome(&self) -> OutcomeReport<'_> {
        OutcomeReport { puppet: self }
    }
}

/// How the CPU that this runs on carries out deeds.
struct PuppetDeeds<'a, P> {
    puppet: &'a Puppet,
    platform: &'a P,
    lab: &'a Lab,
}

impl<P: Platform> Deeds<P> for PuppetDeeds<'_, P> {
    fn platform(&self) -> &P {
        self.platform
    }

    fn lab(&self) -> &Lab {
        self.lab
    }

    fn obey(&self, command: &Command) -> Result<i64, Refusal> {
        let Self {
            puppet,
            platform,
            lab,
        } = self;
        let me = platform.this_cpu();
        let variable = |at: usize| {
            let number = usize::try_from(command.arguments[at]).ok();
            number
                .and_then(|number| Variable::ALL.get(number))
                .copied()
                .ok_or(Refusal::Invalid)
        };
        if command.waits() {
            return Err(Refusal::Invalid);
        }
        let number = command.arguments[1];
        let loaded = &puppet.cpus[me].loaded;
        match Verb::try_from(command.verb).map_err(|_| Refusal::Invalid)? {
            Verb::Store => puppet.word(variable(0)?).store(number, Ordering::Relaxed),
            Verb::Load => loaded.push(puppet.word(variable(0)?).load(Ordering::Relaxed)),
            Verb::Exchange => {
                loaded.push(puppet.word(variable(0)?).swap(number, Ordering::SeqCst));
            }
            Verb::Add => {
                loaded.push(
                    puppet
                        .word(variable(0)?)
                        .fetch_add(number, Ordering::SeqCst),
                );
            }
            Verb::Fence => fence(Ordering::SeqCst),
            Verb::Send => {
                let asked = 1 << variable(1)? as usize;
                let target = usize::try_from(command.arguments[0]).ok();
                let target = target.filter(|target| *target < puppet.cpus.len());
                let target = target.ok_or(Refusal::Offline)?;
                let other = &puppet.cpus[target].asked;
                ghost::changes(other);
                other.fetch_or(asked, Ordering::Relaxed);
                platform.send_ipi(target, ASKED);
                return Ok(0);
            }
            Verb::IrqsOff => platform.irqs_disable(),
            Verb::IrqsOn => platform.irqs_enable(),
            Verb::Finish => return puppet.mailboxes.finish(self, command),
        }
        count(&lab.own_counters::<CpuCounters>(me).deeds, 1);
        Ok(0)
    }

    fn judge(&self) {
        let Self {
            puppet,
            platform,
            lab,
        } = self;
        let report = |oracle, cpu, seen| lab.report(oracle, cpu, 0, platform.timestamp(), seen);
        let Some(claim) = &puppet.claim else {
            return;
        };
        let mut seen = 0;
        for place in claim.condition.places() {
            let value = puppet.value(&place);
            // Two hexadecimal digits for each, as far as there is room.
            seen = seen << 8 | value.unwrap_or(0xff).cast_unsigned() & 0xff;
            if let (Place::Register(cpu, name), None) = (&place, value)
                && let Some(('r', nth)) = registers::numbered(name)
            {
                report(UNREAD, *cpu, nth as u64);
            }
        }
        if claim.forbids(&|place: &Place| puppet.value(place)) {
            report(FORBIDDEN, platform.this_cpu(), seen);
        }
    }
}

/// The outcome of a test, as it is printed.
#[derive(Clone, Copy, Debug)]
pub struct OutcomeReport<'a> {
    puppet: &'a Puppet,
}

impl OutcomeReport<'_> {
    fn row(f: &mut fmt::Formatter<'_>, cpu: CpuId, kind: char, row: &Row) -> fmt::Result {
        (0..REGISTERS)
            .map_while(|nth| Some((nth, row.get(nth)?)))
            .try_for_each(|(nth, value)| write!(f, " {cpu}:{kind}{nth}={value};"))
    }
}

/// All that was read, the variables that are not 0, and whether the claim is kept.
impl fmt::Display for OutcomeReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { puppet } = self;
        f.write_str("Outcome")?;
        for (cpu, own) in puppet.cpus.iter().enumerate() {
            Self::row(f, cpu, 'r', &own.loaded)?;
            Self::row(f, cpu, 'h', &own.handled)?;
        }
        for variable in Variable::ALL {
            match puppet.value(&Place::Variable(variable)) {
                Some(0) | None => {}
                Some(value) => write!(f, " {}={value};", variable.name())?,
            }
        }
        if let Some(claim) = &puppet.claim {
            let forbidden = claim.forbids(&|place: &Place| puppet.value(place));
            let not = if forbidden { "NOT " } else { "" };
            write!(f, "\nCondition {claim} is {not}kept")?;
        }
        Ok(())
    }
}
