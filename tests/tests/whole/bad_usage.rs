//! Command lines that make no sense: status 2, one message that names the option, and no machine is
//! made.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use tests::Vmm;
use tests::image::{Code, Image};

fn image() -> Image {
    Code::image(Code::halt)
}

#[test]
fn values_that_no_option_takes() {
    let image = image();
    for (option, values) in [
        (
            "--vcpus",
            &["0", "1025", "-1", "x", "", "1.5", "99999999999999999999"][..],
        ),
        (
            "--memory",
            &[
                "0",
                "1",
                "-1",
                "x",
                "1073741824",
                "18446744073709551615",
                "18446744073709551616",
            ],
        ),
        ("--timeout", &["soon", "-1", "nan", "inf", "1e300", ""]),
        ("--watchdog", &["soon", "-1", "nan", "inf", ""]),
        ("--stats", &["xml", "", "JSON"]),
        ("--pin", &["1-", "a", "3-1", ","]),
        ("--append", &["lab=0x1000", "a\nb", "\u{1}"]),
    ] {
        for value in values {
            // As one word, so that a value may begin with a dash.
            let run = Vmm::new()
                .arg(format!("{option}={value}"))
                .arg(image.path())
                .run();
            run.ends_with(2).complains_of(option);
        }
    }
}

#[test]
fn an_output_does_not_overwrite_the_guest() {
    let image = image();
    let before = fs::read(image.path()).expect("an image");
    for option in ["--stats-file", "--trace", "--report"] {
        let run = Vmm::with(option).arg(image.path()).arg(image.path()).run();
        let name = image.path().display().to_string();
        run.ends_with(2).complains_of(&name);
        assert_eq!(fs::read(image.path()).expect("an image"), before);
    }
}

#[test]
fn options_that_do_not_exist_or_are_given_twice() {
    let image = image();
    for arguments in ["--vcpu 4", "--nonsense", "-x", "--vcpus 2 --vcpus 3"] {
        let run = Vmm::with(arguments).arg(image.path()).run();
        let option = arguments.split_whitespace().next().expect("a word");
        run.ends_with(2).complains_of(option);
    }
    for option in [
        "--vcpus",
        "--memory",
        "--append",
        "--stats",
        "--stats-file",
        "--timeout",
        "--stall",
        "--steal",
    ] {
        Vmm::new()
            .arg(image.path())
            .arg(option)
            .run()
            .ends_with(2)
            .complains_of(option);
    }
}

#[test]
fn no_guest_or_too_many() {
    Vmm::new().run().ends_with(2).says("GUEST");
    let image = image();
    Vmm::new()
        .arg(image.path())
        .arg("another.bin")
        .run()
        .ends_with(2)
        .complains_of("another.bin");
    Vmm::new().arg("").run().ends_with(2);
}

#[test]
fn a_guest_command_line_that_does_not_fit() {
    let image = image();
    let long = "x".repeat(5000);
    Vmm::new()
        .args(["--append", &long])
        .arg(image.path())
        .run()
        .ends_with(2)
        .complains_of("--append");
    let bytes = OsStr::from_bytes(b"queue=\xff");
    Vmm::new()
        .arg("--append")
        .arg(bytes)
        .arg(image.path())
        .run()
        .ends_with(2);
}

#[test]
fn a_report_file_that_cannot_be_made() {
    let image = image();
    for path in ["/nonexistent/report.json", "/", ""] {
        let run = Vmm::with("--stats json --stats-file")
            .arg(path)
            .arg(image.path())
            .run();
        run.ends_with(2);
        assert!(!run.stderr.is_empty(), "{run}");
    }
}

#[test]
fn a_text_without_end_is_refused() {
    let image = image();
    for before in [
        &["--script", "/dev/zero"][..],
        &["explore", "/dev/zero"],
        &["replay", "/dev/zero"],
        &["bench", "--baseline", "/dev/zero"],
    ] {
        Vmm::new()
            .args(before)
            .arg(image.path())
            .run()
            .ends_with(2)
            .complains_of("/dev/zero")
            .complains_of("it has more than 64 MiB");
    }
}

#[test]
fn help_and_version_go_to_standard_output() {
    let help = Vmm::with("--help").run();
    help.ends_with(0);
    for word in [
        "Exit status",
        "--vcpus",
        "--memory",
        "--append",
        "--stats",
        "--timeout",
        "--stall",
        "--steal",
        "start of the workload",
        "GUEST",
    ] {
        assert!(help.stdout.contains(word), "{word}: {help}");
    }
    let version = Vmm::with("--version").run();
    version.ends_with(0);
    assert_eq!(version.stdout.lines().count(), 1, "{version}");
}
