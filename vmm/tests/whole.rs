//! Whole runs of the command with hand-made guests of a few instructions each. They need /dev/kvm
//! and say so where it is missing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

mod elf;

/// `mov al, value; out port, al` for a port below 256.
fn exit_with(code: u8) -> Vec<u8> {
    vec![0xb0, code, 0xe6, 0xf4]
}

const HALT_FOR_EVER: [u8; 4] = [0xfa, 0xf4, 0xeb, 0xfc];

fn have_kvm() -> bool {
    let there = Path::new("/dev/kvm").exists();
    if !there {
        eprintln!("SKIP: this host has no /dev/kvm");
    }
    there
}

struct Guest {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl Guest {
    fn new(code: &[u8]) -> Self {
        Self::file(&elf::guest(code))
    }

    fn file(bytes: &[u8]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("guest.bin");
        fs::write(&path, bytes).unwrap();
        Self { _dir: dir, path }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmm"));
        command.args(arguments).arg(&self.path);
        command
    }

    fn run(&self, arguments: &[&str]) -> Run {
        Run::from(self.command(arguments).output().unwrap())
    }
}

#[derive(Debug)]
struct Run {
    status: Option<i32>,
    out: String,
    err: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            status: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

#[test]
fn the_exit_port_decides_the_status() {
    if !have_kvm() {
        return;
    }
    for (code, status) in [
        (0x10, 0),
        (0x11, 1),
        (0x12, 4),
        (0x13, 2),
        (0x14, 4),
        (0x77, 4),
    ] {
        let run = Guest::new(&exit_with(code)).run(&[]);
        assert_eq!(run.status, Some(status), "{run:?}");
    }
}

#[test]
fn the_console_comes_out_and_json_has_stdout_for_itself() {
    if !have_kvm() {
        return;
    }
    // mov dx, 0x3f8; mov al, 'h'; out dx, al; mov al, 10; out dx, al
    let mut code = vec![0x66, 0xba, 0xf8, 0x03, 0xb0, b'h', 0xee, 0xb0, b'\n', 0xee];
    code.extend(exit_with(0x10));
    let guest = Guest::new(&code);
    let run = guest.run(&[]);
    assert!(run.out.starts_with("h\n"), "{run:?}");
    assert!(
        run.out.lines().last().unwrap().starts_with("pass: "),
        "{run:?}"
    );

    let run = guest.run(&["--stats", "json", "--vcpus", "2", "--pin", "0"]);
    let report: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert!(run.err.starts_with("h\n"), "{run:?}");
    assert_eq!(report["schema"], "ipi-lab/1");
    assert_eq!(report["result"], "pass");
    assert_eq!(report["exit_status"], 0);
    assert_eq!(report["vcpus"], 2);
    for key in ["made", "executed", "expected"] {
        assert!(report["calls"][key].is_u64(), "{key}");
    }
    for key in ["sent", "received", "targets"] {
        assert!(report["ipi"][key].is_u64(), "{key}");
    }
    for key in ["by_transport", "exits_per_ipi", "exits_source"] {
        assert!(report["ipi"].get(key).is_some(), "{key}");
    }
    for key in ["message", "findings", "boot_seconds", "run_seconds"] {
        assert!(report.get(key).is_some(), "{key}");
    }
    assert_eq!(report["per_vcpu"].as_array().unwrap().len(), 2);
    assert_eq!(report["per_vcpu"][0]["exits"]["pio"], 2);
    assert_eq!(report["per_vcpu"][0]["exits"]["exit"], 1);
    assert!(report["per_vcpu"][0]["kvm"].is_object());
}

#[test]
fn a_report_can_go_to_a_file() {
    if !have_kvm() {
        return;
    }
    let guest = Guest::new(&exit_with(0x10));
    let file = guest.path.with_file_name("report.json");
    let run = guest.run(&["--stats=json", "--stats-file", file.to_str().unwrap()]);
    assert_eq!((run.status, run.out.as_str()), (Some(0), ""), "{run:?}");
    let report: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(report["result"], "pass");

    let run = guest.run(&["--stats-file", "/nonexistent/report"]);
    assert_eq!(run.status, Some(2), "{run:?}");
}

#[test]
fn a_triple_fault_shows_where() {
    if !have_kvm() {
        return;
    }
    // lidt of an empty table at 0; ud2
    let run = Guest::new(&[0x0f, 0x01, 0x1d, 0, 0, 0, 0, 0x0f, 0x0b]).run(&["--vcpus", "3"]);
    assert_eq!(run.status, Some(4), "{run:?}");
    assert!(run.out.contains("CPU 0 stands at "), "{run:?}");
    assert!(run.out.contains("died on CPU 0"), "{run:?}");
}

#[test]
fn a_guest_that_makes_no_progress_is_stopped_and_shown() {
    if !have_kvm() {
        return;
    }
    let spin = [0xfa, 0xeb, 0xfe];
    for (code, what) in [(&spin[..], "running"), (&HALT_FOR_EVER[..], "halted")] {
        let run = Guest::new(code).run(&["--watchdog", "0.5", "--vcpus", "16"]);
        assert_eq!(run.status, Some(5), "{run:?}");
        assert!(
            run.out.contains(&format!("CPU 0: {what}, interrupts off")),
            "{run:?}"
        );
        assert!(run.out.contains("CPUs 1-15: never started"), "{run:?}");
    }
    let run = Guest::new(&spin).run(&["--timeout", "0.3"]);
    assert_eq!(run.status, Some(5), "{run:?}");
    assert!(run.out.contains("--timeout"), "{run:?}");
}

#[test]
fn a_signal_ends_a_run_with_what_is_known() {
    if !have_kvm() {
        return;
    }
    // Says one thing, so that it is known to run, and spins.
    let code = [0x66, 0xba, 0xf8, 0x03, 0xb0, b'!', 0xee, 0xfa, 0xeb, 0xfe];
    let guest = Guest::new(&code);
    let mut child = guest
        .command(&["--vcpus", "4", "--stats", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0];
    std::io::Read::read_exact(child.stderr.as_mut().unwrap(), &mut first).unwrap();
    let killed = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    let run = Run::from(child.wait_with_output().unwrap());
    assert_eq!(run.status, Some(130), "{run:?}");
    let report: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(report["result"], "interrupted");
}

#[test]
fn another_cpu_is_started_by_init_and_sipi() {
    if !have_kvm() {
        return;
    }
    // The code for the other CPUs, at 0x8000: mov al, 0x10; out 0xf4, al
    let mut code = vec![0xc7, 0x05, 0x00, 0x80, 0, 0, 0xb0, 0x10, 0xe6, 0xf4];
    // mov dword [ICR], INIT to all but self; the same with SIPI, page 8
    code.extend([0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0x00, 0x45, 0x0c, 0x00]);
    code.extend([0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0x08, 0x46, 0x0c, 0x00]);
    code.extend(HALT_FOR_EVER);
    let guest = Guest::new(&code);
    for vcpus in ["2", "16", "300"] {
        let run = guest.run(&["--vcpus", vcpus, "--stats", "json"]);
        assert_eq!(run.status, Some(0), "{run:?}");
        let report: serde_json::Value = serde_json::from_str(&run.out).unwrap();
        assert_eq!(report["per_vcpu"][0]["exits"]["exit"], 0);
    }
}

#[test]
fn garbage_on_every_port_does_no_harm() {
    if !have_kvm() {
        return;
    }
    // mov dx, 0x5b0; mov eax, 0xdeadbeef; out dx, eax; mov dx, 0x80; out dx, eax; in eax, dx
    let mut code = vec![0x66, 0xba, 0xb0, 0x05, 0xb8, 0xef, 0xbe, 0xad, 0xde, 0xef];
    code.extend([0x66, 0xba, 0x80, 0x00, 0xef, 0xed]);
    // mov [0xd0000000], eax
    code.extend([0xa3, 0, 0, 0, 0xd0]);
    code.extend(exit_with(0x10));
    let run = Guest::new(&code).run(&["--stats", "json"]);
    assert_eq!(run.status, Some(0), "{run:?}");
    let report: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(report["strays"]["doorbell"], 1);
    assert_eq!(report["strays"]["ports"], 2);
    assert_eq!(report["strays"]["mmio"], 1);
}

#[test]
fn a_lab_full_of_garbage_fails_and_does_no_harm() {
    if !have_kvm() {
        return;
    }
    // 16 MiB of RAM for one CPU: the lab is the last few pages. Fill the last 64 KiB but the stack
    // is not used: cld; mov edi, 0xff0000; mov ecx, 0x4000; mov eax, 0xa5a5a5a5; rep stosd
    let mut code = vec![
        0xfc, 0xbf, 0x00, 0x00, 0xff, 0x00, 0xb9, 0x00, 0x40, 0x00, 0x00,
    ];
    code.extend([0xb8, 0xa5, 0xa5, 0xa5, 0xa5, 0xf3, 0xab]);
    code.extend(exit_with(0x10));
    let run = Guest::new(&code).run(&["--memory", "16"]);
    assert_eq!(run.status, Some(1), "{run:?}");
    assert!(
        run.out
            .lines()
            .last()
            .unwrap()
            .starts_with("fail: the guest says pass"),
        "{run:?}"
    );
}

#[test]
fn a_reader_that_has_gone_does_not_stop_the_run() {
    if !have_kvm() {
        return;
    }
    // mov ecx, 20000; mov dx, 0x3f8; again: out dx, al; loop again
    let mut code = vec![
        0xb9, 0x20, 0x4e, 0, 0, 0x66, 0xba, 0xf8, 0x03, 0xb0, b'x', 0xee,
    ];
    code.extend([0xe2, 0xfd]);
    code.extend(exit_with(0x11));
    let guest = Guest::new(&code);
    let mut child = guest
        .command(&[])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let run = Run::from(child.wait_with_output().unwrap());
    assert_eq!(run.status, Some(1), "{run:?}");
    assert!(run.err.contains("cannot write the report"), "{run:?}");
}

#[test]
fn bad_usage_is_told_at_once() {
    let guest = Guest::new(&exit_with(0x10));
    for arguments in [
        &["--vcpus", "0"][..],
        &["--vcpus", "1025"],
        &["--vcpus", "x"],
        &["--memory", "1"],
        &["--memory", "1073741824"],
        &["--memory", "18446744073709551615"],
        &["--append", "lab=0x1000"],
        &["--timeout", "soon"],
        &["--pin", "1-"],
        &["--stats", "xml"],
    ] {
        let started = Instant::now();
        let run = guest.run(arguments);
        assert_eq!(run.status, Some(2), "{arguments:?}: {run:?}");
        assert!(!run.err.is_empty() && run.out.is_empty(), "{run:?}");
        assert!(started.elapsed() < Duration::from_secs(20));
    }
    let run = Guest::file(b"not a guest").run(&[]);
    assert_eq!(run.status, Some(2));
    assert_eq!(run.err.lines().count(), 1, "{run:?}");
    assert!(run.err.contains("guest.bin: not an ELF file"), "{run:?}");
}
