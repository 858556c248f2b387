//! Pages: what a run writes with `--report` is a self-contained document that agrees with the JSON
//! report. How it looks in a browser is tested elsewhere (`make test-browser`).

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;
use tests::{Run, Vmm, need_kvm};

/// Runs with `--report`, and returns the page as well.
fn reported(vmm: Vmm) -> (Run, String) {
    let directory = TempDir::new().expect("a temporary directory");
    let path = directory.path().join("report.html");
    let run = vmm.arg("--report").arg(&path).run();
    let page = fs::read_to_string(&path).expect("a page was written");
    (run, page)
}

/// The JSON in script elements that begin with `start`.
fn embedded(page: &str, start: &str) -> Vec<Value> {
    let elements = page.split(start).skip(1);
    let json = elements.map(|rest| {
        let (_, rest) = rest.split_once('>').expect("the end of a tag");
        let (json, _) = rest.split_once("</script>").expect("the end of an element");
        serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"))
    });
    json.collect()
}

fn machines(page: &str) -> Vec<Value> {
    embedded(page, "<script type=\"application/json\" class=\"machine\"")
}

fn length(list: &Value) -> usize {
    list.as_array().expect("a list").len()
}

#[test]
fn a_page_holds_the_report_and_everything_that_was_traced() {
    need_kvm();
    let vmm = Vmm::scripted(
        r#"
        boot(#{ vcpus: 3, append: "workload=puppet" });
        for round in 0..6 {
            cpu(round % 3).call_many([0, 1, 2], wait).wait_done();
        }
        "#,
    );
    let (run, page) = reported(vmm.args(["--stats", "json"]));
    run.ends_with(0);
    let [machine] = &machines(&page)[..] else {
        panic!("one machine has run: {run}");
    };
    assert_eq!(machine["report"], run.json());
    assert_eq!(machine["post_mortem"], "");
    let told = machine["command_line"].as_str().expect("a command line");
    assert!(told.starts_with("workload=puppet lab=0x"), "{told}");

    let timeline = &machine["timeline"];
    assert_eq!(
        (length(&timeline["cpus"]), &timeline["left_out"]),
        (3, &Value::from(0))
    );
    let trace = &machine["report"]["trace"];
    let sent =
        trace["ipi"]["count"].as_u64().expect("IPIs") + trace["untaken"].as_u64().expect("IPIs");
    for column in ["name", "call", "from", "length", "source", "target"] {
        assert_eq!(length(&timeline["ipis"][column]) as u64, sent, "{column}");
    }
    let word = |place: &Value| timeline["words"][place.as_u64().expect("a word") as usize].clone();
    let cpus = timeline["cpus"].as_array().expect("CPUs");
    let kinds = cpus
        .iter()
        .flat_map(|cpu| cpu["guest"]["kind"].as_array().expect("a column"));
    assert_eq!(kinds.filter(|kind| word(kind) == "call many").count(), 6);
    let runs: usize = cpus.iter().map(|cpu| length(&cpu["steps"]["from"])).sum();
    assert_eq!(runs, 12);
    let histogram = &machine["histograms"][0];
    let bins = histogram["bins"].as_array().expect("bins");
    let all: u64 = bins
        .iter()
        .map(|bin| bin[1].as_u64().expect("a number"))
        .sum();
    assert_eq!(trace["ipi"]["count"], all);
}

#[test]
fn a_page_loads_nothing() {
    need_kvm();
    let (run, page) = reported(Vmm::boot("--vcpus 2"));
    run.ends_with(0);
    assert!(page.contains("default-src 'none'"));
    // The name of a format, which is not fetched.
    let page = page.replace("http://www.w3.org/2000/svg", "");
    for loads in ["http://", "https://", " src=", " href=", "@import", "url("] {
        assert!(!page.contains(loads), "{loads}");
    }
}

#[test]
fn each_machine_of_a_script_has_its_section() {
    need_kvm();
    let vmm = Vmm::scripted(
        r#"
        boot(#{ vcpus: 1, append: "workload=puppet" });
        cpu(0).spin().wait_done();
        boot(#{ vcpus: 2, append: "workload=puppet" });
        cpu(0).call_single(1, wait).wait_done();
        expect(false, "the moon to be made of </script>");
        "#,
    );
    let (run, page) = reported(vmm);
    run.ends_with(1);
    let machines = machines(&page);
    let said = |at: usize, key: &str| machines[at]["report"][key].clone();
    assert_eq!(machines.len(), 2);
    assert_eq!(
        (said(0, "vcpus"), said(0, "result")),
        (1.into(), "pass".into())
    );
    assert_eq!(
        (said(1, "vcpus"), said(1, "result")),
        (2.into(), "fail".into())
    );
    let message = said(1, "message");
    assert!(
        message
            .as_str()
            .expect("a message")
            .contains("made of </script>"),
        "{message}"
    );
    let post_mortem = machines[1]["post_mortem"].as_str().expect("a post-mortem");
    assert!(post_mortem.contains("CPU"), "{post_mortem}");
}

#[test]
fn a_page_without_a_machine_says_why() {
    let directory = TempDir::new().expect("a temporary directory");
    let path = directory.path().join("report.html");
    let run = Vmm::with("--report")
        .arg(&path)
        .arg("/nowhere/guest.bin")
        .run();
    run.ends_with(2);
    let page = fs::read_to_string(&path).expect("a page was written");
    assert!(machines(&page).is_empty());
    let why = &embedded(&page, "<script type=\"application/json\" id=\"refusal\"")[0];
    assert!(
        why.as_str()
            .expect("a reason")
            .contains("/nowhere/guest.bin"),
        "{why}"
    );
}

#[test]
fn a_page_that_cannot_be_written_is_refused_before_the_run() {
    let nowhere = Path::new("/nowhere/report.html");
    let run = Vmm::boot("").arg("--report").arg(nowhere).run();
    run.ends_with(2).complains_of("/nowhere/report.html");
}

#[test]
fn a_page_that_finds_no_room_does_not_take_the_report_along() {
    need_kvm();
    let run = Vmm::boot("--vcpus 2 --report /dev/full").run();
    run.ends_with(3).says("cannot write the page");
    run.says("each exactly once");
}

#[test]
fn two_outputs_do_not_share_a_file() {
    let directory = TempDir::new().expect("a temporary directory");
    let both = directory.path().join("both");
    let run = Vmm::boot("").arg("--trace").arg(&both).arg("--report");
    run.arg(&both)
        .run()
        .ends_with(2)
        .complains_of("named for two outputs");
    let run = Vmm::boot("").arg("--trace").arg(&both).arg("--control");
    run.arg(&both)
        .run()
        .ends_with(2)
        .complains_of("named for two outputs");
}

#[test]
fn a_page_of_a_schedule_does_not_take_the_place_of_its_case() {
    const CASE: &str = "cpus 2\n0: many 1\n";
    let directory = TempDir::new().expect("a temporary directory");
    let case = directory.path().join("story.case");
    fs::write(&case, CASE).expect("room for a case");
    let explore = Vmm::with("explore").arg(&case).arg(tests::guest());
    let run = explore.arg("--report").arg(&case).run();
    run.ends_with(2).complains_of("the run needs what is in it");
    assert_eq!(fs::read_to_string(&case).expect("the case"), CASE);
}
