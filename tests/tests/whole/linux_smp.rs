//! Linux's own kernel/smp.c as a guest, of both versions that `make linux-images` builds: on real vCPUs, told what to do
//! or by its workloads, and searched.
//! Where these images could not be built, there is nothing to test.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;
use tests::{Run, Vmm, guest, is_long, need_kvm, skip, vcpus};

use super::explore::{COMPLETE, COMPLETE_SC, Workspace};
use super::stress::number;

/// The images of this name, of each version that is there.
fn images(name: &str) -> Vec<PathBuf> {
    let of = |version: &str| guest().with_file_name(format!("linux-{version}{name}.bin"));
    let all = ["6.1", "6.12"].map(|version| (version, of(version)));
    let there = all.into_iter().filter(|(version, image)| {
        let is_there = image.is_file();
        if !is_there {
            skip(&format!(
                "Linux {version}: there is no image of its kernel/smp.c; make linux-images says why"
            ));
        }
        is_there
    });
    there.map(|(_, image)| image).collect()
}

/// Searches `case` with these options on the newest version, or on each where LONG is set.
fn search(case: &str, options: &str, look: impl Fn(&Run)) {
    need_kvm();
    let mut images = images("-explore");
    if !is_long() {
        images.drain(..images.len().saturating_sub(1));
    }
    for image in images {
        look(&Workspace::with(case).explore_on(&image, options).run());
    }
}

fn completes(case: &str, options: &str) {
    search(case, options, |run| {
        run.ends_with(0).says(COMPLETE);
    });
}

/// `docs/linux-smp.md` says what this is.
#[test]
fn its_one_data_race_is_that_of_the_type_of_an_irq_work_that_another_cpu_claims() {
    let options = "--data-races report --strategy races --shorten 1s";
    search("cpus 3\n0: wish 2\n1: wish 2", options, |run| {
        run.ends_with(0)
            .says("; 2 data races\n")
            .says("plain load at guest-in-c/linux/kernel/smp.c:")
            .says("and rmw at guest-in-c/linux/kernel/irq_work.c:");
    });
    search("cpus 3\n0: many 1,2 wait\n1: single 2", options, |run| {
        run.ends_with(0).says("; no data race\n");
    });
}

#[test]
fn its_calls_run_once_on_machines_of_any_size() {
    need_kvm();
    let script = r#"
        for round in 0..2 {
            for deed in 0..7 {
                let told = [];
                for n in 0..cpus() {
                    let next = (n + 1 + round) % cpus();
                    let both = [next, (next + 1) % cpus()];
                    let waits = if (round + n) % 2 == 0 { wait } else { nowait };
                    let c = cpu(n);
                    told.push(switch deed {
                        0 => c.call_single(next, waits),
                        1 => c.call_many(both, waits),
                        2 => c.call_all(waits),
                        3 => c.on_each(waits),
                        4 => c.call_any(both, waits),
                        5 => c.call_async(next),
                        _ => c.tell(`irq-work ${next}`),
                    });
                }
                for one in told { one.wait_done(); }
                // A descriptor or a work of one's own is free again once what it was for has run.
                for n in 0..cpus() { cpu(n).call_all(wait).wait_done(); }
            }
        }
    "#;
    for image in images("") {
        for vcpus in vcpus().into_iter().filter(|vcpus| *vcpus > 1) {
            let told = format!("--vcpus {vcpus} --append workload=puppet");
            let run = Vmm::with(&told).script(script);
            run.arg(&image).run().ends_with(0).says("pass: ");
        }
    }
}

/// The report on a run of a workload that has to pass.
fn passes(image: &Path, vcpus: u32, words: &str) -> Value {
    let run = Vmm::with(&format!("--stats json --vcpus {vcpus}"))
        .args(["--append", words])
        .arg(image)
        .run();
    run.ends_with(0);
    let report = run.json();
    assert_eq!(report["findings_made"], 0, "{report:#}");
    report
}

#[test]
fn its_selftest_calls_every_pair_on_machines_of_any_size() {
    need_kvm();
    for image in images("") {
        for vcpus in vcpus() {
            let report = passes(&image, vcpus, "calls=2");
            assert_eq!(report["provenance"]["words"]["workload"], "selftest");
            // Each CPU: every CPU twice, its neighbour, two sets, all and each twice, and itself.
            let made = u64::from(vcpus) * (2 * u64::from(vcpus) + 1 + 2 + 4 + 1);
            assert_eq!(number(&report, "/calls/made"), made, "{report:#}");
            // Interrupts at its vectors are counted: few IPIs find another pending.
            let ipi = |key: &str| number(&report, &format!("/ipi/{key}"));
            assert!(2 * ipi("received") >= ipi("targets"), "{report:#}");
        }
    }
}

