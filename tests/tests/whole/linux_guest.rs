//! Linux itself as the guest: a distribution's kernel as it is shipped, with an initramfs of ours. Needs a
//! host that executes ring 0, which the nested one does: LINUX_KERNEL and LINUX_INITRD name what
//! `make test-svm` and `make linux-guest` boot. LINUX_RUNS is how often each scenario is told.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use tests::{Run, Vmm, need_kvm};

use super::gdb::{debug, gdb};

/// How long a run may take: emulated twice, Linux needs a few seconds to its init, and its watchdogs more.
const LIMIT: Duration = Duration::from_secs(400);
/// What the kernel is told. Complaints come after three seconds and four. QEMU's emulator does not let a
/// nested hypervisor see `xsetbv`, of which Linux would warn.
const WORDS: &str =
    "console=ttyS0 quiet noxsave watchdog_thresh=2 rcupdate.rcu_cpu_stall_timeout=3";

fn named(variable: &str) -> PathBuf {
    let path = env::var_os(variable).map(PathBuf::from);
    path.unwrap_or_else(|| panic!("{variable} names no file; `make linux-guest` does"))
}

/// Linux with these arguments.
fn linux(arguments: &str) -> Vmm {
    need_kvm();
    Vmm::with(arguments)
        .args(["--memory", "512", "--initrd"])
        .arg(named("LINUX_INITRD"))
        .arg(named("LINUX_KERNEL"))
        .limit(LIMIT)
}

/// Runs a scenario, again and again, which has to end well each time, and looks at each run.
fn tell(text: &str, look: impl Fn(&Run)) {
    let runs = env::var("LINUX_RUNS").map_or(1, |runs| runs.parse().expect("a number of runs"));
    assert_ne!(runs, 0, "no run shows nothing");
    for _ in 0..runs {
        let run = linux("--vcpus 4")
            .args(["--append", WORDS])
            .script(text)
            .run();
        run.ends_with(0).says("Power down");
        look(&run);
    }
}

macro_rules! scenario {
    ($name:literal) => {
        include_str!(concat!("../../../scenarios/linux/", $name, ".rhai"))
    };
}

#[test]
fn a_call_waits_for_a_stalled_cpu() {
    tell(scenario!("stalled-cpu"), |run| {
        run.says("Linux says: ").says("pass: as expected: ");
        run.says("stalls     1 of CPU 1");
    });
}

#[test]
fn a_call_waits_for_a_held_handler() {
    tell(scenario!("held-handler"), |run| {
        run.says("CPU 1 is held at ipi_mb");
        run.says("pass: as expected: ");
    });
}

#[test]
fn a_lock_waits_for_a_stalled_holder() {
    tell(scenario!("lock-holder"), |run| {
        run.says("CPU 2 is held at enqueue_task_fair")
            .says(" waits at 0x");
    });
}

#[test]
fn a_stalled_cpu_goes_offline_and_comes_back() {
    tell(scenario!("offline"), |run| {
        run.says("and now 0-2");
    });
}

#[test]
fn ipis_of_system_calls_are_counted() {
    // A barrier leaves out a CPU on which something else runs at that moment, and there are calls of other
    // origin.
    tell(scenario!("ipis"), |run| {
        let counts = said_after(&run.stdout, "100 × membarrier: CAL:");
        assert_eq!(counts.len(), 4, "{counts:?}");
        for (cpu, count) in counts.into_iter().enumerate() {
            let fitting = if cpu == 0 { 0..=10 } else { 80..=110 };
            assert!(
                fitting.contains(&count),
                "{count} on CPU {cpu}: {}",
                run.stdout
            );
        }
    });
}

/// The numbers that a line of the console has after these words.
fn said_after(text: &str, words: &str) -> Vec<u32> {
    let said = text.split(words).nth(1).unwrap_or_default();
    let said = said.split_whitespace();
    said.map_while(|word| word.trim_end_matches(';').parse().ok())
        .collect()
}

#[test]
fn sixteen_cpus_boot_and_each_exit_is_counted_twice() {
    let script = "wait_console(\"^ready\", 120); type_console(\"reboot -f\\n\");";
    let run = linux("--vcpus 16 --tracepoints --stats json").args(["--append", WORDS]);
    let report = run.script(script).run();
    report.ends_with(0).says("init with 16 CPUs");
    let report = report.json();
    assert_eq!(
        report["message"],
        "CPU 0 reset the machine; its kernel complained of nothing on its console"
    );
    for vcpu in report["per_vcpu"].as_array().expect("a list") {
        let [counted, traced] = [&vcpu["kvm"]["exits"], &vcpu["tracepoints"]["kvm_exit"]];
        assert!(counted.as_u64() > Some(500) && counted == traced, "{vcpu}");
    }
}

#[test]
fn a_triple_fault_that_was_announced_is_a_reset() {
    let words = "console=ttyS0 quiet noxsave acpi=off reboot=t";
    let script = "wait_console(\"^ready\", 120); type_console(\"reboot -f\\n\");";
    let run = linux("--vcpus 1").args(["--append", words]);
    run.script(script)
        .run()
        .ends_with(0)
        .says("CPU 0 reset the machine; its kernel complained of nothing");
}

#[test]
fn gdb_stops_a_kernel_where_it_wakes() {
    let Some(gdb) = gdb() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("gdb");
    let running = linux("--vcpus 4")
        .arg("--gdb")
        .arg(&socket)
        .args(["--append", WORDS])
        .start();
    running.wait_for("ready");
    // All are halted; each wakes for its timer before long.
    let said = debug(
        &gdb,
        &socket,
        None,
        "info threads\nbreak *$rip\ncontinue\nx/2i $rip\nbt 1\ndelete\nstepi\nstepi\n\
         p $cr3 != 0 && $gs_base != 0\ndetach",
    );
    assert_eq!(said.matches("is halted)").count(), 4, "{said}");
    assert_eq!(said.matches(" hit Breakpoint 1, ").count(), 1, "{said}");
    assert!(said.contains("$1 = 1\n"), "{said}");
    running.signal(libc::SIGTERM);
    let run = running.finish();
    run.ends_with(128 + libc::SIGTERM);
    // It has not complained of the time that it missed.
    assert!(!run.stdout.contains("Linux says: "), "{run}");
}

#[test]
fn a_kernel_that_panics_is_no_kernel_that_hangs() {
    let words = "console=ttyS0 quiet noxsave rdinit=/nothing root=nowhere";
    let run = linux("--vcpus 2").args(["--append", words]).run();
    run.ends_with(4)
        .says("died: the guest's kernel panicked on CPU ");
    run.says("Kernel panic - not syncing: VFS: Unable to mount root fs");
}
