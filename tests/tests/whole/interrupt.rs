//! A user interrupts: ^C and SIGTERM end a run within seconds, with a report on what is known by
//! then and the status that a shell expects.

use std::time::{Duration, Instant};

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
        for script in [&script, endless] {
            let running = Vmm::scripted(script).start();
            running.wait_for("ready");
            interrupt(running, signal);
        }
    }
}