/// A run whose CPUs do what the script says.
fn told(image: &Path, vcpus: u32, script: &str) -> Run {
    let run = Vmm::with(&format!("--vcpus {vcpus} --append workload=puppet")).script(script);
    run.arg(image).run()
}

#[test]
fn a_script_sees_where_its_calls_have_run() {
    need_kvm();
    let script = r#"
        cpu(1).irqs_off().wait_done();
        let made = cpu(0).call_many([1, 2], nowait);
        made.wait_ran(2);
        expect(!made.ran_on(1), "a CPU with its interrupts off to run nothing");
        expect(made.targets() == [1, 2], "the call to be made to both");
        cpu(1).irqs_on();
        made.wait_ran();
        cpu(0).offline(1).wait_done();
        let made = cpu(0).call_all(nowait);
        made.wait_ran();
        expect(made.targets() == [2], "a CPU that is offline not to be called");
    "#;
    for image in images("") {
        told(&image, 3, script).ends_with(0).says("pass");
    }
}

#[test]
fn its_cpus_are_held_at_points_and_at_functions_of_the_kernel() {
    need_kvm();
    let at_a_point = r#"
        cpu(1).hold_at("call.run");
        let made = cpu(0).call_single(1, nowait);
        cpu(1).wait_held();
        cpu(1).resume();
        made.wait_done();
    "#;
    let at_a_function = r#"
        cpu(1).break_at("generic_smp_call_function_single_interrupt");
        let made = cpu(0).call_single(1, nowait);
        cpu(1).wait_held();
        expect(cpu(1).look().place.contains("generic_smp_call"), "CPU 1 to stand there");
        cpu(1).resume();
        made.wait_done();
    "#;
    for image in images("") {
        let told = |script: &str| told(&image, 2, script);
        told(at_a_point).ends_with(0).says("pass");
        let run = told(at_a_function);
        // Not every host has breakpoints that work.
        if run.status() == 2 {
            run.says("no breakpoints that work").says("vmm probes");
        } else {
            run.ends_with(0).says("pass");
        }
    }
}

#[test]
fn a_trace_has_its_calls_and_the_waits_for_its_csds() {
    need_kvm();
    let folder = TempDir::new().expect("a temporary directory");
    let trace = folder.path().join("trace");
    for image in images("") {
        let run = Vmm::with("--vcpus 2 --append calls=2 --trace")
            .arg(&trace)
            .arg(&image);
        run.run()
            .ends_with(0)
            .says("call to last run: p50 ")
            .says("csd wait: p50 ");
    }
}

#[test]
fn its_stress_passes_and_equal_seeds_make_equal_calls() {
    need_kvm();
    for image in images("") {
        let drawn = |seed: u64| {
            let words = format!("workload=stress calls=40 seed={seed} weight_onoff=0");
            let report = passes(&image, 3, &words);
            assert_eq!(
                report["provenance"]["words"]["weight_single_rpc"], "6",
                "{report:#}"
            );
            assert_eq!(number(&report, "/calls/made"), 120);
            number(&report, "/calls/expected")
        };
        let first = drawn(7);
        assert_eq!(first, drawn(7));
        assert!((8..13).any(|seed| drawn(seed) != first));
    }
}

#[test]
fn a_weight_of_its_stress_decides_what_is_called() {
    need_kvm();
    for image in images("") {
        for (weight, targets) in [("single_rpc", 1), ("all_wait", 3), ("each", 4)] {
            let report = passes(
                &image,
                4,
                &format!("workload=stress calls=9 weight_{weight}=1"),
            );
            assert_eq!(
                report["provenance"]["words"]["weight_single"], "0",
                "{report:#}"
            );
            assert_eq!(number(&report, "/calls/expected"), 36 * targets, "{weight}");
        }
        let nothing = "workload=stress weight_single=0 weight_single_rpc=0 weight_single_wait=0 weight_many=0 \
            weight_many_wait=0 weight_all=0 weight_all_wait=0 weight_each=0 weight_each_wait=0 weight_onoff=0";
        let run = Vmm::with("--vcpus 2")
            .args(["--append", nothing])
            .arg(&image)
            .run();
        run.ends_with(2).says("all weight_ are 0");
    }
}

