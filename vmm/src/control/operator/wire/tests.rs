//! Tests of the wire.

use shared::ledger::{CallId, Lane};
use shared::ports::Delivery;

use super::*;

/// The vector that only wakes.
const WAKE: u8 = 0xfd;

fn ipi(target: u32, vector: u8) -> Dispatch {
    Dispatch::fixed(target, vector)
}

fn wire() -> Wire {
    Wire::new(vec![WAKE])
}

/// The rest of `wire`, of IPIs that tell of no call and without a selection.
impl Wire {
    fn send_one(&self, from: u32, dispatch: Dispatch) -> Sent {
        let call = None;
        self.send(from, WireIpi { dispatch, call })
    }

    fn hold_any(&self, from: u32, to: u32) {
        self.hold(from, to, Selection::AllButWakes).unwrap();
    }

    fn delay_any(&self, from: u32, to: u32, delay: Duration) {
        (self.delay(from, to, Selection::AllButWakes, delay)).unwrap();
    }

    fn take_nth(&self, from: u32, to: u32, nth: usize) -> Result<Dispatch, NotThere> {
        self.take(from, to, None, nth)
    }
}

/// What `release` delivers.
fn delivered(release: impl FnOnce(&mut dyn FnMut(Dispatch))) -> Vec<Dispatch> {
    let mut all = Vec::new();
    release(&mut |dispatch| all.push(dispatch));
    all
}

#[track_caller]
fn goes_through(wire: &Wire, from: u32, dispatch: Dispatch) {
    let through = Sent {
        deliver: Some(dispatch),
        is_delayed: false,
    };
    assert_eq!(wire.send_one(from, dispatch), through);
}

#[track_caller]
fn is_held(wire: &Wire, from: u32, dispatch: Dispatch) {
    let held = Sent {
        deliver: None,
        is_delayed: false,
    };
    assert_eq!(wire.send_one(from, dispatch), held);
}

#[track_caller]
fn is_delayed(wire: &Wire, from: u32, dispatch: Dispatch) {
    let delayed = Sent {
        deliver: None,
        is_delayed: true,
    };
    assert_eq!(wire.send_one(from, dispatch), delayed);
}

#[test]
fn what_nobody_holds_goes_through() {
    let wire = wire();
    assert!(!wire.is_used());
    wire.hold_any(0, 1);
    goes_through(&wire, 0, ipi(2, 7));
    goes_through(&wire, 1, ipi(0, 7));
    assert!(wire.is_used());
    is_held(&wire, 0, ipi(1, 7));
    assert_eq!(wire.in_flight()[0].1.dispatch, ipi(1, 7));
    assert_eq!(
        (
            wire.in_flight_between(0, 1, None),
            wire.in_flight_between(1, 0, None)
        ),
        (1, 0)
    );
}

#[test]
fn what_is_held_comes_out_in_order_or_as_told() {
    let wire = wire();
    wire.hold_any(0, 1);
    for vector in 1..=4 {
        is_held(&wire, 0, ipi(1, vector));
    }
    assert_eq!(wire.take_nth(0, 1, 2), Ok(ipi(1, 3)));
    let error = wire.take_nth(0, 1, 3).unwrap_err();
    assert!(error.to_string().contains("number 3"), "{error}");
    let all = delivered(|deliver| wire.release(0, 1, None, deliver).unwrap());
    assert_eq!(all, [ipi(1, 1), ipi(1, 2), ipi(1, 4)]);
    goes_through(&wire, 0, ipi(1, 5));
}

#[test]
fn a_wire_that_holds_all_holds_pairs_it_has_not_seen() {
    let wire = wire();
    wire.release(1, 2, None, |_| ()).unwrap();
    wire.hold_all(Selection::AllButWakes).unwrap();
    is_held(&wire, 3, ipi(4, 1));
    is_held(&wire, 1, ipi(2, 1));
    assert_eq!(
        delivered(|deliver| wire.release(3, 4, None, deliver).unwrap()),
        [ipi(4, 1)]
    );
    // This pair was released by itself, so it is not held with the others.
    goes_through(&wire, 3, ipi(4, 2));
    is_held(&wire, 4, ipi(3, 2));
    let all = delivered(|deliver| wire.release_all(None, deliver).unwrap());
    assert_eq!(all, [ipi(2, 1), ipi(3, 2)]);
    goes_through(&wire, 4, ipi(3, 1));
}

