//! CPUs that add to a sum, in one step or in two. `docs/writing-a-guest.md` tells how it came
//! about.

#![cfg_attr(not(test), no_std)]

extern crate alloc;

use alloc::boxed::Box;
use core::fmt;
use core::sync::atomic::{AtomicU64 as Private, Ordering::Relaxed};

use kit::counters::count;
use kit::lab::Lab;
use kit::mailbox::{Command, Deeds, Mailboxes, Refusal};
use kit::manifest::{ENDS, IN_CASE, Record, SourceRole};
use kit::options::ToldOnly;
use kit::platform::{Platform, Vector};
use kit::specimen::{Part, Specimen};
use kit::sync::atomic::{AtomicU64, Ordering};
use kit::{counters, declare, deeds, handler, probe};

const MISCOUNTED: u32 = 1;

declare! {
    Record::guest("sum", env!("CARGO_PKG_VERSION"), "CPUs that add to a sum"),
    Record::source(SourceRole::Root, "guest/"),
    Record::oracle(MISCOUNTED, "miscounted", "left a sum that is not what was added"),
}

deeds! {
    /// What a CPU can be told.
    enum Verb {
        Add = 1 "add" (Number) [IN_CASE] "Reads the sum, and writes it with the number added.",
        AddAtOnce = 2 "add-at-once" (Number) [IN_CASE] "Adds the number in one instruction.",
        Finish = 3 "finish" (Cpus) [ENDS] "Ends the workload.",
    }
}

counters! {
    /// What each CPU counts.
    pub struct CpuCounters {
        /// Numbers that were added.
        additions.shown("sum", "additions", "{} additions", "additions_total");
    }
}

/// The guest.
#[derive(Debug)]
pub struct Sum<P> {
    platform: P,
    lab: Lab,
    mailboxes: Mailboxes,
    /// What CPUs share, and so an atomic of the kit's: a search stops before each access.
    sum: AtomicU64,
    /// By CPU: what it has added. Only the CPU itself writes it, and it is read only at the end.
    added: Box<[Private]>,
}

impl<P: Platform> Specimen<P> for Sum<P> {
    type Options = ToldOnly;

    fn new(platform: P, _: &ToldOnly, lab: Lab) -> Self {
        Self {
            platform,
            lab,
            mailboxes: Mailboxes::new(lab),
            sum: AtomicU64::new(0),
            added: (0..lab.cpus()).map(|_| Private::new(0)).collect(),
        }
    }

    fn platform(&self) -> &P {
        &self.platform
    }

    fn run_cpu(&self) -> Part {
        self.platform.irqs_enable();
        self.mailboxes.run(self)
    }

    fn handle(&self, vector: Vector) {
        handler::run(&self.platform, &self.lab, vector, || {
            self.mailboxes.handle(&self.platform, vector);
        });
    }

    fn verdict(&self) -> impl fmt::Display {
        self.sum.load(Ordering::Relaxed)
    }
}

impl<P: Platform> Deeds<P> for Sum<P> {
    fn platform(&self) -> &P {
        &self.platform
    }

    fn lab(&self) -> &Lab {
        &self.lab
    }

    fn obey(&self, command: &Command) -> Result<i64, Refusal> {
        let me = self.platform.this_cpu();
        let number = command.arguments[0];
        match Verb::try_from(command.verb).map_err(|_| Refusal::Invalid)? {
            Verb::Add => {
                let before = self.sum.load(Ordering::Relaxed);
                probe!(self.platform, "sum.read", 0, before);
                self.sum
                    .store(before.wrapping_add(number), Ordering::Relaxed);
            }
            Verb::AddAtOnce => _ = self.sum.fetch_add(number, Ordering::Relaxed),
            Verb::Finish => return self.mailboxes.finish(self, command),
        }
        self.added[me].fetch_add(number, Relaxed);
        count(&self.lab.own_counters::<CpuCounters>(me).additions, 1);
        Ok(0)
    }

    fn judge(&self) {
        let added = self.added.iter().map(|it| it.load(Relaxed));
        let added = added.fold(0, u64::wrapping_add);
        let sum = self.sum.load(Ordering::Relaxed);
        if sum != added {
            let (me, now) = (self.platform.this_cpu(), self.platform.timestamp());
            self.lab.report(MISCOUNTED, me, 0, now, sum);
        }
    }
}
