//! Every output says where its figures come from, in the same words: which command, host, guest,
//! options, script or case.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use tests::{Vmm, explore_image, need_kvm, skip};

use super::formats::{hold_bench, hold_explored, hold_report};

const SCRIPT: &str = r#"
    boot(#{ vcpus: 2, append: "workload=puppet queue=llist" });
    cpu(0).call_many([1], wait).wait_done();
    finish();
"#;

const CASE: &str =
    "cpus 4\n0: many 1,3; many 1,3\n3: many 1,2\nexpect lost, left-locked with queue=fifo\n";

/// Checks what is the same for all runs in this file.
#[track_caller]
fn check(provenance: &Value) {
    let version = Vmm::with("--version").run();
    let line = version.ends_with(0).stdout.trim().to_owned();
    let text = |path: &str| {
        let value = provenance.pointer(path).and_then(Value::as_str);
        value.unwrap_or_else(|| panic!("no {path}: {provenance:#}"))
    };
    assert!(line.starts_with(&format!("vmm {} (", text("/vmm/version"))));
    match provenance["vmm"]["commit"].as_str() {
        Some(commit) => assert!(line.contains(commit), "{line}"),
        None => assert!(line.contains("commit unknown"), "{line}"),
    }
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a kernel");
    assert_eq!(text("/host/kernel"), kernel.trim());
    assert!(["vmx", "svm", "emulated", "unknown"].contains(&text("/host/kvm")));
    assert_eq!(text("/guest/hash").len(), 32);
    let date = text("/date");
    assert!(date.len() == 20 && date.ends_with('Z'), "{date}");
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("it was written")
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&read(path)).expect("it is JSON")
}

#[test]
fn a_run_says_in_all_outputs_where_it_comes_from() {
    need_kvm();
    let directory = TempDir::new().expect("a temporary directory");
    let [trace, page] = ["trace.json", "page.html"].map(|name| directory.path().join(name));
    let run = Vmm::scripted(SCRIPT)
        .args(["--append", "seed=7", "--stats", "json", "--trace"])
        .arg(&trace)
        .arg("--report")
        .arg(&page)
        .run();
    let document = run.ends_with(0).json();
    hold_report(&document);
    let provenance = &document["provenance"];
    check(provenance);
    assert_eq!(provenance["vcpus"], 2);
    let words = &provenance["words"];
    for (key, value) in [
        // Set by the script, set by the command line, and a default.
        ("queue", "llist"),
        ("seed", "7"),
        ("hotplug", "stop"),
        ("workload", "puppet"),
    ] {
        assert_eq!(words[key], value, "{words:#}");
    }
    assert!(words["transport"].is_string(), "{words:#}");
    let script = provenance["script"]["hash"].as_str().expect("a hash");
    assert_eq!(json(&trace)["otherData"]["provenance"][0], *provenance);
    let page = read(&page);
    assert!(page.contains(script) && page.contains("queue=llist"));

    let run = Vmm::scripted(SCRIPT)
        .args(["--append", "seed=7", "--stats", "prometheus"])
        .run();
    let text = &run.ends_with(0).stdout;
    let info = text
        .lines()
        .find(|line| line.starts_with("ipi_lab_run_info{"));
    let info = info.expect("a sample that says it");
    let guest = provenance["guest"]["hash"].as_str().expect("a hash");
    for part in [
        script,
        guest,
        "queue=llist",
        "seed=7",
        "kernel=\"",
        "kvm=\"",
    ] {
        assert!(info.contains(part), "no {part}: {info}");
    }
    assert!(text.contains("\nipi_lab_run_start_time_seconds "), "{text}");

    let run = Vmm::scripted(SCRIPT).args(["--append", "seed=7"]).run();
    run.ends_with(0);
    for part in [&script[..12], &guest[..12], "queue=llist", "Linux "] {
        run.says(part);
    }
}

