//! Puppets on threads. The test plays the monitor: it writes mailboxes and reads the results.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use kit::lab::{Lab, Record};
use kit::platform::{CpuId, Platform, Vector};
use kit::specimen::{Part, Specimen};
use kit::threads::Threads;
use shared::exit::ExitCode;
use shared::ledger::CallId;
use shared::mailbox::{Refusal, WAIT};
use shared::program::Program;

use crate::Guest;
use crate::ipi::queue::QueueKind;
use crate::options::{Options, Workload};
use crate::oracle::Oracle;
use crate::vectors::MANY;
use crate::workload::deeds::Verb;

const CPUS: usize = 4;

/// A limit for what happens at once, which is long enough for the slowest machine.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// How a run ended: which CPU judged it, the exit code, and which oracles had fired by then.
#[derive(Debug)]
struct End {
    by: CpuId,
    code: ExitCode,
    findings: Vec<Oracle>,
}

/// A machine of puppets, and what the monitor needs of it.
struct Bench {
    platform: Arc<Threads>,
    lab: Lab,
    end: Arc<OnceLock<End>>,
    runs: JoinHandle<()>,
}

/// A command to post.
#[derive(Clone, Copy, Debug)]
struct Command {
    verb: u32,
    flags: u32,
    argument: u64,
    second: u64,
    mask: u64,
    program: u64,
}

const fn command(verb: Verb) -> Command {
    Command {
        verb: verb as u32,
        flags: 0,
        argument: 0,
        second: 0,
        mask: 0,
        program: 0,
    }
}

impl Command {
    const fn about(self, argument: u64) -> Self {
        Self { argument, ..self }
    }
    const fn with(self, second: u64) -> Self {
        Self { second, ..self }
    }
    const fn among(self, mask: u64) -> Self {
        Self { mask, ..self }
    }
    /// With the program of this number.
    const fn doing(self, program: u64) -> Self {
        Self { program, ..self }
    }
    const fn waiting(self) -> Self {
        Self {
            flags: WAIT,
            ..self
        }
    }
}

const IRQS_OFF: Command = command(Verb::IrqsOff);
const IRQS_ON: Command = command(Verb::IrqsOn);

#[track_caller]
fn wait_until(what: &str, done: impl Fn() -> bool) {
    let since = Instant::now();
    while !done() {
        assert!(since.elapsed() < TIME_LIMIT, "waited in vain: {what}");
        thread::yield_now();
    }
}

impl Bench {
    fn new(queue: QueueKind) -> Self {
        let options = Options {
            workload: Workload::Puppet,
            queue,
            ..Options::DEFAULT
        };
        let platform = Threads::new(CPUS);
        let lab = Lab::allocate(CPUS as u32).unwrap();
        let guest = Arc::new(Guest::new(platform.clone(), &options, lab));
        let end = Arc::new(OnceLock::new());
        let (machine, ends) = (platform.clone(), end.clone());
        let handler = guest.clone();
        let body = move |cpu| {
            let part = guest.run_cpu();
            if part == Part::Over {
                let code = guest.judge().code();
                let oracles = lab.findings().map(|finding| finding.oracle);
                let findings = oracles.map(|oracle| Oracle::try_from(oracle).unwrap());
                let findings = findings.collect();
                let end = End {
                    by: cpu,
                    code,
                    findings,
                };
                ends.set(end).expect("one CPU judges, once");
            }
            part
        };
        let runs = thread::spawn(move || machine.run(move |vector| handler.handle(vector), body));
        Self {
            platform,
            lab,
            end,
            runs,
        }
    }

    /// Posts a command and returns its number.
    fn post(&self, cpu: CpuId, command: Command) -> u64 {
        let mailbox = self.lab.mailbox(cpu);
        let number = mailbox.posted.load(Ordering::Relaxed) + 1;
        assert_eq!(mailbox.done.load(Ordering::Acquire), number - 1);
        mailbox.verb.store(command.verb, Ordering::Relaxed);
        mailbox.flags.store(command.flags, Ordering::Relaxed);
        mailbox.arguments[0].store(command.argument, Ordering::Relaxed);
        mailbox.arguments[1].store(command.second, Ordering::Relaxed);
        mailbox.mask[0].store(command.mask, Ordering::Relaxed);
        mailbox.program.store(command.program, Ordering::Relaxed);
        mailbox.posted.store(number, Ordering::Release);
        self.platform.send_ipi(cpu, Vector::WAKE);
        number
    }

