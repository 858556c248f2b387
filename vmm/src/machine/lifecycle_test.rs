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

    fn changed(&mut self, change: Change, _: u64) {
        self.heard.lock().unwrap().push(change);
    }
}

const SOON: Duration = Duration::from_secs(20);

fn soon() -> Instant {
    Instant::now() + SOON
}

fn ask(lifecycle: &Lifecycle, kick: &AtomicBool, request: Request) {
    lifecycle.ask(request);
    kick.store(true, Ordering::SeqCst);
}

#[test]
fn a_vcpu_is_born_paused_and_can_be_stopped_there() {
    let lifecycle = Lifecycle::default();
    assert_eq!(lifecycle.state().0, State::Created);
    assert!(lifecycle.wait_out_of_guest(soon()));
    let mut fake = Fake::new([]);
    lifecycle.ask(Request::Stop);
    assert_eq!(lifecycle.drive(&mut fake), None);
    assert_eq!(lifecycle.state().0, State::Exited(Exited::Stopped));
    assert_eq!(fake.steps.load(Ordering::Relaxed), 0);
}

#[test]
fn the_end_of_the_guest_is_the_end_of_the_vcpu() {
    let lifecycle = Lifecycle::default();
    let mut fake = Fake::new([Step::Continue, Step::Interrupted, Step::Ended("died")]);
    lifecycle.ask(Request::Run);
    assert_eq!(lifecycle.drive(&mut fake), Some("died"));
    assert_eq!(lifecycle.state().0, State::Exited(Exited::Ended));
}

#[test]
fn a_pause_leaves_nothing_half_done() {
    let mut fake = Fake::new([Step::Continue]);
    assert_eq!(fake.step(), Step::Continue);
    assert!(fake.half_done);
    assert_eq!(Lifecycle::default().drain(&mut fake), None);
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
        fn changed(&mut self, _: Change, _: u64) {}
    }
    assert_eq!(Lifecycle::default().drain(&mut Stubborn(0)), Some(3));
    assert_eq!(Lifecycle::default().drain(&mut Stubborn(4)), None);
}

#[test]
fn no_request_is_lost_however_it_falls() {
    let lifecycle = Arc::new(Lifecycle::default());
    let fake = Fake::new([]);
    let (kick, steps) = (Arc::clone(&fake.kick), Arc::clone(&fake.steps));
    let on_thread = thread::spawn({
        let (lifecycle, mut fake) = (Arc::clone(&lifecycle), fake);
        move || lifecycle.drive(&mut fake)
    });
    for round in 0..2_000 {
        ask(&lifecycle, &kick, Request::Run);
        if round % 2 == 0 {
            let before = steps.load(Ordering::Relaxed);
            let deadline = soon();
            while steps.load(Ordering::Relaxed) == before {
                assert!(Instant::now() < deadline, "not let in, round {round}");
                thread::yield_now();
            }
        }
        ask(&lifecycle, &kick, Request::Pause);
        assert!(
            lifecycle.wait_out_of_guest(soon()),
            "not out, round {round}"
        );
        if round % 2 == 0 {
            assert_eq!(lifecycle.state().0, State::Stalled(Stall::Paused));
            let still = steps.load(Ordering::Relaxed);
            thread::yield_now();
            assert_eq!(steps.load(Ordering::Relaxed), still);
        }
    }
    ask(&lifecycle, &kick, Request::Stop);
    assert_eq!(on_thread.join().unwrap(), None);
}

/// A lifecycle whose vCPU runs on a thread of its own. Dropping it stops the vCPU.
struct OnThread {
    lifecycle: Arc<Lifecycle>,
    kick: Arc<AtomicBool>,
    steps: Arc<AtomicU64>,
    heard: Arc<Mutex<Vec<Change>>>,
    thread: Option<thread::JoinHandle<Option<&'static str>>>,
}

impl OnThread {
    fn new() -> Self {
        let mut fake = Fake::new([]);
        let lifecycle = Arc::new(Lifecycle::default());
        Self {
            lifecycle: Arc::clone(&lifecycle),
            kick: Arc::clone(&fake.kick),
            steps: Arc::clone(&fake.steps),
            heard: Arc::clone(&fake.heard),
            thread: Some(thread::spawn(move || lifecycle.drive(&mut fake))),
        }
    }

