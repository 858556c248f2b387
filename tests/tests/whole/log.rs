//! `--log`: what the command says on standard error of what it does, and that it says nothing
//! without it.

use tests::{Run, Vmm, need_kvm};

const AT_ONCE: &str = include_str!("../../../scenarios/sum/at-once.case");

/// The lines of the log, each without its time. What the command says without a log too begins with
/// its name.
fn logged(run: &Run) -> Vec<&str> {
    let lines = run.stderr.lines().filter(|line| !line.starts_with("vmm: "));
    lines
        .filter_map(|line| {
            let (time, rest) = line.split_once(' ')?;
            assert!(time.ends_with('Z') && time.contains('T'), "no time: {line}");
            Some(rest.trim_start())
        })
        .collect()
}

#[track_caller]
fn says(run: &Run, level: &str, thread: &str, what: &str) {
    let is_so = |line: &&&str| {
        line.starts_with(level) && line.contains(&format!(" {thread} ")) && line.contains(what)
    };
    assert!(
        logged(run).iter().any(|line| is_so(&line)),
        "no {level} of {thread} with \"{what}\":\n{run}"
    );
}

#[test]
fn the_stages_of_a_run_are_logged_with_time_and_thread() {
    need_kvm();
    let run = Vmm::boot("--log info --vcpus 2").run();
    run.ends_with(0);
    let image = tests::guest().display().to_string();
    says(&run, "INFO", "main", &image);
    says(&run, "INFO", "main", "machine built");
    says(&run, "INFO", "main", "run ended");
    assert!(!run.stderr.contains("DEBUG"), "{run}");
    // The report is where it always is.
    run.says("pass: ");
}

#[test]
fn threads_and_kicks_are_logged_when_asked_for() {
    need_kvm();
    let run = Vmm::boot("--log debug --vcpus 2 --stall cpu=1,at=0s,for=1ms").run();
    run.ends_with(0);
    for vcpu in ["vcpu0", "vcpu1"] {
        says(&run, "DEBUG", vcpu, "vCPU thread starts");
        says(&run, "DEBUG", vcpu, "vCPU thread ends");
    }
    assert!(run.stderr.contains("kick"), "{run}");
}

#[test]
fn a_file_that_is_written_is_logged() {
    need_kvm();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let trace = folder.path().join("trace.json");
    let run = Vmm::with("--log info --trace")
        .arg(&trace)
        .arg(tests::guest())
        .run();
    run.ends_with(0);
    says(&run, "INFO", "main", &trace.display().to_string());
}

#[test]
fn the_phases_of_a_search_are_logged() {
    need_kvm();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let case = folder.path().join("at-once.case");
    std::fs::write(&case, AT_ONCE).expect("room for a case");
    let run = Vmm::with("explore --log info")
        .arg(&case)
        .arg(tests::other_image("sum-explore.bin"))
        .run();
    run.ends_with(0);
    says(&run, "INFO", "main", &case.display().to_string());
    says(&run, "INFO", "main", "specimen booted");
    says(&run, "INFO", "main", "search begins");
    says(&run, "INFO", "main", "search ended");
}

#[test]
fn nothing_is_logged_that_was_not_asked_for() {
    need_kvm();
    let run = Vmm::boot("--vcpus 2").run();
    run.ends_with(0);
    assert_eq!(run.stderr, "", "{run}");
    Vmm::boot("--log loud")
        .run()
        .ends_with(2)
        .complains_of("loud");
}

#[test]
fn a_log_that_cannot_be_written_ends_nothing() {
    need_kvm();
    let mut vmm = Vmm::boot("--log trace --vcpus 2");
    let full = std::fs::File::create("/dev/full").expect("a device that is full");
    vmm.command().stderr(full);
    vmm.run().ends_with(0).says("pass: ");
}
