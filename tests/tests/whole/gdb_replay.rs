//! A debugger on a schedule, forwards and backwards (`vmm replay --gdb`): what is come to is what was come
//! to before, wherever it is come from. Most of it is asked for by hand, and some of a real gdb.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tests::{Run, Running, Vmm, explore_image, need_kvm, skip};

use super::documented::repository;
use super::explore::Workspace;
use super::gdb::{Client, gdb, says};

/// How long anything here may take.
const SOON: Duration = Duration::from_secs(60);

/// The handler of a call writes a word behind the CPU that it interrupts.
const OVERWRITTEN: &str = "cpus 2\n0: single 1 { set 0 1 }\n1: set 0 2\n\
                           never GUEST.ipi.functions.objects.words[0] = 1\n";

const WORD: &str = "GUEST.ipi.functions.objects.words[0]";

/// A schedule of that case, of three turns: a call, a task that writes 2, and a handler that writes 1.
fn overwritten() -> &'static Value {
    static FOUND: OnceLock<Value> = OnceLock::new();
    FOUND.get_or_init(|| found(OVERWRITTEN, "--memory sc"))
}

fn found(case: &str, options: &str) -> Value {
    let workspace = Workspace::with(case);
    let path = workspace.path("found.json");
    let run = workspace
        .explore(options)
        .arg("--schedule")
        .arg(&path)
        .run();
    assert!(path.exists(), "nothing was found: {run}");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// A schedule under a debugger.
struct Recording {
    running: Running,
    directory: TempDir,
}

impl Recording {
    fn of(schedule: &Value) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("schedule.json");
        fs::write(&path, schedule.to_string()).unwrap();
        let running = Vmm::with("replay")
            .arg(path)
            .arg(explore_image())
            .arg("--gdb")
            .arg(directory.path().join("gdb"))
            .start();
        let it = Self { running, directory };
        let deadline = Instant::now() + SOON;
        // The file alone can be there before anybody listens.
        while !it.running.said().contains("waits for gdb") {
            assert!(Instant::now() < deadline, "nobody listens for gdb");
            thread::yield_now();
        }
        it
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("gdb")
    }

    fn connect(&self) -> Client {
        Client::connect(&self.socket())
    }

    /// What a gdb says that does this once it is connected.
    fn with(self, gdb: &Path, commands: &str) -> String {
        let script = self.directory.path().join("script.gdb");
        let text = format!(
            "set pagination off\nset confirm off\nset width 0\nset tcp connect-timeout 60\n\
             target remote {}\n{commands}\n",
            self.socket().to_str().unwrap()
        );
        fs::write(&script, text).unwrap();
        let mut command = Command::new(gdb);
        command.args(["-nx", "-batch", "-x"]).arg(&script);
        command.arg(explore_image());
        let run = Vmm::from(command).limit(SOON * 2).run();
        self.ends_well();
        format!("{}\n{}", run.stdout, run.stderr)
    }

    /// It ends when gdb has left.
    fn ends_well(self) -> Run {
        let run = self.running.finish();
        run.ends_with(0).says("waits for gdb: target remote ");
        run
    }
}

/// Where the recording is, and hashes of all that there is.
fn place(client: &mut Client) -> (String, String) {
    (client.monitor("where"), client.monitor("hash"))
}

/// The packet that has the CPU take a step whose turn it is at `place`.
fn step(place: &str) -> String {
    let cpu = place.split(" of CPU ").nth(1).expect("a turn");
    let digits: String = cpu.chars().take_while(char::is_ascii_digit).collect();
    let cpu: u32 = digits.parse().unwrap();
    format!("vCont;s:{}", cpu + 1)
}

