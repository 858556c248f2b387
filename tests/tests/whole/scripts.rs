//! Scripts that fail, and what else a script can do: every end has a status, a place in the script
//! and a report, and no script hangs the VMM.

use std::fs;

use shared::exit::ExitCode;
use shared::ports::{self, Doorbell};
use tempfile::NamedTempFile;
use tests::image::{Code, Image};
use tests::{Run, Vmm, need_kvm};

fn script(text: &str) -> NamedTempFile {
    let file = NamedTempFile::with_suffix(".rhai").expect("a temporary file");
    fs::write(file.path(), text).expect("room for a script");
    file
}

/// Runs `text` with the guest under test.
fn perform(text: &str) -> Run {
    perform_with("", text)
}

/// The same with more arguments.
fn perform_with(arguments: &str, text: &str) -> Run {
    need_kvm();
    let script = script(text);
    Vmm::boot("--vcpus 2 --append workload=puppet")
        .args(arguments.split_whitespace())
        .arg("--script")
        .arg(script.path())
        .run()
}

/// Runs `text` with a guest of its own.
fn perform_on(image: &Image, text: &str) -> Run {
    need_kvm();
    let script = script(text);
    Vmm::new()
        .arg("--script")
        .arg(script.path())
        .arg(image.path())
        .run()
}

#[test]
fn an_expectation_that_is_not_met_fails_with_its_place() {
    let run = perform("cpu(1).pause();\n  expect(cpus() == 3, \"three CPUs\");");
    run.ends_with(1)
        .says(":2:3: expected: three CPUs")
        .says("CPU 1: ");
    let run = perform("expect_eq(cpus(), 3, \"the number of CPUs\");");
    run.ends_with(1)
        .says("expected the number of CPUs to be 3, and it is 2");
}

#[test]
fn what_makes_no_sense_is_refused_with_its_place() {
    for (text, complaint) in [
        ("cpu(0).fly();", "nothing is called \"fly\" on a CPU"),
        ("\ncpu(2).pause();", ":2:1: there is no vCPU 2"),
        ("cpu(-1).pause();", "-1 is no CPU"),
        ("cpu(0).resume();", "vCPU 0 is not paused"),
        ("cpu(0).look();", "vCPU 0 is not stalled"),
        (
            "cpu(0).hold_at(\"queue.visits\");",
            "no probe \"queue.visits\"; it has",
        ),
        ("cpu(0).hold_at(\"queue.visit\", 0);", "counted from 1"),
        ("cpu(0).break_at(\"no::such\");", "no function \"no::such\""),
        ("must_break(\"lots\");", "no oracle \"lots\""),
        ("limit(-1);", "no number of seconds"),
        ("boot(#{ vcpu: 3 });", "there is no \"vcpu\""),
        ("boot(#{ vcpus: 0 });", "cannot make a machine of 0 vCPUs"),
        ("wire.deliver(0, 1, 0);", "holds no IPI number 0"),
        ("let x = nobody;", "Variable not found: nobody"),
        (
            "cpu(0).call_many([\"one\"], nowait);",
            "a list of CPUs holds a string",
        ),
        (
            "cpu(0).call_many([1, 4000000000], nowait);",
            "no machine has a CPU 4000000000",
        ),
        (
            "cpu(0).pauze();",
            "nothing is called \"pauze\" on a CPU, and of its guest there is no deed \"pauze\"; \
             there are",
        ),
        ("cpu(0).call_many(1);", "where CPUS is something else"),
        ("cpu(0).irqs_off(true);", "cannot wait"),
        ("cpu(0).call_single(-1);", "-1 is no CPU"),
        ("cpu(0).call_single(1, 2);", "and with no more"),
        ("cpu(0).tell(\"many 1,x\");", "\"1,x\" is no list of CPUs"),
        ("cpu(0).finish([0, 1]);", "ends the workload"),
        ("wire.hold(0, 2);", "there is no vCPU 2"),
        ("abandon([1, 2]);", "there is no vCPU 2"),
        // A script has no access to files or clocks.
        ("import \"other\" as other;", ":1:1: "),
        ("sleep(1000000);", ":1:1: a script has no clock"),
        ("sleep(0.5);", "a script has no clock"),
        ("timestamp();", "Function not found: timestamp"),
    ] {
        let run = perform(text);
        run.ends_with(2);
        let both = format!("{}{}", run.stdout, run.stderr);
        assert!(both.contains(complaint), "{text}: {both}");
    }
}

