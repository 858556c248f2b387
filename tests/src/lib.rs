//! What whole runs need: the `vmm` command, started as a user would start it, with a hard time
//! limit, and guest images made for the purpose. Nothing here links the VMM: a test sees only the
//! command line, the exit status and the two output streams.
//!
//! `VMM` and `GUEST` name the command and the guest image; without them they are taken from
//! `target/` of this workspace. The image to be explored is `explore.bin` beside the guest image,
//! or `EXPLORE`; the images of the litmus guest, `litmus.bin` and `litmus-explore.bin`, are beside
//! it too. The programs of `vmm/examples` are in `target/debug/examples`, or in `EXAMPLES`.
//! `WHOLE_VCPUS` lists the sizes of machine to try.

pub mod browser;
pub mod exposition;
pub mod image;
pub mod ktap;
pub mod mounts;
mod run;
pub mod sources;
pub mod trace_format;

use std::env;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

pub use run::{Run, Running, TIME_LIMIT, Vmm};

/// The designs that lose nothing, by the guest's names. All but the last have one list for all
/// CPUs, on which a walk passes other CPUs' elements.
pub const SOUND_QUEUES: [&str; 7] = [
    "kmalloc",
    "filo",
    "counters",
    "shared-refs",
    "counting-rcu",
    "fixed-2011",
    "llist",
];

/// The `vmm` command under test.
pub fn vmm() -> PathBuf {
    product("VMM", "target/release/vmm")
}

/// The guest image under test.
pub fn guest() -> PathBuf {
    product("GUEST", "target/guest.bin")
}

/// The guest image under test that stops before every access to shared memory, beside the other.
pub fn explore_image() -> PathBuf {
    let beside = guest().with_file_name("explore.bin");
    env::var_os("EXPLORE").map_or(beside, PathBuf::from)
}

/// The image of another guest: the file of this name beside the guest image under test.
///
/// # Panics
/// If it is not there.
pub fn other_image(name: &str) -> PathBuf {
    let path = guest().with_file_name(name);
    assert!(
        path.is_file(),
        "{} is not there: run `make build`",
        path.display()
    );
    path
}

/// The command that reads litmus tests, which is beside the command under test.
///
/// # Panics
/// If it is not there.
pub fn litmus_case() -> PathBuf {
    let path = vmm().with_file_name("litmus-case");
    assert!(
        path.is_file(),
        "{} is not there: run `make build`",
        path.display()
    );
    path
}

/// A program of `vmm/examples`, from the directory that `EXAMPLES` names.
pub fn example(name: &str) -> PathBuf {
    let path = place("EXAMPLES", "target/debug/examples").join(name);
    assert!(
        path.is_file(),
        "{} is not there: run `make examples`, or set EXAMPLES",
        path.display()
    );
    path
}

/// Where `variable` says something is, or `default` in this workspace; from every folder.
fn place(variable: &str, default: &str) -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let path = env::var_os(variable).map_or_else(|| workspace.join(default), PathBuf::from);
    std::path::absolute(&path).unwrap_or(path)
}

fn product(variable: &str, default: &str) -> PathBuf {
    let path = place(variable, default);
    assert!(
        path.is_file(),
        "{} is not there: run `make build`, or set {variable}",
        path.display()
    );
    path
}

/// The numbers of vCPUs to try, from `WHOLE_VCPUS` such as `1,2,16`.
///
/// # Panics
/// If the variable is something else.
pub fn vcpus() -> Vec<u32> {
    env::var("WHOLE_VCPUS")
        .unwrap_or_else(|_| "1,2,3,16".to_owned())
        .split(',')
        .map(|count| {
            count
                .trim()
                .parse()
                .unwrap_or_else(|_| panic!("WHOLE_VCPUS: \"{count}\" is not a number"))
        })
        .collect()
}

/// Fails the calling test, with what to do, on a host on which no guest can run.
///
/// # Panics
/// Without a `/dev/kvm` that this user may open.
pub fn need_kvm() {
    if let Err(error) = open_kvm() {
        panic!("cannot test here, /dev/kvm: {error}; `make test-svm` brings a KVM of its own");
    }
}

/// Opens `/dev/kvm`, as everything that runs a guest must.
///
/// # Errors
/// What the host said.
pub fn open_kvm() -> io::Result<File> {
    File::options().read(true).write(true).open("/dev/kvm")
}

/// Whether everything is tested that `make test-long` tests, and not one of each kind.
pub fn is_long() -> bool {
    env::var_os("LONG").is_some_and(|long| !long.is_empty())
}

/// Prints why a test does nothing on this host, past the test harness, which hides the output of
/// tests that pass.
pub fn skip(why: &str) {
    // If standard error is closed, nothing can be done about it.
    let _ = writeln!(io::stderr(), "SKIP: {why}");
}
