//! Events, pushed to the clients of a control socket that have subscribed: what happens, once and in
//! order; and clients that do not read, or are gone.

use std::fs;
use std::io::{BufRead, Write};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::image::Code;
use tests::{Vmm, need_kvm};

use super::control::{Bench, Client, SOON};

/// The next line, which has to be an event of this kind.
#[track_caller]
fn event(client: &mut Client, kind: &str) -> Value {
    let line = client.answer();
    assert_eq!(line["event"], kind, "{line}");
    line
}

#[test]
fn what_happens_is_told_to_who_has_subscribed() {
    let bench = Bench::boot("--vcpus 2", "workload=puppet");
    let mut driver = bench.connect();
    driver.well(&json!({ "verb": "ready", "limit": 60 }));
    let mut all = bench.connect();
    let names = all.well(&json!({ "verb": "subscribe" }));
    let every = json!(["held", "done", "finding", "died", "ended"]);
    assert_eq!(names["events"], every);
    // One that has said its last word still reads.
    let mut holds = bench.connect();
    holds.well(&json!({ "verb": "subscribe", "events": ["held"] }));
    holds.0.get_ref().shutdown(Shutdown::Write).unwrap();

    driver.well(&json!({ "verb": "hold", "cpu": 1, "probe": "single.run" }));
    let told = driver.well(&json!({ "verb": "tell", "cpu": 0, "deed": "call-single 1" }));
    let at_probe = json!({ "probe": "single.run", "call": "0:0:1" });
    let held = event(&mut holds, "held");
    assert_eq!((&held["cpu"], &held["held_by"]), (&json!(1), &at_probe));
    driver.well(&json!({ "verb": "wait_done", "cpu": 0, "number": told["number"] }));
    driver.well(&json!({ "verb": "step", "cpu": 1 }));
    assert_eq!(event(&mut holds, "held")["held_by"], "steps");
    driver.well(&json!({ "verb": "release", "cpu": 1 }));
    let refused = json!({ "verb": "tell", "cpu": 1, "deed": "online 0", "until": "done" });
    let refused = driver.ask(&refused);
    assert_eq!(refused["kind"], "refused", "{refused}");
    // An answer comes between the events, in its turn.
    all.send(b"{\"verb\": \"subscribe\", \"events\": [\"done\", \"ended\"], \"id\": 7}\n");
    let mut seen = Vec::new();
    while seen.last().is_none_or(|line: &Value| line["id"] != 7) {
        seen.push(all.answer());
    }
    // The first call returns without waiting: before the hold, or after it.
    let of = |kind: &str| -> Vec<_> { seen.iter().filter(|it| it["event"] == kind).collect() };
    let (held, done) = (of("held"), of("done"));
    let by: Vec<_> = held.iter().map(|line| &line["held_by"]).collect();
    assert_eq!(by, [&at_probe, &json!("steps")], "{seen:?}");
    assert_eq!(done.len(), 2, "{seen:?}");
    assert_eq!(
        (&done[0]["deed"], &done[0]["call"], &done[0]["result"]),
        (&json!("call-single"), &json!("0:0:1"), &json!(0))
    );
    assert!(done[1]["refused"].is_string(), "{seen:?}");
    driver.well(&json!({ "verb": "finish" }));
    for _ in 0..2 {
        assert_eq!(event(&mut all, "done")["deed"], "finish");
    }
    let ended = event(&mut all, "ended");
    assert_eq!(ended["why"], "the guest has ended on CPU 0");
    let mut rest = String::new();
    assert_eq!(all.0.read_line(&mut rest).unwrap(), 0, "{rest}");
    bench.running.finish().ends_with(0);
}

/// A subscription outlives a machine of a script. Each machine waits until somebody has subscribed.
#[test]
fn findings_and_deaths_are_told_machine_after_machine() {
    need_kvm();
    let directory = tempfile::tempdir().unwrap();
    let dying = directory.path().join("dying.bin");
    let image = Code::image(Code::triple_fault);
    fs::copy(image.path(), &dying).unwrap();
    let story = include_str!("../../../scenarios/mckenney-2009.rhai");
    let script = format!(
        "boot(#{{ vcpus: 2, append: \"workload=puppet\" }});\n\
         cpu(1).wait_held();\n{story}\nboot(#{{ guest: \"{}\" }});",
        dying.display()
    );
    let path = directory.path().join("control");
    let running = Vmm::scripted(&script)
        .args(["--append", "queue=fifo", "--control"])
        .arg(&path)
        .start();
    let mut subscriber = Client::connect(&path);
    subscriber.well(&json!({ "verb": "subscribe", "events": ["finding", "died", "ended"] }));
    let mut driver = Client::connect(&path);
    driver.well(&json!({ "verb": "hold", "cpu": 1, "probe": "single.run" }));
    driver.well(&json!({ "verb": "tell", "cpu": 0, "deed": "call-single 1" }));
    // The first machine ends without a finding.
    event(&mut subscriber, "ended");
    let mut oracles = Vec::new();
    let ended = loop {
        let line = subscriber.answer();
        if line["event"] != "finding" {
            break line;
        }
        oracles.push(line["oracle"].as_str().unwrap_or_default().to_owned());
        let text = line["text"].as_str().unwrap_or_default();
        assert!(text.contains("(seen on CPU "), "{line}");
    };
    assert_eq!(ended["event"], "ended", "{ended}");
    for oracle in ["lost", "left-locked"] {
        assert!(oracles.iter().any(|it| it == oracle), "{oracles:?}");
    }
    let died = event(&mut subscriber, "died");
    assert_eq!(died["cpu"], 0);
    let ended = event(&mut subscriber, "ended");
    let why = ended["why"].as_str().unwrap_or_default();
    assert!(why.starts_with("the guest died on CPU 0: "), "{ended}");
    running.finish().ends_with(4);
}

