//! Deadlocks as reports of kernels tell them, told to `vmm explore` as the shipped cases do: locks
//! held across calls, words that are waited for, interrupts that come too early. Each is found, and
//! its mended form is complete.

use std::fs;
use std::path::Path;

use tests::{Run, need_kvm};

use super::explore::{COMPLETE, Workspace};

/// The shipped case of this name, if the source is on this host.
fn case(name: &str) -> &'static str {
    match name {
        "lock-across-call" => include_str!("../../../scenarios/explore/lock-across-call.case"),
        "lock-across-call-mended" => {
            include_str!("../../../scenarios/explore/lock-across-call-mended.case")
        }
        _ => panic!("no case is called {name}"),
    }
}

/// Searches the shipped case `name`, which must come out as it expects, and its mended form, which
/// must be complete.
#[track_caller]
fn is_found_and_mended(name: &str, says: &[&str]) {
    need_kvm();
    let workspace = Workspace::with(case(name));
    let schedule = workspace.path("found.json");
    let run = workspace.explore("").arg("--schedule").arg(&schedule).run();
    run.ends_with(0).says("as expected: ");
    says.iter().for_each(|text| {
        run.says(text);
    });
    tests::Vmm::with("replay --times 3")
        .arg(&schedule)
        .arg(tests::explore_image())
        .run()
        .ends_with(0)
        .says("3 of 3 replays broke");
    let mended = Workspace::with(case(&format!("{name}-mended")));
    mended.explore("").run().ends_with(0).says(COMPLETE);
}

/// Searches `text` by every strategy that tries all orders.
#[track_caller]
fn each_search(text: &str, check: impl Fn(&Run)) {
    need_kvm();
    let workspace = Workspace::with(text);
    for strategy in ["races", "exhaustive", "reference"] {
        check(&workspace.explore(&format!("--strategy {strategy}")).run());
    }
}

#[test]
fn a_lock_that_is_held_across_a_call_to_who_spins_for_it() {
    is_found_and_mended(
        "lock-across-call",
        &["as expected: hang", "waiting, made to CPU 1, has not run on CPU 1"],
    );
}

#[test]
fn who_takes_its_own_lock_waits_for_ever() {
    each_search("cpus 2\n0: lock 0; lock 0\n1: lock 1; unlock 1\nexpect hang\n", |run| {
        run.ends_with(0);
    });
}

#[test]
fn a_lock_that_one_does_not_have_is_not_released() {
    let text = "cpus 2\n0: lock 0; unlock 0\n1: unlock 0\nexpect contract\n";
    each_search(text, |run| {
        run.ends_with(0).says("CPU 1 never did \"unlock 0\"");
    });
}

#[test]
fn two_locks_in_two_orders_hang_and_in_one_order_do_not() {
    let both = |one: &str, other: &str, expects: &str| {
        format!(
            "cpus 2\n0: lock 0; lock 1; unlock 1; unlock 0\n\
             1: lock {one}; lock {other}; unlock {other}; unlock {one}\nexpect {expects}\n"
        )
    };
    each_search(&both("1", "0", "hang"), |run| {
        run.ends_with(0).says("hang");
    });
    each_search(&both("0", "1", "clean"), |run| {
        run.ends_with(0).says("complete ");
    });
}

#[test]
fn a_word_is_waited_for_until_it_is_set() {
    each_search("cpus 2\n0: until 0 2\n1: set 0 1; set 0 2\n", |run| {
        run.ends_with(0).says("complete ");
    });
    // It can be over before it is looked at.
    each_search("cpus 2\n0: until 0 1\n1: set 0 1; set 0 2\nexpect hang\n", |run| {
        run.ends_with(0).says("hang");
    });
}

#[test]
fn an_interrupt_that_comes_before_a_cpu_halts_does_not_wake_it() {
    each_search("cpus 2\n0: halt\n1: single 0\nexpect hang\n", |run| {
        run.ends_with(0).says("hang");
    });
    // CPU 1 calls only when no interrupt can come before the halt any more.
    each_search("cpus 2\n0: irqs-off; set 0 1; halt\n1: until 0 1; single 0\n", |run| {
        run.ends_with(0).says("complete ");
    });
}

#[test]
fn what_is_repeated_is_done_so_often() {
    need_kvm();
    let once = Workspace::with("cpus 2\n0: lock 0; single 1; unlock 0; lock 0; single 1; unlock 0\n");
    let often = Workspace::with("cpus 2\n0: repeat 2 { lock 0; single 1; unlock 0 }\n");
    let searched = |workspace: &Workspace| {
        let result = workspace.path("result.json");
        workspace
            .explore("--strategy races --result")
            .arg(&result)
            .run()
            .ends_with(0)
            .says(COMPLETE);
        let text = fs::read_to_string(Path::new(&result)).expect("a result");
        let result: serde_json::Value = serde_json::from_str(&text).expect("a result is JSON");
        (result["outcomes"].clone(), result["answers"].clone())
    };
    let (one, other) = (searched(&once), searched(&often));
    assert!(one.0.as_array().is_some_and(|all| !all.is_empty()), "{one:?}");
    assert_eq!(one, other);
}