#[test]
fn what_is_delayed_is_due_later_and_stays_in_order() {
    let wire = wire();
    let second = Duration::from_secs(1);
    wire.delay_any(0, 1, second);
    let before = Instant::now();
    is_delayed(&wire, 0, ipi(1, 1));
    assert!(wire.next_due().unwrap() >= before + second);
    // There is no delay now, so it is due at once, but not ahead of what was sent before.
    wire.delay_any(0, 1, Duration::ZERO);
    is_delayed(&wire, 0, ipi(1, 2));
    let due = |now| delivered(|deliver| wire.deliver_due(now, deliver));
    assert_eq!(due(Instant::now().max(before)), []);
    assert_eq!(due(before + 10 * second), [ipi(1, 1), ipi(1, 2)]);
    assert_eq!(wire.next_due(), None);
    goes_through(&wire, 0, ipi(1, 3));
}

#[test]
fn what_is_held_is_due_when_it_is_delayed_instead() {
    let wire = wire();
    wire.hold_any(0, 1);
    is_held(&wire, 0, ipi(1, 1));
    assert_eq!(wire.next_due(), None);
    wire.delay_any(0, 1, Duration::ZERO);
    let now = Instant::now();
    assert_eq!(
        delivered(|deliver| wire.deliver_due(now, deliver)),
        [ipi(1, 1)]
    );
}

#[test]
fn a_flood_into_a_held_wire_has_a_bound() {
    let wire = wire();
    wire.hold_any(0, 1);
    let sent = (0..=MOST_OF_A_PAIR).filter_map(|_| wire.send_one(0, ipi(1, 9)).deliver);
    assert_eq!(sent.count(), 1);
    assert_eq!(wire.in_flight().len(), MOST_OF_A_PAIR);
}

#[test]
fn a_flood_to_everywhere_has_a_bound() {
    let wire = wire();
    // No more than shows it: each is a lock and a tree, not optimised.
    let targets = u32::try_from(MOST + MOST / 16).unwrap();
    for target in 0..targets / 16 {
        goes_through(&wire, 0, ipi(target, 9));
    }
    assert_eq!(wire.flows().pairs.len(), 0);
    wire.hold_all(Selection::AllButWakes).unwrap();
    for target in 0..targets {
        wire.send_one(0, ipi(target, 9));
    }
    assert_eq!(wire.flows().pairs.len(), MOST);
    assert_eq!(wire.in_flight().len(), MOST);
    let all = delivered(|deliver| wire.release_all(None, deliver).unwrap());
    assert_eq!(all.len(), MOST);
    assert_eq!(wire.flows().in_flight, 0);
}

#[test]
fn wake_ups_are_in_nobodys_way_unless_somebody_names_them() {
    let wire = wire();
    wire.hold_all(Selection::AllButWakes).unwrap();
    wire.delay_any(0, 2, Duration::from_secs(1));
    is_held(&wire, 0, ipi(1, 7));
    goes_through(&wire, 0, ipi(1, WAKE));
    goes_through(&wire, 0, ipi(2, WAKE));
    wire.hold(0, 1, Selection::Vector(WAKE)).unwrap();
    is_held(&wire, 0, ipi(1, WAKE));
    goes_through(&wire, 1, ipi(0, WAKE));
    // Without a selection, a release is of everything.
    let all = delivered(|deliver| wire.release(0, 1, None, deliver).unwrap());
    assert_eq!(all, [ipi(1, 7), ipi(1, WAKE)]);
}

