use super::*;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// A vCPU that only counts, and obeys kicks as `KVM_RUN` does.
struct Fake {
    kick: Arc<AtomicBool>,
    steps: Arc<AtomicU64>,
    script: VecDeque<Step<&'static str>>,
    /// I/O that only another entry completes.
    half_done: bool,
    heard: Arc<Mutex<Vec<Change>>>,
}

impl Fake {
    fn new(script: impl IntoIterator<Item = Step<&'static str>>) -> Self {
        Self {
            kick: Arc::default(),
            steps: Arc::default(),
            script: script.into_iter().collect(),
            half_done: false,
            heard: Arc::default(),
        }
    }
}

impl Runner for Fake {
    type End = &'static str;

    fn step(&mut self) -> Step<&'static str> {
        self.half_done = false;
        if self.kick.load(Ordering::SeqCst) {
            return Step::Interrupted;
        }
        self.steps.fetch_add(1, Ordering::Relaxed);
        self.half_done = true;
        self.script.pop_front().unwrap_or(Step::Continue)
    }

    fn set_kick(&mut self, pending: bool) {
        self.kick.store(pending, Ordering::SeqCst);
    }

    fn changed(&mut self, change: Change) {
        self.heard.lock().unwrap().push(change);
    }
}

const SOON: Duration = Duration::from_secs(20);

fn soon() -> Instant {
    Instant::now() + SOON
}

fn ask(seat: &Seat, kick: &AtomicBool, request: Request) {
    seat.ask(request);
    kick.store(true, Ordering::SeqCst);
}

#[test]
fn a_vcpu_is_born_paused_and_can_be_stopped_there() {
    let seat = Seat::default();
    assert_eq!(seat.state().0, State::Created);
    assert!(seat.wait_out_of_guest(soon()));
    let mut fake = Fake::new([]);
    seat.ask(Request::Stop);
    assert_eq!(seat.carry(&mut fake), None);
    assert_eq!(seat.state().0, State::Exited(Exited::Stopped));
    assert_eq!(fake.steps.load(Ordering::Relaxed), 0);
}

#[test]
fn the_end_of_the_guest_is_the_end_of_the_vcpu() {
    let seat = Seat::default();
    let mut fake = Fake::new([Step::Continue, Step::Interrupted, Step::Ended("died")]);
    seat.ask(Request::Run);
    assert_eq!(seat.carry(&mut fake), Some("died"));
    assert_eq!(seat.state().0, State::Exited(Exited::Ended));
}

#[test]
fn a_pause_leaves_nothing_half_done() {
    let mut fake = Fake::new([Step::Continue]);
    assert_eq!(fake.step(), Step::Continue);
    assert!(fake.half_done);
    assert_eq!(Seat::default().drain(&mut fake), None);
    assert!(!fake.half_done);
}

#[test]
fn an_end_met_while_draining_is_not_lost() {
    struct Stubborn(u32);
    impl Runner for Stubborn {
        type End = u32;
        fn step(&mut self) -> Step<u32> {
            self.0 += 1;
            if self.0 == 3 {
                Step::Ended(self.0)
            } else {
                Step::Continue
            }
        }
        fn set_kick(&mut self, _: bool) {}
        fn changed(&mut self, _: Change) {}
    }
    assert_eq!(Seat::default().drain(&mut Stubborn(0)), Some(3));
    assert_eq!(Seat::default().drain(&mut Stubborn(4)), None);
}

#[test]
fn no_request_is_lost_however_it_falls() {
    let seat = Arc::new(Seat::default());
    let fake = Fake::new([]);
    let (kick, steps) = (Arc::clone(&fake.kick), Arc::clone(&fake.steps));
    let carrier = thread::spawn({
        let (seat, mut fake) = (Arc::clone(&seat), fake);
        move || seat.carry(&mut fake)
    });
    for round in 0..2_000 {
        ask(&seat, &kick, Request::Run);
        if round % 2 == 0 {
            let before = steps.load(Ordering::Relaxed);
            let deadline = soon();
            while steps.load(Ordering::Relaxed) == before {
                assert!(Instant::now() < deadline, "not let in, round {round}");
                thread::yield_now();
            }
        }
        ask(&seat, &kick, Request::Pause);
        assert!(seat.wait_out_of_guest(soon()), "not out, round {round}");
        if round % 2 == 0 {
            assert_eq!(seat.state().0, State::Stalled(Stall::Paused));
            let still = steps.load(Ordering::Relaxed);
            thread::yield_now();
            assert_eq!(steps.load(Ordering::Relaxed), still);
        }
    }
    ask(&seat, &kick, Request::Stop);
    assert_eq!(carrier.join().unwrap(), None);
}

