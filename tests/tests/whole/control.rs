//! Machines that are driven from outside, over the control socket: by several clients, by hostile
//! clients, and by the Python example.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{Run, Running, Vmm, need_kvm, skip};

/// How long anything here may take.
pub const SOON: Duration = Duration::from_secs(60);

/// A machine, and the place of its socket.
pub struct Bench {
    pub running: Running,
    directory: TempDir,
}

impl Bench {
    pub fn boot(arguments: &str, options: &str) -> Self {
        Self::boot_within(tests::TIME_LIMIT, arguments, options)
    }

    /// The same, for a machine that lives for `limit` at most.
    pub fn boot_within(limit: Duration, arguments: &str, options: &str) -> Self {
        need_kvm();
        let directory = tempfile::tempdir().unwrap();
        let running = Vmm::boot(arguments)
            .args(["--append", options, "--control"])
            .arg(directory.path().join("control"))
            .limit(limit)
            .start();
        Self { running, directory }
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("control")
    }

    pub fn connect(&self) -> Client {
        Client::connect(&self.socket())
    }
}

/// A connection, and what is read from it.
pub struct Client(pub BufReader<UnixStream>);

impl Client {
    /// Connects as soon as there is a socket.
    pub fn connect(socket: &Path) -> Self {
        let deadline = Instant::now() + SOON;
        loop {
            match UnixStream::connect(socket) {
                Ok(stream) => return Self(BufReader::new(stream)),
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            thread::yield_now();
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).unwrap();
    }

    pub fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    pub fn ask(&mut self, request: &Value) -> Value {
        self.send(format!("{request}\n").as_bytes());
        self.answer()
    }

    #[track_caller]
    pub fn well(&mut self, request: &Value) -> Value {
        let answer = self.ask(request);
        assert_eq!(answer["ok"], true, "{request}: {answer}");
        answer
    }

    #[track_caller]
    pub fn tell(&mut self, cpu: u32, deed: &str) -> Value {
        let told = self.well(&json!({ "verb": "tell", "cpu": cpu, "deed": deed }));
        self.well(&json!({ "verb": "wait_done", "cpu": cpu, "number": told["number"] }))
    }
}

#[test]
fn several_clients_drive_one_machine() {
    let bench = Bench::boot("--vcpus 3", "workload=puppet");
    let mode = fs::metadata(bench.socket()).map(|found| found.permissions().mode() & 0o777);
    let mut first = bench.connect();
    assert_eq!(mode.unwrap_or(0o600), 0o600);
    for cpu in 0..3 {
        first.tell(cpu, "idle");
    }
    // One client waits for what another does.
    first.well(&json!({ "verb": "hold", "cpu": 2, "probe": "queue.visit" }));
    let mut waiting = bench.connect();
    waiting.send(b"{\"verb\": \"wait_held\", \"cpu\": 2, \"limit\": 60, \"id\": \"w\"}\n");
    let told = first.well(&json!({ "verb": "tell", "cpu": 0, "deed": "call-many 1,2" }));
    let held = waiting.answer();
    assert_eq!(
        (&held["ok"], &held["id"]),
        (&json!(true), &json!("w")),
        "{held}"
    );
    assert_eq!(held["held_by"]["probe"], "queue.visit", "{held}");
    let status = first.well(&json!({ "verb": "status" }));
    assert_eq!(status["vcpus"][2]["state"], "held", "{status}");
    waiting.well(&json!({ "verb": "step", "cpu": 2, "count": 3 }));
    waiting.well(&json!({ "verb": "release", "cpu": 2 }));
    let done = first.well(&json!({ "verb": "wait_done", "cpu": 0, "number": told["number"] }));
    first.well(&json!({ "verb": "wait_ran", "call": done["call"] }));
    let again = first.ask(&json!({ "verb": "release", "cpu": 2 }));
    assert_eq!(again["kind"], "refused", "{again}");
    first.well(&json!({ "verb": "finish" }));
    bench.running.finish().ends_with(0);
}

/// With so many vCPUs a boot takes longer than it takes to pause the CPU that boots the others.
#[test]
fn finish_lets_go_what_was_paused_before_the_workload_began() {
    let bench = Bench::boot("--vcpus 64", "workload=puppet");
    let mut client = bench.connect();
    for cpu in [0, 0, 63] {
        client.well(&json!({ "verb": "pause", "cpu": cpu }));
    }
    let told = client.ask(&json!({ "verb": "tell", "cpu": 1, "deed": "idle", "limit": 0.1 }));
    let why = told["error"].to_string();
    assert!(why.contains("the start of the guest's workload"), "{told}");
    client.well(&json!({ "verb": "finish", "limit": 60 }));
    bench.running.finish().ends_with(0);
}

#[test]
fn a_machine_ends_whatever_has_become_of_its_socket() {
    let bench = Bench::boot("--vcpus 2", "workload=puppet");
    let mut client = bench.connect();
    client.well(&json!({ "verb": "hello" }));
    fs::remove_file(bench.socket()).expect("it was there");
    client.well(&json!({ "verb": "finish" }));
    bench.running.finish().ends_with(0);

    // By now another machine listens at a socket of that name, and must go on.
    let first = Bench::boot("--vcpus 2", "workload=puppet");
    let mut client = first.connect();
    client.well(&json!({ "verb": "hello" }));
    fs::remove_file(first.socket()).expect("it was there");
    let second = Vmm::boot("--vcpus 2 --append workload=puppet")
        .arg("--control")
        .arg(first.socket())
        .start();
    let mut other = first.connect();
    other.well(&json!({ "verb": "hello" }));
    client.well(&json!({ "verb": "finish" }));
    first.running.finish().ends_with(0);
    assert!(first.directory.path().join("control").exists());
    let mut late = Client::connect(&first.directory.path().join("control"));
    late.well(&json!({ "verb": "finish" }));
    second.finish().ends_with(0);
    assert!(!first.directory.path().join("control").exists());
}

#[test]
fn rubbish_harms_nobody() {
    let bench = Bench::boot("--vcpus 2", "workload=puppet");
    let mut good = bench.connect();
    good.tell(1, "idle");
    let mut bad = bench.connect();
    for line in [
        "{",
        "[]",
        "\"\\ud800\"",
        "{\"verb\": 7}",
        "\u{1}\u{2}",
        "{\"verb\": \"status\", \"x\": {}}",
    ] {
        bad.send(format!("{line}\n").as_bytes());
        assert_eq!(bad.answer()["ok"], false, "{line}");
    }
    // Half a line and then nothing; a line without an end; a client that disconnects while it
    // waits.
    bench.connect().send(b"{\"verb\": \"sta");
    let mut endless = bench.connect();
    let long = vec![b'['; 100 << 10];
    // The server may close the connection before it has read all of it.
    let _ = endless.0.get_mut().write_all(&long);
    let mut rest = String::new();
    let _ = endless.0.read_to_string(&mut rest);
    assert!(rest.is_empty() || rest.contains("too long"), "{rest}");
    bench
        .connect()
        .send(b"{\"verb\": \"wait_held\", \"cpu\": 1, \"limit\": 3600}\n");
    // More clients than are allowed.
    let crowd: Vec<_> = (0..40).map(|_| bench.connect()).collect();
    let refused = crowd.into_iter().map(|client| {
        let mut client = client;
        client
            .0
            .get_ref()
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        let mut line = String::new();
        client
            .0
            .read_line(&mut line)
            .is_ok_and(|_| line.contains("32 clients"))
    });
    assert!(refused.filter(|refused| *refused).count() >= 8);
    good.tell(0, "idle");
    good.well(&json!({ "verb": "finish" }));
    bench.running.finish().ends_with(0);
}

#[test]
fn clients_that_vanish_while_they_wait_leave_their_places() {
    let bench = Bench::boot("--vcpus 2", "workload=puppet");
    bench.connect().tell(1, "idle");
    // As many clients as are allowed.
    for _ in 0..32 {
        let mut client = bench.connect();
        client.well(&json!({ "verb": "hello" }));
        client.send(b"{\"verb\": \"wait_held\", \"cpu\": 1, \"limit\": 3600}\n");
    }
    let deadline = Instant::now() + SOON;
    let mut client = loop {
        let mut client = bench.connect();
        // A client that is disconnected does not always receive the reason.
        let _ = client.0.get_mut().write_all(b"{\"verb\": \"hello\"}\n");
        let mut line = String::new();
        if client.0.read_line(&mut line).is_ok() && line.contains("protocol") {
            break client;
        }
        assert!(Instant::now() < deadline, "{line}");
    };
    client.well(&json!({ "verb": "finish" }));
    bench.running.finish().ends_with(0);
}

#[test]
fn a_client_that_has_said_its_last_word_is_answered() {
    let bench = Bench::boot("--vcpus 2", "workload=puppet");
    let mut driver = bench.connect();
    driver.well(&json!({ "verb": "hold", "cpu": 1, "probe": "single.run" }));
    let mut client = bench.connect();
    client.send(b"{\"verb\": \"wait_held\", \"cpu\": 1, \"limit\": 60}");
    client.0.get_ref().shutdown(Shutdown::Write).unwrap();
    driver.tell(0, "idle");
    driver.well(&json!({ "verb": "tell", "cpu": 0, "deed": "call_single 1" }));
    assert_eq!(client.answer()["held_by"]["probe"], "single.run");
    driver.well(&json!({ "verb": "finish" }));
    bench.running.finish().ends_with(0);
}

#[test]
fn cpus_that_do_not_exist_are_refused() {
    let bench = Bench::boot("--vcpus 2", "workload=puppet");
    let mut client = bench.connect();
    for (request, complaint) in [
        (
            json!({ "verb": "tell", "cpu": 0, "deed": "many 4294967295" }),
            "\"4294967295\" is no list of CPUs of any machine",
        ),
        (
            json!({ "verb": "wait_ran", "call": "0:0:1", "cpus": [1024] }),
            "no machine has a CPU 1024",
        ),
        (
            json!({ "verb": "abandon", "cpus": [2] }),
            "there is no vCPU 2",
        ),
        (
            json!({ "verb": "wire_hold", "from": 0, "to": 2 }),
            "there is no vCPU 2",
        ),
        (
            json!({ "verb": "wire_lose", "from": 2, "to": 0, "nth": 0 }),
            "there is no vCPU 2",
        ),
    ] {
        let answer = client.ask(&request);
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(error.contains(complaint), "{request}: {answer}");
    }
    client.well(&json!({ "verb": "finish" }));
    bench.running.finish().ends_with(0);
}

#[test]
fn ipis_on_the_wire_are_told_apart() {
    let bench = Bench::boot("--vcpus 2", "workload=puppet transport=wire");
    let mut client = bench.connect();
    client.tell(0, "idle");
    let pair = |verb: &str, more: Value| {
        let mut request = json!({ "verb": verb, "from": 0, "to": 1 });
        let fields = request.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        request
    };
    client.well(&pair("wire_hold", json!({ "vector": "single" })));
    let told = json!({ "verb": "tell", "cpu": 0, "deed": "call-single 1" });
    let number = client.well(&told)["number"].clone();
    client.well(&pair("wire_wait_held", json!({ "vector": "0xfb" })));
    let done = json!({ "verb": "wait_done", "cpu": 0, "number": number });
    let call = client.well(&done)["call"].clone();
    client.well(&pair("wire_wait_held", json!({ "call": call })));
    let ipis = client.well(&json!({ "verb": "wire_in_flight" }))["ipis"].clone();
    let ipi = json!({ "from": 0, "to": 1, "vector": 0xfb, "name": "single", "call": call });
    assert_eq!(ipis, json!([ipi]));
    let nothing = json!({ "vector": "many", "limit": 0.01 });
    assert_eq!(
        client.ask(&pair("wire_wait_held", nothing))["kind"],
        "timed-out"
    );
    for (fields, complaint) in [
        (json!({ "vector": "nothing" }), "no IPI is called"),
        (json!({ "vector": "many", "call": call }), "not by both"),
    ] {
        let answer = client.ask(&pair("wire_lose", fields));
        assert_eq!(answer["kind"], "bad-request", "{answer}");
        assert!(answer["error"].as_str().unwrap().contains(complaint));
    }
    client.well(&pair("wire_lose", json!({ "call": call })));
    let gone = client.ask(&pair("wire_lose", json!({ "call": call })));
    assert_eq!(gone["kind"], "refused", "{gone}");
    client.well(&pair("wire_release", json!({})));
    for oracle in ["lost", "left-locked", "broken-queue", "accounting"] {
        client.well(&json!({ "verb": "may_break", "oracle": oracle }));
    }
    client.well(&json!({ "verb": "finish" }));
    bench.running.finish().ends_with(0);
}

#[test]
fn a_workload_that_takes_no_commands_can_be_paused_and_watched() {
    let bench = Bench::boot("--vcpus 4", "workload=stress for=2s");
    let mut client = bench.connect();
    for request in [
        json!({ "verb": "tell", "cpu": 0, "deed": "idle" }),
        json!({ "verb": "finish" }),
    ] {
        let answer = client.ask(&request);
        assert_eq!(answer["kind"], "refused", "{answer}");
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(error.contains("takes no commands"), "{answer}");
    }
    for cpu in [3, 0, 1, 3, 2] {
        let paused = client.well(&json!({ "verb": "pause", "cpu": cpu }));
        assert_ne!(paused["state"], "running");
        let stats = client.well(&json!({ "verb": "stats" }));
        let left_out = stats["kvm_left_out"].as_object().expect("names and why");
        for vcpu in stats["vcpus"].as_array().expect("four of them") {
            let kvm = vcpu["kvm"].as_object().expect("a map");
            assert!(kvm.contains_key("halt_exits"), "{stats}");
            assert!(
                !kvm.keys().any(|name| left_out.contains_key(name)),
                "{stats}"
            );
            // A counter is either shown or left out.
            assert_ne!(kvm.contains_key("exits"), left_out.contains_key("exits"));
        }
        client.well(&json!({ "verb": "resume", "cpu": cpu }));
    }
    client.well(&json!({ "verb": "pause_all" }));
    for cpu in 0..4 {
        client.well(&json!({ "verb": "look", "cpu": cpu }));
    }
    client.well(&json!({ "verb": "resume_all" }));
    bench
        .running
        .finish()
        .ends_with(0)
        .says("each exactly once where it had to");
}

#[test]
fn it_ends_when_it_is_told_to_and_leaves_nothing_behind() {
    // Repeated, because the reply races with the end of the run that it announces.
    for _ in 0..10 {
        let bench = Bench::boot("--vcpus 2", "workload=puppet");
        bench.connect().well(&json!({ "verb": "quit" }));
        let socket = bench.socket();
        bench.running.finish().ends_with(0).says("ended on request");
        assert!(!socket.exists());
    }

    let bench = Bench::boot("--vcpus 2", "workload=puppet");
    bench.connect().tell(0, "idle");
    bench.running.signal(libc::SIGINT);
    let socket = bench.socket();
    bench.running.finish().ends_with(130);
    assert!(!socket.exists());
}

#[test]
fn only_a_socket_that_nobody_uses_is_replaced() {
    need_kvm();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control");
    let boot = || Vmm::boot("").arg("--control").arg(&path).run();
    fs::write(&path, "mine").unwrap();
    boot().ends_with(2).complains_of("is no socket");
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    fs::remove_file(&path).unwrap();
    let listener = UnixListener::bind(&path).unwrap();
    boot().ends_with(2).complains_of("somebody listens");
    drop(listener);
    boot().ends_with(0);
    assert!(!path.exists());
    let nowhere = directory.path().join("no/such");
    Vmm::boot("")
        .arg("--control")
        .arg(nowhere)
        .run()
        .ends_with(2);
}

/// The Python example with its module, in a directory of its own; `None` without a Python.
fn python_example(arguments: &[&OsStr]) -> Option<Run> {
    let mut python = Command::new("python3");
    python.args(["-c", "pass"]).stdout(Stdio::null());
    if !python
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|it| it.success())
    {
        skip("the Python example: no python3");
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("control.py", include_str!("../../../scenarios/control.py")),
        ("ipi_lab.py", include_str!("../../../scenarios/ipi_lab.py")),
    ] {
        fs::write(directory.path().join(name), text).unwrap();
    }
    let mut python = Command::new("python3");
    python
        .arg(directory.path().join("control.py"))
        .args(arguments);
    Some(Vmm::from(python).run())
}

