//! vCPUs that are kept out of the guest: their calls are late but not lost, a machine that waits
//! for them is not reported as hung, and a request to end the run does not wait for them.
//!
//! `STALL_SOAK` is the number of pauses in the soak test; a hundred thousand take some minutes.

use std::env;
use std::time::{Duration, Instant};

use serde_json::Value;
use shared::exit::ExitCode;
use shared::ports::{self, Doorbell};
use tempfile::TempDir;
use tests::image::{Code, Image};
use tests::{Run, Running, Vmm, need_kvm};

/// Time from a signal to the end. Pausing vCPUs takes up to a second on a busy host.
const TIME_LIMIT: Duration = Duration::from_secs(20);

/// The guest under test, with the report as JSON.
fn selftest(vcpus: u32, options: &str, stalls: &[&str]) -> Vmm {
    Vmm::boot(&format!("--stats json --vcpus {vcpus}"))
        .args(["--append", options])
        .args(stalls)
}

fn passes(run: &Run) -> Value {
    run.ends_with(0);
    let report = run.json();
    for count in ["findings_made", "breaches_made", "open_calls_made"] {
        assert_eq!(report[count], 0, "{report:#}");
    }
    assert_eq!(
        number(&report, "/calls/executed"),
        number(&report, "/calls/expected")
    );
    report
}

fn number(report: &Value, pointer: &str) -> u64 {
    let value = report.pointer(pointer).and_then(Value::as_u64);
    value.unwrap_or_else(|| panic!("{pointer} is no count in {report:#}"))
}

fn seconds(report: &Value, pointer: &str) -> f64 {
    let value = report.pointer(pointer).and_then(Value::as_f64);
    value.unwrap_or_else(|| panic!("{pointer} is no number in {report:#}"))
}

/// A guest that announces its workload and then does something.
fn announced(then: impl FnOnce(&mut Code)) -> Image {
    Code::image(|code| {
        code.out(ports::DOORBELL, Doorbell::WorkloadStarted as u32);
        then(code);
    })
}

#[test]
fn a_stalled_machine_passes() {
    need_kvm();
    for vcpus in [2, 4, 16] {
        let run = selftest(
            vcpus,
            "seed=7",
            &[
                "--stall",
                "cpu=1,at=0s,for=300ms",
                "--stall=at=1ms,for=200ms,cpu=0",
            ],
        )
        .run();
        let report = passes(&run);
        assert_eq!(number(&report, "/stalls/count"), 2, "{report:#}");
        for (index, length) in [0.2, 0.3].into_iter().enumerate() {
            let stalled = format!("/stalls/per_vcpu/{index}");
            assert_eq!(number(&report, &format!("{stalled}/id")), index as u64);
            let away = seconds(&report, &format!("{stalled}/away_seconds"));
            assert!((length..length + 10.0).contains(&away), "{report:#}");
        }
        assert!(seconds(&report, "/run_seconds") >= 0.3, "{report:#}");
        assert_eq!(report["stalls"]["missed"], serde_json::json!([]));
    }
}

#[test]
fn stalls_of_one_vcpu_that_overlap_make_one() {
    need_kvm();
    let run = selftest(
        2,
        "seed=7",
        &[
            "--stall=cpu=1,at=0s,for=300ms",
            "--stall=cpu=1,at=100ms,for=400ms",
            "--stall=cpu=1,at=150ms,for=10ms",
        ],
    )
    .run();
    let report = passes(&run);
    assert_eq!(number(&report, "/stalls/count"), 1, "{report:#}");
    // A stall lasts from when it is confirmed; at least the longest of them lasts that long.
    let away = seconds(&report, "/stalls/away_seconds");
    assert!(away >= 0.4, "{report:#}");
    // And the run ends no earlier than the last of them, counted from the start of the workload.
    assert!(seconds(&report, "/run_seconds") >= 0.5, "{report:#}");
}