#[test]
fn a_script_that_differs_has_another_hash() {
    need_kvm();
    let hash = |script: &str| {
        let run = Vmm::scripted(script).args(["--stats", "json"]).run();
        run.ends_with(0).json()["provenance"]["script"]["hash"].clone()
    };
    let one = hash(SCRIPT);
    assert!(one.is_string());
    assert_eq!(hash(SCRIPT), one);
    assert_ne!(hash(&format!("{SCRIPT}// and this\n")), one);
}

#[test]
fn a_guest_that_refuses_its_words_has_taken_none() {
    need_kvm();
    let run = Vmm::boot("--stats json --append queue=lifo").run();
    let document = run.ends_with(2).json();
    hold_report(&document);
    let provenance = &document["provenance"];
    assert_eq!(provenance["words"], Value::Null);
    assert_eq!(provenance["given"], "queue=lifo");
}

#[test]
fn a_bench_says_of_each_line_what_the_guest_took() {
    need_kvm();
    let directory = TempDir::new().expect("a temporary directory");
    let path = directory.path().join("costs.json");
    let run = Vmm::with("bench --rounds 16 --runs 1 --by ipi --to one --receiver halted")
        .args(["--transport", "x2apic", "--json"])
        .arg(&path)
        .arg(tests::guest())
        .run();
    run.ends_with(0).says("commit").says("hash");
    let document = json(&path);
    hold_bench(&document);
    check(&document["provenance"]);
    let words = &document["cells"][0]["result"]["Ok"]["words"];
    assert_eq!(words["transport"], "x2apic", "{document:#}");
    assert_eq!(words["queue"], "filo", "{document:#}");
}

#[test]
fn a_schedule_says_where_it_comes_from_and_one_that_does_not_is_read() {
    need_kvm();
    let directory = TempDir::new().expect("a temporary directory");
    let at = |name: &str| directory.path().join(name);
    fs::write(at("a.case"), CASE).expect("room for a case");
    let run = Vmm::with("explore --shorten 0s --append queue=fifo")
        .arg(at("a.case"))
        .arg(explore_image())
        .arg("--schedule")
        .arg(at("found.json"))
        .arg("--result")
        .arg(at("result.json"))
        .run();
    run.ends_with(0).says("commit").says("a.case (hash ");
    let result = json(&at("result.json"));
    hold_explored(&result);
    let provenance = &result["provenance"];
    check(provenance);
    assert_eq!(provenance["words"]["queue"], "fifo");
    assert_eq!(provenance["words"]["clock"], "stopped");
    assert!(provenance["case"]["hash"].is_string());
    let mut schedule = json(&at("found.json"));
    assert_eq!(schedule["provenance"], *provenance);
    assert_eq!(schedule["image"], provenance["guest"]["hash"]);

    let replay = |schedule: &Value| {
        fs::write(at("other.json"), schedule.to_string()).expect("room for a schedule");
        let replay = Vmm::with("replay").arg(at("other.json"));
        replay.arg(explore_image()).run()
    };
    replay(&schedule).ends_with(0).says("found by");
    let keys = schedule.as_object_mut().expect("an object");
    keys.remove("provenance");
    keys.insert("form".to_owned(), "ipi-lab-schedule/1".into());
    replay(&schedule).ends_with(0);
    schedule["form"] = "ipi-lab-schedule/3".into();
    replay(&schedule)
        .ends_with(2)
        .complains_of("ipi-lab-schedule/3");
}

#[test]
fn the_command_names_the_commit_it_was_built_from() {
    let run = Vmm::with("--version").run();
    let line = run.ends_with(0).stdout.clone();
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let mut git = Command::new("git");
    let head = git.args(["-C", root, "rev-parse", "HEAD"]).output();
    let Some(head) = head.ok().filter(|it| it.status.success()) else {
        skip("the commit of vmm: there is no git here, or no repository");
        return;
    };
    let head = String::from_utf8(head.stdout).expect("a number");
    assert!(line.contains(head.trim()), "{line} is not {head}");
}