#[test]
fn every_instruction_is_come_to_again_from_both_sides() {
    need_kvm();
    let recording = Recording::of(overwritten());
    let mut client = recording.connect();
    // The first stops of the handler, from the instruction that it interrupts on.
    client.monitor("goto 3");
    let mut seen = vec![place(&mut client)];
    while !seen.last().unwrap().0.contains("behind its stop 3") {
        let step = step(&seen.last().unwrap().0);
        let stop = client.ask(&step);
        assert!(stop.starts_with("T05thread:"), "{stop}");
        seen.push(place(&mut client));
        assert!(seen.len() < 1_000, "it goes on and on");
    }
    // The interrupt is taken between two of them, and each of the three stops has a few.
    assert!(seen.len() > 50, "only {} instructions", seen.len());
    // CPU 1 is the one that goes.
    client.ask("Hg2");
    for before in seen.iter().rev().skip(1) {
        let stop = client.ask("bs");
        assert!(stop.starts_with("T05thread:"), "{stop}");
        assert_eq!(place(&mut client), *before);
    }
    // And in one leap.
    for (stop, number) in [("3.3", 3), ("3.2", 2), ("3.1", 1)] {
        client.monitor(&format!("goto {stop}"));
        let (here, hash) = place(&mut client);
        assert!(here.ends_with(&format!("at its stop {number}\n")), "{here}");
        assert!(seen.contains(&(here, hash)), "never there before");
    }
    drop(client);
    recording.ends_well();
}

#[test]
fn turns_are_gone_to_and_both_ends_are_told() {
    need_kvm();
    let recording = Recording::of(overwritten());
    let mut client = recording.connect();
    let beginning = place(&mut client);
    assert_eq!(beginning.0, "turn 1 of CPU 0, at its beginning\n");
    says(&client.monitor("turns"), "\n=>   1  ");
    assert!(client.ask("bc").contains("replaylog:begin"));
    // What is broken at the end is a signal, and what is behind it is nothing.
    assert!(client.ask("vCont;c").starts_with("T06"));
    assert_eq!(client.monitor("where"), "at the end\n");
    assert_eq!(
        client.monitor("breaks"),
        format!("here: never {WORD} = 1\n")
    );
    assert!(client.ask("vCont;c").contains("replaylog:end"));
    says(&client.monitor("turns"), "=> end");
    assert_eq!(client.monitor("pieces"), "none\n");
    assert_eq!(client.monitor("where"), "at the end\n");
    assert_eq!(
        client.monitor("goto 2.3"),
        "turn 2 of CPU 1, at its stop 3\n"
    );
    let within = place(&mut client);
    for far in ["end", "1", "3.1"] {
        client.monitor(&format!("goto {far}"));
        client.monitor("goto 2.3");
        assert_eq!(place(&mut client), within);
    }
    for nowhere in ["0", "4", "2.99", "x", "1.", "1.x"] {
        says(
            &client.monitor(&format!("goto {nowhere}")),
            "turns are 1 to 3",
        );
        assert_eq!(client.monitor("where"), within.0);
    }
    assert!(client.ask("bc").contains("replaylog:begin"));
    assert_eq!(place(&mut client), beginning);
    drop(client);
    recording.ends_well();
}

#[test]
fn a_recording_is_not_written_to() {
    need_kvm();
    let recording = Recording::of(overwritten());
    let mut client = recording.connect();
    let before = place(&mut client);
    for packet in [
        "M1000,1:00",
        "P10=0000000000000000",
        "Z3,1000,8",
        "Z4,1000,8",
    ] {
        let answer = client.ask(packet);
        assert!(answer.starts_with('E'), "{packet}: {answer}");
        says(&client.why(), "a recording");
    }
    assert!(client.ask("Z2,1000,10").starts_with('E'));
    says(&client.why(), "no more than 8 bytes");
    assert!(client.ask("Z2,7fffffff0000,8").starts_with('E'));
    says(&client.why(), "no memory");
    assert!(client.ask("m7fffffff0000,8").starts_with('E'));
    assert_eq!(place(&mut client), before);
    drop(client);
    recording.ends_well();
}

#[test]
fn gdb_may_vanish_and_a_signal_is_one() {
    need_kvm();
    let recording = Recording::of(overwritten());
    let mut client = recording.connect();
    // It is gone before it is answered.
    client.monitor("goto end");
    client.say_monitor("pieces");
    drop(client);
    recording.ends_well();
    let recording = Recording::of(overwritten());
    recording.running.signal(libc::SIGTERM);
    let run = recording.running.finish();
    run.ends_with(128 + libc::SIGTERM);
}

