//! Mailboxes on threads, with a minimal guest, which adds to one word. The test plays the monitor.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use shared::exit::ExitCode;
use shared::mailbox::Refusal;

use crate::handler;
use crate::lab::Lab;
use crate::mailbox::{Command, Deeds, Mailboxes};
use crate::options::ToldOnly;
use crate::platform::{CpuId, Platform, Vector};
use crate::specimen::{Part, Specimen};
use crate::sync::atomic::{AtomicU64, Ordering as Shared};
use crate::threads::{self, Threads};

const CPUS: usize = 3;

// The deeds.
const ADD: u32 = 1;
const WAKE_ALL: u32 = 2;
const SPIN: u32 = 3;
const FINISH: u32 = 4;

/// The only oracle: the word holds more than it may.
const TOO_MUCH: u32 = 1;
/// The most that it may hold.
const MUCH: u64 = 100;

#[derive(Debug)]
struct Adder<P> {
    platform: P,
    lab: Lab,
    mailboxes: Mailboxes,
    sum: AtomicU64,
}

impl<P: Platform> Specimen<P> for Adder<P> {
    type Options = ToldOnly;

    fn new(platform: P, _: &ToldOnly, lab: Lab) -> Self {
        Self {
            platform,
            lab,
            mailboxes: Mailboxes::new(lab),
            sum: AtomicU64::new(0),
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
        self.sum.load(Shared::Relaxed)
    }
}

impl<P: Platform> Deeds<P> for Adder<P> {
    fn platform(&self) -> &P {
        &self.platform
    }

    fn lab(&self) -> &Lab {
        &self.lab
    }

    fn obey(&self, command: &Command) -> Result<i64, Refusal> {
        let me = self.platform.this_cpu();
        match command.verb {
            ADD => {
                let before = self.sum.fetch_add(command.arguments[0], Shared::Relaxed);
                Ok((before + command.arguments[0]) as i64)
            }
            WAKE_ALL => {
                let mask = command.mask()?;
                Ok(self.platform.send_ipi_mask(&mask, Vector::WAKE) as i64)
            }
            SPIN => {
                self.mailboxes.set_awake(me, true);
                Ok(0)
            }
            FINISH => self.mailboxes.finish(self, command),
            _ => Err(Refusal::Invalid),
        }
    }

    fn judge(&self) {
        let sum = self.sum.load(Shared::Relaxed);
        if sum > MUCH {
            let me = self.platform.this_cpu();
            self.lab
                .report(TOO_MUCH, me, 0, self.platform.timestamp(), sum);
        }
    }
}

struct Monitor {
    platform: Arc<Threads>,
    lab: Lab,
    guest: Arc<Adder<Arc<Threads>>>,
    runs: thread::JoinHandle<()>,
}

impl Monitor {
    fn new() -> Self {
        let platform = Threads::new(CPUS);
        let lab = Lab::allocate(CPUS as u32).unwrap();
        let guest = Arc::new(Adder::new(platform.clone(), &ToldOnly, lab));
        let (machine, runs) = (platform.clone(), guest.clone());
        Self {
            platform,
            lab,
            guest,
            runs: thread::spawn(move || threads::run(&machine, &runs)),
        }
    }

    /// Posts a command, and returns its result.
    fn tell(&self, cpu: CpuId, verb: u32, argument: u64, mask: u64) -> i64 {
        let mailbox = self.lab.mailbox(cpu);
        let number = mailbox.posted.load(Ordering::Relaxed) + 1;
        mailbox.verb.store(verb, Ordering::Relaxed);
        mailbox.arguments[0].store(argument, Ordering::Relaxed);
        mailbox.mask[0].store(mask, Ordering::Relaxed);
        mailbox.posted.store(number, Ordering::Release);
        self.platform.send_ipi(cpu, Vector::WAKE);
        while mailbox.done.load(Ordering::Acquire) != number {
            thread::yield_now();
        }
        mailbox.result.load(Ordering::Relaxed)
    }

    /// Tells all CPUs to finish, and returns how the run ends.
    fn end(self) -> ExitCode {
        for cpu in 0..CPUS {
            assert_eq!(self.tell(cpu, FINISH, 0, 0b111), 0);
        }
        self.runs.join().unwrap();
        self.lab.conclusion()
    }
}

#[test]
fn cpus_do_what_they_are_told_and_end_together() {
    let monitor = Monitor::new();
    assert!((0..CPUS).all(|cpu| monitor.lab.mailbox(cpu).listens.load(Ordering::Relaxed) != 0));
    assert_eq!(monitor.tell(1, SPIN, 0, 0), 0);
    for (cpu, sum) in [(0, 5), (1, 10), (2, 15), (1, 20)] {
        assert_eq!(monitor.tell(cpu, ADD, 5, 0), sum);
    }
    assert_eq!(monitor.tell(0, WAKE_ALL, 0, 0b110), 2);
    assert_eq!(monitor.guest.verdict().to_string(), "20");
    assert_eq!(monitor.end(), ExitCode::Pass);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let monitor = Monitor::new();
    let refused = Refusal::Invalid as i64;
    assert_eq!(monitor.tell(0, 77, 0, 0), refused, "no such verb");
    assert_eq!(monitor.tell(0, WAKE_ALL, 0, 0b1000), refused, "no such CPU");
    assert_eq!(monitor.tell(0, FINISH, 0, 0b110), refused, "without itself");
    assert_eq!(monitor.end(), ExitCode::Pass);
}

#[test]
fn the_run_is_judged_when_all_have_ended() {
    let monitor = Monitor::new();
    monitor.tell(2, ADD, MUCH + 1, 0);
    let lab = monitor.lab;
    assert_eq!(monitor.end(), ExitCode::Fail);
    let findings: Vec<_> = lab.findings().map(|it| (it.oracle, it.seen)).collect();
    assert_eq!(findings, [(TOO_MUCH, MUCH + 1)]);
    // Every CPU checked whether an interrupt was still pending.
    let caught_up = |cpu| lab.counters(cpu).received(Vector::LAST);
    assert!((0..CPUS).all(|cpu| caught_up(cpu).load(Ordering::Relaxed) == 1));
}