    /// Holds as [`super::super::pausing`] does, and waits for the confirmation.
    fn hold(&self) {
        if self.lifecycle.hold(Holder::Operator) == Ok(HoldOutcome::Underway) {
            self.kick.store(true, Ordering::SeqCst);
        }
        assert!(self.lifecycle.wait_out_of_guest(soon()), "not out");
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
        assert_eq!(self.lifecycle.state().0, State::Running);
    }

    #[track_caller]
    fn assert_stands_still(&self) {
        let before = self.steps();
        thread::sleep(Duration::from_millis(2));
        assert_eq!(self.steps(), before, "runs");
    }
}

impl Drop for OnThread {
    fn drop(&mut self) {
        ask(&self.lifecycle, &self.kick, Request::Stop);
        let end = self.thread.take().map(thread::JoinHandle::join);
        if !thread::panicking() {
            assert_eq!(end.unwrap().unwrap(), None);
        }
    }
}

#[test]
fn a_vcpu_runs_when_nobody_holds_it() {
    let vcpu = OnThread::new();
    vcpu.lifecycle.ask(Request::Run);
    vcpu.assert_runs();
    vcpu.hold();
    vcpu.hold();
    vcpu.assert_stands_still();
    assert_eq!(vcpu.lifecycle.release(Holder::Operator), Ok(()));
    assert_eq!(vcpu.lifecycle.state().0, State::Stalled(Stall::Paused));
    vcpu.assert_stands_still();
    assert_eq!(vcpu.lifecycle.release(Holder::Operator), Ok(()));
    vcpu.assert_runs();
    assert_eq!(vcpu.lifecycle.release(Holder::Operator), Err(NotHeld));
    vcpu.assert_runs();
}

#[test]
fn a_vcpu_held_before_it_is_let_go_waits() {
    let vcpu = OnThread::new();
    assert_eq!(
        vcpu.lifecycle.hold(Holder::Operator),
        Ok(HoldOutcome::Already(State::Created))
    );
    vcpu.lifecycle.ask(Request::Run);
    vcpu.assert_stands_still();
    assert_eq!(vcpu.lifecycle.state().0, State::Created);
    assert_eq!(vcpu.lifecycle.release(Holder::Operator), Ok(()));
    vcpu.assert_runs();
}

#[test]
fn a_vcpu_that_is_gone_cannot_be_held() {
    let lifecycle = Lifecycle::default();
    lifecycle.ask(Request::Run);
    assert_eq!(
        lifecycle.drive(&mut Fake::new([Step::Ended("died")])),
        Some("died")
    );
    assert_eq!(lifecycle.hold(Holder::Operator), Err(Exited::Ended));
    assert_eq!(lifecycle.release(Holder::Operator), Err(NotHeld));
}

#[test]
fn a_held_vcpu_can_be_stopped_and_suspended() {
    let vcpu = OnThread::new();
    vcpu.lifecycle.ask(Request::Run);
    vcpu.assert_runs();
    vcpu.hold();
    // A hold outlives a suspension of the whole machine, and a suspension outlives a hold.
    ask(&vcpu.lifecycle, &vcpu.kick, Request::Pause);
    assert_eq!(vcpu.lifecycle.release(Holder::Operator), Ok(()));
    vcpu.assert_stands_still();
    vcpu.hold();
    vcpu.lifecycle.ask(Request::Run);
    vcpu.assert_stands_still();
    let lifecycle = Arc::clone(&vcpu.lifecycle);
    drop(vcpu);
    assert_eq!(lifecycle.state().0, State::Exited(Exited::Stopped));
}

