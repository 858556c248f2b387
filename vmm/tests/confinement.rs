//! That each kind of thread can make no system call but those of its kind, that whoever tries is
//! named, and that what threads need all the same works. Each attempt is made by a process of its
//! own: this program once more, with what to attempt in its environment.

#![expect(clippy::disallowed_methods, reason = "a test makes files")]

use std::env;
use std::fs::{self, File};
use std::hint::black_box;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

use vmm::confinement::{self, Confinement, Files, ThreadKind};

/// What a process of its own is to attempt, as which kind of thread, and in which folder.
const ATTEMPT: &str = "VMM_TEST_ATTEMPT";
const KIND: &str = "VMM_TEST_KIND";
const FOLDER: &str = "VMM_TEST_FOLDER";

/// The status of a process whose attempt was carried out, and of one whose attempt panicked.
const CARRIED_OUT: i32 = 77;
const PANICKED: i32 = 78;

/// Runs this test program once more, with the one test that makes attempts.
fn attempt(kind: ThreadKind, name: &str, folder: &Path) -> Output {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", "makes_the_attempt", "--nocapture", "--ignored"])
        .env(ATTEMPT, name)
        .env(KIND, kind.name())
        .env(FOLDER, folder)
        .env("RUST_BACKTRACE", "1");
    command.output().unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Makes the system call `number`.
fn call(number: libc::c_long, arguments: [libc::c_long; 3]) -> libc::c_long {
    let [first, second, third] = arguments;
    // SAFETY: of each call that is made here the kernel takes numbers, or addresses that are zero
    // and that it refuses. None changes memory of this process.
    unsafe { libc::syscall(number, first, second, third) }
}

/// Something that a thread attempts.
struct Attempt {
    name: &'static str,
    /// The system call that a message has to name.
    call: &'static str,
    body: fn(),
    /// Who must not do it.
    forbidden: &'static [ThreadKind],
}

use ThreadKind::{Debugger, EventLoop, Script, Search, Signals, Socket, Ticker, Vcpu, Writer};

const ALL: &[ThreadKind] = &ThreadKind::ALL;

/// Numbers of requests, from `linux/kvm.h` and `asm-generic/ioctls.h`.
const KVM_CREATE_VM: libc::c_long = 0xae01;
const KVM_RUN: libc::c_long = 0xae80;
const KVM_SET_LAPIC: libc::c_long = 0x4400_ae8f;
const TIOCSTI: libc::c_long = 0x5412;

fn ioctl(request: libc::c_long) {
    call(libc::SYS_ioctl, [-1, request, 0]);
}

const ATTEMPTS: &[Attempt] = &[
    Attempt {
        name: "become another program",
        call: "execve",
        body: || {
            call(libc::SYS_execve, [0; 3]);
        },
        forbidden: ALL,
    },
    Attempt {
        name: "start a process",
        call: "clone",
        body: || {
            call(libc::SYS_clone, [libc::SIGCHLD.into(), 0, 0]);
        },
        forbidden: ALL,
    },
    Attempt {
        name: "trace a process",
        call: "ptrace",
        body: || {
            call(libc::SYS_ptrace, [0; 3]);
        },
        forbidden: ALL,
    },
    Attempt {
        name: "make memory that can be executed",
        call: "mmap",
        body: || {
            call(libc::SYS_mmap, [0, 4096, libc::PROT_EXEC.into()]);
        },
        forbidden: ALL,
    },
    Attempt {
        name: "send a signal to another process",
        call: "tgkill",
        body: || {
            call(libc::SYS_tgkill, [1, 1, 0]);
        },
        forbidden: ALL,
    },
    Attempt {
        name: "type into a terminal",
        call: "ioctl",
        body: || ioctl(TIOCSTI),
        forbidden: ALL,
    },
    Attempt {
        name: "make a network socket",
        call: "socket",
        body: || drop(TcpListener::bind("127.0.0.1:0")),
        forbidden: ALL,
    },
    Attempt {
        name: "open a file",
        call: "openat",
        body: || drop(File::open("/dev/null")),
        forbidden: &[
            Vcpu, EventLoop, Script, Socket, Writer, Debugger, Signals, Ticker,
        ],
    },
    Attempt {
        name: "rename a file",
        call: "rename",
        body: || drop(fs::rename("a", "b")),
        forbidden: &[
            Vcpu, EventLoop, Script, Socket, Writer, Debugger, Signals, Ticker,
        ],
    },
    Attempt {
        name: "make a socket",
        call: "socket",
        body: || {
            call(libc::SYS_socket, [libc::AF_UNIX.into(), 1, 0]);
        },
        forbidden: &[
            Search, Vcpu, EventLoop, Script, Socket, Writer, Debugger, Signals, Ticker,
        ],
    },
    Attempt {
        name: "start a thread",
        call: "clone3",
        // The C library would block all signals first, that of a violation too.
        body: || {
            call(libc::SYS_clone3, [0; 3]);
        },
        forbidden: &[Vcpu, EventLoop, Script, Writer, Debugger, Signals],
    },
    Attempt {
        name: "read",
        call: "read",
        body: || {
            call(libc::SYS_read, [-1, 0, 0]);
        },
        forbidden: &[Writer, Ticker],
    },
    Attempt {
        name: "receive from a client",
        call: "recvfrom",
        body: || {
            call(libc::SYS_recvfrom, [-1, 0, 0]);
        },
        forbidden: &[Search, Vcpu, EventLoop, Script, Writer, Signals, Ticker],
    },
    Attempt {
        name: "make a machine",
        call: "ioctl",
        body: || ioctl(KVM_CREATE_VM),
        forbidden: &[
            Search, Vcpu, EventLoop, Script, Socket, Writer, Debugger, Signals, Ticker,
        ],
    },
    Attempt {
        name: "run a vCPU",
        call: "ioctl",
        body: || ioctl(KVM_RUN),
        forbidden: &[EventLoop, Script, Socket, Writer, Debugger, Signals, Ticker],
    },
    Attempt {
        name: "rewind a vCPU",
        call: "ioctl",
        body: || ioctl(KVM_SET_LAPIC),
        forbidden: &[
            Vcpu, EventLoop, Script, Socket, Writer, Debugger, Signals, Ticker,
        ],
    },
    // What follows is allowed to all.
    Attempt {
        name: "panic",
        call: "",
        body: || panic!("a thread that panics"),
        forbidden: &[],
    },
    Attempt {
        name: "do what all do",
        call: "",
        body: what_all_do,
        forbidden: &[],
    },
    Attempt {
        name: "open files",
        call: "",
        body: || {},
        forbidden: &[],
    },
];

/// Allocates as a thread does that comes late, in heaps of its own, which grow and shrink; sleeps;
/// says something.
fn what_all_do() {
    for _ in 0..2 {
        let pieces = [100 << 10; 16].map(|size| black_box(vec![1_u8; size]));
        drop(pieces);
    }
    for size in [16, 4096, 1 << 20, 200 << 20] {
        black_box(vec![1_u8; size]);
    }
    thread::sleep(std::time::Duration::from_millis(1));
    thread::yield_now();
    eprintln!("said");
}

/// In a process of its own: confines it, becomes a thread of the kind, and makes the attempt.
#[test]
#[ignore = "it ends the process; the others start one for it"]
fn makes_the_attempt() {
    let (Ok(name), Ok(kind)) = (env::var(ATTEMPT), env::var(KIND)) else {
        return;
    };
    let folder = PathBuf::from(env::var_os(FOLDER).unwrap());
    let kind = ThreadKind::ALL.into_iter().find(|it| it.name() == kind);
    let kind = kind.unwrap();
    let attempt = ATTEMPTS.iter().find(|it| it.name == name).unwrap();
    let written = folder.join("out/result");
    // SAFETY: without attributes the kernel only says which version of Landlock it has.
    let landlock = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, 1) };
    confinement::confine(&Confinement {
        files: Files::new([&folder.join("in")], [&written]),
        ..Confinement::default()
    })
    .unwrap();
    let thread = thread::Builder::new().name("attempt".to_owned());
    let made = thread.spawn(move || {
        confinement::enter(kind);
        (attempt.body)();
    });
    let made = made.unwrap().join();
    if name == "open files" && landlock > 0 {
        open_what_is_named_and_more(&folder);
    }
    std::process::exit(made.map_or(PANICKED, |()| CARRIED_OUT));
}

