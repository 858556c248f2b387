//! `vmm compare`, and the CSV from which others compare: what differs in what was run is told
//! before any figure, figures are those of the documents, and what cannot be compared is refused.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use csv::ReaderBuilder;
use serde_json::Value;
use tempfile::TempDir;
use tests::{Run, Vmm, need_kvm};

use super::formats::hold_compared;

/// Runs the guest with `options`, and writes its report to the file `name`.
fn report(directory: &TempDir, name: &str, options: &[&str]) -> (PathBuf, Value) {
    let run = Vmm::boot("--stats json").args(options).run();
    run.ends_with(0);
    let path = directory.path().join(name);
    fs::write(&path, &run.stdout).expect("room for a report");
    (path, run.json())
}

fn compare(a: &Path, b: &Path, options: &str) -> Run {
    let options = options.split_whitespace();
    Vmm::with("compare").arg(a).arg(b).args(options).run()
}

fn told<'a>(document: &'a Value, list: &str, key: &str) -> Vec<&'a str> {
    let entries = document[list].as_array().expect("a list").iter();
    entries
        .map(|it| it[key].as_str().expect("a text"))
        .collect()
}

/// What differs in what was run, but for what can count: each run tries that, and what fails in one
/// need not fail in the other.
fn differing(document: &Value) -> Vec<&str> {
    let mut differs = told(document, "differs", "what");
    differs.retain(|what| !what.starts_with("who counts: "));
    differs
}

#[test]
fn two_runs_stand_side_by_side_with_what_differs_first() {
    need_kvm();
    let directory = TempDir::new().expect("a temporary directory");
    let (a, one) = report(&directory, "a.json", &["--vcpus", "2"]);
    let (b, other) = report(
        &directory,
        "b.json",
        &["--vcpus", "3", "--append", "queue=llist", "--pin", "0"],
    );
    let page = directory.path().join("page.html");
    let run = compare(&a, &b, "--json");
    run.ends_with(0);
    let document = run.json();
    hold_compared(&document);
    assert_eq!(differing(&document), ["vCPUs", "pinning", "word queue"]);
    let calls = document["groups"].as_array().expect("groups").iter();
    let mut calls = calls.filter(|it| it["name"] == "calls");
    let calls = calls.next().expect("calls")["figures"]
        .as_array()
        .expect("figures");
    let made = calls
        .iter()
        .find(|it| it["name"] == "made")
        .expect("calls made");
    assert_eq!(made["a"]["value"].as_f64(), one["calls"]["made"].as_f64());
    assert_eq!(made["b"]["value"].as_f64(), other["calls"]["made"].as_f64());
    assert_eq!(made["significance"], "no-spread");
    assert_eq!(made["a"]["interval"], Value::Null);

    let run = compare(&a, &b, &format!("--html {}", page.display()));
    run.ends_with(0).says("one run is one sample");
    let at = |text: &str| {
        run.stdout
            .find(text)
            .unwrap_or_else(|| panic!("no {text}: {run}"))
    };
    assert!(at("pinning") < at("made"), "{run}");
    let page = fs::read_to_string(page).expect("a page");
    assert!(page.contains("ipi-lab-compare/1") && page.contains("\"only_a\""));
    let same = compare(&a, &a, "");
    same.ends_with(0)
        .says("the same but for when")
        .says("no figure differs");
}

