//! Traces: what a run writes with `--trace` is a document of the Trace Event Format that says what
//! happened.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;
use tests::image::Image;
use tests::{Run, Vmm, need_kvm, trace_format};

/// Runs with a trace and returns its events.
fn traced(vmm: Vmm) -> (Run, Vec<Value>) {
    let directory = TempDir::new().expect("a temporary directory");
    let path = directory.path().join("trace.json");
    let run = vmm.arg("--trace").arg(&path).run();
    let (events, dropped) = read(&path);
    assert_eq!(dropped, 0, "small runs lose nothing");
    (run, events)
}

/// The events of a trace, of which viewers have to show all, and how many are missing in it.
fn read(path: &Path) -> (Vec<Value>, u64) {
    let text = fs::read_to_string(path).expect("a trace was written");
    let document: Value = serde_json::from_str(&text).expect("it is JSON");
    assert_eq!(trace_format::problems(&document), [""; 0]);
    let events = document["traceEvents"].as_array().expect("events");
    let dropped = document["otherData"]["dropped"].as_u64();
    (events.clone(), dropped.expect("a number"))
}

fn count(events: &[Value], phase: &str, name: &str) -> u64 {
    let is_it = |event: &&Value| {
        event["ph"] == phase
            && event["name"]
                .as_str()
                .is_some_and(|it| it.starts_with(name))
    };
    events.iter().filter(is_it).count() as u64
}

