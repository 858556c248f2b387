//! The whole command, as `make bench-explorer` runs it, but for a moment only; and on a host that
//! has no KVM.

#![cfg(shuttle)]

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use tests::{Vmm, mounts, open_kvm, skip};

/// The command on `case`, for as short as it may be.
fn versus(case: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_versus"));
    command.arg(case).arg(tests::explore_image());
    command.args(["--rounds=1", "--each=0.5", "--hunt=0.5"]);
    command
}

fn lost_call() -> &'static Path {
    Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../scenarios/explore/lost-call.case"
    ))
}

#[test]
fn both_explorers_stand_side_by_side() {
    if let Err(error) = open_kvm() {
        skip(&format!("the explorer beside shuttle, /dev/kvm: {error}"));
        return;
    }
    let directory = TempDir::new().expect("a temporary directory");
    let json = directory.path().join("figures.json");
    let mut command = versus(lost_call());
    command.arg("--json").arg(&json);
    let run = Vmm::from(command).run();
    run.ends_with(0).says("states/s").says("×vmm");
    let text = fs::read_to_string(&json).expect("the figures");
    let figures: Value = serde_json::from_str(&text).expect("a document");
    let rates = figures["rates"].as_array().expect("rates");
    assert_eq!(rates.len(), 7);
    for leg in rates {
        assert!(leg["steps"].as_u64() > Some(0), "{leg}");
        assert!(leg["broke"].is_null(), "{leg}");
        let knows_states = leg["strategy"] == "races" || leg["strategy"] == "exhaustive";
        assert_eq!(leg["states"].as_u64() > Some(0), knows_states, "{leg}");
    }
    let hunts = figures["hunts"].as_array().expect("hunts");
    let finds = |leg: &&Value| leg["by"] == "shuttle" && !leg["broke"].is_null();
    assert!(hunts.iter().any(|leg| finds(&leg)), "{text}");
}

#[test]
fn without_kvm_nothing_is_compared() {
    let mut command = versus(lost_call());
    if open_kvm().is_ok()
        && let Err(error) = mounts::hide_dev(&mut command)
    {
        skip(&format!("this user cannot hide /dev/kvm: {error}"));
        return;
    }
    let run = Vmm::from(command).run();
    run.ends_with(3).says("versus: this host has no /dev/kvm");
    assert_eq!(run.stdout, "", "{run}");
}

#[test]
fn a_case_that_shuttle_cannot_play_is_refused() {
    let directory = TempDir::new().expect("a temporary directory");
    let case = directory.path().join("off.case");
    fs::write(&case, "cpus 2\n0: irqs-off\n").expect("room for a case");
    let run = Vmm::from(versus(&case)).run();
    run.ends_with(2).says("\"irqs-off\"").says("off.case");
    assert_eq!(run.stdout, "", "{run}");
}