    /// Writes the program with this number.
    fn write_program(&self, number: u64, steps: &[Command]) {
        let mut program = Program {
            length: steps.len() as u64,
            ..Program::default()
        };
        for (step, command) in program.steps.iter_mut().zip(steps) {
            step.verb = command.verb;
            step.flags = command.flags;
            step.arguments[..2].copy_from_slice(&[command.argument, command.second]);
            step.mask[0] = command.mask;
        }
        self.lab.write_program(number, &program);
    }

    /// The word, as some CPU sees it.
    #[track_caller]
    fn becomes(&self, cpu: CpuId, word: u64, value: u64) {
        let waits = command(Verb::SpinUntil).about(word).with(value);
        assert_eq!(self.tell(cpu, waits), 0);
    }

    /// Waits for the last command of `cpu`, and returns its result.
    #[track_caller]
    fn result(&self, cpu: CpuId) -> i64 {
        let mailbox = self.lab.mailbox(cpu);
        let number = mailbox.posted.load(Ordering::Relaxed);
        wait_until("a command is done", || {
            mailbox.done.load(Ordering::Acquire) == number
        });
        mailbox.result.load(Ordering::Relaxed)
    }

    #[track_caller]
    fn tell(&self, cpu: CpuId, command: Command) -> i64 {
        self.post(cpu, command);
        self.result(cpu)
    }

    #[track_caller]
    fn is_refused(&self, cpu: CpuId, command: Command, why: Refusal) {
        assert_eq!(self.tell(cpu, command), why as i64, "{command:?}");
        assert_eq!(self.lab.mailbox(cpu).call.load(Ordering::Relaxed), 0);
    }

    /// The call that `cpu` was last told to make, once it is made.
    #[track_caller]
    fn call_of(&self, cpu: CpuId) -> CallId {
        let mailbox = self.lab.mailbox(cpu);
        let posted = mailbox.posted.load(Ordering::Relaxed);
        wait_until("a call is made", || {
            mailbox.taken.load(Ordering::Acquire) == posted
                && mailbox.call.load(Ordering::Acquire) != 0
        });
        CallId::from_raw(mailbox.call.load(Ordering::Acquire))
    }

    fn record(&self, call: CallId) -> Record<'_> {
        let record = self.lab.record(call).unwrap();
        assert_eq!(record.head.id.load(Ordering::Relaxed), call.raw());
        record
    }

    /// Waits until `call` has run on the CPUs of `mask`, and on no others.
    #[track_caller]
    fn ran(&self, call: CallId, mask: u64) {
        let record = self.record(call);
        wait_until("a call runs", || {
            record.ran[0].load(Ordering::Acquire) & mask == mask
        });
        assert_eq!(record.ran[0].load(Ordering::Acquire), mask);
    }

    fn has_done(&self, cpu: CpuId) -> bool {
        let mailbox = self.lab.mailbox(cpu);
        mailbox.done.load(Ordering::Acquire) == mailbox.posted.load(Ordering::Relaxed)
    }

    fn tell_to_finish(&self, mask: u64) {
        for cpu in (0..CPUS).filter(|cpu| mask >> cpu & 1 != 0) {
            assert_eq!(self.tell(cpu, command(Verb::Finish).among(mask)), 0);
        }
    }

    /// Has all CPUs finish and returns what became of the run.
    fn finish(self) -> End {
        self.tell_to_finish(0b1111);
        self.end()
    }

    fn end(self) -> End {
        self.runs.join().unwrap();
        let end = Arc::into_inner(self.end).expect("all CPUs have gone");
        end.into_inner().expect("one CPU judges")
    }
}

