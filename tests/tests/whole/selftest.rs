//! The guest image passes its selftest on machines of every size, and the report adds up.

use serde_json::Value;
use tests::{Vmm, need_kvm, vcpus};

use crate::formats::hold_report;

fn report(arguments: &str) -> Value {
    let run = Vmm::boot("--stats json").args(split(arguments)).run();
    run.ends_with(0);
    run.json()
}

/// Splits at spaces, except that all that follows `--append` is one argument.
fn split(arguments: &str) -> Vec<&str> {
    match arguments.split_once("--append ") {
        Some((before, options)) => before
            .split_whitespace()
            .chain(["--append", options])
            .collect(),
        None => arguments.split_whitespace().collect(),
    }
}

fn number(report: &Value, pointer: &str) -> u64 {
    report
        .pointer(pointer)
        .and_then(Value::as_u64)
        .unwrap_or_else(|| panic!("{pointer} is no count in {report:#}"))
}

fn sum(report: &Value, key: &str) -> u64 {
    let per_vcpu = report["per_vcpu"].as_array().expect("an array");
    per_vcpu
        .iter()
        .map(|vcpu| vcpu[key].as_u64().expect("a count"))
        .sum()
}

/// Checks what must hold in every report on a run that passed.
fn check(report: &Value, vcpus: u32) {
    hold_report(report);
    assert_eq!(report["result"], "pass", "{report:#}");
    assert_eq!(report["vcpus"], vcpus);
    assert_eq!(report["cpus_online"], vcpus);
    assert_eq!(report["findings_made"], 0);
    assert_eq!(report["breaches_made"], 0);
    assert_eq!(report["open_calls_made"], 0);

    let executed = number(report, "/calls/executed");
    assert!(executed > 0);
    assert_eq!(executed, number(report, "/calls/expected"));
    assert!(number(report, "/calls/made") > 0);

    let (sent, received) = (number(report, "/ipi/sent"), number(report, "/ipi/received"));
    let targets = number(report, "/ipi/targets");
    assert!(received <= targets, "{received} received of {targets}");
    assert!(sent <= targets, "{sent} sent to {targets}");
    assert_eq!(sum(report, "ipi_sent"), sent);
    assert_eq!(sum(report, "ipi_received"), received);
    let by_transport = report["ipi"]["by_transport"].as_object().expect("a map");
    let transports: u64 = by_transport.values().filter_map(Value::as_u64).sum();
    assert_eq!(transports, sent);
    if vcpus > 1 {
        assert!(received > 0);
        let exits = report["ipi"]["exits_per_ipi"].as_f64();
        assert!(exits.is_none_or(|exits| exits >= 0.0), "{exits:?}");
    }

    for time in [
        "/end_seconds",
        "/vmm/setup_seconds",
        "/vmm/teardown_seconds",
    ] {
        let seconds = report.pointer(time).and_then(Value::as_f64);
        assert!(seconds.is_some_and(|it| it > 0.0), "{time}: {seconds:?}");
    }
    // Tried beside the run, and told only when that was over.
    assert_ne!(report["provenance"]["host"]["kvm"], "unknown");
    let sources = report["sources"].as_array().expect("an array");
    assert!(sources.iter().any(|it| it["name"] == "exits"), "{report:#}");

    let per_vcpu = report["per_vcpu"].as_array().expect("an array");
    assert_eq!(per_vcpu.len(), vcpus as usize);
    for (id, vcpu) in per_vcpu.iter().enumerate() {
        assert_eq!(vcpu["id"], id);
        assert!(vcpu["exits"].is_object(), "{vcpu:#}");
        assert!(vcpu["kvm"].is_object(), "{vcpu:#}");
    }
}

#[test]
fn a_machine_of_any_size_passes() {
    need_kvm();
    for vcpus in vcpus() {
        check(&report(&format!("--vcpus {vcpus}")), vcpus);
    }
}

/// CPUs of a large machine.
const LARGE: u64 = 65;

/// What a large machine says of the pairs of CPUs that it has called: which, how many, and from how
/// many CPUs.
fn pairs_of_a_large_machine(options: &str) -> (Value, u64, u64) {
    need_kvm();
    let report = report(&format!("--vcpus {LARGE} --append {options}"));
    check(&report, LARGE as u32);
    assert_eq!(number(&report, "/selftest/pairs"), LARGE * LARGE);
    let words = &report["provenance"]["words"];
    let figures = ["/selftest/pairs_called", "/selftest/callers"];
    let [pairs, callers] = figures.map(|it| number(&report, it));
    let made = number(&report, "/calls/made");
    // Two calls to each, and three to all.
    assert!(made >= 2 * pairs + 3 * callers, "{made}");
    (words["pairs"].clone(), pairs, callers)
}

/// It calls as many pairs as 64 CPUs have, shared among these, and says so.
#[test]
fn a_large_machine_is_sampled() {
    let each = 64 * 64 / LARGE;
    let sampled = ("sampled".into(), LARGE * each, each);
    assert_eq!(pairs_of_a_large_machine("calls=1"), sampled);
}

#[test]
#[ignore = "more of the same: make test-long"]
fn all_pairs_of_a_large_machine_are_called_if_that_is_asked_for() {
    let all = ("all".into(), LARGE * LARGE, LARGE);
    assert_eq!(pairs_of_a_large_machine("calls=1 pairs=all"), all);
}

#[test]
fn every_transport_is_used_when_asked_for() {
    need_kvm();
    for (transport, other) in [("xapic", "x2apic"), ("x2apic", "xapic")] {
        let report = report(&format!("--vcpus 4 --append transport={transport}"));
        check(&report, 4);
        let by = &report["ipi"]["by_transport"];
        assert!(by[transport].as_u64().is_some_and(|sent| sent > 0), "{by}");
        assert!(by[other].as_u64().is_none_or(|sent| sent == 0), "{by}");
    }
}

#[test]
fn equal_seeds_make_equal_calls() {
    need_kvm();
    let calls = |options: &str| {
        let report = report(&format!("--vcpus 4 --append {options}"));
        check(&report, 4);
        (
            number(&report, "/calls/made"),
            number(&report, "/calls/expected"),
        )
    };
    let first = calls("seed=7 calls=20");
    assert_eq!(first, calls("seed=7 calls=20"));
    assert_ne!(first, calls("seed=8 calls=20"));
    assert!(first.0 < calls("seed=7 calls=40").0);
}

#[test]
fn people_see_the_verdict_last() {
    need_kvm();
    let run = Vmm::boot("--vcpus 3").run();
    run.ends_with(0);
    let last = run.stdout.lines().last().expect("a report");
    assert!(last.starts_with("pass: "), "{run}");
    run.says("vCPUs").says("IPIs sent").says("; VMM ");
}

#[test]
fn options_the_guest_does_not_know_are_named() {
    need_kvm();
    for options in [
        "quue=filo",
        "queue=lifo",
        "workload=dance",
        "calls=x",
        "pairs=some",
        "nonsense",
    ] {
        let run = Vmm::boot("").args(["--append", options]).run();
        run.ends_with(2).says(options).says("--append");
    }
}
