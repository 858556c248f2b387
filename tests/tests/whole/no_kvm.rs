//! A host without KVM, or with one that the user may not use: status 3, and what to do about it.
//! The tests make such a host by hiding `/dev` or by becoming another user.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use shared::exit::ExitCode;
use tempfile::TempDir;
use tests::image::Code;
use tests::{Vmm, mounts, skip};

const NOBODY: u32 = 65534;

fn is_root() -> bool {
    // SAFETY: has no preconditions and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Copies of the command and of an image that every user can read.
struct Public {
    _dir: TempDir,
    vmm: PathBuf,
    image: PathBuf,
}

impl Public {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (vmm, image) = (dir.path().join("vmm"), dir.path().join("guest.bin"));
        let good = Code::image(|code| code.exit(ExitCode::Pass));
        for (from, to) in [(tests::vmm(), &vmm), (good.path().to_owned(), &image)] {
            fs::copy(from, to).expect("room for a copy");
            fs::set_permissions(to, PermissionsExt::from_mode(0o755)).expect("our own file");
        }
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).expect("our own");
        Self {
            _dir: dir,
            vmm,
            image,
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.vmm);
        command.arg(&self.image);
        command
    }
}

#[test]
fn a_host_without_kvm() {
    let public = Public::new();
    let mut command = public.command();
    if fs::exists("/dev/kvm").is_ok_and(|there| there)
        && let Err(error) = mounts::hide_dev(&mut command)
    {
        // If the host forbids this, the test cannot be done, and does not fail.
        skip(&format!("this user cannot hide /dev/kvm: {error}"));
        return;
    }
    let run = Vmm::from(command).run();
    run.ends_with(3).complains_of("/dev/kvm").says("modprobe");
    assert_eq!(run.stderr.lines().count(), 1, "{run}");
}

#[test]
fn a_user_without_permission() {
    let Ok(kvm) = fs::metadata("/dev/kvm") else {
        skip("this host has no /dev/kvm to be kept away from");
        return;
    };
    let public = Public::new();
    let mut command = public.command();
    if is_root() {
        if kvm.permissions().mode() & 0o006 == 0o006 {
            skip("everybody may use this host's /dev/kvm");
            return;
        }
        command.uid(NOBODY).gid(NOBODY);
    } else if fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok()
    {
        skip("this user may use /dev/kvm and cannot become another");
        return;
    }
    let run = Vmm::from(command).run();
    run.ends_with(3)
        .complains_of("/dev/kvm")
        .says("permission")
        .says("group");
    assert_eq!(run.stderr.lines().count(), 1, "{run}");
}

#[test]
fn more_open_files_than_the_host_allows() {
    if fs::File::open("/dev/kvm").is_err() {
        skip("this host has no usable /dev/kvm");
        return;
    }
    let public = Public::new();
    let mut command = public.command();
    command.args(["--vcpus", "64"]);
    let few = libc::rlimit {
        rlim_cur: 32,
        rlim_max: 32,
    };
    let limit = move || {
        // SAFETY: `few` is a valid limit.
        match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const few) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: the closure makes one system call and allocates nothing.
    unsafe { command.pre_exec(limit) };
    Vmm::from(command).run().ends_with(3).complains_of("ulimit");
}