#[track_caller]
fn passes(bench: Bench) {
    let end = bench.finish();
    assert_eq!((end.code, end.by), (ExitCode::Pass, 0), "{end:?}");
}

#[test]
fn every_call_is_made_as_told() {
    for queue in [QueueKind::Filo, QueueKind::Kmalloc, QueueKind::Llist] {
        let bench = Bench::new(queue);
        let single = command(Verb::CallSingle);
        let many = command(Verb::CallMany).among(0b1011);
        for (cpu, told, result, ran) in [
            (0, single.about(2), 0, 0b0100),
            (0, single.about(2).waiting(), 0, 0b0100),
            (1, single.about(1), 0, 0b0010),
            (2, command(Verb::CallAsync).about(3), 0, 0b1000),
            (2, command(Verb::CallAsync).about(2), 0, 0b0100),
            (0, many, 0, 0b1010),
            (2, many.waiting(), 0, 0b1011),
            (3, command(Verb::CallMany), 0, 0),
            (3, command(Verb::CallAll), 0, 0b0111),
            (3, command(Verb::CallAll).waiting(), 0, 0b0111),
            (1, command(Verb::OnEach).waiting(), 0, 0b1111),
            (1, command(Verb::CallAny).among(0b1110), 1, 0b0010),
            (0, command(Verb::CallAny).among(0b1100).waiting(), 2, 0b0100),
        ] {
            assert_eq!(bench.tell(cpu, told), result, "{told:?}");
            let call = bench.call_of(cpu);
            bench.ran(call, ran);
            assert_eq!(usize::from(call.source()), cpu);
            let waits = bench.record(call).head.wait.load(Ordering::Relaxed);
            assert_eq!(waits, u16::from(told.flags == WAIT));
        }
        passes(bench);
    }
}

#[test]
fn what_cannot_be_done_is_refused() {
    let bench = Bench::new(QueueKind::Llist);
    let unknown = Command {
        verb: 99,
        ..IRQS_ON
    };
    let flags = Command {
        flags: 2,
        ..IRQS_ON
    };
    let refused = |command, why| bench.is_refused(1, command, why);
    refused(unknown, Refusal::Invalid);
    refused(flags, Refusal::Invalid);
    refused(
        command(Verb::CallAsync).about(2).waiting(),
        Refusal::Invalid,
    );
    refused(command(Verb::CallMany).among(0b1_0001), Refusal::Invalid);
    refused(command(Verb::CallSingle).about(4), Refusal::Offline);
    refused(command(Verb::CallAsync).about(u64::MAX), Refusal::Offline);
    refused(command(Verb::LeaveMask).about(4), Refusal::Invalid);
    refused(command(Verb::Offline).about(0), Refusal::Invalid);
    refused(command(Verb::Offline).about(1), Refusal::Invalid);
    refused(command(Verb::Online).about(2), Refusal::Invalid);
    refused(command(Verb::Online).about(4), Refusal::Invalid);
    refused(command(Verb::Lock).about(8), Refusal::Invalid);
    refused(command(Verb::Unlock).about(u64::MAX), Refusal::Invalid);
    refused(command(Verb::SetWord).about(8), Refusal::Invalid);
    refused(command(Verb::SpinUntil).about(8), Refusal::Invalid);
    refused(command(Verb::Queue), Refusal::Unsupported);
    refused(command(Verb::Finish).among(0b1101), Refusal::Invalid);
    assert_eq!(
        bench.tell(1, command(Verb::CallAny)),
        Refusal::Offline as i64
    );
    passes(bench);
}

#[test]
fn with_interrupts_off_a_cpu_obeys_but_takes_no_call() {
    let bench = Bench::new(QueueKind::Filo);
    assert_eq!(bench.tell(1, IRQS_OFF), 0);
    bench.post(0, command(Verb::CallMany).among(0b0110).waiting());
    let call = bench.call_of(0);
    bench.ran(call, 0b0100);
    assert_eq!(bench.tell(1, command(Verb::Queue)), 1);
    let head = bench.lab.mailbox(1).answer[0].load(Ordering::Relaxed);
    assert_eq!(head, 0, "the element of CPU 0");
    assert!(!bench.has_done(0));

    assert_eq!(bench.tell(1, IRQS_ON), 0);
    bench.ran(call, 0b0110);
    assert_eq!(bench.result(0), 0);
    assert_eq!(bench.tell(1, command(Verb::Queue)), 0);
    passes(bench);
}

