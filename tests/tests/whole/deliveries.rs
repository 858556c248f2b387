//! What happens to IPIs: sent, targets, received and coalesced are four counters, each counted
//! where it happens, and every IPI is accounted for.

use serde_json::Value;
use tempfile::TempDir;
use tests::{Vmm, need_kvm};

/// What the report says of the IPIs of a guest that a script drives.
fn ipis(script: &str) -> Value {
    let run = Vmm::scripted(script).args(["--stats", "json"]).run();
    run.ends_with(0);
    run.json()["ipi"].clone()
}

fn count(ipi: &Value, key: &str) -> u64 {
    let count = ipi[key].as_u64();
    count.unwrap_or_else(|| panic!("{key} is no count in {ipi:#}"))
}

/// Three CPUs send one vector each to a CPU with interrupts off, which later takes only one.
#[test]
fn ipis_of_one_vector_become_one() {
    need_kvm();
    const ROUNDS: u64 = 20;
    let ipi = ipis(&format!(
        r#"
        boot(#{{ vcpus: 5, append: "workload=puppet queue=filo" }});
        for round in 0..{ROUNDS} {{
            cpu(3).irqs_off().wait_done();
            let calls = [];
            for sender in 0..3 {{
                let made = cpu(sender).call_many([3, 4], nowait);
                made.wait_ran(4);
                calls.push(made);
            }}
            cpu(3).irqs_on().wait_done();
            for made in calls {{ made.wait_ran(); }}
        }}
        finish();
        "#
    ));
    // Two of three, and some that met another by chance. What the VMM sends to wake CPUs is five
    // each round, so that a count that leaves any of the parts out is far off.
    let coalesced = count(&ipi, "coalesced");
    assert!(
        (2 * ROUNDS..4 * ROUNDS).contains(&coalesced),
        "{coalesced}: {ipi:#}"
    );
    assert!(count(&ipi, "added") >= 5 * ROUNDS, "{ipi:#}");
    assert!(count(&ipi, "targets") >= 6 * ROUNDS, "{ipi:#}");
    assert_eq!(count(&ipi, "lost"), 0, "{ipi:#}");
}

#[test]
fn an_ipi_that_is_lost_is_not_called_coalesced() {
    need_kvm();
    let ipi = ipis(
        r#"
        boot(#{ vcpus: 3, append: "workload=puppet transport=wire" });
        wire.hold(0, 1);
        let first = cpu(0).call_many([1, 2], nowait);
        wire.wait_held(0, 1, 1);
        wire.lose(0, 1, 0);
        wire.release(0, 1);
        first.wait_ran(2);
        // The next that comes finds both.
        let second = cpu(2).call_many([0, 1], nowait);
        second.wait_ran();
        first.wait_ran();
        finish();
        "#,
    );
    assert_eq!(count(&ipi, "lost"), 1, "{ipi:#}");
    assert_eq!(count(&ipi, "in_flight"), 0, "{ipi:#}");
    // The VMM wakes a CPU for each of five commands, and the last CPU to finish wakes all. A CPU that is
    // awake takes a command before the interrupt that tells of it, which the next can then meet.
    assert_eq!(count(&ipi, "added"), 5, "{ipi:#}");
    assert!(count(&ipi, "coalesced") <= 5, "{ipi:#}");
}

/// A trace follows each IPI by itself. It finds at least as many that share a handler as the
/// counters say.
#[test]
fn counters_and_trace_agree() {
    need_kvm();
    let directory = TempDir::new().expect("a temporary directory");
    let run = Vmm::boot("--vcpus 4 --stats json --append calls=20")
        .arg("--trace")
        .arg(directory.path().join("trace.json"))
        .run();
    run.ends_with(0);
    let report = run.json();
    let (ipi, trace) = (&report["ipi"], &report["trace"]);
    // When the first CPU ends the run, every other may be in the middle of sending to all, or of
    // taking an interrupt.
    let slack = count(trace, "dropped") + 3 * 3;
    let traced = count(&trace["ipi"], "count") + count(trace, "untaken");
    let targets = count(ipi, "targets");
    assert!(
        traced.abs_diff(targets) <= slack,
        "{traced} in the trace, {targets} counted"
    );
    let missing = count(trace, "coalesced") + count(trace, "untaken");
    let counted = count(ipi, "coalesced") + count(ipi, "pending");
    assert!(
        missing + slack >= counted,
        "{missing} in the trace, {counted} counted"
    );
    assert_eq!(count(ipi, "added") + count(ipi, "lost"), 0, "{ipi:#}");
    let pairs = trace["pairs"].as_array().expect("pairs");
    for what in ["ipi", "call"] {
        let of_pairs = pairs.iter().filter_map(|pair| pair[what]["count"].as_u64());
        let sum: u64 = of_pairs.sum();
        assert!(sum >= count(&trace[what], "count"), "{what}: {sum}");
    }
}

/// A CPU that waits for a descriptor waits for the CPU on which the descriptor's last call has yet
/// to run.
#[test]
fn latencies_are_told_by_pair() {
    need_kvm();
    let directory = TempDir::new().expect("a temporary directory");
    let run = Vmm::scripted(include_str!("../../../scenarios/csd-reuse.rhai"))
        .args(["--stats", "json"])
        .arg("--trace")
        .arg(directory.path().join("trace.json"))
        .run();
    run.ends_with(0);
    let report = run.json();
    let trace = &report["trace"];
    let pairs = trace["pairs"].as_array().expect("pairs");
    let pair = pairs.iter().find(|it| it["from"] == 0 && it["to"] == 1);
    let pair = pair.unwrap_or_else(|| panic!("nothing from CPU 0 to CPU 1: {trace:#}"));
    for (what, times) in [("ipi", 1), ("call", 2), ("csd_wait", 1)] {
        for of in [pair, trace] {
            assert!(count(&of[what], "count") >= times, "{what}: {trace:#}");
            for unit in ["cycles", "ns"] {
                let at = |quantile: &str| count(&of[what][quantile], unit);
                let quantiles = ["min", "p50", "p90", "p99", "p99_9", "max"].map(at);
                assert!(quantiles.is_sorted() && quantiles[5] > 0, "{what}: {of:#}");
            }
        }
    }
}
