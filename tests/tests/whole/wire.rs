//! IPIs on the wire can be told apart: by vector, by call, and what starts CPUs. Wake-ups of the
//! guest are in nobody's way.

use serde_json::json;
use tests::{Run, Vmm, need_kvm};

const LATE_IPI: &str = include_str!("../../../scenarios/late-ipi.rhai");
const LOST_SIPI: &str = include_str!("../../../scenarios/lost-sipi.rhai");

fn perform(script: &str) -> Run {
    need_kvm();
    Vmm::scripted(script).run()
}

/// A wake-up can be the first that CPU 0 sends: it wakes the others when all are up.
#[test]
fn what_is_lost_of_a_call_is_its_own_ipi() {
    for lose in [
        "wire.lose(0, 1, 0)",
        "wire.lose(0, 1, made)",
        "wire.lose(0, 1, \"single\")",
    ] {
        let run = perform(&format!(
            r#"
            boot(#{{ vcpus: 3, append: "workload=puppet transport=wire" }});
            wire.hold(0, 1);
            let made = cpu(0).call_single(1, nowait);
            wire.wait_held(0, 1, 1);
            {lose};
            wire.release(0, 1);
            must_break("lost");
            may_break("left-locked"); may_break("broken-queue"); may_break("accounting");
            "#
        ));
        run.ends_with(0).says("as expected: lost");
    }
}

#[test]
fn a_script_that_ends_while_the_boot_is_held_ends_its_machine() {
    for end in ["", "finish();"] {
        let run = perform(&format!(
            r#"boot(#{{ vcpus: 2, append: "workload=puppet transport=wire", hold: "sipi" }}); {end}"#
        ));
        run.ends_with(0).says("pass: ");
    }
}

#[test]
fn a_call_and_its_ipi_are_two_things() {
    need_kvm();
    for wakes in ["wakes=pass", "wakes=held"] {
        let run = Vmm::scripted(LATE_IPI).args(["--param", wakes]).run();
        run.ends_with(0)
            .says("on the wire: 0xfb (single) from CPU 0 to CPU 1, of call 0:0:1")
            .says("the call has run, and its IPI is still on the wire")
            .says("its IPI found nothing to do: 1");
    }
}

#[test]
fn a_cpu_whose_start_is_lost_is_named_and_the_others_go_on() {
    need_kvm();
    let run = Vmm::scripted(LOST_SIPI).args(["--stats", "json"]).run();
    run.ends_with(0);
    let said = &run.stderr;
    let missing = "did not start: 2 (APIC id 2); no answer within 200 ms";
    assert_eq!(said.matches(missing).count(), 3, "{run}");
    assert!(said.contains("CPU 2 came up by the second"), "{run}");
    assert!(said.contains("and took no part"), "{run}");
    let ipi = &run.json()["ipi"];
    // One; two; INIT, without which its start-up IPIs do nothing; one.
    assert_eq!(ipi["starts"]["lost"], 5, "{run}");
    assert_eq!(ipi["starts"]["in_flight"], 0, "{run}");
    // They are not among those that the guest counts.
    assert_eq!((&ipi["lost"], &ipi["dropped"]), (&json!(0), &json!(0)));
}

/// The IPIs of one call are held while another call of the same CPU, to the same CPU, goes through.
#[test]
fn the_ipi_of_one_call_is_held_and_that_of_another_passes() {
    let run = perform(
        r#"
        boot(#{ vcpus: 3, append: "workload=puppet transport=wire queue=filo" });
        cpu(0).idle().wait_done();
        // Held before it sends, the call has a name by which to hold its IPIs.
        cpu(0).hold_at("many.ipi");
        let slow = cpu(0).call_many([1, 2], nowait);
        cpu(0).wait_held();
        wire.hold(0, 1, slow);
        cpu(0).disarm();
        cpu(0).resume();
        slow.wait_ran(2);
        wire.wait_held(0, 1, slow);
        expect(!slow.ran_on(1), "a call whose IPI is held not to run");
        let fast = cpu(0).call_single(1, wait);
        fast.wait_done();
        expect_eq(wire.in_flight().len(), 1, "what is on the wire");
        expect(!slow.ran_on(1), "the other call not to have it run");
        wire.release(0, 1, slow);
        slow.wait_ran();
        "#,
    );
    run.ends_with(0);
}

#[test]
fn a_name_that_no_ipi_has_is_refused_with_those_there_are() {
    for (verb, complaint) in [
        (
            "wire.hold(0, 1, \"singles\")",
            "no IPI is called \"singles\"; there are",
        ),
        (
            "wire.hold(0, 1, \"3\")",
            "sipi, and vectors as numbers, such as 0xf3",
        ),
        (
            "wire.hold(0, 1, 251)",
            "named by a vector, such as \"0xf3\", or by a call",
        ),
        ("wire.lose(0, 1, \"sipi\")", "of start-up IPIs it holds 0"),
        ("wire.lose(0, 1, \"single\", -1)", "counted from 0"),
        ("wire.wait_held(0, 1, true)", "and not by a bool"),
    ] {
        let script =
            format!("boot(#{{ vcpus: 2, append: \"workload=puppet transport=wire\" }});\n{verb};");
        let run = perform(&script);
        run.ends_with(2);
        let both = format!("{}{}", run.stdout, run.stderr);
        assert!(
            both.contains(":2:6: ") && both.contains(complaint),
            "{verb}: {both}"
        );
    }
}

/// `boot` holds what starts CPUs before the first of them runs.
#[test]
fn a_cpu_that_does_not_come_up_at_boot_is_named() {
    let run = perform(
        r#"
        let line = "workload=puppet transport=wire start-limit=200";
        boot(#{ vcpus: 3, append: line, hold: ["sipi"] });
        wire.release(0, 1);
        for n in 0..2 {
            wire.wait_held(0, 2, "sipi");
            wire.lose(0, 2, "sipi");
        }
        "#,
    );
    run.ends_with(4)
        .says("1 of the CPUs that the MADT lists did not start: 2 (APIC id 2)");
    let run = perform(
        r#"
        boot(#{ vcpus: 3, append: "workload=puppet transport=wire", hold: "sipi" });
        wire.wait_held(0, 1, "sipi");
        wire.wait_held(0, 2, "sipi");
        wire.release_all();
        cpu(1).call_single(2, wait).wait_done();
        "#,
    );
    run.ends_with(0);
    let run = perform("boot(#{ vcpus: 2, append: \"workload=puppet\", hold: \"sippy\" });");
    run.ends_with(2).says("no IPI is called \"sippy\"");
    let run = perform("boot(#{ vcpus: 2, hold: 7 });");
    run.ends_with(2).complains_of("hold cannot be a i64");
}