#[test]
fn with_interrupts_off_what_waits_is_a_breach_and_refused() {
    let bench = Bench::new(QueueKind::Filo);
    bench.tell(1, IRQS_OFF);
    bench.tell(2, IRQS_OFF);
    let asynchronous = command(Verb::CallAsync).about(2);
    assert_eq!(bench.tell(1, asynchronous), 0, "its descriptor is free");
    let breaches = [
        asynchronous,
        command(Verb::CallSingle).about(0),
        command(Verb::CallMany).among(0b1101),
        command(Verb::CallAll).waiting(),
        command(Verb::OnEach),
        command(Verb::CallAny).among(0b0001),
    ];
    for breach in breaches {
        bench.is_refused(1, breach, Refusal::Invalid);
    }
    bench.is_refused(1, command(Verb::Offline).about(3), Refusal::Invalid);
    for here in [command(Verb::CallSingle), command(Verb::CallAny).among(2)] {
        assert!(
            bench.tell(1, here.about(1)) >= 0,
            "{here:?} waits for nobody"
        );
    }
    bench.tell(2, IRQS_ON);
    let end = bench.finish();
    assert_eq!(end.findings, [Oracle::Contract; 6]);
}

#[test]
fn a_lock_is_waited_for_until_who_has_it_releases_it() {
    let bench = Bench::new(QueueKind::Filo);
    let [lock, unlock] = [Verb::Lock, Verb::Unlock].map(|verb| command(verb).about(7));
    assert_eq!(bench.tell(0, lock), 0);
    assert_eq!(bench.tell(1, lock.about(0)), 0, "another lock");
    bench.post(2, lock);
    // A call to the CPU that waits runs there: its interrupts are on.
    assert_eq!(
        bench.tell(3, command(Verb::CallSingle).about(2).waiting()),
        0
    );
    assert!(!bench.has_done(2));
    bench.is_refused(3, unlock, Refusal::Invalid);
    assert!(!bench.has_done(2), "it was not CPU 3's to release");
    assert_eq!(bench.tell(0, unlock), 0);
    assert_eq!(bench.result(2), 0);
    bench.is_refused(0, unlock, Refusal::Invalid);
    assert_eq!(bench.tell(2, unlock), 0);
    let end = bench.finish();
    assert_eq!(end.findings, [Oracle::Contract; 2]);
}

#[test]
fn who_spins_for_a_word_goes_on_when_it_has_the_value() {
    let bench = Bench::new(QueueKind::Filo);
    let set = command(Verb::SetWord).about(3);
    bench.post(1, command(Verb::SpinUntil).about(3).with(2));
    assert_eq!(bench.tell(0, set.with(1)), 0);
    assert_eq!(bench.tell(0, set.about(2).with(2)), 0);
    assert_eq!(
        bench.tell(2, command(Verb::CallSingle).about(1).waiting()),
        0
    );
    assert!(!bench.has_done(1));
    assert_eq!(bench.tell(0, set.with(2)), 0);
    assert_eq!(bench.result(1), 0);
    passes(bench);
}

#[test]
fn who_halts_goes_on_after_an_interrupt() {
    let bench = Bench::new(QueueKind::Filo);
    assert_eq!(bench.tell(1, IRQS_OFF), 0);
    bench.post(0, command(Verb::CallSingle).about(1).waiting());
    bench.call_of(0);
    // The call may come while the CPU halts, or be taken by it afterwards: interrupts are on then.
    assert_eq!(bench.tell(1, command(Verb::Halt)), 0);
    assert_eq!(bench.result(0), 0);
    let call = command(Verb::CallSingle).about(0).waiting();
    assert_eq!(bench.tell(1, call), 0);
    passes(bench);
}

