//! What a script does stands in its trace and on its page: each action, each wait and each line
//! that it prints, with the line of the script, in order, and at the time when it was done. So does
//! what clients do.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{Run, Vmm, need_kvm};

use super::control::Client;

/// What a run left.
struct Left {
    run: Run,
    /// The events of the trace.
    events: Vec<Value>,
    /// The machines of the page.
    page: String,
    _directory: TempDir,
}

fn traced(vmm: Vmm) -> Left {
    let directory = TempDir::new().expect("a temporary directory");
    let (trace, page) = (directory.path().join("t.json"), directory.path().join("p"));
    let vmm = vmm.arg("--trace").arg(&trace).arg("--report").arg(&page);
    let run = vmm.run();
    let page = fs::read_to_string(&page).expect("a page was written");
    Left {
        run,
        events: events(&trace),
        page,
        _directory: directory,
    }
}

fn events(trace: &Path) -> Vec<Value> {
    let text = fs::read_to_string(trace).expect("a trace was written");
    let document: Value = serde_json::from_str(&text).expect("it is JSON");
    document["traceEvents"].as_array().expect("events").clone()
}

impl Left {
    /// The slices of what drove the machine, in order: line, sentence, beginning and end.
    fn driven(&self) -> Vec<(u64, String, f64, f64)> {
        let driven = self.events.iter().filter(|it| it["cat"] == "driven");
        driven
            .map(|it| {
                let (from, took) = (it["ts"].as_f64().unwrap(), it["dur"].as_f64().unwrap());
                let line = it["args"]["line"].as_u64().unwrap_or(0);
                (line, text(&it["name"]), from, from + took)
            })
            .collect()
    }

