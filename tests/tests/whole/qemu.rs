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
