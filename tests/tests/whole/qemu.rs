//! The same guest image under another monitor: QEMU's emulator, without KVM and without a lab. It
//! boots by the same PVH note and passes its selftest.

use std::process::Command;
use std::time::Duration;

use shared::exit::ExitCode;
use tests::Vmm;

#[test]
fn the_image_passes_under_qemu() {
    if Command::new("qemu-system-x86_64")
        .arg("--version")
        .output()
        .is_err()
    {
        panic!("no qemu-system-x86_64 here; on Debian, `apt-get install qemu-system-x86`");
    }
    for cpus in ["1", "4"] {
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.arg("-kernel")
            .arg(tests::guest())
            .args(["-accel", "tcg", "-smp", cpus, "-nographic", "-no-reboot"])
            .args(["-nic", "none"])
            .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
        let run = Vmm::from(qemu).limit(Duration::from_secs(60)).run();
        run.ends_with((ExitCode::Pass as i32) << 1 | 1).says("pass");
    }
}

#[test]
fn a_bench_without_a_lab_says_what_it_measured() {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-M", "q35", "-kernel"])
        .arg(tests::guest())
        .args([
            "-append",
            "workload=bench calls=200",
            "-accel",
            "tcg",
            "-smp",
            "2",
        ])
        .args([
            "-no-reboot",
            "-nodefaults",
            "-display",
            "none",
            "-serial",
            "stdio",
        ]);
    let run = Vmm::from(qemu).limit(Duration::from_secs(60)).run();
    run.ends_with(0)
        .says("; 200 rounds, each ")
        .says(" cycles of the TSC or more, ");
}

#[test]
fn the_guest_ends_by_itself_where_there_is_no_exit_port() {
    // By ACPI with fixed hardware and without, and, where there is no ACPI, by a triple fault. That is after
    // it has said that it finds no CPUs.
    for (machine, says) in [
        (&["-M", "pc"][..], "pass"),
        (&["-M", "q35"], "pass"),
        (&["-M", "microvm"], "pass"),
        (&["-M", "microvm,acpi=off"], "RSDP"),
    ] {
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(machine)
            .arg("-kernel")
            .arg(tests::guest())
            .args(["-accel", "tcg", "-smp", "2", "-no-reboot", "-nodefaults"])
            .args(["-display", "none", "-serial", "stdio"]);
        let run = Vmm::from(qemu).limit(Duration::from_secs(60)).run();
        run.ends_with(0).says(says);
    }
}