#[test]
fn a_machine_that_is_stolen_from_passes() {
    need_kvm();
    for vcpus in [2, 4, 16] {
        let steal = format!("--steal=seed={vcpus},mean=2ms,share=20%");
        let report = passes(&selftest(vcpus, "seed=7 calls=40", &[&steal]).run());
        assert!(number(&report, "/stalls/count") > 0, "{report:#}");
        // Repeated long enough that the share can be measured.
        let run = selftest(vcpus, "workload=stress for=2s", &[&steal]).run();
        let report = passes(&run);
        assert!(number(&report, "/stalls/count") > 20, "{report:#}");
        let stalled = report["stalls"]["per_vcpu"].as_array().expect("an array");
        assert_eq!(stalled.len(), vcpus as usize, "{report:#}");
        let share = seconds(&report, "/stalls/share");
        assert!((0.12..0.3).contains(&share), "{report:#}");
        let latency = |which: &str| seconds(&report, &format!("/stalls/latency/{which}_seconds"));
        assert!(latency("min") <= latency("median"), "{report:#}");
        assert!(latency("median") <= latency("max"), "{report:#}");
    }
}

#[test]
fn those_not_named_are_left_alone() {
    need_kvm();
    let steal = "--steal=seed=1,mean=1ms,share=50%,cpus=1,3";
    let report = passes(&selftest(4, "workload=stress for=500ms", &[steal]).run());
    let stalled = report["stalls"]["per_vcpu"].as_array().expect("an array");
    let ids: Vec<_> = stalled.iter().map(|vcpu| &vcpu["id"]).collect();
    assert_eq!(ids, [1, 3], "{report:#}");
}

#[test]
fn people_see_stalls_and_only_if_there_were_some() {
    need_kvm();
    let quiet = Vmm::boot("--vcpus 2").run();
    quiet.ends_with(0);
    assert!(!quiet.stdout.contains("stalls"), "{quiet}");
    let run =
        Vmm::boot("--vcpus 2 --stall cpu=1,at=0s,for=100ms --stall cpu=0,at=1h,for=5ms").run();
    run.ends_with(0)
        .says("stalls     1 of CPU 1, away ")
        .says("confirmed after ")
        .says("note: the run was over before --stall 'cpu=0,at=1h,for=5ms' began");
}

#[test]
fn values_that_mean_nothing_are_refused() {
    let image = Code::image(Code::halt);
    let refused = |option: &str, text: &str| {
        let run = Vmm::with("--vcpus 4").arg(option).arg(image.path()).run();
        run.ends_with(2).complains_of(text);
    };
    for value in [
        "",
        "cpu=1",
        "cpu=1,at=10ms",
        "at=10ms,for=5ms",
        "cpu=x,at=10ms,for=5ms",
        "cpu=1,at=10,for=5ms",
        "cpu=1,at=10ms,for=0s",
        "cpu=1,at=10ms,for=2days",
        "cpu=1,at=10ms,for=5ms,for=6ms",
        "cpu=1,at=10ms,for=5ms,why=not",
    ] {
        let option = format!("--stall={value}");
        refused(&option, "--stall");
        refused(&option, "'cpu=1,at=10ms,for=5ms'");
    }
    for value in [
        "",
        "seed=7",
        "seed=7,mean=2ms",
        "seed=x,mean=2ms,share=20%",
        "seed=7,mean=0s,share=20%",
        "seed=7,mean=2ms,share=20",
        "seed=7,mean=2ms,share=100%",
        "seed=7,mean=2ms,share=20%,share=20%",
        "seed=7,mean=2ms,share=20%,cpus=x",
    ] {
        let option = format!("--steal={value}");
        refused(&option, "--steal");
        refused(&option, "'seed=7,mean=2ms,share=20%'");
    }
    refused(
        "--stall=cpu=4,at=10ms,for=5ms",
        "--stall 'cpu=4,at=10ms,for=5ms': there is no vCPU 4; this machine has vCPUs 0 to 3",
    );
    refused("--steal=seed=7,mean=2ms,share=20%,cpus=2-5", "no vCPU 4");
    Vmm::with("--steal seed=7,mean=2ms,share=20% --steal seed=8,mean=2ms,share=20%")
        .arg(image.path())
        .run()
        .ends_with(2)
        .complains_of("--steal");
}

/// A run, and the control socket at which the states of its vCPUs can be read.
struct Attended {
    running: Running,
    directory: TempDir,
}

impl Attended {
    fn start(vmm: Vmm) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let socket = directory.path().join("socket");
        let running = vmm.arg("--control").arg(&socket).start();
        Self { running, directory }
    }

    /// Waits until at least so many vCPUs are stalled at once.
    fn wait_stalled(&self, count: usize) {
        let socket = self.directory.path().join("socket");
        let deadline = Instant::now() + TIME_LIMIT;
        loop {
            let status = Vmm::with("ctl --json").arg(&socket).arg("status").run();
            if status.stdout.matches("\"state\":\"paused\"").count() >= count {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{count} are not stalled: {status}"
            );
        }
    }

    fn interrupt(self, signal: i32) -> Run {
        let sent = Instant::now();
        self.running.signal(signal);
        let run = self.running.finish();
        let took = sent.elapsed();
        assert!(took < TIME_LIMIT, "took {took:?}: {run}");
        run.ends_with(128 + signal);
        run
    }
}