#[test]
fn a_machine_that_is_told_nothing_is_finished() {
    need_kvm();
    // Asked for by the script, by the command line, and once more behind one that is left over.
    let puppet = "boot(#{ vcpus: 2, append: \"workload=puppet\" });";
    for text in [puppet, "", &format!("{puppet} {puppet}")] {
        perform(text).ends_with(0).says("0 findings");
    }
    // The script waits for another CPU.
    let run = perform("boot(#{ vcpus: 2, append: \"workload=stress calls=20\" });");
    run.ends_with(0).says("0 findings");
}

#[test]
fn a_script_that_is_none_is_refused_before_anything_boots() {
    let run = perform("let x = ;");
    run.ends_with(2).complains_of(":1:9: ");
    assert_eq!(run.stdout, "");
    let run = Vmm::boot("--script /no/such.rhai").run();
    run.ends_with(2).complains_of("cannot read the script");
}

#[test]
fn a_wait_that_never_comes_true_says_what_it_waited_for() {
    let run = perform("limit(0.2);\ncpu(1).hold_at(\"queue.visit\");\ncpu(1).wait_held();");
    run.ends_with(5)
        .says(":3:8: CPU 1 being held (it runs) has not happened within 0.2 s")
        .says("CPUs 0-1: ");
    let run = perform("limit(0.2); cpu(1).pause(); cpu(0).call_single(1, wait).wait_done();");
    run.ends_with(5)
        .says("call-single on CPU 0 has not happened")
        .says("CPU 1: paused")
        .says("open calls: 1");
}

#[test]
fn who_waits_for_a_call_that_is_not_made_learns_why() {
    let told = |and: &str| {
        perform(&format!(
            "cpu(0).offline(1).wait_done();\ncpu(0).call_single(1, nowait).{and};"
        ))
    };
    for wait in ["wait_ran(0)", "wait_ran([0, 1])", "wait_ran()"] {
        told(wait)
            .ends_with(1)
            .says(":2:31: CPU 0 was told call-single and did not: the target is not online");
    }
    // It is in the ledger before the guest looks whether its target is online.
    told("wait_made()").ends_with(0);
    perform("cpu(0).call_many([0], nowait).wait_ran(1);")
        .ends_with(1)
        .says("call 0:0:1 was made to no CPU");
    perform("cpu(0).irqs_off().wait_made();")
        .ends_with(1)
        .says("CPU 0 has done irqs-off, which made no call");
}

#[test]
fn a_parameter_that_nobody_asked_for_is_told() {
    let default = "expect(param(\"away\", \"stall\") == \"stall\", \"the default\");";
    perform_with("--param awya=wire", default)
        .ends_with(0)
        .says("the script did not ask for the parameter awya; did you mean \"away\"?");
    // When it stops, the more so.
    let stops = "expect(param(\"times\", \"1\") == \"3\", \"three\");";
    perform_with("--param tims=3", stops)
        .ends_with(1)
        .says("did you mean \"times\"?");
}

#[test]
fn an_endless_script_is_ended() {
    let run = perform("cpus(); let n = 0; while true { n += 1; }");
    run.ends_with(5).says("is it endless?").says("CPUs 0-1: ");
}

#[test]
fn a_signal_ends_script_and_machine_with_a_report() {
    need_kvm();
    let script = script(
        "limit(600); cpu(1).pause(); cpu(0).hold_at(\"queue.visit\"); print(\"now\"); \
         cpu(0).wait_held();",
    );
    let running = Vmm::boot("--vcpus 2 --append workload=puppet")
        .arg("--script")
        .arg(script.path())
        .start();
    running.wait_for("now");
    running.signal(libc::SIGINT);
    running
        .finish()
        .ends_with(130)
        .says("CPU 1: paused")
        .says("interrupted: signal 2");
}

