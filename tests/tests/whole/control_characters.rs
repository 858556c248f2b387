//! What others say does not get at the terminal: a guest on its console, an image by the names of
//! its functions, a script, a schedule, a server. Their control characters are spelled out.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::thread;

use serde_json::Value;
use shared::exit::ExitCode;
use tests::image::{Code, Image};
use tests::{Run, Vmm, need_kvm};

/// Checks that nothing in the output of a run is for the terminal.
#[track_caller]
fn is_harmless(run: &Run) {
    for text in [&run.stdout, &run.stderr] {
        let harmful = |it: char| it.is_control() && !matches!(it, '\n' | '\t');
        assert!(!text.contains(harmful), "{text:?}");
    }
}

fn talkative() -> Image {
    Code::image(|code| {
        code.say("one\r\ntwo\t\x1b[2J\x1b]0;title\x07 \u{9b}1m\n");
        code.exit(ExitCode::Pass);
    })
}

#[test]
fn a_console_keeps_its_lines_and_nothing_else_unless_it_is_to_be_raw() {
    need_kvm();
    let image = talkative();
    for form in ["table", "json"] {
        let run = Vmm::with("--stats").arg(form).arg(image.path()).run();
        is_harmless(&run);
        run.says("one\ntwo\t\\u{1b}[2J\\u{1b}]0;title\\u{7} \\u{9b}1m\n");
    }
    let raw = Vmm::with("--console raw").arg(image.path()).run();
    raw.ends_with(0)
        .says("one\r\ntwo\t\x1b[2J\x1b]0;title\x07 \u{9b}1m\n");
}

#[test]
fn a_script() {
    need_kvm();
    for text in [
        "print(\"\\x1b[2J\"); boot(#{ append: `workload=puppet` }); print(\"\\x1b[2J\"); finish();",
        "print(\"\\x1b[2J\"); throw \"\\x1b[2J\"",
        "expect(false, \"\\x1b[2J\")",
    ] {
        let run = Vmm::scripted(text).run();
        is_harmless(&run);
        run.says("\\u{1b}[2J");
    }
}

/// The names of an image's functions are in it as text.
#[test]
fn the_names_of_an_image() {
    need_kvm();
    let mut bytes = fs::read(tests::guest()).expect("an image");
    // Where a name begins, in the table of names. In what is executed that is not there.
    let mut replaced = 0;
    for at in 0..bytes.len() - 4 {
        if [b"\0_ZN".as_slice(), b"\0_RN".as_slice()].contains(&&bytes[at..at + 4]) {
            bytes[at + 1] = 0x1b;
            bytes[at + 2] = b'\n';
            replaced += 1;
        }
    }
    assert!(replaced > 100, "{replaced} names");
    let image = Image::new(&bytes);
    let run = Vmm::with("--vcpus 2 --timeout 2 --append workload=puppet")
        .arg(image.path())
        .run();
    is_harmless(&run);
    run.ends_with(5).says("\\u{1b}\\n");
}

#[test]
fn a_schedule() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("found.json");
    let image = tests::explore_image();
    for document in [
        r#"{"form": "\u001b[2J"}"#,
        r#"{"form": "ipi-lab-schedule/1", "\u001b[2J": 1}"#,
        r#"{"form": "ipi-lab-schedule/1", "case": "cpus 1", "append": "",
            "granularity": "access", "image": "\u001b[2J\n", "begins": "", "turns": [],
            "breaks": []}"#,
    ] {
        fs::write(&path, document).expect("room for a schedule");
        let run = Vmm::with("replay").arg(&path).arg(&image).run();
        is_harmless(&run);
        run.ends_with(2).says("\\u{1b}[2J");
    }
}

#[test]
fn a_server() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("control");
    let listener = UnixListener::bind(&path).expect("a socket");
    const SAID: &str = "x\u{1b}[2J\u{9b}1m\ny";
    let server = thread::spawn(move || {
        for answer in [
            serde_json::json!({ "ok": true, "state": SAID }),
            serde_json::json!({ "ok": false, "error": SAID }),
            serde_json::json!({ "ok": true, "state": SAID }),
        ] {
            let (stream, _) = listener.accept().expect("a client");
            let mut stream = BufReader::new(stream);
            stream.read_line(&mut String::new()).expect("a request");
            writeln!(stream.get_mut(), "{answer}").expect("it reads");
        }
    });
    let ctl = |words: &str| {
        let run = Vmm::new()
            .arg("ctl")
            .arg(&path)
            .args(words.split(' '))
            .run();
        is_harmless(&run);
        run
    };
    const SHOWN: &str = "x\\u{1b}[2J\\u{9b}1m\\ny";
    ctl("pause 0").ends_with(0).says(SHOWN);
    ctl("pause 0").ends_with(1).says(SHOWN);
    let document: Value = ctl("--json pause 0").json();
    assert_eq!(document["state"], SAID);
    server.join().expect("a server");
}

/// It begins no line of what is said of it.
#[test]
fn the_name_of_a_file() {
    const NAME: &str = "./a\nvmm: all is well";
    const THERE: &str = "./there\nvmm: all is well";
    const SHOWN: &str = "\\nvmm: all is well";
    let folder = tempfile::tempdir().expect("a temporary directory");
    fs::write(folder.path().join(THERE), "{").expect("room for a file");
    let guest = tests::guest().display().to_string();
    for words in [
        [NAME].as_slice(),
        &["--log", "debug", NAME],
        &["--script", NAME, &guest],
        &["--script", THERE, &guest],
        &["--report", "none/a\nvmm: all is well", &guest],
        &["--control", THERE, &guest],
        &["explore", NAME, &guest],
        &["explore", THERE, &guest],
        &["compare", NAME, THERE],
        &["compare", THERE, THERE],
        &["replay", NAME, &guest],
        &["replay", THERE, &guest],
        &["merge", NAME],
        &["merge", THERE],
        &["describe", THERE],
        &["bench", NAME],
        &["bench", "--baseline", THERE, &guest],
        &["ctl", NAME, "stats"],
        &["describe", &guest, NAME],
        &["--vcpus", NAME, &guest],
    ] {
        let mut vmm = Vmm::new().args(words);
        vmm.command().current_dir(folder.path());
        let run = vmm.run();
        assert_ne!(run.status(), 0, "{words:?}: {run}");
        assert!(run.stderr.contains(SHOWN), "{words:?}: {run}");
        let begins = |line: &str| line.starts_with("vmm: all");
        assert!(!run.stderr.lines().any(begins), "{words:?}: {run}");
    }
}

/// Who has a name in it sees that.
#[test]
fn a_command_line() {
    for words in [["\x1b[2J"].as_slice(), &["compare", "\x1b[2J", "b"]] {
        let run = Vmm::new().args(words).run();
        is_harmless(&run);
        run.ends_with(2).says("\\u{1b}[2J");
    }
}