#[test]
fn nobody_waits_for_a_stall_to_end() {
    need_kvm();
    let all: Vec<_> = (0..4)
        .map(|cpu| format!("--stall=cpu={cpu},at=0s,for=1h"))
        .collect();
    for stalled in [&all[1..2], &all[..]] {
        let stalls: Vec<_> = stalled.iter().map(String::as_str).collect();
        for signal in [libc::SIGINT, libc::SIGTERM] {
            let run = Attended::start(selftest(4, "calls=1000000", &stalls));
            run.wait_stalled(stalls.len());
            let report = run.interrupt(signal).json();
            assert_eq!(report["result"], "interrupted");
            let count = number(&report, "/stalls/count");
            assert_eq!(count, stalls.len() as u64, "{report:#}");
        }
        let run = selftest(4, "calls=1000000", &stalls)
            .args(["--timeout", "2"])
            .run();
        assert!(run.elapsed < TIME_LIMIT, "{run}");
        run.ends_with(5).says("--timeout");
    }
    let steal = selftest(16, "calls=1000000", &["--steal=seed=1,mean=1ms,share=50%"]);
    let run = Attended::start(steal);
    run.wait_stalled(1);
    run.interrupt(libc::SIGINT);
}

#[test]
fn a_guest_ends_while_others_are_stalled() {
    need_kvm();
    let text = "and so on ".repeat(200);
    let exit = announced(|code| {
        code.say(&text);
        code.exit(ExitCode::Pass);
    });
    let death = announced(|code| {
        code.say(&text);
        code.triple_fault();
    });
    for (image, status) in [(exit, 0), (death, 4)] {
        let run = Vmm::with("--stats json --vcpus 4 --stall cpu=3,at=0s,for=1h")
            .arg(image.path())
            .run();
        assert!(run.elapsed < TIME_LIMIT, "{run}");
        run.ends_with(status);
        assert_eq!(number(&run.json(), "/stalls/count"), 1, "{run}");
    }
}

#[test]
fn the_watchdog_knows_a_stall_from_a_hang() {
    need_kvm();
    let stall = "--stall=cpu=1,at=0s,for=4s";
    let run = selftest(4, "seed=7", &[stall, "--watchdog=1"]).run();
    let report = passes(&run);
    assert!(seconds(&report, "/run_seconds") >= 4.0, "{report:#}");
    // And a hang from short stalls.
    let image = announced(Code::spin);
    let run = Vmm::with("--stats json --watchdog 1 --steal seed=1,mean=1ms,share=20%")
        .arg(image.path())
        .run();
    run.ends_with(5).says("--watchdog");
    assert!(number(&run.json(), "/stalls/count") > 0, "{run}");
}

#[test]
fn a_guest_that_announces_nothing_is_not_stalled() {
    need_kvm();
    let image = Code::image(|code| code.exit(ExitCode::Pass));
    for stalls in [
        "--stall=cpu=0,at=0s,for=1h",
        "--steal=seed=1,mean=1ms,share=50%",
    ] {
        let run = Vmm::with(stalls).arg(image.path()).run();
        run.ends_with(0).says("no vCPU was stalled");
    }
}

#[test]
fn no_call_is_lost_however_often_vcpus_are_paused() {
    need_kvm();
    let wanted = env::var("STALL_SOAK").map_or(500, |pauses| {
        pauses
            .parse()
            .unwrap_or_else(|_| panic!("STALL_SOAK: \"{pauses}\" is not a number"))
    });
    let (mut pauses, mut calls, mut seed) = (0, 0, 0);
    while pauses < wanted {
        seed += 1;
        let steal = format!("--steal=seed={seed},mean=50us,share=50%");
        let options = format!("seed={seed} calls=300");
        let report = passes(&selftest(4, &options, &[&steal]).run());
        pauses += number(&report, "/stalls/count");
        calls += number(&report, "/calls/executed");
    }
    println!("{pauses} pauses in {seed} runs, {calls} executions");
}
