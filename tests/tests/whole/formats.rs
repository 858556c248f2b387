//! Output for programs: the JSON documents conform to their documented schemas, and the text for
//! Prometheus to its format and conventions.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::process::Command;

use prometheus_parse::{Sample, Scrape, Value as Sampled};
use serde_json::Value;
use tempfile::TempDir;
use tests::{Vmm, exposition, need_kvm};

/// The documented schemas of the report, of a bench, of a comparison, of the result of a search and of a manifest.
const REPORT: &str = include_str!("../../../docs/schema/ipi-lab-3.json");
const BENCH: &str = include_str!("../../../docs/schema/ipi-lab-bench-1.json");
const COMPARED: &str = include_str!("../../../docs/schema/ipi-lab-compare-1.json");
const EXPLORED: &str = include_str!("../../../docs/schema/ipi-lab-explore-1.json");

const GUEST: &str = include_str!("../../../docs/schema/ipi-lab-guest-1.json");

/// Checks a report against its schema, and that it has no other keys.
#[track_caller]
pub fn hold_report(document: &Value) {
    hold(document, REPORT);
}

/// The same for the figures of a bench.
#[track_caller]
pub fn hold_bench(document: &Value) {
    hold(document, BENCH);
}

/// The same for a comparison.
#[track_caller]
pub fn hold_compared(document: &Value) {
    hold(document, COMPARED);
}

/// The same for the result of a search.
#[track_caller]
pub fn hold_explored(document: &Value) {
    hold(document, EXPLORED);
}

/// The same for a manifest.
#[track_caller]
pub fn hold_described(document: &Value) {
    hold(document, GUEST);
}

#[track_caller]
fn hold(document: &Value, schema: &str) {
    let mut schema: Value = serde_json::from_str(schema).expect("a schema is JSON");
    close(&mut schema);
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let errors: Vec<_> = validator
        .iter_errors(document)
        .map(|error| format!("{} at {}", error, error.instance_path()))
        .collect();
    assert_eq!(errors, [""; 0], "{document:#}");
}

/// Forbids keys that are not listed, wherever a schema lists any. Readers have to accept new ones;
/// a test does not.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(keys) => {
            if keys.contains_key("properties") {
                keys.entry("additionalProperties").or_insert(false.into());
            }
            keys.values_mut().for_each(close);
        }
        Value::Array(entries) => entries.iter_mut().for_each(close),
        _ => {}
    }
}

#[test]
fn a_document_that_is_wrong_is_found_out() {
    need_kvm();
    let run = Vmm::boot("--stats json").run();
    run.ends_with(0);
    let document = run.json();
    hold_report(&document);
    let spoilt = |spoil: fn(&mut Value)| {
        let mut document = document.clone();
        spoil(&mut document);
        std::panic::catch_unwind(|| hold_report(&document)).is_err()
    };
    assert!(spoilt(|it| it["schema"] = "ipi-lab/0".into()));
    assert!(spoilt(|it| it["ipi"]["sent"] = "many".into()));
    assert!(spoilt(|it| it["news"] = 1.into()));
    assert!(spoilt(
        |it| _ = it["calls"].as_object_mut().map(|it| it.remove("made"))
    ));
}

#[test]
fn reports_of_all_kinds_hold_to_the_schema() {
    need_kvm();
    let directory = TempDir::new().expect("a temporary directory");
    let trace = directory.path().join("trace.json");
    let json = || Vmm::boot("--stats json");
    // With everything that a report can contain.
    let run = json()
        .args(["--vcpus", "3", "--steal", "seed=7,mean=1ms,share=20%"])
        .args(["--append", "workload=stress for=300ms", "--trace"])
        .arg(&trace)
        .run();
    let document = run.ends_with(0).json();
    hold_report(&document);
    assert!(document["trace"]["ipi"].is_object(), "{document:#}");
    assert!(document["stalls"].is_object(), "{document:#}");
    // Cut off.
    let run = json()
        .args(["--timeout", "0.3", "--append", "workload=stress for=600s"])
        .run();
    let document = run.ends_with(5).json();
    hold_report(&document);
    let [executed, expected] =
        ["executed", "expected"].map(|key| document["calls"][key].as_u64().expect("a count"));
    assert!(executed <= expected, "{executed} of {expected}");
    // Refused.
    hold_report(&json().args(["--append", "x"]).run().ends_with(2).json());
    // With findings, breaches and open calls.
    let vmm = Vmm::scripted(include_str!("../../../scenarios/mckenney-2009.rhai"));
    let run = vmm
        .args(["--stats", "json", "--append", "queue=fifo"])
        .run();
    let document = run.ends_with(0).json();
    hold_report(&document);
    for kind in ["findings", "breaches", "open_calls"] {
        let found = document[kind].as_array().expect("a list");
        assert!(!found.is_empty(), "no {kind}: {document:#}");
    }
    // Each under the name that scripts, cases and the table use, and all of them counted.
    let manifest = Vmm::boot("describe --json").run().json();
    let oracles = manifest["manifest"]["oracles"].as_array().expect("a list");
    let names: Vec<_> = oracles.iter().map(|it| it["name"].as_str()).collect();
    for kind in ["findings", "breaches"] {
        let found = document[kind].as_array().expect("a list");
        for oracle in found.iter().map(|it| it["oracle"].as_str()) {
            assert!(names.contains(&oracle), "{document:#}");
        }
        let by_oracle = &document[format!("{kind}_by_oracle")];
        let counts = by_oracle.as_object().expect("a map").values();
        let sum: u64 = counts.filter_map(Value::as_u64).sum();
        assert_eq!(document[format!("{kind}_made")], sum, "{document:#}");
    }
    assert_eq!(document["findings_by_oracle"]["left-locked"], 1);
}

