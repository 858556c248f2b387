//! What a search says can be believed: cases in which it once said what was not so, checks of what
//! its searches rest on, and the reference search, which the planted bugs are held against as well
//! (`tests/plants`).

use tests::{explore_image, guest, need_kvm};

use super::explore::{COMPLETE, Desk, SHRINKING_MASK, counts};

#[test]
fn interrupts_that_are_off_for_a_while_can_be_explored() {
    need_kvm();
    for case in [
        "cpus 2\n0: irqs-off; irqs-on\n",
        "cpus 2\n0: irqs-off; single 0 wait; irqs-on\n1: single 0\n",
        "cpus 2\n0: irqs-off\n1: single 0\n",
    ] {
        let desk = Desk::with(case);
        for strategy in ["exhaustive", "races"] {
            let run = desk.explore(&format!("--strategy {strategy}")).run();
            run.ends_with(0).says(COMPLETE);
        }
    }
    // Who waits for a CPU that never takes the call waits for ever.
    let desk = Desk::with("cpus 2\n0: irqs-off\n1: single 0 wait\nexpect hang\n");
    desk.explore("").run().ends_with(0).says("as expected: ");
}

#[test]
fn who_waits_at_named_points_does_not_hang() {
    need_kvm();
    for case in [
        "cpus 2\n0: single 1 wait\n",
        "cpus 3\n0: many 1,2 wait\n",
        // Two that wait at once.
        "cpus 2\n0: single 1 wait\n1: single 0 wait\n",
    ] {
        let desk = Desk::with(case);
        for image in [explore_image(), guest()] {
            let run = |options: &str| desk.explore_on(&image, options).run();
            run("--granularity probe --strategy exhaustive")
                .ends_with(0)
                .says("complete (sequentially consistent, at every probe)");
            run("--granularity probe --strategy random --runs 20")
                .ends_with(0)
                .says("none of 20 orders broke anything");
        }
    }
    // That a wait can be for ever is seen there too.
    let desk = Desk::with("cpus 2\n0: irqs-off\n1: single 0 wait\nexpect hang\n");
    desk.explore_on(&guest(), "--granularity probe --strategy exhaustive")
        .run()
        .ends_with(0)
        .says("as expected: ");
}

#[test]
fn states_that_are_taken_for_the_same_lead_to_the_same() {
    need_kvm();
    let desk = Desk::with(SHRINKING_MASK);
    for queue in ["filo", "counters", "llist"] {
        let options = format!("--strategy exhaustive --check-keys --append queue={queue}");
        desk.explore(&options)
            .run()
            .ends_with(0)
            .says(COMPLETE)
            .says("steps from states met again led where they had led before");
    }
    desk.explore("--check-keys")
        .run()
        .ends_with(2)
        .complains_of("--check-keys is for --strategy exhaustive");
}

#[test]
fn any_number_of_processes_comes_to_the_states_of_one() {
    need_kvm();
    let desk = Desk::with("cpus 2\n0: single 0\n1: single 0; single 0\n");
    let states = |options: &str| {
        let options = format!("--append queue=filo --strategy exhaustive {options}");
        let run = desk
            .explore(&options)
            .arg("--result")
            .arg(desk.path("one"))
            .run();
        run.ends_with(0).says(COMPLETE);
        counts(&desk, "one")["states"].as_u64()
    };
    let alone = states("");
    for jobs in [2, 3, 4] {
        assert_eq!(states(&format!("--jobs {jobs}")), alone, "{jobs}");
    }
}

#[test]
fn the_reference_says_all_that_can_break_and_is_for_accesses_only() {
    need_kvm();
    let desk = Desk::with("cpus 2\n0: single 1\n");
    let run = desk.explore("--strategy reference").run();
    run.ends_with(0).says(COMPLETE);
    let desk = Desk::with("cpus 2\n0: irqs-off\n1: single 0 wait\n");
    let run = desk.explore("--strategy reference").run();
    run.ends_with(1)
        .says("broken, in some order each: hang (expected: nothing to break)");
    // One that was cut off says so.
    let desk = Desk::with("cpus 2\n0: irqs-off; single 1\n1: single 0 wait\n");
    let cut_off = desk.explore("--strategy reference --max-states 200").run();
    cut_off
        .ends_with(1)
        .says("broken, in some order each: contract, and perhaps more: there were too many states");
    let whole = desk.explore("--strategy reference").run();
    whole
        .ends_with(1)
        .says("broken, in some order each: contract (expected");
    desk.explore("--strategy reference --granularity probe")
        .run()
        .ends_with(2)
        .complains_of("--strategy reference is for --granularity access only");
}