#[test]
fn the_python_example_drives_a_machine() {
    need_kvm();
    let (vmm, guest) = (tests::vmm(), tests::guest());
    let arguments = [OsStr::new("--vmm"), vmm.as_os_str(), guest.as_os_str()];
    let Some(run) = python_example(&arguments) else {
        return;
    };
    run.ends_with(0)
        .says("CPU 1 is away, and call 0:0:1 has run on CPUs [2]")
        .says("it has run on CPUs [1, 2]");
    let nowhere = python_example(&arguments[..2]).expect("a Python");
    nowhere.ends_with(1).says("control.py SOCKET");
    let bad = [arguments[0], arguments[1], OsStr::new("/no/such/guest")];
    let bad = python_example(&bad).expect("a Python");
    bad.ends_with(1)
        .says("the VMM ended with status 2 before its guest was ready");
}

#[test]
fn the_python_example_drives_a_machine_that_was_driven_before() {
    let bench = Bench::boot("--vcpus 3", "workload=puppet");
    let mut client = bench.connect();
    client.well(&json!({ "verb": "hold", "cpu": 1, "probe": "queue.visit" }));
    if let Some(run) = python_example(&[bench.socket().as_os_str()]) {
        run.ends_with(0).says("it has run on CPUs [1, 2]");
    } else {
        client.well(&json!({ "verb": "finish" }));
    }
    bench.running.finish().ends_with(0);
}

