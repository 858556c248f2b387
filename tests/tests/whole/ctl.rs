//! `vmm ctl`: each command asks what it says, prints for people or for programs, and waits for a
//! socket that is still to come.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tests::{Run, Vmm, need_kvm};

use super::control::Bench;

#[test]
fn a_breakpoint_shows_until_it_is_taken_back() {
    const PLACE: &str = "Singles::handle";
    let bench = Bench::boot("--vcpus 2", "workload=puppet");
    ctl(&bench, "ready --limit 60").ends_with(0);
    let set = ctl(&bench, &format!("break 1 {PLACE}"));
    if set.status() == 1 {
        set.says("no breakpoints that work");
        return;
    }
    set.ends_with(0);
    ctl(&bench, "status").ends_with(0).says(PLACE);
    ctl(&bench, "disarm 1").ends_with(0);
    let status = ctl(&bench, "status");
    assert!(!status.ends_with(0).stdout.contains(PLACE), "{status}");
}

#[test]
fn the_command_asks_and_says_how_it_went() {
    let bench = Bench::boot("--vcpus 2", "workload=puppet");
    bench.connect().tell(1, "idle");
    let ctl = |arguments: &[&str]| {
        Vmm::new()
            .arg("ctl")
            .arg(bench.socket())
            .args(arguments)
            .run()
    };
    ctl(&["pause", "1"]).ends_with(0).says("state paused");
    let look = ctl(&["look", "1"]);
    look.ends_with(0).says("CPU 1 is paused, interrupts o");
    // The function is that of the place, which the VMM has from the image's symbols.
    let line = |start: &str| {
        let line = look.stdout.lines().find(|line| line.starts_with(start));
        line.unwrap_or_else(|| panic!("no {start}: {look}"))
    };
    let (place, rip) = (line("at 0x"), line("rip     0x"));
    let (_, function) = place["at ".len()..].split_once(' ').expect("a function");
    let (address, of_rip) = rip["rip     0x".len()..]
        .split_once("  ")
        .expect("a function");
    assert_eq!(function, of_rip, "{look}");
    let address = u64::from_str_radix(address, 16).expect("hexadecimal");
    assert!(place.starts_with(&format!("at {address:#x} ")), "{look}");
    let status = ctl(&["status"]);
    let rows = status.ends_with(0).stdout.lines();
    let rows: Vec<_> = rows.map(|row| row.split_whitespace().collect()).collect();
    let has = |row: &[&str]| rows.iter().any(|it: &Vec<_>| it == row);
    assert!(has(&["0", "running"]) && has(&["1", "paused"]), "{status}");
    ctl(&["resume", "all"]).ends_with(0);
    ctl(&["resume", "1"]).ends_with(1).says("is not paused");
    ctl(&["pause", "7"]).ends_with(1).says("there is no vCPU 7");
    ctl(&["tell", "0", "single", "1", "wait"])
        .ends_with(0)
        .says("result 0");
    ctl(&["deeds"])
        .ends_with(0)
        .says(" call-many CPUS [wait] [{ DEEDS }] ");
    ctl(&["tell", "0", "call-many"])
        .ends_with(1)
        .says("told as \"call-many CPUS [wait] [{ DEEDS }]\"");
    ctl(&["tell", "0", "dance"])
        .ends_with(1)
        .says("no deed \"dance\"");
    ctl(&["--json", "raw", "{\"verb\": \"hello\"}"])
        .ends_with(0)
        .says("\"protocol\":3");
    ctl(&["fly"]).ends_with(2);
    ctl(&["wait", "1", "--limit", "0.1"])
        .ends_with(1)
        .says("CPU 1 being held (it runs) has not happened within 0.1 s");
    ctl(&["finish"]).ends_with(0);
    let socket = bench.socket();
    bench.running.finish().ends_with(0);
    let gone = Vmm::new().arg("ctl").arg(socket).arg("status").run();
    gone.ends_with(3).complains_of("cannot connect");
}