#[test]
fn cpus_leave_and_come_while_others_call_them() {
    need_kvm();
    for image in images("") {
        for vcpus in vcpus() {
            let words = "workload=stress calls=60 weight_onoff=1 weight_single=2 weight_many=2 weight_each_wait=1";
            let report = passes(&image, vcpus, words);
            assert_eq!(report["provenance"]["words"]["late-ipis"], "off");
            let down = number(&report, "/hotplug/taken_down");
            assert_eq!(down > 0, vcpus > 1, "{report:#}");
            assert_eq!(number(&report, "/hotplug/brought_up"), down);
        }
        // Those that were not started at boot do their part too.
        let report = passes(&image, 4, "workload=stress calls=20 maxcpus=1");
        assert!(number(&report, "/hotplug/brought_up") >= 3, "{report:#}");
    }
}

#[test]
fn its_stress_goes_on_for_the_time_it_is_given() {
    need_kvm();
    for image in images("").into_iter().take(1) {
        let report = passes(&image, 2, "workload=stress for=200ms");
        let seconds = report["run_seconds"].as_f64().expect("a time");
        assert!(seconds >= 0.2, "{seconds}");
    }
}

#[test]
fn its_ipis_and_calls_are_measured_in_the_same_lines_as_ours() {
    need_kvm();
    let cells = |image: &Path, queue: &[&str]| {
        let directory = TempDir::new().expect("a temporary directory");
        let path = directory.path().join("costs.json");
        let lines = "bench --vcpus 3 --by call --receiver halted --rounds 8 --runs 1 --json";
        let run = Vmm::with(lines).arg(&path).args(queue).arg(image).run();
        run.ends_with(0);
        let text = fs::read_to_string(&path).expect("figures were written");
        let report: Value = serde_json::from_str(&text).expect("they are JSON");
        let measured = report["cells"].as_array().expect("lines").clone();
        let of_cell = |line: &Value| {
            let rounds = line.pointer("/result/Ok/all/count");
            assert_eq!(rounds.and_then(Value::as_u64), Some(8), "{line:#}");
            ["by", "to", "receiver", "transport", "queue"].map(|key| line["cell"][key].clone())
        };
        measured.iter().map(of_cell).collect::<Vec<_>>()
    };
    for image in images("").into_iter().take(1) {
        let ours = cells(&guest(), &["--queue", "llist"]);
        let theirs = cells(&image, &["--queue", "llist"]);
        assert_eq!(ours, theirs);
        assert!(theirs.iter().any(|line| line[1] == "all"), "{theirs:?}");
    }
}

#[test]
fn it_is_complete_where_it_calls_one_cpu_and_several() {
    completes(
        "cpus 2\n0: single 1 wait; single 1\n1: single 0",
        "--strategy races",
    );
    completes("cpus 3\n0: many 1,2 wait\n1: single 2", "--strategy races");
    completes(
        "cpus 2\n0: async 1; irq-work 0\n1: single 0",
        "--strategy races",
    );
    completes("cpus 2\n0: each wait; any 1", "--strategy exhaustive");
    // By the reference, which leaves nothing out.
    completes("cpus 2\n0: single 1 wait", "--strategy reference");
}

/// The cases whose `expect` lines name the queues of the other guest.
const OF_QUEUES: [&str; 2] = [
    include_str!("../../../scenarios/explore/lost-call.case"),
    include_str!("../../../scenarios/explore/deleted-first.case"),
];

#[test]
fn what_is_expected_of_the_other_guests_queues_is_not_held_against_it() {
    for case in OF_QUEUES {
        search(case, "--strategy races --max-states 10", |run| {
            run.ends_with(5).says("and nothing had broken by then");
        });
    }
}

/// It has no second walk in which a CPU could stand on an element: each CPU has a queue of its own.
#[test]
#[ignore = "a minute: make test-long"]
fn it_loses_no_call_of_2009_and_finds_none_deleted_first() {
    for case in OF_QUEUES {
        completes(case, "--strategy races --jobs 2");
    }
}

/// By the file's own WARN: a call that waits must not be made with interrupts off.
#[test]
fn it_warns_of_a_call_with_interrupts_off() {
    search(
        "cpus 2\n0: irqs-off; single 1 wait; irqs-on\nexpect contract",
        "",
        |run| {
            run.ends_with(0)
                .says("as expected: contract")
                .says("by the kernel's own WARN");
        },
    );
}

