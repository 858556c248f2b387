//! The puppet workload on threads. The test plays the monitor: it writes mailboxes and reads the
//! results.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use kit::lab::Lab;
use kit::options::Options as _;
use kit::platform::{CpuId, Platform, Vector};
use kit::specimen::{Part, Specimen};
use kit::threads::Threads;
use shared::mailbox::Refusal;

use crate::deeds::Verb::{self, Add, Exchange, Fence, Finish, IrqsOff, IrqsOn, Load, Send, Store};
use crate::guest::Litmus;
use crate::manifest::{FORBIDDEN, UNREAD};
use crate::options::Options;
use crate::registers::REGISTERS;

const CPUS: usize = 2;

/// A limit for what happens at once, which is long enough for the slowest machine.
const TIME_LIMIT: Duration = Duration::from_secs(60);

const X: u64 = 0;
const Y: u64 = 1;

struct Bench {
    platform: Arc<Threads>,
    lab: Lab,
    runs: JoinHandle<()>,
    guest: Arc<Litmus<Arc<Threads>>>,
}

impl Bench {
    fn new(words: &[(&str, &str)]) -> Self {
        let mut options = Options::default();
        options.set("workload", "puppet").unwrap();
        for (key, value) in words {
            options.set(key, value).unwrap();
        }
        let platform = Threads::new(CPUS);
        let lab = Lab::allocate(CPUS as u32).unwrap();
        let guest = Arc::new(Litmus::new(platform.clone(), &options, lab));
        let (machine, handler, body) = (platform.clone(), guest.clone(), guest.clone());
        let runs = thread::spawn(move || {
            machine.run(
                move |vector| handler.handle(vector),
                move |_| match body.run_cpu() {
                    Part::Over => Part::Done,
                    part => part,
                },
            );
        });
        Self {
            platform,
            lab,
            runs,
            guest,
        }
    }

    /// Posts a deed, without waiting for it.
    fn post(&self, cpu: CpuId, verb: u32, arguments: [u64; 2], mask: u64) -> u64 {
        let mailbox = self.lab.mailbox(cpu);
        mailbox.verb.store(verb, Ordering::Relaxed);
        mailbox.arguments[0].store(arguments[0], Ordering::Relaxed);
        mailbox.arguments[1].store(arguments[1], Ordering::Relaxed);
        mailbox.mask[0].store(mask, Ordering::Relaxed);
        let number = mailbox.posted.fetch_add(1, Ordering::Release) + 1;
        self.platform.send_ipi(cpu, Vector::WAKE);
        number
    }

    fn wait(&self, cpu: CpuId, number: u64) -> i64 {
        let since = Instant::now();
        let mailbox = self.lab.mailbox(cpu);
        while mailbox.done.load(Ordering::Acquire) != number {
            assert!(
                since.elapsed() < TIME_LIMIT,
                "CPU {cpu} never did what it was told"
            );
            thread::yield_now();
        }
        mailbox.result.load(Ordering::Relaxed)
    }

    fn result(&self, cpu: CpuId, verb: u32, arguments: [u64; 2]) -> i64 {
        let number = self.post(cpu, verb, arguments, 0);
        self.wait(cpu, number)
    }

    #[track_caller]
    fn tell(&self, cpu: CpuId, verb: Verb, arguments: [u64; 2]) {
        assert_eq!(
            self.result(cpu, verb as u32, arguments),
            0,
            "{verb:?} {arguments:?}"
        );
    }

    /// Waits until the handler of `cpu` has been entered for a request `times` times.
    fn wait_asked(&self, cpu: CpuId, times: u64) {
        let since = Instant::now();
        let received = self.lab.counters(cpu).received(crate::vectors::ASKED);
        while received.load(Ordering::Acquire) < times {
            assert!(
                since.elapsed() < TIME_LIMIT,
                "CPU {cpu} was never interrupted"
            );
            thread::yield_now();
        }
    }

    /// Ends the test; says what the guest does and what it has found.
    fn end(self) -> (String, [u64; 2]) {
        for cpu in 0..CPUS {
            self.post(cpu, Finish as u32, [0; 2], 0b11);
        }
        self.runs.join().unwrap();
        let said = self.guest.verdict().to_string();
        let found = |oracle| self.lab.found(oracle).load(Ordering::Relaxed);
        (said, [found(FORBIDDEN), found(UNREAD)])
    }
}