fn open_what_is_named_and_more(folder: &Path) {
    let denied = |found: std::io::Result<File>, what: &str| {
        let error = found.expect_err(what);
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{what}");
    };
    File::open(folder.join("in/image")).expect("a file that is named");
    denied(File::open(folder.join("other")), "read another file");
    denied(File::create(folder.join("in/image")), "write an input");
    denied(File::create(folder.join("new")), "make a file elsewhere");
    let [temporary, result] = ["out/.new", "out/result"].map(|name| folder.join(name));
    fs::write(&temporary, "whole").expect("room for an output");
    fs::rename(&temporary, &result).expect("an output takes its name");
    fs::write(&result, "again").expect("an output is written over");
    fs::remove_file(&result).expect("an output is removed");
}

fn folder() -> tempfile::TempDir {
    // Not where temporary files are: all may make files there.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for name in ["in", "out"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    for name in ["in/image", "other"] {
        fs::write(folder.path().join(name), "").unwrap();
    }
    folder
}

#[test]
fn whoever_does_what_its_kind_must_not_ends_the_process_and_is_named() {
    let folder = folder();
    for it in ATTEMPTS {
        for kind in it.forbidden {
            let output = attempt(*kind, it.name, folder.path());
            let told = told(&output);
            let status = Some(confinement::STATUS.into());
            assert_eq!(output.status.code(), status, "{kind}: {}: {told}", it.name);
            let thread = format!("thread \"attempt\" (kind {kind}) must not make the system call ");
            assert!(told.contains(&thread), "{kind}: {}: {told}", it.name);
            let call = format!("system call {} (", it.call);
            assert!(told.contains(&call), "{kind}: {}: {told}", it.name);
        }
    }
}

