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
}

impl Fake {
    fn new(script: impl IntoIterator<Item = Step<&'static str>>) -> Self {
        Self {
            kick: Arc::default(),
            steps: Arc::default(),
            script: script.into_iter().collect(),
            half_done: false,
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
    assert_eq!(seat.state(), State::Created);
    assert!(seat.wait_out_of_guest(soon()));
    let mut fake = Fake::new([]);
    seat.ask(Request::Stop);
    assert_eq!(seat.carry(&mut fake), None);
    assert_eq!(seat.state(), State::Exited);
    assert_eq!(fake.steps.load(Ordering::Relaxed), 0);
}

#[test]
fn the_end_of_the_guest_is_the_end_of_the_vcpu() {
    let seat = Seat::default();
    let mut fake = Fake::new([Step::Continue, Step::Interrupted, Step::Ended("died")]);
    seat.ask(Request::Run);
    assert_eq!(seat.carry(&mut fake), Some("died"));
    assert_eq!(seat.state(), State::Exited);
}

#[test]
fn a_pause_leaves_nothing_half_done() {
    let mut fake = Fake::new([Step::Continue]);
    assert_eq!(fake.step(), Step::Continue);
    assert!(fake.half_done);
    assert_eq!(drain(&mut fake), None);
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
    }
    assert_eq!(drain(&mut Stubborn(0)), Some(3));
    assert_eq!(drain(&mut Stubborn(4)), None);
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
            assert_eq!(seat.state(), State::Stalled(Stall::Paused));
            let still = steps.load(Ordering::Relaxed);
            thread::yield_now();
            assert_eq!(steps.load(Ordering::Relaxed), still);
        }
    }
    ask(&seat, &kick, Request::Stop);
    assert_eq!(carrier.join().unwrap(), None);
}