#[test]
fn every_deed_does_what_it_says() {
    let bench = Bench::new(&[("init", "y=7")]);
    bench.tell(0, Load, [Y, 0]);
    bench.tell(0, Store, [X, 3]);
    bench.tell(1, Exchange, [X, 5]);
    bench.tell(1, Add, [X, 10]);
    bench.tell(0, Fence, [0; 2]);
    bench.tell(0, Load, [X, 0]);
    bench.tell(1, Send, [0, X]);
    bench.wait_asked(0, 1);
    let (said, found) = bench.end();
    assert_eq!(
        said,
        "Outcome 0:r0=7; 0:r1=15; 0:h0=15; 1:r0=3; 1:r1=5; x=15; y=7;"
    );
    assert_eq!(found, [0, 0]);
}

#[test]
fn an_interrupt_waits_until_they_are_on() {
    let bench = Bench::new(&[("never", "0:h0=0")]);
    bench.tell(0, IrqsOff, [0; 2]);
    bench.tell(1, Send, [0, X]);
    bench.tell(1, Store, [X, 1]);
    bench.tell(0, IrqsOn, [0; 2]);
    let (said, found) = bench.end();
    assert_eq!(
        said,
        "Outcome 0:h0=1; x=1;\nCondition ~exists (0:h0=0) is kept"
    );
    assert_eq!(found, [0, 0]);
}

#[test]
fn an_interrupt_that_is_pending_at_the_end_is_taken_there() {
    let bench = Bench::new(&[("forall", "1:h0=2")]);
    bench.tell(1, IrqsOff, [0; 2]);
    bench.tell(0, Send, [1, Y]);
    bench.tell(0, Store, [Y, 2]);
    let (said, found) = bench.end();
    assert_eq!(
        said,
        "Outcome 1:h0=2; y=2;\nCondition forall (1:h0=2) is kept"
    );
    assert_eq!(found, [0, 0]);
}

#[test]
fn an_outcome_that_is_forbidden_is_found() {
    let bench = Bench::new(&[("never", "0:r0=0&1:r0=1")]);
    bench.tell(0, Load, [Y, 0]);
    bench.tell(0, Store, [X, 1]);
    bench.tell(1, Load, [X, 0]);
    let lab = bench.lab;
    let (said, found) = bench.end();
    assert!(
        said.ends_with("Condition ~exists (0:r0=0 /\\ 1:r0=1) is NOT kept"),
        "{said}"
    );
    assert_eq!(found, [1, 0]);
    let finding = lab.findings().next().unwrap();
    assert_eq!((finding.oracle, finding.seen), (FORBIDDEN, 0x0001));
}

#[test]
fn a_claim_of_what_was_never_read_is_found() {
    let bench = Bench::new(&[("never", "0:r0=1&1:r0=1")]);
    bench.tell(0, Load, [X, 0]);
    assert_eq!(bench.end().1, [0, 1]);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let bench = Bench::new(&[]);
    let invalid = Refusal::Invalid as i64;
    assert_eq!(bench.result(0, 0, [0; 2]), invalid);
    assert_eq!(bench.result(0, 99, [0; 2]), invalid);
    assert_eq!(bench.result(0, Store as u32, [6, 1]), invalid);
    assert_eq!(bench.result(0, Load as u32, [u64::MAX, 0]), invalid);
    assert_eq!(
        bench.result(0, Send as u32, [CPUS as u64, X]),
        Refusal::Offline as i64
    );
    // No CPUs, or others than itself.
    assert_eq!(bench.result(0, Finish as u32, [0; 2]), invalid);
    let number = bench.post(0, Finish as u32, [0; 2], 0b10);
    assert_eq!(bench.wait(0, number), invalid);
    assert_eq!(bench.end().1, [0, 0]);
}

#[test]
fn what_there_is_no_register_for_is_done_all_the_same() {
    // None of these can be left out of a case without a word.
    let bench = Bench::new(&[("never", "x=36&0:r31=31")]);
    for _ in 0..REGISTERS + 2 {
        bench.tell(0, Add, [X, 1]);
    }
    bench.tell(0, Load, [X, 0]);
    bench.tell(0, Exchange, [X, 36]);
    let (said, found) = bench.end();
    assert!(said.contains(" 0:r31=31; x=36;"), "{said}");
    assert_eq!(found, [1, 0]);
}
