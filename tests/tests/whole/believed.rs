//! That the verdicts of a search are right: cases in which one was once wrong, checks of the
//! assumptions behind the searches, and the reference search, with which `tests/plants` compares
//! searches too.

use tests::{explore_image, guest, is_long, need_kvm};

use super::explore::{COMPLETE, SHRINKING_MASK, Workspace, counts};

#[test]
fn interrupts_that_are_off_for_a_while_can_be_explored() {
    need_kvm();
    for case in [
        "cpus 2\n0: irqs-off; irqs-on\n",
        "cpus 2\n0: irqs-off; single 0 wait; irqs-on\n1: single 0\n",
        "cpus 2\n0: irqs-off\n1: single 0\n",
    ] {
        let workspace = Workspace::with(case);
        for strategy in ["exhaustive", "races"] {
            let run = workspace.explore(&format!("--strategy {strategy}")).run();
            run.ends_with(0).says(COMPLETE);
        }
    }
    // A caller that waits for a CPU which never takes the call waits for ever.
    let workspace = Workspace::with("cpus 2\n0: irqs-off\n1: single 0 wait\nexpect hang\n");
    workspace
        .explore("")
        .run()
        .ends_with(0)
        .says("as expected: ");
}

#[test]
fn who_waits_at_named_points_does_not_hang() {
    need_kvm();
    for case in [
        "cpus 3\n0: many 1,2 wait\n",
        // Two CPUs that wait at once.
        "cpus 2\n0: single 1 wait\n1: single 0 wait\n",
    ] {
        let workspace = Workspace::with(case);
        // An image with named points has the same of them whether it stops before accesses too.
        let images = match is_long() {
            true => vec![explore_image(), guest()],
            false => vec![guest()],
        };
        for image in images {
            let run = |options: &str| workspace.explore_on(&image, options).run();
            run("--granularity probe --strategy exhaustive")
                .ends_with(0)
                .says("complete (sequentially consistent, at every probe)");
            // A few orders: in each, a CPU that waits runs on until the alarm, a fifth of a second.
            run("--granularity probe --strategy random --runs 2")
                .ends_with(0)
                .says("none of 2 orders broke anything");
        }
    }
    // The reference search finds endless waits too.
    let workspace = Workspace::with("cpus 2\n0: irqs-off\n1: single 0 wait\nexpect hang\n");
    workspace
        .explore_on(&guest(), "--granularity probe --strategy exhaustive")
        .run()
        .ends_with(0)
        .says("as expected: ");
}

#[test]
fn states_that_are_taken_for_the_same_lead_to_the_same() {
    need_kvm();
    let workspace = Workspace::with(SHRINKING_MASK);
    let queues: &[&str] = match is_long() {
        true => &["filo", "counters", "llist"],
        false => &["llist"],
    };
    for queue in queues {
        let options = format!("--strategy exhaustive --check-keys --append queue={queue}");
        workspace
            .explore(&options)
            .run()
            .ends_with(0)
            .says(COMPLETE)
            .says("steps from states met again led where they had led before");
    }
    workspace
        .explore("--check-keys")
        .run()
        .ends_with(2)
        .complains_of("--check-keys is for --strategy exhaustive");
}

#[test]
fn any_number_of_machines_comes_to_the_states_of_one() {
    need_kvm();
    let workspace = Workspace::with("cpus 2\n0: single 0\n1: single 0; single 0\n");
    let states = |options: &str| {
        let options = format!("--append queue=filo --strategy exhaustive {options}");
        let run = workspace
            .explore(&options)
            .arg("--result")
            .arg(workspace.path("one"))
            .run();
        run.ends_with(0).says(COMPLETE);
        counts(&workspace, "one")["states"].as_u64()
    };
    let alone = states("");
    for jobs in [2, 3, 4] {
        assert_eq!(states(&format!("--jobs {jobs}")), alone, "{jobs}");
    }
}

#[test]
fn the_reference_says_all_that_can_break_and_is_for_accesses_only() {
    need_kvm();
    let workspace = Workspace::with("cpus 2\n0: single 1\n");
    let run = workspace.explore("--strategy reference").run();
    run.ends_with(0).says(COMPLETE);
    let workspace = Workspace::with("cpus 2\n0: irqs-off\n1: single 0 wait\n");
    let run = workspace.explore("--strategy reference").run();
    run.ends_with(1)
        .says("broken, in some order each: hang (expected: nothing to break)");
    // A search that was cut off says so.
    let workspace = Workspace::with("cpus 2\n0: irqs-off; single 1\n1: single 0 wait\n");
    let cut_off = workspace
        .explore("--strategy reference --max-states 200")
        .run();
    cut_off
        .ends_with(1)
        .says("broken, in some order each: contract, and perhaps more: there were too many states");
    let whole = workspace.explore("--strategy reference").run();
    whole
        .ends_with(1)
        .says("broken, in some order each: contract (expected");
    workspace
        .explore("--strategy reference --granularity probe")
        .run()
        .ends_with(2)
        .complains_of("--strategy reference is for --granularity access only");
}