#[test]
fn no_machine_is_booted_after_a_signal() {
    need_kvm();
    let script = script(
        "limit(600);
         let waits = || { print(\"now\"); cpu(0).hold_at(\"queue.visit\"); cpu(0).wait_held(); };
         for n in 0..2 {
             boot(#{ vcpus: 2, append: \"workload=puppet\" });
             try { waits.call(); } catch { print(\"never mind\"); }
         }",
    );
    let running = Vmm::boot("").arg("--script").arg(script.path()).start();
    running.wait_for("now");
    running.signal(libc::SIGINT);
    let run = running.finish();
    run.ends_with(130);
    assert_eq!(run.stdout.matches("CPUs up").count(), 1, "{run:?}");
}

#[test]
fn a_script_can_catch_a_failure_and_show_it() {
    perform(
        "try { cpu(7).pause(); } catch (failure) { print(`caught: ${failure}`); print(failure); }",
    )
    .ends_with(0)
    .says("\ncaught: there is no vCPU 7; this machine has vCPUs 0 to 1\nthere is no vCPU 7");
}

#[test]
fn what_a_script_leaves_held_is_let_go() {
    // CPUs that are held now, to be held at a probe, at an instruction, and an IPI on the wire.
    let leaves = "cpu(1).pause(); cpu(1).pause();
        for n in 0..2 { cpu(n).hold_at(\"single.run\"); cpu(n).hold_at(\"queue.visit\", 7); }
        try { cpu(1).break_at(\"Mailboxes::all_in\"); } catch (error) {
            expect(`${error}`.contains(\"no breakpoints\"), `${error}`);
        }
        wire.hold_all();";
    perform(leaves).ends_with(0).says("0 findings");
    // The other workloads run to their own ends.
    let script = script(leaves);
    for options in ["workload=selftest", "workload=selftest transport=wire"] {
        Vmm::boot("--vcpus 3 --watchdog 20 --timeout 60")
            .args(["--append", options, "--script"])
            .arg(script.path())
            .run()
            .ends_with(0)
            .says("each exactly once where it had to");
    }
}

#[test]
fn a_workload_of_its_own_cannot_be_told_anything() {
    need_kvm();
    let script = script("cpu(0).idle();");
    Vmm::boot("--vcpus 2 --append workload=stress")
        .arg("--script")
        .arg(script.path())
        .run()
        .ends_with(2)
        .says(":1:8: this guest's workload takes no commands");
}

#[test]
fn a_guest_that_dies_ends_its_script() {
    let dies = Code::image(|code| {
        code.out(ports::DOORBELL, Doorbell::WorkloadStarted as u32);
        code.triple_fault();
    });
    let run = perform_on(&dies, "limit(60); cpu(0).hold_at(\"x\");");
    // It may have died before the message that it has no probes.
    assert!([2, 4].contains(&run.status()), "{run:?}");
    let run = perform_on(&dies, "cpus(); while true { cpu(0).state(); }");
    run.ends_with(4)
        .says("the guest died on CPU 0: a triple fault");
}

#[test]
fn a_guest_that_never_starts_its_workload_is_waited_for_no_longer_than_said() {
    let sleeps = Code::image(Code::halt);
    let script = script("cpus();");
    need_kvm();
    let run = Vmm::new()
        .args(["--timeout", "1", "--script"])
        .arg(script.path())
        .arg(sleeps.path())
        .run();
    run.ends_with(5).says("not done after 1 s (--timeout)");
}

#[test]
fn a_script_boots_machines_of_its_own() {
    need_kvm();
    let guest = std::env::var("GUEST").expect("GUEST");
    let script = script(&format!(
        "for n in 1..4 {{
             let queue = param(\"queue\", \"none\");
             boot(#{{ guest: \"{guest}\", vcpus: n, append: `workload=puppet queue=${{queue}}` }});
             expect_eq(cpus(), n);
             expect_eq(option(\"queue\", \"\"), \"llist\");
             cpu(0).on_each(wait).wait_ran();
         }}"
    ));
    let run = Vmm::new()
        .arg("--script")
        .arg(script.path())
        .args(["--param", "queue=llist"])
        .run();
    run.ends_with(0);
    assert_eq!(
        run.stdout.matches("pass: 1 call, each").count(),
        3,
        "{run:?}"
    );
}

#[test]
fn a_script_can_watch_a_workload_that_takes_no_commands() {
    need_kvm();
    let script = script("for n in 0..20 { cpu(n % 4).pause(); cpu(n % 4).resume(); }");
    let run = Vmm::boot("--vcpus 4")
        .arg("--script")
        .arg(script.path())
        .run();
    run.ends_with(0).says("each exactly once where it had to");
}

#[test]
fn a_held_cpu_can_be_looked_at_and_stepped() {
    let run = perform(
        "cpu(1).hold_at(\"single.run\");
         let made = cpu(0).call_single(1, nowait);
         cpu(1).wait_held();
         let look = cpu(1).look();
         expect_eq(look.probe, \"single.run\");
         expect(!look.irqs_on, \"interrupts to be off in a handler\");
         expect(!made.ran_on(1), \"the call not to have run\");
         let before = look.rip;
         cpu(1).step();
         expect(cpu(1).look().rip != before, \"a step to lead somewhere\");
         cpu(1).step(3);
         made.wait_done();
         cpu(0).call_single(1, nowait);
         expect_eq(cpu(1).state(), \"held\");
         cpu(1).resume();
         made.wait_ran();",
    );
    run.ends_with(0);
}

#[test]
fn steps_are_a_cpus_own_and_leave_nothing_behind() {
    // The interrupt that announces a command is delivered when the CPU is released, and not while
    // it is stepped: its handler would return into a trap that is no longer wanted.
    let run = perform(
        "cpu(1).spin().wait_done();
         for n in 1..20 {
             cpu(1).pause();
             let told = cpu(1).call_single(0, nowait);
             cpu(1).step(n);
             expect(!cpu(1).look().pending.is_empty(), \"the interrupt to be pending still\");
             cpu(1).resume();
             told.wait_ran();
         }",
    );
    run.ends_with(0);
}

#[test]
fn a_cpu_is_stepped_through_its_sleep_and_lives() {
    // It wakes from each `hlt` for the pending interrupt, and sleeps again because there is nothing
    // to do.
    let run = perform(
        "cpu(1).idle().wait_done();
         for n in 500..520 {
             cpu(1).pause();
             let made = cpu(0).call_single(1, nowait);
             made.wait_done();
             cpu(1).step(n);
             expect(!made.ran_on(1), \"no interrupt to have come in\");
             cpu(1).resume();
             made.wait_ran();
             // Its handler is through, and has unlocked what CPU 0 calls with.
             cpu(1).idle().wait_done();
         }",
    );
    run.ends_with(0);
}

#[test]
fn a_cpu_is_held_the_nth_time_and_for_a_call() {
    let run = perform(
        "cpu(1).hold_at(\"single.run\", 3);
         let made = [];
         for n in 0..3 { made.push(cpu(0).call_single(1, nowait)); made[n].wait_done(); }
         cpu(1).wait_held();
         expect(made[1].ran_on(1) && !made[2].ran_on(1), \"two calls to have run\");
         cpu(1).resume();
         made[2].wait_ran();
         cpu(1).pause();
         let next = cpu(0).call_single(1, nowait);
         cpu(1).hold_at(\"single.run\", next);
         cpu(1).resume();
         cpu(1).wait_held();
         cpu(1).resume();",
    );
    run.ends_with(0);
}

#[test]
fn a_breakpoint_holds_or_is_refused_with_a_reason() {
    let run = perform(
        "cpu(1).break_at(\"Singles::handle\");
         let made = cpu(0).call_single(1, nowait);
         cpu(1).wait_held();
         expect(!made.ran_on(1), \"the call not to have run\");
         expect(cpu(1).look().place.contains(\"handle\"), \"CPU 1 to stand where it should\");
         cpu(1).resume();
         made.wait_ran();",
    );
    if run.status() == 2 {
        run.says("no breakpoints that work").says("vmm probes");
    } else {
        run.ends_with(0);
    }
}

#[test]
fn ipis_on_the_wire_are_held_and_reordered_and_never_lost_by_themselves() {
    need_kvm();
    let script = script(
        "boot(#{ vcpus: 3, append: \"workload=puppet transport=wire\" });
         // Until CPU 0 answers, it may still be waking the others.
         cpu(0).idle().wait_done();
         wire.hold_all();
         let made = cpu(0).call_many([1, 2], nowait);
         wire.wait_held(0, 1, 1);
         wire.wait_held(0, 2, 1);
         wire.deliver(0, 2, 0);
         made.wait_ran(2);
         expect(!made.ran_on(1), \"an IPI that is held to do nothing\");
         wire.delay(0, 1, 20);
         made.wait_ran(1);
         wire.hold(0, 1);
         let lost = cpu(0).call_single(1, nowait);
         wire.wait_held(0, 1, 1);
         if param(\"lose\", \"no\") == \"yes\" {
             wire.lose(0, 1, 0);
             must_break(\"lost\");
             may_break(\"left-locked\"); may_break(\"broken-queue\"); may_break(\"accounting\");
         }",
    );
    let run = |lose: &str| {
        Vmm::boot("")
            .arg("--script")
            .arg(script.path())
            .args(["--param", lose])
            .run()
    };
    run("lose=no")
        .ends_with(1)
        .says("the wire still holds 1 IPIs");
    run("lose=yes").ends_with(0).says("as expected: lost");
}

#[test]
fn a_guest_for_another_monitor_is_not_told_anything() {
    let sound = Code::image(|code| {
        code.out(ports::DOORBELL, Doorbell::WorkloadStarted as u32);
        code.exit(ExitCode::Pass);
    });
    perform_on(&sound, "").ends_with(0);
}

/// An INIT takes effect when its CPU is released, and not while the CPU is stalled.
#[test]
fn a_paused_cpu_stays_as_it_is_while_it_is_started_anew() {
    need_kvm();
    let run = perform(
        r#"
        boot(#{ vcpus: 3, append: "workload=puppet" });
        cpu(0).offline(2).wait_done();
        cpu(2).pause();
        let before = cpu(2).look();
        let on = cpu(0).online(2);
        for i in 0..20 {
            let now = cpu(2).look();
            expect_eq(now.rip, before.rip, `look ${i}`);
            expect_eq(now.rsp, before.rsp, `look ${i}`);
            expect_eq(now.pending, before.pending, `look ${i}`);
            cpu(1).queue_order();
        }
        cpu(2).resume();
        on.wait_done();
        cpu(2).call_single(0, wait).wait_done();
        "#,
    );
    run.ends_with(0);
}

/// INIT disables a local APIC, and the CPU enables it again. What arrives in between was not lost
/// by the wire.
#[test]
fn what_a_cpu_that_is_being_started_does_not_take_is_not_called_lost() {
    need_kvm();
    let run = Vmm::scripted(
        r#"
        boot(#{ vcpus: 4, append: "workload=puppet transport=wire" });
        wire.hold(1, 2);
        let made = cpu(1).call_async(2);
        made.wait_done();
        wire.wait_held(1, 2, 1);
        cpu(0).offline(2).wait_done();
        cpu(2).pause();
        // Once there is a start-up IPI, INIT has been sent.
        wire.hold(0, 2, "sipi");
        let on = cpu(0).online(2);
        wire.wait_held(0, 2, "sipi");
        wire.release(0, 2, "sipi");
        limit(5);
        try { cpu(2).step(4); print("it has begun"); } catch (refused) { print(`${refused}`); }
        wire.release(1, 2);
        limit(10);
        cpu(2).resume();
        on.wait_done();
        "#,
    )
    .args(["--stats", "json"])
    .run();
    run.ends_with(0);
    let ipi = &run.json()["ipi"];
    assert_eq!(
        (&ipi["lost"], &ipi["to_nobody"]),
        (&0.into(), &0.into()),
        "{run}"
    );
    // A host that cannot step delivers it before the INIT, which drops it again.
    if run.stderr.contains("it has begun") {
        assert_eq!(ipi["dropped"], 1, "{run}");
    }
}

#[test]
fn a_cpu_is_printed_by_its_number() {
    let run = perform("print(cpu(1)); debug(cpu(0));");
    run.ends_with(0).says("\nCPU 1\n");
}

#[test]
fn what_is_printed_without_a_machine_goes_where_the_console_would() {
    need_kvm();
    let text = r#"print("before any machine"); boot(#{ append: "workload=selftest" });"#;
    let run = Vmm::scripted(text).args(["--stats", "json"]).run();
    run.ends_with(0);
    // Alone on standard output, where a program reads it.
    run.json();
    assert!(run.stderr.contains("before any machine"), "{run}");
    let run = Vmm::scripted(text).run();
    run.ends_with(0);
    assert!(run.stdout.starts_with("before any machine\n"), "{run}");
}