#[test]
fn the_shell_says_which_request_it_could_not_read() {
    let bench = Bench::boot("--vcpus 2", "workload=puppet");
    drop(bench.connect());
    let mut shell = Command::new(tests::vmm())
        .arg("ctl")
        .arg(bench.socket())
        .args(["raw", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command");
    let mut requests = shell.stdin.take().expect("a pipe");
    requests
        .write_all(b"{\"verb\": \"hello\"}\n\n\xff\n{\"verb\": \"quit\"}\n")
        .expect("room in the pipe");
    drop(requests);
    let output = shell.wait_with_output().expect("its end");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said.matches("protocol").count(), 1, "{said}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("cannot read the next request"), "{said}");
    let end = Vmm::new().arg("ctl").arg(bench.socket()).arg("finish");
    end.run().ends_with(0);
    bench.running.finish().ends_with(0);
}

#[test]
fn who_ends_a_machine_does_not_make_its_findings_good() {
    // What was expected of the machine is not there.
    let bench = Bench::boot("--vcpus 2", "workload=puppet");
    ctl(&bench, "must-break lost").ends_with(0);
    ctl(&bench, "quit").ends_with(0);
    let run = bench.running.finish();
    run.ends_with(1).says("nothing was lost, as was expected");
    let bench = Bench::boot("--vcpus 2", "workload=puppet");
    ctl(&bench, "ready").ends_with(0);
    ctl(&bench, "quit").ends_with(0);
    bench.running.finish().ends_with(0);
}

/// `vmm ctl`, asked at the socket of `bench`, as soon as that is there.
fn ctl(bench: &Bench, arguments: &str) -> Run {
    let ctl = Vmm::new().args(["ctl", "--wait", "60"]);
    let ctl = ctl.arg(bench.socket());
    ctl.args(arguments.split_whitespace()).run()
}

#[test]
fn every_verb_is_a_command() {
    let bench = Bench::boot("--vcpus 1", "workload=puppet");
    let verbs = bench.connect().well(&json!({ "verb": "verbs" }));
    for verb in verbs["verbs"].as_object().expect("a map").keys() {
        let command = match verb.strip_prefix("wire_") {
            Some(rest) => format!("wire {}", rest.replace('_', "-")),
            None => verb.replace('_', "-"),
        };
        ctl(&bench, &format!("{command} --help")).ends_with(0);
    }
    ctl(&bench, "finish").ends_with(0);
    bench.running.finish().ends_with(0);
}

/// Those that other tests here do not give, each with what it says.
#[test]
fn commands_ask_what_they_say() {
    let bench = Bench::boot("--vcpus 3", "workload=puppet transport=wire");
    for (command, status, said) in [
        ("ready", 0, "ready, with 3 CPUs"),
        ("hello", 0, "protocol 3"),
        ("verbs", 0, "cpu, deed, [until], [limit]"),
        ("wire hold 0 1", 0, "ok"),
        ("wire delay 0 1 0", 0, "ok"),
        ("wire release 0 1", 0, "ok"),
        ("wire hold-all", 0, "ok"),
        (
            "tell 0 call-single 1 --until made",
            0,
            "told CPU 0, its deed 1, call 0:0:1",
        ),
        (
            "tell 0 call-single 2 --until told",
            0,
            "told CPU 0, its deed 2",
        ),
        ("wait-made 0 2", 0, "call 0:0:2"),
        ("status", 0, "from CPU 0 to CPU 1"),
        ("wire wait-held 0 1 --vector single", 0, "ok"),
        ("wire wait-held 0 1 --call 0:0:1", 0, "ok"),
        ("wire in-flight", 0, "single   0:0:1"),
        ("wire lose 0 1 --call 0:0:2", 1, "the wire holds no"),
        ("wire lose 0 1 --vector nothing", 1, "no IPI is called"),
        (
            "wire lose 0 1 --vector single --call 0:0:2",
            2,
            "cannot be used with",
        ),
        ("wire deliver 0 1 0", 0, "ok"),
        (
            "wait-ran 0:0:1 1",
            0,
            "call 0:0:1, made to CPU 1, has run on all of them",
        ),
        (
            "call 0:0:2",
            0,
            "made to CPU 2, has run on no CPU, and not on CPU 2",
        ),
        ("ran-on 0:0:2 2", 1, "has not run on CPU 2"),
        ("ran-on 0:0:2 9", 1, "there is no vCPU 9"),
        ("ran-on 0:0:1 1", 0, "has run on CPU 1"),
        ("wire lose 0 2 9", 1, "the wire holds no IPI number 9"),
        ("wire release-all", 0, "ok"),
        ("wait-done 0 2", 0, "done, call 0:0:2, result 0"),
        ("call 7:0:1", 1, "call 7:0:1 is not in the ledger"),
        ("call 1", 1, "is no name of a call"),
        ("wait-done 0 9", 1, "was told nothing with number 9"),
        ("tell 1 spin", 0, "told CPU 1, its deed 1, result 0"),
        ("wait-made 1 1", 1, "which made no call"),
        ("pause-all", 0, "ok"),
        ("step 1 2", 0, "CPU 1 is held after its steps"),
        ("hold 1 queue.visit --nth 2 --call 0:0:1", 0, "ok"),
        (
            "status",
            0,
            "queue.visit, call 0:0:1, once it comes there 2 times",
        ),
        ("disarm 1", 0, "ok"),
        ("break 1 nowhere", 1, "has no function \"nowhere\""),
        ("resume-all", 0, "ok"),
        ("must-break nothing", 1, "no oracle \"nothing\""),
        ("may-break lost", 0, "ok"),
        ("abandon 1-2", 0, "ok"),
        ("abandon 7", 1, "there is no vCPU 7"),
        ("trace on", 1, "there is no trace"),
        ("stats", 0, "calls_made"),
        ("quit", 0, "ok"),
    ] {
        let run = ctl(&bench, command);
        run.ends_with(status).says(said);
    }
    bench.running.finish().says("ended on request");
}

#[test]
fn the_command_waits_until_somebody_answers() {
    need_kvm();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control");
    let ctl = |path: &Path, limit: &str| Vmm::new().arg("ctl").arg(path).args(["--wait", limit]);
    // It comes before the machine.
    let early = ctl(&path, "100").arg("ready").start();
    let machine = Vmm::boot("--vcpus 2 --append workload=puppet");
    let machine = machine.arg("--control").arg(&path).start();
    early.finish().ends_with(0).says("ready, with 2 CPUs");
    ctl(&path, "100").arg("finish").run().ends_with(0);
    machine.finish().ends_with(0);

    let late = ctl(&path, "50ms").arg("status").run();
    late.ends_with(3)
        .complains_of("within 0.05 s: No such file or directory");
    // A socket that a dead VMM has left behind.
    drop(UnixListener::bind(&path).unwrap());
    let late = ctl(&path, "50ms").arg("status").run();
    late.ends_with(3)
        .complains_of("within 0.05 s: Connection refused");
    fs::remove_file(&path).unwrap();
    let _mute = UnixListener::bind(&path).unwrap();
    let mute = ctl(&path, "50ms").arg("status").run();
    mute.ends_with(3)
        .complains_of("somebody listens there, and has answered nothing within 0.05 s");
    // Waiting cannot help there.
    let file = directory.path().join("file");
    fs::write(&file, "mine").unwrap();
    let other = ctl(&file, "1000").arg("status").run();
    other.ends_with(3).complains_of("it is no socket");
}

#[test]
fn the_command_prints_what_happens() {
    let bench = Bench::boot("--vcpus 2", "workload=puppet");
    ctl(&bench, "ready --limit 60").ends_with(0);
    let subscribe = |words: &str| {
        let ctl = Vmm::new().arg("ctl").arg(bench.socket()).arg("subscribe");
        ctl.args(words.split_whitespace()).start()
    };
    let json = subscribe("held ended --json");
    json.wait_for("\"ok\":true");
    ctl(&bench, "hold 1 single.run").ends_with(0);
    ctl(&bench, "tell 0 call-single 1 wait --until made").ends_with(0);
    ctl(&bench, "wait-held 1").says("held at single.run, call 0:0:1");
    json.wait_for("\"event\":\"held\"");
    ctl(&bench, "release 1").ends_with(0);
    let done = ctl(&bench, "tell 0 call-single 1 wait");
    let lines: Vec<_> = done.ends_with(0).stdout.lines().collect();
    assert_eq!(
        lines,
        [
            "told CPU 0, its deed 2, call 0:0:2",
            "done, call 0:0:2, result 0"
        ]
    );
    ctl(&bench, "finish").ends_with(0);
    let said = json.finish();
    let lines: Vec<Value> = said
        .ends_with(0)
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let events: Vec<_> = lines.iter().map(|line| line["event"].as_str()).collect();
    assert_eq!(events, [None, Some("held"), Some("ended")]);
    bench.running.finish().ends_with(0);
}