/// What is found can be debugged at once, and the status is still that of the search.
#[test]
fn a_search_waits_for_gdb_on_what_it_finds() {
    need_kvm();
    let workspace = Workspace::with(OVERWRITTEN);
    let socket = workspace.path("gdb");
    let running = workspace.explore("--memory sc --gdb").arg(&socket).start();
    running.wait_for("must never be: ");
    let mut client = Client::connect(&socket);
    assert!(client.ask("vCont;c").starts_with("T06"));
    assert_eq!(client.monitor("where"), "at the end\n");
    drop(client);
    running.finish().ends_with(1).says("waits for gdb: ");
    assert!(!socket.exists());
    // Nothing is found here, so that nobody is waited for.
    let clean = Workspace::with("cpus 2\n0: single 1 wait\n");
    let run = clean.explore("--memory sc --gdb tcp:127.0.0.1:0").run();
    run.ends_with(0);
    for option in ["--times 2", "--stats ktap", "--report page.html"] {
        let run = Vmm::with(&format!("replay nothing.json --gdb gdb {option}")).run();
        run.ends_with(2);
    }
}

#[test]
fn gdb_says_who_wrote_a_word_last() {
    let Some(gdb) = gdb() else { return };
    need_kvm();
    let recording = Recording::of(overwritten());
    let mut client = recording.connect();
    let address = client.monitor(&format!("address {WORD}"));
    says(
        &client.monitor("address nothing"),
        "no CPU stops before an access",
    );
    drop(client);
    recording.ends_well();
    let address = address.trim();
    assert!(address.starts_with("0x"), "{address}");
    let said = Recording::of(overwritten()).with(
        &gdb,
        &format!(
            "continue\nwatch *(unsigned int *) {address}\nreverse-continue\nmonitor where\n\
             info registers rip\nstepi\nreverse-stepi\ninfo registers rip\nreverse-continue\n\
             monitor where\nreverse-continue\ncontinue\nmonitor where\ncontinue\nmonitor where"
        ),
    );
    says(&said, "received signal SIGABRT");
    // Backwards, each before the store; forwards, each behind it.
    says(&said, "Old value = 1\nNew value = 2\n");
    says(&said, "Old value = 2\nNew value = 0\n");
    says(&said, "Old value = 0\nNew value = 2\n");
    says(&said, "Old value = 2\nNew value = 1\n");
    says(&said, "turn 3 of CPU 1, ");
    says(&said, "turn 2 of CPU 1, ");
    let rips: Vec<_> = said.lines().filter(|it| it.starts_with("rip ")).collect();
    assert_eq!(rips.len(), 2, "{said}");
    assert_eq!(rips[0], rips[1], "{said}");
    says(&said, "No more reverse-execution history.");
}

/// A gdb that has Python, as Debian's package gdb and not its gdb-minimal.
fn gdb_with_python() -> Option<PathBuf> {
    let has_python = |gdb: &PathBuf| {
        let mut asked = Command::new(gdb);
        let asked = asked.args(["-nx", "-batch", "-ex", "python print(6 * 7)"]);
        asked
            .output()
            .is_ok_and(|said| said.stdout.starts_with(b"42"))
    };
    let found = gdb()
        .into_iter()
        .chain([PathBuf::from("gdb")])
        .find(has_python);
    if found.is_none() {
        skip("there is no gdb with Python; Debian's package is gdb");
    }
    found
}

/// What `docs/debugging.md` shows.
#[test]
fn the_lost_call_is_walked_back_to_the_store_that_loses_it() {
    let Some(gdb) = gdb_with_python() else { return };
    let Some(root) = repository() else { return };
    need_kvm();
    let case = fs::read_to_string(root.join("scenarios/explore/lost-call.case")).unwrap();
    let schedule = found(&case, "--append queue=fifo --memory sc --shorten 1s");
    let script = root.join("scenarios/gdb/lost-call.gdb");
    let script = script.to_str().unwrap();
    let said = Recording::of(&schedule).with(&gdb, &format!("source {script}"));
    says(&said, "never ran on CPU 2");
    says(&said, "in guest::ipi::list::");
    says(
        &said,
        "(CPU 2, load GUEST.ipi.many.elements.list.links[0].next)",
    );
    says(&said, "$1 = 0xffffffff");
}