#[test]
fn a_call_is_known_while_its_caller_waits() {
    let bench = Bench::boot("--vcpus 3", "workload=puppet");
    let mut client = bench.connect();
    client.well(&json!({ "verb": "ready", "limit": 60 }));
    client.well(&json!({ "verb": "pause", "cpu": 1 }));
    let tell = json!({
        "verb": "tell", "cpu": 0, "deed": "call-many 1,2 wait", "until": "made",
    });
    let told = client.well(&tell);
    let call = told["call"].clone();
    assert_eq!(call, "0:0:1", "{told}");
    let made = json!({ "verb": "wait_made", "cpu": 0, "number": told["number"] });
    assert_eq!(client.well(&made)["call"], call);
    let ran = client.well(&json!({ "verb": "wait_ran", "call": call, "cpus": [2] }));
    assert_eq!(
        (&ran["call"], &ran["ran"], &ran["returned"]),
        (&call, &json!([2]), &json!(false))
    );
    let on = |cpu: u32| json!({ "verb": "ran_on", "call": call, "cpu": cpu });
    assert_eq!(client.well(&on(1))["ran_on"], false);
    assert_eq!(client.well(&on(2))["ran_on"], true);
    let everywhere = |limit: f64| json!({ "verb": "wait_ran", "call": call, "limit": limit });
    let late = client.ask(&everywhere(0.05));
    assert_eq!(late["kind"], "timed-out", "{late}");

    // What was told all the same is not lost to a client whose limit has passed.
    let tell = json!({
        "verb": "tell", "cpu": 1, "deed": "idle", "until": "done", "limit": 0.05,
    });
    let late = client.ask(&tell);
    assert_eq!(
        (&late["kind"], &late["cpu"], &late["number"]),
        (&json!("timed-out"), &json!(1), &json!(1))
    );
    client.well(&json!({ "verb": "resume", "cpu": 1 }));
    let ran = client.well(&everywhere(60.0));
    assert_eq!(
        (&ran["ran"], &ran["returned"]),
        (&json!([1, 2]), &json!(true))
    );
    client.well(&json!({ "verb": "wait_done", "cpu": 1, "number": 1 }));
    let done = json!({ "verb": "tell", "cpu": 2, "deed": "queue-order", "until": "done" });
    let done = client.well(&done);
    assert_eq!((&done["answer"], &done["call"]), (&json!([]), &json!(null)));
    client.well(&json!({ "verb": "finish" }));
    bench.running.finish().ends_with(0);
}