/// The kernel refuses what is not there, such as a file of number -1: all that matters is that the
/// process goes on.
#[test]
fn whoever_may_do_it_can() {
    let folder = folder();
    for it in ATTEMPTS.iter().filter(|it| it.name != "panic") {
        for kind in ALL.iter().filter(|kind| !it.forbidden.contains(kind)) {
            let output = attempt(*kind, it.name, folder.path());
            let told = told(&output);
            assert_eq!(
                output.status.code(),
                Some(CARRIED_OUT),
                "{kind}: {}: {told}",
                it.name
            );
        }
    }
}

#[test]
fn a_panic_is_told_by_every_kind_of_thread() {
    let folder = folder();
    for kind in ThreadKind::ALL {
        let output = attempt(kind, "panic", folder.path());
        let told = told(&output);
        assert_eq!(output.status.code(), Some(PANICKED), "{kind}: {told}");
        assert!(told.contains("a thread that panics"), "{kind}: {told}");
        assert!(told.contains("thread 'attempt'"), "{kind}: {told}");
    }
}

/// A library changes nothing in a program that does not ask for it.
#[test]
fn a_process_that_is_not_confined_is_left_alone() {
    for kind in ThreadKind::ALL {
        let thread = thread::spawn(move || {
            confinement::enter(kind);
            drop(File::open("/dev/null").unwrap());
            fs::read_to_string("/proc/thread-self/status").unwrap()
        });
        let status = thread.join().unwrap();
        assert!(status.contains("Seccomp:\t0"), "{status}");
    }
}
