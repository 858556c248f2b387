//! Deadlocks as reports of kernels tell them, told to `vmm explore` as the shipped cases do: locks
//! held across calls, words that are waited for, interrupts that come too early. Each is found, and
//! its mended form is complete.

use std::fs;
use std::path::Path;

use tempfile::NamedTempFile;
use tests::{Run, need_kvm};

use super::explore::{COMPLETE, Workspace};

/// A shipped case, and its mended form.
macro_rules! case_and_mended {
    ($name:literal) => {
        (
            include_str!(concat!("../../../scenarios/explore/", $name, ".case")),
            include_str!(concat!(
                "../../../scenarios/explore/",
                $name,
                "-mended.case"
            )),
        )
    };
}

/// Searches the shipped case, which must come out as it expects, and its mended form, which must be
/// complete.
#[track_caller]
fn is_found_and_mended((case, mended): (&str, &str), says: &[&str]) {
    need_kvm();
    let workspace = Workspace::with(case);
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
    let mended = Workspace::with(mended);
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
        case_and_mended!("lock-across-call"),
        &[
            "as expected: hang",
            "waiting, made to CPU 1, has not run on CPU 1",
        ],
    );
}

#[test]
fn a_timer_that_makes_a_waiting_call_within_a_call() {
    is_found_and_mended(
        case_and_mended!("call-from-timer"),
        &["as expected: contract"],
    );
}

#[test]
fn a_lock_that_is_held_while_a_cpu_is_taken_offline() {
    is_found_and_mended(
        case_and_mended!("lock-across-offline"),
        &["as expected: hang"],
    );
}

#[test]
fn who_takes_its_own_lock_waits_for_ever() {
    each_search(
        "cpus 2\n0: lock 0; lock 0\n1: lock 1; unlock 1\nexpect hang\n",
        |run| {
            run.ends_with(0);
        },
    );
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
    each_search(
        "cpus 2\n0: until 0 1\n1: set 0 1; set 0 2\nexpect hang\n",
        |run| {
            run.ends_with(0).says("hang");
        },
    );
}

#[test]
fn an_interrupt_that_comes_before_a_cpu_halts_does_not_wake_it() {
    each_search("cpus 2\n0: halt\n1: single 0\nexpect hang\n", |run| {
        run.ends_with(0).says("hang");
    });
    // CPU 1 calls only when no interrupt can come before the halt any more.
    each_search(
        "cpus 2\n0: irqs-off; set 0 1; halt\n1: until 0 1; single 0\n",
        |run| {
            run.ends_with(0).says("complete ");
        },
    );
}

#[test]
fn what_is_repeated_is_done_so_often() {
    need_kvm();
    let once =
        Workspace::with("cpus 2\n0: lock 0; single 1; unlock 0; lock 0; single 1; unlock 0\n");
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
    assert!(
        one.0.as_array().is_some_and(|all| !all.is_empty()),
        "{one:?}"
    );
    assert_eq!(one, other);
}

#[test]
fn a_function_that_wants_the_lock_of_the_task_that_it_interrupts_waits_for_ever() {
    each_search(
        "cpus 2\n0: lock 0; unlock 0\n1: single 0 { lock 0; unlock 0 }\nexpect hang\n",
        |run| {
            run.ends_with(0).says("hang");
        },
    );
    let mended = "cpus 2\n0: irqs-off; lock 0; unlock 0; irqs-on\n\
                  1: single 0 { lock 0; unlock 0 }\n";
    each_search(mended, |run| {
        run.ends_with(0).says("complete ");
    });
}

#[test]
fn a_function_can_call_without_waiting_and_not_with() {
    for (program, expects) in [
        ("async 0", "clean"),
        ("single 1", "clean"),
        ("single 0 wait", "contract"),
        ("single 0", "contract"),
        ("requeue 0", "contract"),
        ("unlock 0", "contract"),
    ] {
        let text = format!("cpus 2\n0: async 1 {{ {program} }}\nexpect {expects}\n");
        each_search(&text, |run| {
            run.ends_with(0);
        });
    }
}