#[test]
fn schemas_are_printed_as_they_are_documented() {
    for (of, schema) in [
        ("report", REPORT),
        ("bench", BENCH),
        ("explore", EXPLORED),
        ("guest", GUEST),
    ] {
        let run = Vmm::with("schema").arg(of).run();
        assert_eq!(run.ends_with(0).stdout, schema);
    }
    Vmm::with("schema costs").run().ends_with(2);
}

/// What Prometheus' own parser would read from a text, which has to be all of it.
fn scrape(text: &str) -> Scrape {
    let lines = text.lines().map(|line| Ok(line.to_owned()));
    let scrape = Scrape::parse(lines).expect("the text format of Prometheus");
    let named = |line: &&str| !line.is_empty() && !line.starts_with('#');
    let is_bucket = |line: &&str| line.split(['{', ' ']).next().unwrap().ends_with("_bucket");
    let (buckets, others): (Vec<_>, Vec<_>) = text.lines().filter(named).partition(is_bucket);
    let histograms = scrape
        .samples
        .iter()
        .filter_map(|sample| match &sample.value {
            Sampled::Histogram(buckets) => Some(buckets.len()),
            _ => None,
        });
    let (histograms, their_buckets) =
        histograms.fold((0, 0), |(count, sum), len| (count + 1, sum + len));
    assert_eq!(their_buckets, buckets.len(), "{text}");
    // All others, including sums and counts, are separate samples.
    assert_eq!(scrape.samples.len(), others.len() + histograms, "{text}");
    scrape
}

/// Checks names, types and units against the conventions:
/// <https://prometheus.io/docs/practices/naming/>.
fn conform(text: &str, scrape: &Scrape) {
    assert_eq!(exposition::problems(text), [""; 0], "{text}");
    exposition::ask_promtool(text);
    let mut types = BTreeMap::new();
    let mut helped = BTreeSet::new();
    for line in text.lines() {
        let words: Vec<_> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "HELP", name, help] => {
                assert!(helped.insert(name), "{name} has two helps");
                assert!(help.ends_with('.'), "{line}");
            }
            ["#", "TYPE", name, kind] => {
                assert_eq!(types.insert(name, kind), None, "{name} is two families");
                assert!(helped.contains(name), "{name} has no help");
                assert!(name.starts_with("ipi_lab_"), "{name}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                for unit in [
                    "_ns",
                    "_us",
                    "_ms",
                    "_nanoseconds",
                    "_milliseconds",
                    "_cycles",
                ] {
                    let base = name.trim_end_matches("_total");
                    assert!(!base.ends_with(unit), "{name} is in no base unit");
                }
            }
            _ => assert!(!line.starts_with('#'), "{line}"),
        }
    }
    let key = |sample: &Sample| {
        let labels: BTreeMap<_, _> = sample.labels.iter().collect();
        format!("{} {labels:?}", sample.metric)
    };
    let keys: BTreeSet<_> = scrape.samples.iter().map(key).collect();
    let plain: Vec<_> = scrape.samples.iter().map(key).collect();
    assert_eq!(keys.len(), plain.len(), "a sample is there twice: {text}");
    for sample in &scrape.samples {
        let family = sample
            .metric
            .trim_end_matches("_sum")
            .trim_end_matches("_count");
        let known = types.contains_key(sample.metric.as_str()) || types.contains_key(family);
        assert!(known, "{} is of no family", sample.metric);
        for label in sample.labels.keys() {
            // Each label has few values, of which a run adds none: no label holds an address, a
            // call or a time.
            let few = [
                "machine",
                "vcpu",
                "reason",
                "transport",
                "kind",
                "oracle",
                "result",
                "window",
                "version",
                "commit",
                "modified",
                "kernel",
                "kvm",
                "guest",
                "words",
                "script",
                "source",
            ];
            assert!(
                few.contains(&label.as_str()),
                "{label} of {}",
                sample.metric
            );
        }
    }
}

/// The sum of all samples of a name.
fn sum(scrape: &Scrape, name: &str) -> f64 {
    let of_name = scrape.samples.iter().filter(|it| it.metric == name);
    of_name
        .map(|sample| match sample.value {
            Sampled::Counter(value) | Sampled::Gauge(value) | Sampled::Untyped(value) => value,
            _ => panic!("{name} is no number"),
        })
        .sum()
}

