//! The stress workload on real vCPUs: every sound queue, with CPUs leaving and coming back.

use serde_json::Value;
use tests::{SOUND_QUEUES, Vmm, need_kvm};

/// The report on a run that has to pass.
fn passes(vcpus: u32, options: &str) -> Value {
    let run = Vmm::boot(&format!("--stats json --vcpus {vcpus}"))
        .args(["--append", &format!("workload=stress {options}")])
        .run();
    run.ends_with(0);
    let report = run.json();
    assert_eq!(report["findings_made"], 0, "{report:#}");
    assert_eq!(report["breaches_made"], 0, "{report:#}");
    report
}

/// The count at `pointer` in a report.
pub(super) fn number(report: &Value, pointer: &str) -> u64 {
    let value = report.pointer(pointer).and_then(Value::as_u64);
    value.unwrap_or_else(|| panic!("{pointer} is no count in {report:#}"))
}

#[test]
fn every_sound_queue_passes() {
    need_kvm();
    for queue in SOUND_QUEUES {
        for (vcpus, calls) in [(2, 100), (5, 60)] {
            passes(vcpus, &format!("queue={queue} calls={calls}"));
        }
    }
}

#[test]
fn a_machine_of_sixteen_passes() {
    need_kvm();
    for queue in ["filo", "counters", "llist"] {
        passes(16, &format!("queue={queue} calls=24 seed=3"));
    }
}

#[test]
fn cpus_leave_and_come_back() {
    need_kvm();
    for mode in ["stop", "keep"] {
        let report = passes(4, &format!("hotplug={mode} calls=200"));
        let down = number(&report, "/hotplug/taken_down");
        assert!(down > 0, "{report:#}");
        assert_eq!(number(&report, "/hotplug/brought_up"), down);
    }
}

#[test]
fn memory_may_run_out() {
    need_kvm();
    let report = passes(4, "alloc-fail=1/2 calls=200");
    assert!(number(&report, "/memory/refused") > 0, "{report:#}");
    // A CPU that comes back needs memory; one that was refused may have come back later.
    assert!(number(&report, "/memory/requests") > number(&report, "/memory/refused"));
}

#[test]
fn it_goes_on_for_the_time_it_is_given() {
    need_kvm();
    let report = passes(3, "for=500ms");
    let seconds = report["run_seconds"].as_f64().expect("a time");
    assert!(seconds >= 0.5, "{seconds}");
}

#[test]
fn what_is_broken_on_purpose_says_so() {
    need_kvm();
    let run = Vmm::boot("--vcpus 2")
        .args(["--append", "queue=fifo csd-barrier=off icr-fence=off"])
        .run();
    for part in ["queue=fifo", "csd-barrier=off", "icr-fence=off"] {
        run.says(&format!("{part} is broken on purpose"));
    }
}
