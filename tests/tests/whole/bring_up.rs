//! CPUs that are brought online, by INIT and start-up IPI: in a search, where the arrival of each is a
//! choice, and in a running machine. CPUs that have left, and CPUs that have never run.

use std::fs;

use serde_json::Value;
use tests::{Vmm, need_kvm};

use super::explore::{CALL_WHILE_COMING, COMPLETE, Workspace, comes_again};

const GONE_AND_BACK: &str = include_str!("../../../scenarios/explore/gone-and-back.case");

/// The CPU leaves, and comes back.
const BACK: &str = "cpus 2\n0: offline 1; online 1\n";
/// The CPU has never run.
const NEW: &str = "cpus 2\nappend maxcpus=1\n0: online 1; single 1 wait\n";

/// What a complete search of `text` with `options` has found: the ends, and the number of states.
#[track_caller]
fn searched(text: &str, options: &str) -> (Value, u64) {
    let workspace = Workspace::with(text);
    let result = workspace.path("result");
    let run = workspace
        .explore(options)
        .arg("--result")
        .arg(&result)
        .run();
    run.ends_with(0).says(COMPLETE);
    assert!(!run.stdout.contains("warning"), "{run}");
    let text = fs::read_to_string(&result).expect("a result");
    let result: Value = serde_json::from_str(&text).expect("a result is JSON");
    let states = result["counts"]["states"].as_u64().expect("a number");
    (result["outcomes"].clone(), states)
}

#[test]
fn every_search_comes_to_the_same_ends() {
    need_kvm();
    for text in [BACK, NEW] {
        let (ends, _) = searched(text, "--strategy reference");
        assert_eq!(ends.as_array().map(Vec::len), Some(1), "{ends}");
        for strategy in ["races", "exhaustive", "auto"] {
            let (its, _) = searched(text, &format!("--strategy {strategy}"));
            assert_eq!(its, ends, "{strategy} {text}");
        }
    }
}

#[test]
fn a_call_to_a_cpu_that_comes_is_lost_only_if_it_is_online_too_early() {
    need_kvm();
    let workspace = Workspace::with(CALL_WHILE_COMING);
    let (found, schedule) = workspace.find("--append hotplug=online-first", "as expected: ");
    found
        .says("hang")
        .says("takes INIT")
        .says("takes start-up IPI");
    let turns = schedule["turns"].as_array().expect("turns");
    let arrivals = turns.iter().filter(|turn| turn["arrives"] == true);
    assert_eq!(arrivals.count(), 2, "{schedule}");
    comes_again(&workspace, &found, &schedule);
    for options in [
        "--strategy races",
        "--strategy races --append queue=llist",
        "--strategy races --append apic=xapic",
    ] {
        searched(CALL_WHILE_COMING, options);
    }
}

/// Over states in which a CPU waits for its start-up IPI, is on its way, and runs.
#[test]
fn from_the_same_state_a_choice_leads_to_the_same_state() {
    need_kvm();
    for text in [BACK, NEW, CALL_WHILE_COMING] {
        searched(text, "--strategy exhaustive --check-keys");
    }
}

#[test]
fn several_processes_have_the_states_of_one() {
    need_kvm();
    let (ends, states) = searched(CALL_WHILE_COMING, "--strategy exhaustive");
    let (its, its_states) = searched(CALL_WHILE_COMING, "--strategy exhaustive --jobs 2");
    assert_eq!((its, its_states), (ends, states));
}

#[test]
#[ignore = "takes a minute: make cases"]
fn a_cpu_comes_back_whenever_it_is_told_to() {
    need_kvm();
    for queue in ["filo", "llist"] {
        searched(
            GONE_AND_BACK,
            &format!("--strategy races --append queue={queue}"),
        );
    }
}

/// It takes part in what all do, sleeping or not.
#[test]
fn a_cpu_that_spins_for_commands_leaves_and_comes_as_one_that_sleeps() {
    need_kvm();
    let text = "cpus 2\nappend maxcpus=1\n0: online 1; offline 1; online 1; single 1\n1: spin\n";
    searched(text, "--strategy races");
    let idles = text.replace("1: spin", "1: spin; idle");
    searched(&idles, "--strategy races");
    searched(
        "cpus 2\n0: single 1 wait\n1: spin\n",
        "--strategy reference",
    );
}

#[test]
fn what_is_asked_of_no_cpu_is_refused() {
    need_kvm();
    let workspace = Workspace::with("cpus 2\n0: online 1\n");
    let refused = "warning    CPU 0 never did \"online 1\": this cannot be asked of this CPU now\n";
    let run = workspace.explore("--strategy races").run();
    run.ends_with(0).says(refused);
    let workspace = Workspace::with("cpus 2\nappend maxcpus=0\n0: online 1\n");
    let run = workspace.explore("--strategy races").run();
    run.says("maxcpus=0 leaves no CPU to boot");
}

/// The mailbox, the counters, probes and the wire of a CPU that was not started at boot.
#[test]
fn a_running_machine_brings_up_a_cpu_that_has_never_run() {
    need_kvm();
    let run = Vmm::scripted(
        r#"
        boot(#{ vcpus: 3, append: "workload=puppet maxcpus=2 transport=wire" });
        let early = cpu(2).call_single(0, wait);
        cpu(0).call_all(wait).wait_done();
        expect(!early.is_done(), "CPU 2 has not been started");
        wire.hold(0, 2, "sipi");
        let on = cpu(0).online(2);
        wire.wait_held(0, 2, "sipi");
        expect(!on.is_done(), "it waits for CPU 2");
        wire.release(0, 2, "sipi");
        on.wait_done();
        early.wait_done();
        let made = cpu(1).call_many([0, 2], wait);
        made.wait_done();
        cpu(2).hold_at("irq.enter");
        cpu(0).call_single(2, nowait).wait_done();
        cpu(2).wait_held();
        cpu(2).resume();
        cpu(0).offline(2).wait_done();
        cpu(0).online(2).wait_done();
        cpu(2).call_all(wait).wait_done();
        finish();
        "#,
    )
    .args(["--stats", "json"])
    .run();
    run.ends_with(0);
    let report = run.json();
    assert_eq!(report["cpus_online"], 3, "each once: {run}");
}
