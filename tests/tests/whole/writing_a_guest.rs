//! What docs/writing-a-guest.md does with the guest that it makes: it runs, is driven, counts, is
//! held between two instructions, and a search finds its bug and no other.

use std::fs;

use tempfile::TempDir;
use tests::{Run, Vmm, need_kvm, other_image};

use super::explore::{COMPLETE, Workspace};

const SCRIPT: &str = include_str!("../../../scenarios/sum/lost-addition.rhai");
const CASE: &str = include_str!("../../../scenarios/sum/lost-addition.case");
const AT_ONCE: &str = include_str!("../../../scenarios/sum/at-once.case");

/// The guest, driven by `script`.
fn perform(script: &str, options: &str) -> Run {
    let directory = TempDir::new().expect("a temporary directory");
    let file = directory.path().join("a.rhai");
    fs::write(&file, script).expect("room for a script");
    Vmm::with("--vcpus 2 --script")
        .arg(file)
        .args(options.split_whitespace())
        .arg(other_image("sum.bin"))
        .run()
}

#[test]
fn a_cpu_is_held_between_the_two_steps() {
    need_kvm();
    perform(SCRIPT, "")
        .ends_with(0)
        .says("the guest left a sum that is not what was added (seen on CPU 0: 0x1)")
        .says("pass: as expected: miscounted")
        .says("2 additions");
    // With one instruction no CPU can be held between two, and nothing is miscounted.
    let held = "cpu(0).hold_at(\"sum.read\");";
    let mut at_once = SCRIPT.replace("add(", "add_at_once(");
    for gone in [held, "cpu(0).wait_held();", "cpu(0).resume();"] {
        at_once = at_once.replace(gone, "");
    }
    perform(&at_once, "")
        .ends_with(1)
        .says("nothing was miscounted, as was expected");
    let run = perform("cpu(1).tell(\"add 7\").wait_done();", "--stats json");
    let document = run.ends_with(0).json();
    assert_eq!(document["sum"]["additions"], 1, "{document:#}");
}

#[test]
fn a_search_finds_the_addition_that_is_lost() {
    need_kvm();
    let image = other_image("sum-explore.bin");
    let workspace = Workspace::with(CASE);
    let found = workspace.path("lost.json");
    let run = workspace
        .explore_on(&image, "")
        .arg("--schedule")
        .arg(&found)
        .run();
    run.ends_with(0).says("as expected: miscounted");
    let replay = Vmm::with("replay").args([&found, &image]).run();
    replay.ends_with(0).says("1 of 1 replays broke miscounted");
    let run = Workspace::with(AT_ONCE).explore_on(&image, "").run();
    run.ends_with(0).says(COMPLETE);
}