    /// The stalls of a CPU: what they are, who ordered them, beginning and end.
    fn stalls(&self, cpu: u64) -> Vec<(String, String, f64, f64)> {
        let host = 2 * cpu + 1;
        let is_stall = |it: &&Value| it["cat"] == "paused" || it["cat"] == "held";
        let own = self.events.iter().filter(|it| it["tid"] == host);
        own.filter(is_stall)
            .map(|it| {
                let (from, took) = (it["ts"].as_f64().unwrap(), it["dur"].as_f64().unwrap());
                let by = text(&it["args"]["ordered_by"]);
                (text(&it["name"]), by, from, from + took)
            })
            .collect()
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

const SCRIPT: &str = r#"boot(#{ vcpus: 3, append: "workload=puppet transport=wire" });
cpu(0).idle().wait_done();
wire.hold(0, 1);
let made = cpu(0)
    .call_many([1, 2], nowait);
wire.wait_held(0, 1, made);
fn away(n) {
    cpu(n).pause();
    print(`CPU ${n} is away`);
}
away(2);
made.ran_on(1);
cpu(2).resume();
wire.release(0, 1, "many");
made.wait_ran();
print(cpu(1)); print([1, cpu(1)]);
cpu(1).hold_at("single.run", 1);
let last = cpu(0).call_single(1, nowait);
wire.release(0, 1);
cpu(1).wait_held();
cpu(1).resume();
last.wait_ran();
finish();
"#;

#[test]
fn what_a_script_did_stands_in_its_trace_with_its_line() {
    need_kvm();
    let left = traced(Vmm::scripted(SCRIPT));
    left.run.ends_with(0);
    let driven = left.driven();
    let told = driven.iter().map(|(line, text, ..)| (*line, text.as_str()));
    let expected = [
        (1, "boots this machine"),
        (2, "tells CPU 0 idle"),
        (2, "waits for idle on CPU 0"),
        (3, "holds IPIs from CPU 0 to CPU 1"),
        (5, "tells CPU 0 call-many 1-2"),
        (
            6,
            "waits for 1 IPIs of call 0:0:1 from CPU 0 to CPU 1 on the wire",
        ),
        (8, "pauses CPU 2"),
        (9, "prints CPU 2 is away"),
        (13, "resumes CPU 2"),
        (14, "releases IPIs of vector 0xfc from CPU 0 to CPU 1"),
        (15, "waits for call-many on CPU 0"),
        (15, "waits until call 0:0:1 has run on CPUs 1-2"),
        (16, "prints CPU 1"),
        (16, "prints [1, Cpu]"),
        (17, "has CPU 1 held at single.run"),
        (18, "tells CPU 0 call-single 1"),
        (19, "releases IPIs from CPU 0 to CPU 1"),
        (20, "waits until CPU 1 is held"),
        (21, "resumes CPU 1"),
        (22, "waits for call-single on CPU 0"),
        (22, "waits until call 0:0:2 has run on CPU 1"),
        (23, "finishes the machine"),
    ];
    assert_eq!(told.collect::<Vec<_>>(), expected);
    // One thing after the other.
    assert!(driven.windows(2).all(|it| it[0].3 <= it[1].2), "{driven:?}");

    let at = |what: &str| {
        let found = driven.iter().find(|(_, text, ..)| text == what);
        found.map(|(.., from, to)| (*from, *to)).expect(what)
    };
    // A stall begins while it is ordered, and ends while it is undone.
    let (paused, resumed) = (at("pauses CPU 2"), at("resumes CPU 2"));
    let stalls = left.stalls(2);
    let [(name, by, from, to)] = &stalls[..] else {
        panic!("CPU 2 was paused once: {stalls:?}");
    };
    assert_eq!((&**name, &**by), ("paused", "script, line 8"));
    assert!((paused.0..paused.1).contains(from) && *to > resumed.0);
    let stalls = left.stalls(1);
    let [(name, by, from, to)] = &stalls[..] else {
        panic!("CPU 1 was held once: {stalls:?}");
    };
    assert_eq!((&**name, &**by), ("held", "script, line 17"));
    let ordered = at("has CPU 1 held at single.run");
    assert!(*from > ordered.1 && *from < at("waits until CPU 1 is held").1);
    assert!(*to > at("resumes CPU 1").0);

    // The page has the same.
    let (_, json) = left
        .page
        .split_once("class=\"machine\"")
        .expect("a machine");
    let (_, json) = json.split_once('>').expect("the end of a tag");
    let (json, _) = json.split_once("</script>").expect("the end of an element");
    let machine: Value = serde_json::from_str(json).expect("JSON");
    let timeline = &machine["timeline"];
    let word = |place: &Value| text(&timeline["words"][place.as_u64().expect("a word") as usize]);
    let lanes = timeline["driven"].as_array().expect("lanes");
    assert_eq!((lanes.len(), &lanes[0]["lane"]), (1, &"script".into()));
    let shown = lanes[0]["name"]
        .as_array()
        .expect("a column")
        .iter()
        .map(word);
    let all = expected.map(|(line, text)| format!("line {line}: {text}"));
    assert_eq!(shown.collect::<Vec<_>>(), all);
    let host = timeline["cpus"][2]["host"]["name"]
        .as_array()
        .expect("a column");
    assert!(
        host.iter()
            .map(word)
            .any(|it| it == "paused (script, line 8)")
    );
}

#[test]
fn where_a_script_stops_stands_in_its_trace_too() {
    need_kvm();
    for (end, status, told) in [
        (
            "expect(false, \"the moon\");",
            1,
            "stops: expected: the moon",
        ),
        ("// The end.", 0, "finishes the machine"),
    ] {
        let left = traced(Vmm::scripted(&format!(
            "boot(#{{ vcpus: 2, append: \"workload=puppet\" }});\n\n  {end}"
        )));
        left.run.ends_with(status);
        let driven = left.driven();
        let (line, text, ..) = driven.last().expect("it has done something");
        assert_eq!((*line, &**text), (3, told));
    }
}

#[test]
fn planned_stalls_are_not_the_scripts() {
    need_kvm();
    let left = traced(
        Vmm::scripted(
            r#"
            boot(#{ vcpus: 2, append: "workload=puppet" });
            while cpu(1).state() != "paused" { }
            // The call runs once the stall is over.
            cpu(0).call_single(1, wait).wait_done();
            "#,
        )
        .args(["--stall", "cpu=1,at=1ms,for=500ms"]),
    );
    left.run.ends_with(0);
    let stalls = left.stalls(1);
    let [(name, by, ..)] = &stalls[..] else {
        panic!("CPU 1 was stalled once: {stalls:?}");
    };
    assert_eq!((&**name, &**by), ("paused", "--stall"));
    let names = left.events.iter().filter(|it| it["name"] == "thread_name");
    let names: Vec<_> = names.map(|it| text(&it["args"]["name"])).collect();
    assert!(names.contains(&"--stall".to_owned()), "{names:?}");
}

/// Each client has a lane, and a stall says which of them ordered it.
#[test]
fn what_clients_did_is_theirs() {
    need_kvm();
    let directory = TempDir::new().expect("a temporary directory");
    let (socket, trace) = (directory.path().join("s"), directory.path().join("t.json"));
    let running = Vmm::boot("--vcpus 2 --append workload=puppet")
        .arg("--control")
        .arg(&socket)
        .arg("--trace")
        .arg(&trace)
        .start();
    let mut first = Client::connect(&socket);
    // Answered once the workload has started, and so has the trace.
    first.well(&json!({"verb": "tell", "cpu": 0, "deed": "idle"}));
    let mut second = Client::connect(&socket);
    second.well(&json!({"verb": "pause", "cpu": 1}));
    first.well(&json!({"verb": "look", "cpu": 1}));
    first.well(&json!({"verb": "resume", "cpu": 1}));
    first.well(&json!({"verb": "finish"}));
    let run = running.finish();
    run.ends_with(0);
    let left = Left {
        run,
        events: events(&trace),
        page: String::new(),
        _directory: directory,
    };
    let driven = left.driven();
    let of = |tid: u64| {
        let own = left.events.iter().filter(|it| it["cat"] == "driven");
        let own = own.filter(|it| it["tid"] == tid);
        own.map(|it| text(&it["name"])).collect::<Vec<_>>()
    };
    // The tracks of two CPUs come before.
    assert_eq!(
        of(4),
        ["tells CPU 0 idle", "resumes CPU 1", "finishes the machine"]
    );
    assert_eq!(of(5), ["pauses CPU 1"]);
    assert_eq!(driven.len(), 4);
    let stalls = left.stalls(1);
    assert_eq!(stalls.len(), 1, "{stalls:?}");
    assert_eq!(stalls[0].1, "client 2");
}