#[test]
fn the_function_of_a_call_does_what_its_program_says() {
    let set = command(Verb::SetWord);
    for (call, ran) in [
        (command(Verb::CallSingle).about(1), 0b0010),
        (command(Verb::CallSingle).about(0), 0b0001),
        (command(Verb::CallAsync).about(2), 0b0100),
        (command(Verb::CallMany).among(0b0110), 0b0110),
        (command(Verb::CallAll), 0b1110),
        (command(Verb::OnEach), 0b1111),
        (command(Verb::CallAny).among(0b1000), 0b1000),
    ] {
        let bench = Bench::new(QueueKind::Filo);
        let lock = command(Verb::Lock).about(1);
        let unlock = command(Verb::Unlock).about(1);
        let nested = command(Verb::CallAsync).about(3);
        bench.write_program(5, &[lock, set.about(2).with(9), unlock, nested]);
        assert!(bench.tell(0, call.doing(5)) >= 0);
        bench.ran(bench.call_of(0), ran);
        bench.becomes(0, 2, 9);
        // Who takes the lock finds it free.
        assert_eq!(bench.tell(0, lock), 0);
        let end = bench.finish();
        assert_eq!(end.findings, [], "{call:?}");
    }
}

#[test]
fn a_function_that_breaks_the_contract_is_found() {
    let bench = Bench::new(QueueKind::Filo);
    let set = command(Verb::SetWord);
    let steps = [
        command(Verb::CallSingle).about(2).waiting(),
        command(Verb::Unlock).about(0),
        command(Verb::Requeue).about(2),
        command(Verb::IrqsOn),
        command(Verb::Lock).about(8),
        command(Verb::CallAsync).about(99),
        set.with(1),
    ];
    bench.write_program(1, &steps);
    assert_eq!(bench.tell(0, command(Verb::Lock)), 0);
    assert_eq!(bench.tell(0, command(Verb::CallAsync).about(1).doing(1)), 0);
    bench.becomes(3, 0, 1);
    assert_eq!(
        bench.tell(0, command(Verb::Unlock)),
        0,
        "it was not the function's"
    );
    let end = bench.finish();
    // To wait, to release what another has, to use a descriptor that is in use, and twice what makes
    // no sense. That there is no such CPU is no breach.
    assert_eq!(end.findings, [Oracle::Contract; 5]);
}

#[test]
fn a_program_that_is_not_there_does_nothing() {
    let bench = Bench::new(QueueKind::Filo);
    for number in [7, 64, 65, 255, u64::MAX] {
        let call = command(Verb::CallSingle).about(1).waiting().doing(number);
        assert_eq!(bench.tell(0, call), 0);
        bench.ran(bench.call_of(0), 0b0010);
    }
    passes(bench);
}

#[test]
fn a_timer_comes_as_often_as_it_was_set_for() {
    let bench = Bench::new(QueueKind::Filo);
    bench.write_program(1, &[command(Verb::CallAsync).about(1)]);
    assert_eq!(bench.tell(1, command(Verb::Timer).about(3).doing(1)), 0);
    let ran = &bench.lab.tally(1).calls_executed;
    wait_until("the timer comes", || ran.load(Ordering::Relaxed) == 3);
    assert_eq!(bench.tell(1, command(Verb::Timer).about(0).doing(1)), 0);
    assert_eq!(bench.tell(1, IRQS_OFF), 0);
    assert_eq!(bench.tell(1, command(Verb::Timer).about(1).doing(1)), 0);
    assert_eq!(ran.load(Ordering::Relaxed), 3, "its interrupts are off");
    assert_eq!(bench.tell(1, IRQS_ON), 0);
    assert_eq!(ran.load(Ordering::Relaxed), 4);
    passes(bench);
}

