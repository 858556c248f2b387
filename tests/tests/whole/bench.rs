//! `vmm bench`: every line of its table, on every host; and where the host's architecture says how many exits
//! an IPI costs, that many are counted.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;
use tests::{Run, Vmm, need_kvm};

use crate::formats::hold_bench;

/// Runs a bench and returns its lines.
fn bench(arguments: &str) -> (Run, Vec<Value>) {
    let directory = TempDir::new().expect("a temporary directory");
    let path = directory.path().join("costs.json");
    let run = Vmm::with("bench")
        .args(arguments.split_whitespace())
        .arg("--json")
        .arg(&path)
        .arg(tests::guest())
        .run();
    run.ends_with(0);
    let text = fs::read_to_string(&path).expect("figures were written");
    let document: Value = serde_json::from_str(&text).expect("they are JSON");
    hold_bench(&document);
    let cells = document["cells"].as_array().expect("lines").clone();
    assert!(!cells.is_empty());
    (run, cells)
}

/// What line `cell` says under `pointer`, unless the host does not do what it measures.
fn figure(cell: &Value, pointer: &str) -> Option<f64> {
    let cost = cell["result"].get("Ok")?;
    Some(cost.pointer(pointer).and_then(Value::as_f64).unwrap_or(0.0))
}

/// Whether each exit of the guest is one of KVM's: an AMD processor that leaves no IPI to its hardware.
fn counts_every_exit() -> bool {
    let avic = fs::read_to_string("/sys/module/kvm_amd/parameters/avic");
    avic.is_ok_and(|avic| matches!(avic.trim(), "N" | "0"))
}

#[test]
fn every_line_is_measured_or_says_why_not() {
    need_kvm();
    let (run, cells) = bench("--vcpus 4 --rounds 16 --runs 2");
    assert!(cells.len() > 50, "{} lines", cells.len());
    for cell in &cells {
        let transport = &cell["cell"]["transport"];
        if let Some(why) = cell["result"]["Err"].as_str() {
            assert!(
                transport == "pv" && why.contains("KVM_HC_SEND_IPI"),
                "{cell}"
            );
            continue;
        }
        assert_eq!(figure(cell, "/all/count"), Some(32.0), "{cell}");
        assert_eq!(
            cell["result"]["Ok"]["medians"].as_array().map(Vec::len),
            Some(2)
        );
        let is_ipi = cell["cell"]["by"] == "ipi";
        let sends = match (cell["cell"]["to"].as_str(), transport.as_str()) {
            (Some("all"), Some("xapic" | "x2apic")) => 3.0,
            _ => 1.0,
        };
        let operations = cell["result"]["Ok"]["operations"].as_object();
        let sent: f64 = operations.map_or(0.0, |by| by.values().filter_map(Value::as_f64).sum());
        assert!(
            !is_ipi || (sent - sends).abs() < 1e-9,
            "{sent} sends: {cell}"
        );
        assert!(figure(cell, "/all/p50/cycles") <= figure(cell, "/all/max/cycles"));
    }
    run.says("shorthand (xapic)").says("fixed-2011");
}

#[test]
fn each_exit_of_the_architecture_is_counted() {
    need_kvm();
    if !counts_every_exit() {
        eprintln!(
            "not checked: this host's KVM does not count each exit of the guest, or spares some"
        );
        return;
    }
    let near = |seen: f64, expected: f64, cell: &Value| {
        let limit = 0.08 * expected.max(1.0);
        assert!(
            (seen - expected).abs() < limit,
            "{seen}, not {expected}: {cell}"
        );
    };
    // The sender, of which nothing is seen but its sends.
    let (_, cells) = bench("--rounds 10000 --runs 1 --by ipi --receiver stalled");
    assert_eq!(cells.len(), 4);
    for cell in &cells {
        let expected = match cell["cell"]["transport"].as_str() {
            Some("xapic") => 2.0,
            _ => 1.0,
        };
        near(
            figure(cell, "/sender/exits").expect("it works here"),
            expected,
            cell,
        );
    }
    // A receiver: the hlt, and the end of the interrupt.
    for (options, expected) in [("", 2.0), ("--append eoi=pv", 1.0)] {
        let one = "--rounds 2000 --runs 1 --by ipi --to one --receiver halted --transport x2apic";
        let (_, cells) = bench(&format!("{one} {options}"));
        near(
            figure(&cells[0], "/receivers/exits").expect("it works here"),
            expected,
            &cells[0],
        );
    }
    // To all: one by a shorthand, a cluster or a hypercall.
    let (_, cells) = bench("--vcpus 4 --rounds 2000 --runs 1 --by ipi --to all --receiver halted");
    for cell in &cells {
        let expected = match (
            cell["cell"]["transport"].as_str(),
            cell["cell"]["apic"].as_str(),
        ) {
            (Some("xapic"), _) => 6.0,
            (Some("x2apic"), _) => 3.0,
            _ => 1.0,
        };
        let seen = figure(cell, "/sender/exits").expect("it works here");
        // What the background is depends on how often the sender gets the processor.
        assert!(
            seen > expected - 0.5 && seen < expected + 0.2,
            "{seen}, not {expected}: {cell}"
        );
    }
}

#[test]
fn an_earlier_result_stands_beside_the_new_one() {
    need_kvm();
    let directory = TempDir::new().expect("a temporary directory");
    let path = directory.path().join("before.json");
    let some = "bench --rounds 16 --runs 1 --to one --receiver halted --transport x2apic";
    let run = Vmm::with(some)
        .arg("--json")
        .arg(&path)
        .arg(tests::guest())
        .run();
    run.ends_with(0);
    let run = Vmm::with(some)
        .arg("--baseline")
        .arg(&path)
        .arg(tests::guest())
        .run();
    run.ends_with(0).says("now/was");
    fs::write(&path, "{}").expect("room for two bytes");
    let run = Vmm::with(some)
        .arg("--baseline")
        .arg(&path)
        .arg(tests::guest())
        .run();
    run.ends_with(2).complains_of("no result of vmm bench");
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let missing = Path::new("/nowhere/guest.bin");
    Vmm::with("bench")
        .arg(missing)
        .run()
        .ends_with(2)
        .complains_of("cannot read");
    let none = "bench --to self --queue filo";
    let run = Vmm::with(none).arg(tests::guest()).run();
    run.ends_with(2).complains_of("nothing is left to measure");
}