/// As many deeds as fill the socket and what the VMM keeps for a client, and more.
const FLOOD: u64 = 3000;

#[test]
fn a_subscriber_that_does_not_read_is_told_what_it_has_missed() {
    let bench = Bench::boot("--vcpus 1", "workload=puppet");
    let mut idle = bench.connect();
    idle.well(&json!({ "verb": "ready", "limit": 60 }));
    idle.well(&json!({ "verb": "subscribe", "events": ["done"] }));
    let mut driver = bench.connect();
    let mut asking = driver.0.get_ref().try_clone().unwrap();
    let asking = thread::spawn(move || {
        for _ in 0..FLOOD {
            asking
                .write_all(b"{\"verb\": \"tell\", \"cpu\": 0, \"deed\": \"idle\"}\n")
                .unwrap();
        }
    });
    for _ in 0..FLOOD {
        let answer = driver.answer();
        assert_eq!(answer["ok"], true, "{answer}");
    }
    asking.join().unwrap();
    driver.well(&json!({ "verb": "wait_done", "cpu": 0, "number": FLOOD }));
    // Every event is sent or counted, in order.
    let (mut told, mut dropped) = (0, 0);
    while told + dropped < FLOOD {
        let line = idle.answer();
        if line["event"] == "dropped" {
            dropped += line["count"].as_u64().expect("a number");
        } else {
            assert_eq!(line["number"], told + dropped + 1, "{line}");
            told += 1;
        }
    }
    assert!(told > 1024 && dropped > 0, "{told} told, {dropped} dropped");
    driver.well(&json!({ "verb": "finish" }));
    bench.running.finish().ends_with(0);
}

#[test]
fn the_end_waits_for_no_subscriber() {
    let bench = Bench::boot("--vcpus 1", "workload=puppet");
    let mut driver = bench.connect();
    driver.well(&json!({ "verb": "ready", "limit": 60 }));
    let mut idle = bench.connect();
    idle.well(&json!({ "verb": "subscribe" }));
    for _ in 0..FLOOD {
        driver.send(b"{\"verb\": \"tell\", \"cpu\": 0, \"deed\": \"idle\"}\n");
        driver.answer();
    }
    let before = Instant::now();
    driver.well(&json!({ "verb": "quit" }));
    bench.running.finish().says("ended on request");
    let took = before.elapsed();
    assert!(took < Duration::from_secs(30), "{took:?}");
}

#[test]
fn subscribers_that_vanish_leave_their_places() {
    let bench = Bench::boot("--vcpus 1", "workload=puppet");
    let deadline = Instant::now() + SOON;
    let mut subscribed = 0;
    // More than can be connected at a time.
    while subscribed < 100 {
        let mut client = bench.connect();
        let _ = client.0.get_mut().write_all(b"{\"verb\": \"subscribe\"}\n");
        if subscribed % 2 == 0 {
            let _ = client.0.get_ref().shutdown(Shutdown::Write);
        }
        let mut line = String::new();
        if client.0.read_line(&mut line).is_ok() && line.contains("\"ok\":true") {
            subscribed += 1;
        }
        assert!(
            Instant::now() < deadline,
            "{subscribed} have subscribed: {line}"
        );
    }
    let mut driver = loop {
        let mut client = bench.connect();
        let _ = client.0.get_mut().write_all(b"{\"verb\": \"hello\"}\n");
        let mut line = String::new();
        if client.0.read_line(&mut line).is_ok() && line.contains("protocol") {
            break client;
        }
        assert!(Instant::now() < deadline, "{line}");
    };
    driver.well(&json!({ "verb": "finish", "limit": 60 }));
    bench.running.finish().ends_with(0);
}
