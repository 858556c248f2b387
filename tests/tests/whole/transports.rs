//! The transports of IPIs, as the guest counts them: how many operations a call takes by each
//! transport, and that each reaches every target.

use std::fs;

use tempfile::NamedTempFile;
use tests::{Run, Vmm, need_kvm};

/// More CPUs than a cluster of 16, and more than one hypercall reaches.
const VCPUS: u32 = 130;

const ROUNDS: u64 = 10;

/// Has CPU 0 call `targets` and wait, and checks by how much each call raises its counters.
fn calls(options: &str, targets: &[u32], operations: u64, transport: &str) -> Run {
    let ran = targets.len();
    let text = format!(
        "boot(#{{ vcpus: {VCPUS}, append: \"workload=puppet {options}\" }});
        // After this call, no IPI of the start is still to be sent.
        cpu(0).call_single(1, wait).wait_done();
        let before = cpu(0).counters();
        for round in 0..{ROUNDS} {{
            let made = cpu(0).call_many({targets:?}, wait);
            made.wait_done();
            expect_eq(made.ran().len(), {ran}, \"CPUs that ran it\");
        }}
        let after = cpu(0).counters();
        for name in after.keys() {{
            let each = switch name {{
                \"sent_{transport}\" | \"ipis_sent\" => {operations},
                \"ipi_targets\" => {ran},
                _ => 0,
            }};
            let is_ipi = name.starts_with(\"ipi\") && name != \"ipis_received\";
            if name.starts_with(\"sent_\") || is_ipi {{
                expect_eq(after[name] - before[name], each * {ROUNDS}, name);
            }}
        }}"
    );
    let script = NamedTempFile::with_suffix(".rhai").expect("a temporary file");
    fs::write(script.path(), text).expect("room for a script");
    Vmm::boot("").arg("--script").arg(script.path()).run()
}

#[test]
fn ipis_per_call_are_those_that_tell_of_it() {
    need_kvm();
    let script = "boot(#{ vcpus: 4, append: \"workload=puppet transport=x2apic\" });
        cpu(0).call_many([1, 2, 3], wait).wait_done();";
    let run = Vmm::scripted(script).args(["--stats", "json"]).run();
    let document = run.ends_with(0).json();
    assert_eq!(document["calls"]["made"], 1, "{document:#}");
    assert_eq!(document["calls"]["ipis_per_call"], 3.0, "{document:#}");
    // The others wake CPUs, at the start and at the end.
    assert!(document["ipi"]["sent"].as_u64() > Some(3), "{document:#}");
}

/// Checks that a call to `targets` with `options` takes so many operations by that transport.
fn takes(options: &str, targets: &[u32], operations: u64, transport: &str) {
    calls(options, targets, operations, transport).ends_with(0);
}

/// Two CPUs of CPU 0's cluster, and one of another.
const SOME: [u32; 3] = [1, 2, 17];

fn all() -> Vec<u32> {
    (1..VCPUS).collect()
}

#[test]
fn an_icr_write_reaches_one_cpu_or_a_cluster() {
    need_kvm();
    takes("transport=x2apic", &SOME, 3, "x2apic");
    takes("transport=xapic", &SOME, 3, "xapic");
    takes("transport=x2apic-cluster", &SOME, 2, "x2apic_cluster");
}

#[test]
fn a_shorthand_is_taken_for_all_and_for_nobody_less() {
    need_kvm();
    takes("transport=shorthand", &all(), 1, "shorthand");
    takes("transport=shorthand apic=xapic", &all(), 1, "shorthand");
    takes("transport=shorthand", &SOME, 3, "x2apic");
}

#[test]
fn a_hypercall_reaches_all_or_is_refused() {
    need_kvm();
    let works = match calls("transport=pv", &[1], 1, "pv") {
        run if run.status() == 0 => true,
        run => {
            run.ends_with(4).says("KVM_HC_SEND_IPI");
            false
        }
    };
    if works {
        takes("transport=pv", &SOME, 1, "pv");
        takes("transport=pv apic=xapic", &[1, 128], 1, "pv");
        takes("transport=pv", &[1, 128, 129], 2, "pv");
        takes("transport=pv", &all(), 2, "pv");
    }
    // `auto` takes the fewest operations that work on this host.
    match works {
        true => takes("transport=auto", &SOME, 1, "pv"),
        false => takes("transport=auto", &SOME, 2, "x2apic_cluster"),
    }
    takes("transport=auto", &all(), 1, "shorthand");
    takes("transport=auto", &[5], 1, "x2apic");
}

#[test]
fn interrupts_can_end_in_memory() {
    need_kvm();
    for apic in ["xapic", "x2apic"] {
        let options = format!("eoi=pv apic={apic}");
        Vmm::boot("--vcpus 4")
            .args(["--append", &options])
            .run()
            .ends_with(0);
        let options = format!("eoi=pv apic={apic} workload=stress calls=20");
        Vmm::boot("--vcpus 4")
            .args(["--append", &options])
            .run()
            .ends_with(0);
    }
}