#[test]
fn two_benches_have_intervals_and_what_one_has_alone() {
    need_kvm();
    let directory = TempDir::new().expect("a temporary directory");
    let bench = |name: &str, options: &str| {
        let path = directory.path().join(name);
        Vmm::with(&format!(
            "bench --vcpus 2 --rounds 16 --receiver halted {options} --json"
        ))
        .arg(&path)
        .arg(tests::guest())
        .run()
        .ends_with(0);
        path
    };
    let a = bench(
        "a.json",
        "--runs 3 --by ipi --transport x2apic --to one,self",
    );
    let b = bench("b.json", "--runs 2 --by ipi --transport x2apic --to one");
    let run = compare(&a, &b, "--json");
    run.ends_with(0);
    let document = run.json();
    hold_compared(&document);
    assert_eq!(differing(&document), ["runs"]);
    assert_eq!(document["only_a"][0], "ipi self halted x2apic");
    let figures = document["groups"][0]["figures"]
        .as_array()
        .expect("figures");
    for name in ["until sent, median", "until all have it, median"] {
        let figure = figures.iter().find(|it| it["name"] == name).expect(name);
        let [low, high] = ["low", "high"].map(|end| figure["a"]["interval"][end].as_f64());
        let value = figure["a"]["value"].as_f64();
        assert!(low <= value && value <= high, "{figure}");
        assert_eq!(figure["a"]["interval"]["runs"], 3);
        assert_eq!(figure["a"]["interval"]["confidence"], 0.75);
    }
    compare(&a, &b, "").ends_with(0).says("interval of 75.0 %");

    let (run, _) = report(&directory, "run.json", &[]);
    compare(&a, &run, "")
        .ends_with(2)
        .complains_of("the first is the figures of a bench, and the second is the report on a run");
    let classic = bench("c.json", "--classic --runs 2");
    let run = compare(&classic, &classic, "--json");
    assert_eq!(
        run.json()["groups"].as_array().map(Vec::len),
        Some(5),
        "{run}"
    );
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let directory = TempDir::new().expect("a temporary directory");
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).expect("room for a few bytes");
        path
    };
    let missing = directory.path().join("none.json");
    for (path, says) in [
        (missing, "cannot read"),
        (directory.path().to_owned(), "cannot read"),
        (file("empty", ""), "is empty"),
        (
            file("cut", "{\"schema\": \"ipi-lab/3\", \"ipi\": {"),
            "is cut off",
        ),
        (file("text", "PASS\n"), "is not JSON"),
        (
            file("old", "{\"schema\": \"ipi-lab/1\"}"),
            "not ipi-lab/3; measure it anew",
        ),
        (file("other", "{\"schema\": \"x\"}"), "only runs"),
        (
            file("bare", "{\"schema\": \"ipi-lab-bench/1\"}"),
            "missing field",
        ),
        (PathBuf::from("/dev/zero"), "cannot read"),
    ] {
        compare(&path, &path, "").ends_with(2).complains_of(says);
    }
}

#[test]
fn reports_of_several_machines_are_chosen_from() {
    need_kvm();
    let directory = TempDir::new().expect("a temporary directory");
    let machine =
        |vcpus| format!("boot(#{{ vcpus: {vcpus}, append: `workload=selftest` }}); finish();");
    let run = Vmm::scripted(&format!("{}{}", machine(1), machine(2)))
        .arg("--stats=json")
        .run();
    run.ends_with(0);
    let path = directory.path().join("two.json");
    fs::write(&path, &run.stdout).expect("room for reports");
    compare(&path, &path, "")
        .ends_with(2)
        .complains_of("2 machines; choose one with --machine");
    compare(&path, &path, "--machine 1").ends_with(0);
    compare(&path, &path, "--machine 2")
        .ends_with(2)
        .complains_of("none of machine 2");
}

#[test]
fn csv_has_every_figure_once_and_where_it_comes_from() {
    need_kvm();
    let machine =
        |vcpus| format!("boot(#{{ vcpus: {vcpus}, append: `workload=selftest` }}); finish();");
    let script = format!("{}{}", machine(1), machine(3));
    let run = Vmm::scripted(&script).arg("--stats=csv").run();
    run.ends_with(0);
    assert!(
        run.stdout.lines().count() > 50 && run.stdout.contains("\r\n"),
        "{run}"
    );
    let mut reader = ReaderBuilder::new().from_reader(run.stdout.as_bytes());
    let head = reader.headers().expect("names of columns").clone();
    let column = |name: &str| head.iter().position(|it| it == name).expect(name);
    // A reader that is not flexible refuses rows of another length.
    let rows: Vec<_> = reader.records().map(|row| row.expect("a row")).collect();
    let mut keys = BTreeSet::new();
    for row in &rows {
        let key = ["machine", "vcpu", "figure"].map(|name| row[column(name)].to_owned());
        assert!(keys.insert(key), "twice: {row:?}");
        row[column("value")].parse::<f64>().expect("a number");
        assert!(
            row[column("words")].contains("workload=selftest"),
            "{row:?}"
        );
        assert_eq!(row[column("guest")].len(), 32, "{row:?}");
    }
    let value = |machine: &str, vcpu: &str, figure: &str| {
        let mut found = rows.iter().filter(|row| {
            [("machine", machine), ("vcpu", vcpu), ("figure", figure)]
                .iter()
                .all(|(name, value)| &row[column(name)] == *value)
        });
        let row = found.next().unwrap_or_else(|| panic!("no {figure}: {run}"));
        row[column("value")].parse::<u64>().expect("a count")
    };
    let sent = |vcpu: &str| value("1", vcpu, "ipi_sent");
    assert_eq!(
        sent("0") + sent("1") + sent("2"),
        value("1", "", "ipi.sent")
    );
    assert_eq!(value("0", "", "calls.made"), value("0", "", "calls.judged"));
    assert!(
        !rows
            .iter()
            .any(|row| &row[column("figure")] == "exit_status")
    );
}