#[test]
fn a_trace_has_every_ipi_every_handler_and_every_call() {
    need_kvm();
    let vmm = Vmm::scripted(
        r#"
        boot(#{ vcpus: 4, append: "workload=puppet" });
        for round in 0..20 {
            cpu(round % 4).call_many([0, 1, 2, 3], wait).wait_done();
        }
        "#,
    );
    let (run, events) = traced(vmm.args(["--stats", "json"]));
    run.ends_with(0);
    let report = run.json();
    // Each call waits, so that no two IPIs of its vector are coalesced.
    assert_eq!(count(&events, "X", "call many"), 20);
    assert_eq!(count(&events, "s", "IPI many"), 60);
    assert_eq!(count(&events, "f", "IPI many"), 60);
    assert_eq!(count(&events, "X", "interrupt many"), 60);
    assert_eq!(count(&events, "i", "queue.run"), 60);
    let number = |pointer: &str| report.pointer(pointer).and_then(Value::as_u64);
    assert_eq!(number("/trace/call/count"), Some(20));
    assert_eq!(number("/trace/ipi/count"), Some(count(&events, "s", "IPI")));
    let times = |pointer: &str| number(pointer).unwrap_or_else(|| panic!("{pointer}: {report:#}"));
    assert!(times("/trace/ipi/min/cycles") <= times("/trace/ipi/p50/cycles"));
    assert!(times("/trace/call/p50/ns") <= times("/trace/call/max/ns"));
    assert!(times("/trace/ipi/min/ns") > 0);
}

#[test]
fn a_trace_can_be_turned_off_and_on_and_shows_stalls() {
    need_kvm();
    let vmm = Vmm::scripted(
        r#"
        boot(#{ vcpus: 3, append: "workload=puppet" });
        trace(false);
        cpu(0).call_many([1, 2], wait).wait_done();
        trace(true);
        cpu(1).pause();
        let made = cpu(0).call_many([1, 2], nowait);
        made.wait_ran(2);
        cpu(1).resume();
        made.wait_ran();
        trace(false);
        cpu(0).call_many([1, 2], wait).wait_done();
        "#,
    );
    let (run, events) = traced(vmm);
    run.ends_with(0);
    assert_eq!(count(&events, "X", "call many"), 1);
    assert_eq!(count(&events, "s", "IPI many"), 2);
    let paused: Vec<_> = events.iter().filter(|it| it["name"] == "paused").collect();
    assert_eq!(paused.len(), 1, "{paused:?}");
    // CPU 1's handler did not begin before the pause was over.
    let time = |event: &Value, key: &str| event[key].as_f64().expect("a time");
    let over = time(paused[0], "ts") + time(paused[0], "dur");
    let host_of_1 = paused[0]["tid"].as_u64().expect("a track");
    let is_handler = |event: &&Value| {
        event["tid"] == host_of_1 - 1
            && event["cat"] == "interrupt"
            && time(event, "ts") > time(paused[0], "ts")
    };
    let handler = events.iter().find(is_handler).expect("CPU 1 took the IPI");
    assert!(time(handler, "ts") >= over, "{handler} in {}", paused[0]);
}

#[test]
fn without_a_trace_there_is_none_to_turn_on() {
    need_kvm();
    let vmm = Vmm::scripted("boot(#{ append: \"workload=puppet\" });\ntrace(true);\n");
    vmm.run().ends_with(2).says("--trace FILE");
}

#[test]
fn a_trace_that_finds_no_room_does_not_take_the_report_along() {
    need_kvm();
    let run = Vmm::boot("--vcpus 2 --trace /dev/full").run();
    run.ends_with(3).says("cannot write the trace");
    run.says("each exactly once");
}

/// If a guest declares nothing of its points, each is shown only by its name.
#[test]
fn without_a_manifest_points_are_instants() {
    need_kvm();
    let image = Image::that_says_nothing(&tests::guest());
    let options = ["--vcpus", "2", "--append", "workload=selftest calls=1"];
    let (run, events) = traced(Vmm::with("").args(options).arg(image.path()));
    run.ends_with(0);
    for name in [
        "many.enter",
        "many.done",
        "ipi.send",
        "irq.enter",
        "single.run",
    ] {
        assert!(count(&events, "i", name) > 0, "{name}");
    }
    // Events of the host are there as usual.
    let stretches = events.iter().filter(|event| event["ph"] == "X");
    let of_guest = stretches.filter(|event| event["cat"] != "exit" && event["cat"] != "waiting");
    assert_eq!(of_guest.count(), 0);
    assert_eq!(count(&events, "s", "IPI"), 0);
}

/// Runs of several kinds, each of which puts something else into a trace. That viewers show all of
/// it is checked where the events are read.
#[test]
fn viewers_show_all_of_a_trace() {
    need_kvm();
    let directory = TempDir::new().expect("a temporary directory");
    let stolen = "--vcpus 4 --steal seed=7,mean=5ms,share=30%";
    for (options, append) in [
        ("--vcpus 1", "workload=selftest"),
        ("--vcpus 4", "workload=selftest"),
        (stolen, "workload=stress for=1s"),
        ("--vcpus 8", "transport=wire workload=stress for=1s"),
        ("--vcpus 2 --trace-filter kinds=ipi", "workload=selftest"),
        ("--vcpus 4 --trace-filter cpus=1", "workload=selftest"),
    ] {
        let path = directory.path().join("trace.json");
        let vmm = Vmm::boot(options).args(["--append", append]);
        let run = vmm.arg("--trace").arg(&path).run();
        run.ends_with(0).says("the trace has ");
        // A CPU that is just writing a record when another ends the run loses it.
        let (events, _) = read(&path);
        let arrows = count(&events, "s", "IPI");
        assert_eq!(arrows, count(&events, "f", "IPI"), "{options} {append}");
        assert!(arrows > 0 || options == "--vcpus 1", "{options} {append}");
    }
}

/// A CPU that waits in a loop is out of the guest hundreds of times, which is one thing.
#[test]
fn waiting_is_one_slice_with_the_number_of_its_exits() {
    need_kvm();
    let vmm = Vmm::scripted(
        r#"
        boot(#{ vcpus: 3, append: "workload=puppet" });
        cpu(1).irqs_off().wait_done();
        let made = cpu(0).call_single(1, wait);
        limit(2);
        try { made.wait_done(); } catch (late) { print(late); }
        limit(10);
        cpu(1).irqs_on();
        made.wait_done();
        "#,
    );
    let (run, events) = traced(vmm.args(["--stats", "json"]));
    run.ends_with(0);
    assert_eq!(count(&events, "X", "exit: waiting"), 0);
    let waits = events.iter().filter(|it| it["cat"] == "waiting");
    let exits = waits
        .clone()
        .map(|it| it["args"]["exits"].as_u64().expect("a number"));
    let (slices, exits) = (waits.clone().count() as u64, exits.sum::<u64>());
    assert!(exits > 20 * slices, "{exits} exits in {slices} slices");
    let report = run.json();
    let vcpus = report["per_vcpu"].as_array().expect("vCPUs").iter();
    let counted: u64 = vcpus.filter_map(|it| it["exits"]["waiting"].as_u64()).sum();
    // The trace begins and ends a little before and after the window of the counts.
    assert!(
        exits.abs_diff(counted) <= 6,
        "{exits} in the trace, {counted} counted"
    );
}

#[test]
fn a_filter_chooses_what_is_written_and_leaves_the_report_alone() {
    need_kvm();
    let script = r#"
        boot(#{ vcpus: 4, append: "workload=puppet" });
        for target in 1..4 { cpu(0).call_single(target, wait).wait_done(); }
        cpu(0).call_many([1, 2], wait).wait_done();
    "#;
    let filtered = |filters: &[&str]| {
        let filters = filters.iter().flat_map(|filter| ["--trace-filter", filter]);
        let vmm = Vmm::scripted(script).args(["--stats", "json"]);
        let (run, events) = traced(vmm.args(filters));
        run.ends_with(0).says("left out by --trace-filter");
        let counted = run.json()["trace"]["call"]["count"].as_u64();
        assert_eq!(counted, Some(4), "the report is of all calls");
        events
            .into_iter()
            .filter(|it| it["ph"] != "M")
            .collect::<Vec<_>>()
    };
    let events = filtered(&["call-single,call-many"]);
    assert_eq!(events.len(), 4, "{events:?}");
    let events = filtered(&["kinds=ipi", "vectors=single"]);
    assert_eq!(count(&events, "s", "IPI single"), 3, "{events:?}");
    // An IPI leaves, its arrow begins; it arrives, and its arrow ends.
    assert_eq!(events.len(), 4 * 3, "{events:?}");
    let events = filtered(&["interrupt", "vectors=0xfc", "cpus=2-3"]);
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["name"], "interrupt many");
}

#[test]
fn a_filter_that_names_what_there_is_not_is_refused_before_the_run() {
    need_kvm();
    for (filter, said) in [
        ("interupt", "did you mean \"interrupt\"?"),
        ("vectors=sinlge", "did you mean \"single\"?"),
        ("cpus=2", "there is no CPU 2"),
        ("cpu=1", "did you mean \"cpus\"?"),
    ] {
        let directory = TempDir::new().expect("a temporary directory");
        let vmm = Vmm::boot("--vcpus 2").args(["--trace-filter", filter]);
        let run = vmm
            .arg("--trace")
            .arg(directory.path().join("trace.json"))
            .run();
        run.ends_with(2).says(said);
    }
    Vmm::boot("--trace-filter ipi")
        .run()
        .ends_with(2)
        .says("--trace <FILE>");
}