#[test]
fn a_timer_comes_at_any_moment_from_then_on() {
    // Before the word is set, or behind it; and while the CPU sleeps.
    for (task, expects) in [
        ("timer 1 { set 0 1 }; set 0 2; until 0 2", "hang"),
        ("timer 1 { set 0 1 }; set 0 2; until 0 1", "hang"),
        (
            "irqs-off; timer 1 { set 0 1 }; set 0 2; irqs-on; until 0 1",
            "clean",
        ),
        ("irqs-off; timer 1 { set 0 1 }; halt; until 0 1", "clean"),
        ("timer 1; halt", "hang"),
        (
            "timer 2 { lock 0; unlock 0 }; irqs-off; lock 0; unlock 0; irqs-on",
            "clean",
        ),
        ("timer 1 { lock 0; unlock 0 }; lock 0; unlock 0", "hang"),
    ] {
        let text = format!("cpus 1\n0: {task}\nexpect {expects}\n");
        each_search(&text, |run| {
            run.ends_with(0);
        });
    }
}

#[test]
fn a_condition_can_change_while_a_call_is_made() {
    need_kvm();
    let ends = |text: &str| {
        let workspace = Workspace::with(text);
        let result = workspace.path("result.json");
        let run = workspace
            .explore("--strategy races --result")
            .arg(&result)
            .run();
        run.ends_with(0).says(COMPLETE);
        let text = fs::read_to_string(&result).expect("a result");
        let result: serde_json::Value = serde_json::from_str(&text).expect("a result is JSON");
        result["outcomes"].as_array().expect("a list").len()
    };
    assert_eq!(ends("cpus 2\n0: set 0 2; cond 1 0 wait\n"), 1);
    assert_eq!(ends("cpus 2\n0: cond 1 0 wait\n1: set 0 2\n"), 2);
}

#[test]
fn what_cannot_stand_in_braces_is_refused_with_its_line() {
    need_kvm();
    for (line, why) in [
        (
            "0: async 1 { irqs-off }",
            "\"irqs-off\" cannot stand in the braces of another deed",
        ),
        ("0: async 1 { async 0 { set 0 1 } }", "can have none itself"),
        ("0: async 1 { single 2 }", "there is no CPU 2"),
        ("0: lock 0 { set 0 1 }", "has no deeds in braces"),
        ("0: async 1 { set 0 1", "a brace is not closed on this line"),
        ("0: repeat 3 { }", "there is nothing to repeat"),
        ("0: repeat 1001 { all }", "more than 1000 commands"),
    ] {
        let workspace = Workspace::with(&format!("cpus 2\n{line}\n"));
        let run = workspace.explore("").run();
        run.ends_with(2).says("line 2").says(why);
    }
}

#[test]
fn a_running_machine_is_told_the_same() {
    need_kvm();
    let script = NamedTempFile::with_suffix(".rhai").expect("a temporary file");
    let text = r#"
        boot(#{ vcpus: 3, append: "workload=puppet" });
        cpu(0).lock(0).wait_done();
        let waits = cpu(1).lock(0);
        cpu(2).call_single(1, wait, "set 3 7").wait_done();
        expect(!waits.is_done(), "the lock is not free");
        cpu(2).spin_until(3, 7).wait_done();
        cpu(0).unlock(0).wait_done();
        waits.wait_done();
        cpu(1).unlock(0).wait_done();
        cpu(2).tell("timer 2 { async 1 { set 4 1 } }") || ();
    "#;
    fs::write(script.path(), text.replace(" || ()", "")).expect("room for a script");
    let perform = || {
        tests::Vmm::new()
            .arg("--script")
            .arg(script.path())
            .arg(tests::guest())
            .run()
    };
    perform().ends_with(2).says("can have none itself");
    let told = text.replace(
        "timer 2 { async 1 { set 4 1 } }\") || ();",
        // Twice would be a breach, if the first call had not run yet.
        "timer 1 { async 1 }\").wait_done();",
    ) + r#"
        cpu(0).call_async(1, "set 4 1; lock 1; unlock 1").wait_ran();
        cpu(0).spin_until(4, 1).wait_done();
        cpu(0).set_word(0, 2).wait_done();
        let cond = cpu(0).call_cond([0, 1, 2], 0, wait);
        cond.wait_done();
        expect_eq(cond.targets(), [1], "whose bit is set");
        let halted = cpu(2).halt();
        // One that comes before it halts does not wake it.
        while !halted.is_done() {
            cpu(0).call_single(2, nowait).wait_done();
        }
        finish();
    "#;
    fs::write(script.path(), told).expect("room for a script");
    perform().ends_with(0);
}