/// A seat whose vCPU runs on a thread of its own, and is stopped in the end.
struct Carrier {
    seat: Arc<Seat>,
    kick: Arc<AtomicBool>,
    steps: Arc<AtomicU64>,
    heard: Arc<Mutex<Vec<Change>>>,
    thread: Option<thread::JoinHandle<Option<&'static str>>>,
}

impl Carrier {
    fn new() -> Self {
        let mut fake = Fake::new([]);
        let seat = Arc::new(Seat::default());
        Self {
            seat: Arc::clone(&seat),
            kick: Arc::clone(&fake.kick),
            steps: Arc::clone(&fake.steps),
            heard: Arc::clone(&fake.heard),
            thread: Some(thread::spawn(move || seat.carry(&mut fake))),
        }
    }

    /// Holds as [`super::super::pausing`] does, and waits for the confirmation.
    fn hold(&self) {
        if self.seat.hold(Holder::Operator) == Ok(Held::Underway) {
            self.kick.store(true, Ordering::SeqCst);
        }
        assert!(self.seat.wait_out_of_guest(soon()), "not out");
    }

    fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    #[track_caller]
    fn assert_runs(&self) {
        let (before, deadline) = (self.steps(), soon());
        while self.steps() == before {
            assert!(Instant::now() < deadline, "does not run");
            thread::yield_now();
        }
        assert_eq!(self.seat.state().0, State::Running);
    }

    #[track_caller]
    fn assert_stands_still(&self) {
        let before = self.steps();
        thread::sleep(Duration::from_millis(2));
        assert_eq!(self.steps(), before, "runs");
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        ask(&self.seat, &self.kick, Request::Stop);
        let end = self.thread.take().map(thread::JoinHandle::join);
        if !thread::panicking() {
            assert_eq!(end.unwrap().unwrap(), None);
        }
    }
}

#[test]
fn a_vcpu_runs_when_nobody_holds_it() {
    let vcpu = Carrier::new();
    vcpu.seat.ask(Request::Run);
    vcpu.assert_runs();
    vcpu.hold();
    vcpu.hold();
    vcpu.assert_stands_still();
    assert_eq!(vcpu.seat.release(Holder::Operator), Ok(()));
    assert_eq!(vcpu.seat.state().0, State::Stalled(Stall::Paused));
    vcpu.assert_stands_still();
    assert_eq!(vcpu.seat.release(Holder::Operator), Ok(()));
    vcpu.assert_runs();
    assert_eq!(vcpu.seat.release(Holder::Operator), Err(NotHeld));
    vcpu.assert_runs();
}

#[test]
fn a_vcpu_held_before_it_is_let_go_waits() {
    let vcpu = Carrier::new();
    assert_eq!(
        vcpu.seat.hold(Holder::Operator),
        Ok(Held::Already(State::Created))
    );
    vcpu.seat.ask(Request::Run);
    vcpu.assert_stands_still();
    assert_eq!(vcpu.seat.state().0, State::Created);
    assert_eq!(vcpu.seat.release(Holder::Operator), Ok(()));
    vcpu.assert_runs();
}

#[test]
fn a_vcpu_that_is_gone_cannot_be_held() {
    let seat = Seat::default();
    seat.ask(Request::Run);
    assert_eq!(
        seat.carry(&mut Fake::new([Step::Ended("died")])),
        Some("died")
    );
    assert_eq!(seat.hold(Holder::Operator), Err(Exited::Ended));
    assert_eq!(seat.release(Holder::Operator), Err(NotHeld));
}

#[test]
fn a_held_vcpu_can_be_stopped_and_suspended() {
    let vcpu = Carrier::new();
    vcpu.seat.ask(Request::Run);
    vcpu.assert_runs();
    vcpu.hold();
    // Holds outlive a look at the whole machine, and the other way round.
    ask(&vcpu.seat, &vcpu.kick, Request::Pause);
    assert_eq!(vcpu.seat.release(Holder::Operator), Ok(()));
    vcpu.assert_stands_still();
    vcpu.hold();
    vcpu.seat.ask(Request::Run);
    vcpu.assert_stands_still();
    let seat = Arc::clone(&vcpu.seat);
    drop(vcpu);
    assert_eq!(seat.state().0, State::Exited(Exited::Stopped));
}