/// So too in the function of a call, which the deeds in braces are done by.
#[test]
fn it_warns_of_a_call_that_waits_in_the_function_of_one() {
    search(
        "cpus 2\n0: single 0 wait { single 1 wait }\nexpect contract",
        "",
        |run| {
            run.ends_with(0).says("as expected: contract");
        },
    );
}

/// By the functions that the file has for this, with real INIT and start-up IPIs.
#[test]
fn it_is_complete_where_a_cpu_leaves_and_comes() {
    completes(
        "cpus 2\n0: single 1; offline 1; single 1 wait; online 1; single 1 wait",
        "--strategy races",
    );
    completes(
        "cpus 2\nappend maxcpus=1\n0: single 1; online 1; any 1 wait",
        "--strategy races",
    );
}

#[test]
#[ignore = "half a minute: make test-long"]
fn it_is_complete_where_a_cpu_that_calls_leaves_and_no_ipi_is_late() {
    for case in [
        "cpus 2\n0: offline 1\n1: single 0",
        "cpus 3\n0: offline 2\n2: many 1",
    ] {
        completes(case, "--strategy races --append late-ipis=off");
    }
    completes(
        include_str!("../../../scenarios/explore/gone-and-back.case"),
        "--strategy races",
    );
}

/// A stop of the machine waits for no IPI, and `smpcfd_dead_cpu()` frees what the called CPU still has in its queue.
#[test]
fn a_late_ipi_lets_a_cpu_that_leaves_free_what_is_in_use() {
    let case = "cpus 3\n0: offline 2\n2: many 1\nexpect use-after-free";
    search(case, "--memory sc", |run| {
        run.ends_with(0).says("as expected: use-after-free");
    });
}

/// A CPU that leaves while another one may be calling it: what the stop is for.
#[test]
fn without_a_stop_a_call_to_a_cpu_that_leaves_is_lost() {
    let case = "cpus 3\n0: offline 2\n1: single 2\nexpect lost";
    search(case, "--append hotplug=no-stop", |run| {
        run.ends_with(0).says("as expected: ");
    });
}

/// The mask and the condition change meanwhile, and the call is made to some of these CPUs only.
#[test]
fn it_is_complete_where_a_mask_or_a_condition_changes() {
    completes("cpus 3\n0: cond 0-2 0 wait\n1: set 0 5", "--strategy races");
    completes("cpus 2\n0: many 1\n1: leave-mask 0", "--strategy races");
}

/// The ledger follows what the condition has said.
#[test]
fn a_call_with_a_condition_runs_where_it_held() {
    let case =
        "cpus 2\n0: cond 1 0 wait\n1: set 0 2\nreach ran 0:0:1 on 1\nreach not ran 0:0:1 on 1";
    completes(case, "--strategy races");
}

#[test]
fn it_is_complete_where_a_task_is_woken_twice() {
    completes("cpus 2\n0: wake 0 1; wake 0 1", "--strategy races");
    completes("cpus 3\n0: wake 0 2\n1: wake 0 2", "--strategy races");
}

/// `-EBUSY` says that the function has yet to run, and not that it will see what has been stored before.
#[test]
fn who_relies_on_a_csd_that_is_in_use_needs_a_barrier() {
    let case = "cpus 2\n0: kick 1; kick 1\n";
    search(&format!("{case}expect unserved"), "", |run| {
        run.ends_with(0).says("as expected: unserved");
    });
    search(case, "--strategy races --memory sc", |run| {
        run.ends_with(0).says(COMPLETE_SC);
    });
}

#[test]
fn the_cases_of_kernels_deadlocks_come_out_as_in_the_other_guest() {
    for (case, found) in [
        (
            include_str!("../../../scenarios/explore/call-from-timer.case"),
            "as expected: contract",
        ),
        (
            include_str!("../../../scenarios/explore/lock-across-call.case"),
            "as expected: hang",
        ),
        (
            include_str!("../../../scenarios/explore/lock-across-offline.case"),
            "as expected: hang",
        ),
        (
            include_str!("../../../scenarios/explore/lock-across-call-mended.case"),
            "complete (",
        ),
    ] {
        search(case, "", |run| {
            run.ends_with(0).says(found);
        });
    }
}

#[test]
fn a_cpu_that_is_online_before_it_has_started_loses_a_call() {
    search(
        include_str!("../../../scenarios/explore/call-while-coming.case"),
        "--append hotplug=online-first",
        |run| {
            run.ends_with(0).says("as expected: hang");
        },
    );
}
