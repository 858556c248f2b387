//! Linux's own kernel/smp.c as a guest, of both versions that `make linux-images` builds: on real vCPUs, and searched.
//! Where these images could not be built, there is nothing to test.

use std::path::PathBuf;

use tests::{Run, Vmm, guest, need_kvm, skip, vcpus};

use super::explore::{COMPLETE, Workspace};

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

/// Searches `case` with these options on each version.
fn search(case: &str, options: &str, look: impl Fn(&Run)) {
    need_kvm();
    for image in images("-explore") {
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
            let run = Vmm::with(&format!("--vcpus {vcpus}")).script(script);
            run.arg(&image).run().ends_with(0).says("pass: ");
        }
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

/// It has no second walk in which a CPU could stand on an element: each CPU has a queue of its own.
#[test]
#[ignore = "a minute: make test-long"]
fn it_loses_no_call_of_2009_and_finds_none_deleted_first() {
    for case in [
        include_str!("../../../scenarios/explore/lost-call.case"),
        include_str!("../../../scenarios/explore/deleted-first.case"),
    ] {
        completes(case, "--strategy races --jobs 2");
    }
}

/// By the file's own WARN: a call that waits must not be made with interrupts off.
#[test]
fn it_warns_of_a_call_with_interrupts_off() {
    search(
        "cpus 2\n0: irqs-off; single 1 wait; irqs-on\nexpect warned",
        "",
        |run| {
            run.ends_with(0)
                .says("as expected: warned")
                .says("in the kernel's code");
        },
    );
}
