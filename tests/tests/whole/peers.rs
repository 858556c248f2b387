//! Peers that stall: pipes of which nobody has the other end, servers that do not answer, and more
//! clients than there are places for. Nobody is waited for for ever, and the machine can be ended.

use std::fs;
use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde_json::json;
use tests::{Running, Vmm, need_kvm};

use super::control::Bench;
use super::files::pipe;

/// Far more than any of the limits.
const LONG: Duration = Duration::from_secs(110);

#[test]
fn a_pipe_of_which_nobody_has_the_other_end() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let [read, written] = ["read", "written"].map(|name| folder.path().join(name));
    pipe(&read);
    pipe(&written);
    let (image, explored) = (tests::guest(), tests::explore_image());
    let report = folder.path().join("report.json");
    fs::write(&report, "{}").expect("room for two bytes");
    let of = |words: &str| Vmm::with(words).arg(&read).limit(LONG);
    let to = |words: &str| Vmm::with(words).arg(&written).arg(&image).limit(LONG);
    // All at once, since each takes its time.
    let all: Vec<(&str, Running)> = vec![
        ("write", of("--script").arg(&image).start()),
        ("write", of("explore").arg(&explored).start()),
        ("write", of("reduce").arg(&explored).start()),
        ("write", of("replay").arg(&explored).start()),
        ("write", of("merge").start()),
        ("write", of("compare").arg(&report).start()),
        ("write", of("bench --baseline").arg(&image).start()),
        ("read", to("--stats json --stats-file").start()),
        ("read", to("--stats junit --stats-file").start()),
        ("read", to("--trace").start()),
        ("read", to("--report").start()),
        ("read", to("bench --json").start()),
    ];
    for (what, running) in all {
        let run = running.finish();
        run.ends_with(2).says(match what {
            "write" => "nobody has opened this pipe to write to it within 10 s",
            _ => "nobody has opened this pipe to read from it within 10 s",
        });
    }
}

#[test]
fn a_pipe_whose_writer_comes_late() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("pipe");
    pipe(&path);
    let replay = Vmm::with("replay")
        .arg(&path)
        .arg(tests::explore_image())
        .start();
    fs::write(&path, r#"{"form": "another"}"#).expect("a reader");
    replay.finish().ends_with(2).says("it has form \"another\"");
}

/// A server that says `said` to whoever comes, and then nothing.
fn server(path: &Path, said: &'static str) {
    let listener = UnixListener::bind(path).expect("a socket");
    thread::spawn(move || {
        let mut clients = Vec::new();
        while let Ok((mut client, _)) = listener.accept() {
            client.write_all(said.as_bytes()).expect("it reads");
            clients.push(client);
        }
    });
}

#[test]
fn a_server_that_does_not_answer_or_does_not_end_its_line() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let at = |name: &str| folder.path().join(name);
    server(&at("mute"), "");
    server(&at("slow"), "{\"ok\": tr");
    server(
        &at("slow-event"),
        "{\"ok\": true, \"events\": [\"ended\"]}\n{\"event\"",
    );
    let ctl = |name: &str, words: &[&str]| {
        let ctl = Vmm::new().arg("ctl").arg(at(name)).args(words);
        ctl.limit(LONG).start()
    };
    const AT_ONCE: &str = r#"{"verb": "status", "limit": 0}"#;
    for (running, why) in [
        (ctl("mute", &["raw", AT_ONCE]), "does not answer"),
        (ctl("slow", &["raw", AT_ONCE]), "does not end its line"),
        (
            ctl("slow-event", &["subscribe", "ended"]),
            "does not end its line",
        ),
    ] {
        running.finish().ends_with(3).says(why);
    }
}

#[test]
fn a_listener_that_accepts_nobody() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("control");
    let listener = UnixListener::bind(&path).expect("a socket");
    rustix::net::listen(&listener, 0).expect("a shorter queue");
    let _waits = UnixStream::connect(&path).expect("the only place to wait");
    let ctl = Vmm::new()
        .arg("ctl")
        .arg(&path)
        .arg("status")
        .limit(LONG)
        .start();
    let hasty = Vmm::new()
        .arg("ctl")
        .arg(&path)
        .args(["--wait", "50ms", "status"])
        .run();
    hasty.ends_with(3).complains_of("accepts nobody");
    let other = Vmm::boot("").arg("--control").arg(&path);
    other.run().ends_with(2).says("somebody listens at");
    ctl.finish().ends_with(3).complains_of("accepts nobody");
}

#[test]
fn idle_clients_do_not_keep_out_who_ends_the_machine() {
    need_kvm();
    let bench = Bench::boot("--vcpus 2", "workload=puppet");
    let mut idle: Vec<_> = (0..32).map(|_| bench.connect()).collect();
    for client in &mut idle {
        client.well(&json!({ "verb": "hello" }));
    }
    let ctl = |words: &str| {
        let ctl = Vmm::new().arg("ctl").arg(bench.socket());
        ctl.args(words.split(' ')).limit(LONG).run()
    };
    ctl("status")
        .ends_with(1)
        .complains_of("there are 32 clients already");
    // One that is idle in the place that is kept has to leave it.
    let silent = bench.connect().answer();
    assert_eq!(silent["kind"], "refused", "{silent}");
    ctl("--wait 60 quit").ends_with(0);
    bench.running.finish().ends_with(0).says("ended on request");
    drop(idle);
}