#[test]
fn prometheus_reads_what_the_json_document_says() {
    need_kvm();
    let directory = TempDir::new().expect("a temporary directory");
    let run = Vmm::boot("--vcpus 3 --stats prometheus")
        .args(["--append", "seed=7 calls=20", "--trace"])
        .arg(directory.path().join("trace.json"))
        .run();
    run.ends_with(0);
    assert!(run.stderr.contains("pass: "), "{run}");
    let scrape = scrape(&run.stdout);
    conform(&run.stdout, &scrape);
    assert_eq!(sum(&scrape, "ipi_lab_run_exit_status"), 0.0);
    assert_eq!(sum(&scrape, "ipi_lab_vcpus"), 3.0);
    let calls = sum(&scrape, "ipi_lab_calls_total");
    // Equal seeds make equal calls.
    let same = Vmm::boot("--vcpus 3 --stats json")
        .args(["--append", "seed=7 calls=20"])
        .run();
    let same = same.ends_with(0).json();
    assert_eq!(Some(calls), same["calls"]["made"].as_f64());
    let sends = sum(&scrape, "ipi_lab_ipi_sends_total");
    assert!(sends > 0.0);
    assert_eq!(sends, sum(&scrape, "ipi_lab_vcpu_ipi_sends_total"));
    let targets = sum(&scrape, "ipi_lab_vcpu_ipi_targets_total");
    let received = sum(&scrape, "ipi_lab_vcpu_ipi_received_total");
    assert!(
        received > 0.0 && received <= targets,
        "{received} of {targets}"
    );
    let latency = |sample: &&Sample| sample.metric == "ipi_lab_ipi_latency_seconds";
    let latency = scrape.samples.iter().find(latency).expect("a histogram");
    let Sampled::Histogram(buckets) = &latency.value else {
        panic!("{latency:?}");
    };
    assert!(
        buckets.is_sorted_by(|one, next| one.count <= next.count),
        "{buckets:?}"
    );
    let all = buckets.last().expect("buckets");
    assert!(all.less_than.is_infinite() && all.count > 0.0, "{all:?}");
}

#[test]
fn several_machines_make_one_text() {
    need_kvm();
    let vmm = Vmm::scripted(
        r#"
        boot(#{ vcpus: 1 });
        boot(#{ vcpus: 2 });
        "#,
    );
    let run = vmm.args(["--stats", "prometheus"]).run();
    run.ends_with(0);
    let scrape = scrape(&run.stdout);
    conform(&run.stdout, &scrape);
    assert_eq!(sum(&scrape, "ipi_lab_vcpus"), 3.0);
    assert!(
        scrape
            .samples
            .iter()
            .all(|it| it.labels.get("machine").is_some())
    );
}

#[test]
fn a_textfile_collector_never_sees_half_a_report() {
    need_kvm();
    let directory = TempDir::new().expect("a temporary directory");
    let path = directory.path().join("lab.prom");
    fs::write(&path, "the last one\n").expect("room for a line");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("our own file");
    let link = directory.path().join("link.prom");
    std::os::unix::fs::symlink(&path, &link).expect("a link");
    let running = Vmm::with("--stats prometheus --append workload=puppet --stats-file")
        .arg(&link)
        .arg(tests::guest())
        .start();
    running.wait_for("CPUs up");
    assert_eq!(
        fs::read_to_string(&path).expect("still there"),
        "the last one\n"
    );
    running.signal(libc::SIGTERM);
    running.finish().ends_with(143);
    let text = fs::read_to_string(&path).expect("a report");
    conform(&text, &scrape(&text));
    assert!(
        fs::symlink_metadata(&link)
            .expect("still there")
            .is_symlink()
    );
    let mode = fs::metadata(&path).expect("a report").permissions().mode();
    assert_eq!(mode & 0o777, 0o644, "others may read it");
    let left: Vec<_> = fs::read_dir(directory.path()).expect("ours").collect();
    assert_eq!(left.len(), 2, "{left:?}");

    // What is not a regular file is not replaced.
    let pipe = directory.path().join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
    assert!(made.success());
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs::read_to_string(pipe)
    });
    let run = Vmm::with("--stats prometheus --stats-file")
        .arg(&pipe)
        .arg(tests::guest())
        .run();
    run.ends_with(0);
    let text = reader.join().expect("a reader").expect("a report");
    conform(&text, &scrape(&text));
    assert!(
        fs::metadata(&pipe)
            .expect("still there")
            .file_type()
            .is_fifo()
    );

    let nowhere = directory.path().join("nowhere/lab.prom");
    let run = Vmm::with("--stats prometheus --stats-file")
        .arg(&nowhere)
        .arg(tests::guest())
        .run();
    run.ends_with(2).complains_of("lab.prom");
}
