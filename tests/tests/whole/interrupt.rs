//! A user interrupts: ^C, SIGTERM and SIGHUP end a run within seconds, with a report on what is known by
//! then and the status that a shell expects.

use std::fs;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tests::image::Code;
use tests::{Run, Running, Vmm, need_kvm};

/// Time from the signal to the end. Pausing vCPUs takes up to a second on a busy host.
const TIME_LIMIT: Duration = Duration::from_secs(20);

#[track_caller]
fn interrupt(running: Running, signal: i32) -> Run {
    let sent = Instant::now();
    running.signal(signal);
    let run = running.finish();
    assert!(
        sent.elapsed() < TIME_LIMIT,
        "took {:?}: {run}",
        sent.elapsed()
    );
    run.ends_with(128 + signal);
    run
}

#[test]
fn a_workload_that_takes_hours() {
    need_kvm();
    for (signal, vcpus) in [(libc::SIGINT, 16), (libc::SIGTERM, 2)] {
        let running = Vmm::boot(&format!("--append calls=1000000000 --vcpus {vcpus}")).start();
        running.wait_for("CPUs up");
        interrupt(running, signal).says("interrupted").says("calls");
    }
}

/// A terminal that is closed sends SIGHUP; whoever wants a run to outlive it says so with `nohup`.
#[test]
fn a_terminal_that_is_closed_ends_it_unless_nohup_says_not_to() {
    need_kvm();
    let started = |ignored: bool| {
        let vmm = Vmm::boot("--append calls=1000000000 --vcpus 2");
        let running = vmm.ignoring_hangups(ignored).start();
        running.wait_for("CPUs up");
        running
    };
    interrupt(started(false), libc::SIGHUP).says("interrupted");
    let running = started(true);
    running.signal(libc::SIGHUP);
    interrupt(running, libc::SIGTERM).says("signal 15");
}

/// The same of a search, which takes its signals in another way.
#[test]
fn a_search_in_a_terminal_that_is_closed() {
    need_kvm();
    const CASE: &str = include_str!("../../../scenarios/explore/lost-call.case");
    let directory = TempDir::new().expect("a temporary directory");
    let case = directory.path().join("lost-call.case");
    fs::write(&case, CASE).expect("room for a case");
    for ignored in [false, true] {
        let vmm = Vmm::with("explore --strategy random --runs 1000000000 --append queue=filo");
        let vmm = vmm.arg(&case).arg(tests::explore_image());
        let running = vmm.ignoring_hangups(ignored).start();
        if ignored {
            running.wait_until_it_catches(libc::SIGTERM);
            running.signal(libc::SIGHUP);
            interrupt(running, libc::SIGTERM);
        } else {
            running.wait_until_it_catches(libc::SIGHUP);
            interrupt(running, libc::SIGHUP);
        }
    }
}

/// The console is told of whole lines; what is none, such as a prompt, is shown soon all the same.
#[test]
fn a_guest_whose_last_line_has_no_end() {
    need_kvm();
    let image = Code::image(|code| {
        code.say("what next> ");
        code.halt();
    });
    let running = Vmm::with("--watchdog 0").arg(image.path()).start();
    running.wait_for("what next> ");
    interrupt(running, libc::SIGINT).says("interrupted");
}

#[test]
fn guests_that_do_not_listen() {
    need_kvm();
    for write in [Code::spin, Code::halt] {
        let image = Code::image(|code| {
            code.say("ready\n");
            write(code);
        });
        for signal in [libc::SIGINT, libc::SIGTERM] {
            let running = Vmm::with("--vcpus 4").arg(image.path()).start();
            running.wait_for("ready");
            interrupt(running, signal).says("interrupted");
        }
    }
}

#[test]
fn a_second_signal_does_no_harm() {
    need_kvm();
    let image = Code::image(|code| {
        code.say("ready\n");
        code.spin();
    });
    let running = Vmm::with("--vcpus 16").arg(image.path()).start();
    running.wait_for("ready");
    running.signal(libc::SIGINT);
    interrupt(running, libc::SIGINT);
}

#[test]
fn a_script_that_has_no_machine() {
    need_kvm();
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // Between two machines, and before the first. The steps are so long that the search does
        // not reach its limit.
        let endless = "print(`ready`); while true { let list = []; list.pad(10000, 0); }";
        let script = format!("boot(#{{ append: `workload=selftest` }}); finish(); {endless}");
        let directory = TempDir::new().expect("a temporary directory");
        let path = directory.path().join("results.xml");
        for script in [&script, endless] {
            let vmm = Vmm::scripted(script).args(["--stats", "junit", "--stats-file"]);
            let running = vmm.arg(&path).start();
            running.wait_for("ready");
            let run = interrupt(running, signal);
            // What was known, and why there is no more.
            let results = fs::read_to_string(&path).expect("results");
            assert!(
                results.contains(&format!("signal {signal} came")),
                "{results}{run}"
            );
            let machines = results.matches("machine 0").count();
            assert_eq!(machines > 0, script.starts_with("boot"), "{results}");
        }
    }
}
