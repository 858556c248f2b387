//! Output that cannot be written: a full disk, a reader that has gone or does not read. The run
//! still ends, and its status still says how.

use std::fs::File;
use std::process::Command;
use std::time::Duration;

use shared::exit::ExitCode;
use tests::image::{Code, Image};
use tests::{Vmm, need_kvm};

/// Prints something and ends.
fn image(code: ExitCode) -> Image {
    Code::image(|asm| {
        asm.say("hello\n");
        asm.exit(code);
    })
}

pub(super) fn full() -> File {
    File::options()
        .write(true)
        .open("/dev/full")
        .expect("/dev/full")
}

#[test]
fn a_full_disk() {
    need_kvm();
    for form in ["table", "json"] {
        let run = |code| {
            let image = image(code);
            Vmm::new()
                .args(["--stats", form])
                .arg(image.path())
                .stdout(full())
                .run()
        };
        // Without a report there is no success.
        let pass = run(ExitCode::Pass);
        assert_ne!(pass.status(), 0, "{pass}");
        pass.complains_of("cannot write the report");
        run(ExitCode::Fail)
            .ends_with(1)
            .complains_of("cannot write the report");
    }
}

#[test]
fn a_full_disk_under_the_report_file() {
    need_kvm();
    let image = image(ExitCode::Pass);
    let run = Vmm::with("--stats json --stats-file /dev/full")
        .arg(image.path())
        .run();
    assert_ne!(run.status(), 0, "{run}");
    run.says("cannot write the report").says("hello");
}

#[test]
fn a_reader_that_has_gone() {
    need_kvm();
    let image = image(ExitCode::Fail);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let run = Vmm::new().arg(image.path()).stdout(writer).run();
    run.ends_with(1).complains_of("cannot write the report");
}

#[test]
fn a_reader_that_does_not_read() {
    need_kvm();
    let image = Code::image(|code| code.for_ever(|code| code.say("flood ")));
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut vmm = Vmm::with("--timeout 1 --stats json")
        .arg(image.path())
        .limit(Duration::from_secs(60));
    // The console goes to standard error with json.
    vmm.command().stderr(writer);
    let run = vmm.run();
    drop(reader);
    run.ends_with(5);
}

#[test]
fn standard_output_that_is_closed() {
    need_kvm();
    let image = image(ExitCode::Fail);
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "exec \"$@\" >&-", "sh"])
        .arg(tests::vmm())
        .arg(image.path());
    Vmm::from(shell).run().ends_with(1);
}

#[test]
fn standard_error_that_is_closed() {
    need_kvm();
    let image = image(ExitCode::Pass);
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "exec \"$@\" 2>&-", "sh"])
        .arg(tests::vmm())
        .args(["--stats", "json"])
        .arg(image.path());
    let run = Vmm::from(shell).run();
    run.ends_with(0);
    assert_eq!(run.json()["result"], "pass");
}
