//! From a run that fails to the shortest order that shows why: the case of the run, made smaller, found
//! by the explorer, and replayed.

use std::fs;
use std::time::Duration;

use tests::{Vmm, explore_image, need_kvm};

use super::explore::Workspace;

/// Runs until one fails: what happens when differs each time.
const MOST_RUNS: u32 = 20;

/// Searches of many cases on a busy host.
const TIME_LIMIT: Duration = Duration::from_secs(900);

/// Cases are small enough to count in their text.
fn deeds(case: &str) -> usize {
    let programs = case
        .lines()
        .filter(|line| line.starts_with(|it: char| it.is_ascii_digit()));
    programs.map(|line| line.split(';').count()).sum()
}

#[test]
#[ignore = "waits for a run that fails by chance, and then searches for minutes: make test-long"]
fn a_stressed_run_that_fails_becomes_a_small_case_that_is_found_and_replayed() {
    need_kvm();
    let workspace = Workspace::with("");
    let recorded = workspace.path("recorded.case");
    let words = "workload=stress queue=fifo for=20s";
    let fails = |seed: &u32| {
        let run = Vmm::boot("--vcpus 12 --watchdog 3s")
            .arg("--append")
            .arg(format!("{words} seed={seed}"))
            .arg("--steal")
            .arg(format!("seed={seed},mean=100us,share=20%"))
            .arg("--record-case")
            .arg(&recorded)
            .limit(TIME_LIMIT)
            .run();
        match run.status() {
            0 => {
                run.says("nothing has failed, so that there is no case to record");
                assert!(!recorded.exists(), "{run}");
                false
            }
            1 | 4 | 5 => true,
            _ => panic!("{run}"),
        }
    };
    (1..=MOST_RUNS).find(fails).expect("a run that fails");
    let case = fs::read_to_string(&recorded).expect("a case");
    for line in ["cpus 12\n", "append queue=fifo\n", "\nexpect "] {
        assert!(case.contains(line), "no {line:?} in\n{case}");
    }

    let small = workspace.path("a.case");
    let reduced = Vmm::with("reduce")
        .arg(&recorded)
        .arg(explore_image())
        .args(["--sc", "--each", "30s", "--time-limit", "400s", "--out"])
        .arg(&small)
        .limit(TIME_LIMIT)
        .run();
    reduced.ends_with(0).says("in ").says("searches");
    let smaller = fs::read_to_string(&small).expect("a case");
    assert!(deeds(&smaller) < deeds(&case), "{case}\n{smaller}");

    let schedule = workspace.path("found.json");
    let found = workspace
        .explore("--strategy pct --memory sc --runs 100000 --time-limit 300s")
        .arg("--schedule")
        .arg(&schedule)
        .run();
    found.ends_with(0).says("as expected: ");
    let again = Vmm::with("replay")
        .arg(&schedule)
        .arg(explore_image())
        .args(["--times", "3"])
        .limit(TIME_LIMIT)
        .run();
    again.ends_with(0).says("3 of 3 replays broke");
}

#[test]
fn a_case_that_does_not_break_or_expects_nothing_is_not_made_smaller() {
    need_kvm();
    let small = |case: &str, options: &[&str]| {
        let workspace = Workspace::with(case);
        Vmm::with("reduce")
            .arg(workspace.path("a.case"))
            .arg(explore_image())
            .args(options)
            .limit(TIME_LIMIT)
            .run()
    };
    let sound = "cpus 2\n0: single 1\n1: single 0\nexpect lost\n";
    small(sound, &["--each", "4s"])
        .ends_with(5)
        .complains_of("it did not break in its time");
    small("cpus 2\n0: single 1\n", &[])
        .ends_with(2)
        .complains_of("the case expects nothing to break");
    // What breaks is left, and what it does not need is gone.
    let breaks = "cpus 3\n0: single 1; lock 0; single 1 wait; single 2\n2: many 0-1; single 1\n\
                  1: single 2; unlock 1; many 0,2\nexpect contract\n";
    let run = small(breaks, &["--each", "20s"]);
    run.ends_with(0).says("# Made smaller by vmm reduce from ");
    run.says("\ncpus 1\n0: unlock 1\nexpect contract\n");
}