#[test]
fn a_vector_is_held_while_others_pass_and_the_newest_rule_counts() {
    let wire = wire();
    let seven = Selection::Vector(7);
    wire.hold(0, 1, seven).unwrap();
    is_held(&wire, 0, ipi(1, 7));
    goes_through(&wire, 0, ipi(1, 8));
    wire.hold_any(0, 1);
    is_held(&wire, 0, ipi(1, 8));
    let released = delivered(|deliver| wire.release(0, 1, Some(seven), deliver).unwrap());
    assert_eq!(released, [ipi(1, 7)]);
    goes_through(&wire, 0, ipi(1, 7));
    is_held(&wire, 0, ipi(1, 8));
    assert_eq!(wire.in_flight_between(0, 1, Some(seven)), 0);
    assert_eq!(wire.in_flight_between(0, 1, None), 2);
    wire.hold_all(seven).unwrap();
    is_held(&wire, 0, ipi(1, 7));
    is_held(&wire, 4, ipi(5, 7));
    goes_through(&wire, 4, ipi(5, 8));
    let released = delivered(|deliver| wire.release_all(Some(seven), deliver).unwrap());
    assert_eq!(released, [ipi(1, 7), ipi(5, 7)]);
    goes_through(&wire, 4, ipi(5, 7));
    assert_eq!(wire.in_flight_between(0, 1, None), 2);
}

#[test]
fn the_ipis_of_a_call_are_told_from_others_of_the_same_vector() {
    let wire = wire();
    let [one, other] = [1, 2].map(|number| CallId::new(0, 0, Lane::Task, number));
    let of = |call| WireIpi {
        dispatch: ipi(1, 7),
        call: Some(call),
    };
    wire.hold(0, 1, Selection::Call(one)).unwrap();
    assert_eq!(wire.send(0, of(other)).deliver, Some(ipi(1, 7)));
    assert_eq!(wire.send(0, of(one)).deliver, None);
    wire.hold_any(0, 1);
    assert_eq!(wire.send(0, of(other)).deliver, None);
    let second = Some(Selection::Call(other));
    assert_eq!(wire.in_flight_between(0, 1, second), 1);
    assert_eq!(wire.take(0, 1, second, 0), Ok(ipi(1, 7)));
    let error = wire.take(0, 1, second, 0).unwrap_err().to_string();
    assert!(
        error.ends_with("of IPIs of call 0:0:2 it holds 0"),
        "{error}"
    );
    assert_eq!(wire.in_flight(), [(0, of(one))]);
}

#[test]
fn init_and_start_up_ipis_have_no_vector() {
    let wire = wire();
    let [init, start_up] = [Delivery::Init, Delivery::StartUp].map(|delivery| Dispatch {
        delivery,
        ..ipi(1, WAKE)
    });
    wire.hold(0, 1, Selection::Vector(WAKE)).unwrap();
    goes_through(&wire, 0, init);
    wire.hold(0, 1, Selection::StartUp).unwrap();
    goes_through(&wire, 0, init);
    is_held(&wire, 0, start_up);
    wire.hold_any(0, 1);
    is_held(&wire, 0, init);
    assert_eq!(wire.take(0, 1, Some(Selection::Init), 0), Ok(init));
    assert_eq!(wire.take(0, 1, Some(Selection::Init), 0).ok(), None);
    assert_eq!(wire.take(0, 1, Some(Selection::StartUp), 0), Ok(start_up));
}

#[test]
fn what_is_delayed_overtakes_what_is_held() {
    let wire = wire();
    wire.hold(0, 1, Selection::Vector(7)).unwrap();
    let delay = Duration::from_secs(1);
    wire.delay(0, 1, Selection::Vector(8), delay).unwrap();
    is_held(&wire, 0, ipi(1, 7));
    is_delayed(&wire, 0, ipi(1, 8));
    let later = Instant::now() + 2 * delay;
    assert_eq!(
        delivered(|deliver| wire.deliver_due(later, deliver)),
        [ipi(1, 8)]
    );
    assert_eq!((wire.next_due(), wire.in_flight().len()), (None, 1));
}

#[test]
fn rules_have_a_bound_and_a_release_makes_room() {
    let wire = wire();
    let hold = |number| {
        let call = CallId::new(0, 0, Lane::Task, number);
        wire.hold(0, 1, Selection::Call(call))
    };
    let refused = (1..1000).map(hold).filter(Result::is_err).count();
    assert!((1..999).contains(&refused));
    wire.release(0, 1, None, |_| ()).unwrap();
    assert_eq!(hold(1), Ok(()));
}