#[test]
fn absence_is_the_time_under_a_hold() {
    const MOMENT: Duration = Duration::from_millis(20);
    let vcpu = OnThread::new();
    vcpu.lifecycle.ask(Request::Run);
    vcpu.assert_runs();
    assert_eq!(vcpu.lifecycle.stall_totals(), StallTotals::default());
    vcpu.hold();
    thread::sleep(MOMENT);
    let during = vcpu.lifecycle.stall_totals();
    assert!(during.times == 1 && during.total >= MOMENT, "{during:?}");
    // A second hold makes the stall longer, and is not counted as a second stall.
    vcpu.hold();
    vcpu.lifecycle.release(Holder::Operator).unwrap();
    vcpu.lifecycle.release(Holder::Operator).unwrap();
    vcpu.assert_runs();
    let after = vcpu.lifecycle.stall_totals();
    assert!(after.times == 1 && after.total >= during.total, "{after:?}");
    thread::sleep(MOMENT);
    assert_eq!(vcpu.lifecycle.stall_totals(), after);
    // A suspension of the machine is no hold.
    ask(&vcpu.lifecycle, &vcpu.kick, Request::Pause);
    assert!(vcpu.lifecycle.wait_out_of_guest(soon()));
    assert_eq!(vcpu.lifecycle.stall_totals(), after);
}

#[test]
fn a_visit_is_no_absence() {
    let vcpu = OnThread::new();
    vcpu.lifecycle.ask(Request::Run);
    vcpu.assert_runs();
    assert_eq!(
        vcpu.lifecycle.hold(Holder::Visit),
        Ok(HoldOutcome::Underway)
    );
    vcpu.kick.store(true, Ordering::SeqCst);
    assert!(vcpu.lifecycle.wait_out_of_guest(soon()), "not out");
    vcpu.assert_stands_still();
    assert_eq!(vcpu.lifecycle.stall_totals(), StallTotals::default());
    // A hold that comes during a visit counts, from then on.
    vcpu.hold();
    assert_eq!(vcpu.lifecycle.stall_totals().times, 1);
    vcpu.lifecycle.release(Holder::Visit).unwrap();
    vcpu.assert_stands_still();
    vcpu.lifecycle.release(Holder::Operator).unwrap();
    vcpu.assert_runs();
    assert_eq!(*vcpu.heard.lock().unwrap(), [Change::Running]);
}

#[test]
fn each_undoes_what_is_his() {
    let vcpu = OnThread::new();
    vcpu.lifecycle.ask(Request::Run);
    vcpu.assert_runs();
    vcpu.hold();
    vcpu.hold();
    assert_eq!(vcpu.lifecycle.release(Holder::Plan), Err(NotHeld));
    vcpu.lifecycle.hold(Holder::Plan).unwrap();
    vcpu.lifecycle.release_all(Holder::Operator);
    assert_eq!(vcpu.lifecycle.release(Holder::Operator), Err(NotHeld));
    vcpu.assert_stands_still();
    vcpu.lifecycle.release(Holder::Plan).unwrap();
    vcpu.assert_runs();
}

#[test]
fn a_runner_hears_of_holds_and_of_nothing_else() {
    let vcpu = OnThread::new();
    vcpu.lifecycle.ask(Request::Run);
    vcpu.assert_runs();
    ask(&vcpu.lifecycle, &vcpu.kick, Request::Pause);
    assert!(vcpu.lifecycle.wait_out_of_guest(soon()));
    vcpu.lifecycle.ask(Request::Run);
    vcpu.assert_runs();
    assert_eq!(*vcpu.heard.lock().unwrap(), []);
    vcpu.hold();
    vcpu.lifecycle.release(Holder::Operator).unwrap();
    vcpu.assert_runs();
    let heard = vcpu.heard.lock().unwrap();
    assert!(
        matches!(heard[..], [Change::Stalled(latency), Change::Running] if latency < SOON),
        "{heard:?}"
    );
}

#[test]
fn no_hold_is_lost_however_many_there_are() {
    let vcpu = OnThread::new();
    vcpu.lifecycle.ask(Request::Run);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1_000 {
                    vcpu.hold();
                    let still = vcpu.steps();
                    thread::yield_now();
                    assert_eq!(vcpu.steps(), still, "runs while it is held");
                    vcpu.lifecycle.release(Holder::Operator).unwrap();
                }
            });
        }
    });
    vcpu.assert_runs();
    assert_eq!(vcpu.lifecycle.release(Holder::Operator), Err(NotHeld));
    let absence = vcpu.lifecycle.stall_totals();
    assert!((1..=4_000).contains(&absence.times), "{absence:?}");
}