#[test]
fn a_call_with_a_condition_goes_to_those_for_which_it_holds() {
    let bench = Bench::new(QueueKind::Filo);
    let cond = command(Verb::CallCond).among(0b1011).with(4).waiting();
    for (bits, ran) in [(0b0111, 0b0011), (0b1000, 0b1000), (0b0100, 0)] {
        let set = command(Verb::SetWord).about(4).with(bits);
        assert_eq!(bench.tell(2, set), 0);
        // Its first argument is the set of CPUs.
        assert_eq!(bench.tell(0, cond), 0);
        bench.ran(bench.call_of(0), ran);
    }
    bench.is_refused(0, cond.with(8), Refusal::Invalid);
    passes(bench);
}

#[test]
fn a_cpu_that_was_away_goes_on_with_its_mailbox() {
    for awake in [Verb::Idle, Verb::Spin] {
        let bench = Bench::new(QueueKind::Filo);
        for cpu in 0..CPUS {
            assert_eq!(bench.tell(cpu, command(awake)), 0);
        }
        assert_eq!(bench.tell(0, command(Verb::Offline).about(2)), 0);
        let to_it = command(Verb::CallSingle).about(2);
        assert_eq!(bench.tell(1, to_it), Refusal::Offline as i64);
        bench.post(2, command(Verb::CallAll));
        assert_eq!(bench.tell(1, command(Verb::CallAll)), 0);
        bench.ran(bench.call_of(1), 0b1001);
        assert!(!bench.has_done(2));

        assert_eq!(bench.tell(3, command(Verb::Online).about(2)), 0);
        assert_eq!(bench.result(2), 0);
        bench.ran(bench.call_of(2), 0b1011);
        assert_eq!(bench.tell(1, to_it.waiting()), 0);
        passes(bench);
    }
}

#[test]
fn who_leaves_the_mask_of_a_call_that_is_being_made_is_not_called() {
    let bench = Bench::new(QueueKind::Filo);
    let many = command(Verb::CallMany).among(0b0110);
    bench.tell(1, IRQS_OFF);
    bench.tell(0, many);
    bench.ran(bench.call_of(0), 0b0100);
    // The next call has to wait for the element of the last, before it looks at the mask for good.
    bench.post(0, many);
    let call = bench.call_of(0);
    for cpu in [1, 2] {
        assert_eq!(bench.tell(cpu, command(Verb::LeaveMask).about(0)), 0);
    }
    assert!(!bench.has_done(0));
    bench.tell(1, IRQS_ON);
    assert_eq!(bench.result(0), 0);
    bench.ran(call, 0);
    assert_eq!(bench.record(call).targets[0].load(Ordering::Relaxed), 0);
    bench.tell(0, many.waiting());
    bench.ran(bench.call_of(0), 0b0110);
    passes(bench);
}

/// CPU 1 never takes the interrupt of a call that CPU 0 makes to it and CPU 2.
fn lose_a_call(bench: &Bench, call: Command) {
    bench.tell(1, IRQS_OFF);
    bench.post(0, call.among(0b0110));
    bench.ran(bench.call_of(0), 0b0100);
    bench.platform.lose_interrupts(1);
    bench.tell(1, IRQS_ON);
}

#[test]
fn a_call_that_was_lost_is_found_at_the_end() {
    let bench = Bench::new(QueueKind::Filo);
    lose_a_call(&bench, command(Verb::CallMany));
    let end = bench.finish();
    assert_eq!((end.code, end.by), (ExitCode::Fail, 0), "{end:?}");
    for oracle in [Oracle::Lost, Oracle::LeftLocked, Oracle::BrokenQueue] {
        assert!(end.findings.contains(&oracle), "{end:?}");
    }
}

#[test]
fn the_others_can_finish_while_a_caller_hangs() {
    let bench = Bench::new(QueueKind::Filo);
    lose_a_call(&bench, command(Verb::CallMany).waiting());
    bench.tell(3, IRQS_OFF);
    bench.tell_to_finish(0b0110);
    wait_until("the run is judged", || bench.end.get().is_some());
    assert!(!bench.has_done(0));
    // It is over. Now the call may come back, so that the thread ends.
    bench.platform.send_ipi(1, MANY);
    let end = bench.end();
    assert_eq!((end.code, end.by), (ExitCode::Fail, 1), "{end:?}");
    assert!(end.findings.contains(&Oracle::Lost), "{end:?}");
}