#[test]
fn absence_is_the_time_under_a_hold() {
    const MOMENT: Duration = Duration::from_millis(20);
    let vcpu = Carrier::new();
    vcpu.seat.ask(Request::Run);
    vcpu.assert_runs();
    assert_eq!(vcpu.seat.absence(), Absence::default());
    vcpu.hold();
    thread::sleep(MOMENT);
    let during = vcpu.seat.absence();
    assert!(during.times == 1 && during.total >= MOMENT, "{during:?}");
    // A second hold makes it longer, and is no second time.
    vcpu.hold();
    vcpu.seat.release(Holder::Operator).unwrap();
    vcpu.seat.release(Holder::Operator).unwrap();
    vcpu.assert_runs();
    let after = vcpu.seat.absence();
    assert!(after.times == 1 && after.total >= during.total, "{after:?}");
    thread::sleep(MOMENT);
    assert_eq!(vcpu.seat.absence(), after);
    // To be suspended with the machine is nobody's hold.
    ask(&vcpu.seat, &vcpu.kick, Request::Pause);
    assert!(vcpu.seat.wait_out_of_guest(soon()));
    assert_eq!(vcpu.seat.absence(), after);
}

#[test]
fn a_visit_is_no_absence() {
    let vcpu = Carrier::new();
    vcpu.seat.ask(Request::Run);
    vcpu.assert_runs();
    assert_eq!(vcpu.seat.hold(Holder::Visit), Ok(Held::Underway));
    vcpu.kick.store(true, Ordering::SeqCst);
    assert!(vcpu.seat.wait_out_of_guest(soon()), "not out");
    vcpu.assert_stands_still();
    assert_eq!(vcpu.seat.absence(), Absence::default());
    // What is held while it is visited is held, and from then on.
    vcpu.hold();
    assert_eq!(vcpu.seat.absence().times, 1);
    vcpu.seat.release(Holder::Visit).unwrap();
    vcpu.assert_stands_still();
    vcpu.seat.release(Holder::Operator).unwrap();
    vcpu.assert_runs();
    assert_eq!(*vcpu.heard.lock().unwrap(), [Change::Running]);
}

#[test]
fn each_undoes_what_is_his() {
    let vcpu = Carrier::new();
    vcpu.seat.ask(Request::Run);
    vcpu.assert_runs();
    vcpu.hold();
    vcpu.hold();
    assert_eq!(vcpu.seat.release(Holder::Plan), Err(NotHeld));
    vcpu.seat.hold(Holder::Plan).unwrap();
    vcpu.seat.release_all(Holder::Operator);
    assert_eq!(vcpu.seat.release(Holder::Operator), Err(NotHeld));
    vcpu.assert_stands_still();
    vcpu.seat.release(Holder::Plan).unwrap();
    vcpu.assert_runs();
}

#[test]
fn a_runner_hears_of_holds_and_of_nothing_else() {
    let vcpu = Carrier::new();
    vcpu.seat.ask(Request::Run);
    vcpu.assert_runs();
    ask(&vcpu.seat, &vcpu.kick, Request::Pause);
    assert!(vcpu.seat.wait_out_of_guest(soon()));
    vcpu.seat.ask(Request::Run);
    vcpu.assert_runs();
    assert_eq!(*vcpu.heard.lock().unwrap(), []);
    vcpu.hold();
    vcpu.seat.release(Holder::Operator).unwrap();
    vcpu.assert_runs();
    let heard = vcpu.heard.lock().unwrap();
    assert!(
        matches!(heard[..], [Change::Stalled(latency), Change::Running] if latency < SOON),
        "{heard:?}"
    );
}

#[test]
fn no_hold_is_lost_however_many_there_are() {
    let vcpu = Carrier::new();
    vcpu.seat.ask(Request::Run);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1_000 {
                    vcpu.hold();
                    let still = vcpu.steps();
                    thread::yield_now();
                    assert_eq!(vcpu.steps(), still, "runs while it is held");
                    vcpu.seat.release(Holder::Operator).unwrap();
                }
            });
        }
    });
    vcpu.assert_runs();
    assert_eq!(vcpu.seat.release(Holder::Operator), Err(NotHeld));
    let absence = vcpu.seat.absence();
    assert!((1..=4_000).contains(&absence.times), "{absence:?}");
}
