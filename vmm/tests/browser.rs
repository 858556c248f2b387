//! The report page in a real browser: what it draws, that it answers to pointer and keys, that it
//! loads nothing and takes no string for markup, and how fast a large one opens. Where there is a
//! KVM, there are pages of real runs too.
//!
//! `make test-browser` prepares a browser and runs these tests.

#![expect(clippy::disallowed_methods, reason = "a test says what it skips")]

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use shared::exit::ExitCode;
use shared::lab::Layout;
use shared::manifest::{PointRole, Record as Said, SECTION, VectorRole};
use shared::ports::Dispatch;
use shared::trace::Record;
use tests::browser::{Page, Written};
use tests::{Vmm, image, open_kvm, skip};
use vm_memory::{GuestAddress, GuestMemoryMmap};
use vmm::control::operator::{Expected, VmmIpiCounts};
use vmm::control::{Ending, RunResult, StallSummary};
use vmm::kernel_log::KernelLog;
use vmm::lab::Lab;
use vmm::machine::devices::Strays;
use vmm::machine::journal::Entry;
use vmm::machine::lifecycle::{Stall, State};
use vmm::manifest::Manifest;
use vmm::provenance::{Input, Provenance};
use vmm::report::Report;
use vmm::report::page::{self, Section};
use vmm::stats::meaning::Meanings;
use vmm::stats::sources::Kvm;
use vmm::stats::trace::{RawCpuTrace, Trace};
use vmm::stats::window::Window;
use vmm::verdict::{self, Verdict};
use zerocopy::IntoBytes;

/// The vector of the IPIs in a made trace.
const VECTOR: u8 = 0xfc;

/// A page of made traces, one per machine.
fn page_of(traces: Vec<Trace>, command_line: &str) -> Written {
    let reports: Vec<_> = traces.into_iter().map(reported).collect();
    let section = |report, trace| Section {
        report,
        post_mortem: "",
        command_line,
        trace: Some(trace),
    };
    let sections: Vec<_> = reports
        .iter()
        .map(|(report, trace)| section(report, trace))
        .collect();
    let mut bytes = Vec::new();
    page::write(&mut bytes, &sections, None).expect("memory takes all");
    Written::of(&bytes)
}

/// A report on a machine of which only the trace is known.
fn reported(trace: Trace) -> (Report, Trace) {
    let vcpus = trace.cpus.len() as u32;
    let layout = Layout::new(vcpus).expect("a lab of that size");
    let size = usize::try_from(layout.size).expect("a small lab");
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), size)]).expect("memory");
    let lab = Lab::prepare(memory, 0, layout).expect("a lab");
    let mut aftermath = RunResult {
        kernel_log: KernelLog::default(),
        has_lab: true,
        ending: Ending::GuestExit {
            vcpu: 0,
            code: ExitCode::Pass as u32,
        },
        ended: std::time::Instant::now(),
        window: Window::empty(),
        debugged_totals: Vec::new(),
        stall_totals: Vec::new(),
        pause_latency: None,
        stalls: StallSummary::default(),
        expected: Expected::default(),
        vmm_ipis: VmmIpiCounts::default(),
        dumps: Vec::new(),
        blind: None,
        sources: Vec::new(),
        uncounted: None,
        strays: Strays::default(),
        console_loss: None,
        vcpus,
        trace: Some(trace),
        console: String::new(),
    };
    let report = {
        let guest = Input::new(Path::new("guest.bin"), b"");
        let provenance = Provenance::new(Kvm::Unknown, guest, vcpus, "");
        let judgement = verdict::judge(&aftermath, &lab);
        let verdict = Verdict::on(&aftermath, &judgement, None);
        Report::new(&aftermath, &lab, judgement, &verdict, provenance)
    };
    let trace = aftermath.trace.take().expect("it was put there");
    (report, trace)
}

/// The manifest of a guest whose CPUs call each other.
fn caller() -> Manifest {
    let records = [
        &[Said::guest("test", "1", "")][..],
        &Said::stretch("many.enter", "many.done", "call many"),
        &[
            Said::point("irq.enter", PointRole::HandlerBegin),
            Said::point("irq.exit", PointRole::HandlerEnd),
            Said::point("ipi.send", PointRole::Send),
            Said::point("queue.run", PointRole::Run),
            Said::vector(VECTOR, "many", VectorRole::Call, ""),
        ],
    ];
    let image = image::with_section(SECTION, records.concat().as_bytes(), 0);
    let manifest = Manifest::read(&image).expect("a manifest that makes sense");
    manifest.expect("a manifest")
}

/// A trace in which CPUs take turns to call all others, `rounds` times; CPU 1 is away in the middle
/// of each round. The first of the points has the name `first`.
fn made(cpus: usize, rounds: u64, first: &str) -> Trace {
    // By a TSC of 1 GHz.
    const ROUND: u64 = 100_000;
    let manifest = caller();
    let names: Vec<_> = manifest.points.iter().map(|it| it.name.clone()).collect();
    let mut raw: Vec<_> = (0..cpus).map(|_| RawCpuTrace::default()).collect();
    for round in 0..rounds {
        let (begin, caller) = (round * ROUND, (round as usize) % cpus);
        let mut put = |cpu: usize, name: &str, at: u64, detail: u64| {
            let point = 1 + names.iter().position(|it| *it == name).expect("a point");
            let call = if name.starts_with("irq") || name == "ipi.send" {
                0
            } else {
                round + 1
            };
            let record = Record {
                tsc: begin + at,
                call,
                detail,
                point: point as u32,
                number: 0,
            };
            raw[cpu].records.push(record);
        };
        put(caller, "many.enter", 1_000, 0);
        for target in (0..cpus).filter(|it| *it != caller) {
            let (sent, taken) = (2_000 + 100 * target as u64, 20_000 + 1_500 * target as u64);
            let dispatch = Dispatch::fixed(target as u32, VECTOR);
            put(caller, "ipi.send", sent, u32::from(dispatch).into());
            put(target, "irq.enter", taken, VECTOR.into());
            put(target, "queue.run", taken + 400, 0);
            put(target, "irq.exit", taken + 900, VECTOR.into());
        }
        put(caller, "many.done", 90_000, 0);
        let entries = &mut raw[1 % cpus].journal.entries;
        entries.extend([
            Entry::Stay {
                from: begin,
                to: begin + 5_000,
                reason: 5,
            },
            Entry::Became {
                at: begin + 6_000,
                state: State::Stalled(Stall::Paused),
            },
            Entry::Became {
                at: begin + 15_000,
                state: State::Running,
            },
            Entry::Stay {
                from: begin + 16_000,
                to: begin + ROUND - 1,
                reason: 5,
            },
        ]);
    }
    let points = std::iter::once(first.to_owned()).chain(names);
    let points: Vec<_> = points.collect();
    let meanings = Meanings::new(&points, &manifest);
    Trace::new(raw, points, meanings, 1_000_000)
}

/// A page with four vCPUs, each of which has called all others, and CPU 1 was away meanwhile.
fn small() -> Written {
    if open_kvm().is_err() {
        skip("the page in a browser is of a made trace: there is no /dev/kvm");
        return page_of(vec![made(4, 8, "")], "workload=puppet");
    }
    let written = Written::nowhere();
    let vmm = Vmm::scripted(
        r#"
        boot(#{ vcpus: 4, append: "workload=puppet" });
        for round in 0..8 {
            cpu(1).pause();
            let made = cpu(round % 4).call_many([0, 1, 2, 3], nowait);
            cpu(1).resume();
            made.wait_ran();
            made.wait_done();
        }
        "#,
    );
    vmm.arg("--report").arg(written.path()).run().ends_with(0);
    written
}

/// The document of a machine in a page, as its scripts get it.
fn document(page: &mut Page) -> Value {
    serde_json::from_str(&page.text("JSON.stringify(shown.machine)")).expect("it was JSON")
}

/// Where an item is in the window.
fn place(page: &mut Page, item: &str) -> (f64, f64) {
    page.evaluate("shown.chart.place.scrollIntoView()");
    page.settle();
    let axis = |page: &mut Page, edge: &str, axis: &str| {
        let expression = format!(
            "shown.chart.canvas.getBoundingClientRect().{edge} \
             + shown.chart.position({item}).{axis}"
        );
        page.number(&expression)
    };
    (axis(page, "left", "x"), axis(page, "top", "y"))
}

const HOVERED: &str = "document.querySelector('.tip').innerText";
const SPAN: &str = "shown.chart.view.to - shown.chart.view.from";

#[test]
#[ignore = "needs a browser: make test-browser"]
fn a_page_shows_what_the_report_and_the_trace_say() {
    let written = small();
    let mut page = Page::open(&written.path(), 1400, 1000);
    let document = document(&mut page);
    let report = &document["report"];
    let body = page.text("document.body.innerText");
    let message = report["message"].as_str().expect("a message");
    assert!(body.contains("pass") && body.contains(message), "{body}");
    // One for each CPU, and one for what drove them.
    let lanes = page.number("shown.chart.lanes.length - shown.timeline.drivers.length");
    assert_eq!(lanes, 4.0);
    assert_eq!(report["vcpus"], 4);
    let trace = &report["trace"];
    let sent = trace["ipi"]["count"].as_f64().unwrap() + trace["untaken"].as_f64().unwrap();
    assert!(sent >= 24.0, "{trace:#}");
    assert_eq!(page.number("shown.timeline.ipis.length"), sent);
    assert_eq!(
        page.number("shown.chart.drawn.arrows"),
        sent,
        "all in view are drawn"
    );
    let of_kind = |kind: &str| {
        format!(
            "shown.timeline.style.reduce((sum, it) => \
             sum + (it === shown.timeline.numberOf('{kind}')), 0)"
        )
    };
    assert_eq!(page.number(&of_kind("call many")), 8.0);
    assert!(page.number(&of_kind("paused")) >= 8.0);
    assert_eq!(
        page.number("document.querySelectorAll('#vcpus tbody tr').length"),
        4.0
    );
    let latencies = page.text("document.querySelector('#latencies').innerText");
    assert!(
        latencies.contains("IPI sent to handler") && latencies.contains("p99.9"),
        "{latencies}"
    );
    assert!(page.number("document.querySelectorAll('#histograms svg').length") >= 2.0);
    assert_eq!(
        page.number("document.querySelectorAll('#matrix tbody tr').length"),
        4.0
    );
    page.is_quiet();
}

#[test]
#[ignore = "needs a browser: make test-browser"]
fn hovering_and_choosing_tell_what_it_is() {
    let written = small();
    let mut page = Page::open(&written.path(), 1400, 1000);
    let call = "shown.timeline.longest(shown.timeline.numberOf('call many'))[0]";
    page.evaluate(&format!("shown.chart.bring({call})"));
    page.settle();
    let at = place(&mut page, call);
    // To the left of the middle, where arrows are rare.
    page.pointer("mouseMoved", at, json!({}));
    let told = page.text(HOVERED);
    let id = page.text(&format!(
        "shown.timeline.words[shown.timeline.call[{call}]]"
    ));
    let hovered = page.evaluate("shown.chart.hovered");
    let is_call = page.evaluate(&format!("shown.chart.hovered === {call}"));
    assert_eq!(is_call, true, "{hovered} at {at:?}: {told}");
    assert!(
        told.starts_with(&format!("call many, {id}\nCPU ")),
        "{told}"
    );
    let click = json!({ "button": "left", "clickCount": 1 });
    page.pointer("mousePressed", at, click.clone());
    page.pointer("mouseReleased", at, click);
    let kept = page.text("document.querySelector('#told').innerText");
    assert!(
        kept.starts_with(&format!("call many, {id} · CPU ")) && kept.contains("only"),
        "{kept}"
    );

    // An IPI by itself, between its sender and its target.
    let ipi = "[...shown.timeline.ipis].find((id) => shown.timeline.style[id] === KIND.IPI)";
    page.evaluate(&format!("globalThis.ipi = {ipi}; shown.chart.bring(ipi)"));
    page.settle();
    let at = place(&mut page, "ipi");
    page.pointer("mouseMoved", at, json!({}));
    let (source, target) = (
        page.number("shown.timeline.source[shown.chart.hovered]"),
        page.number("shown.timeline.target[shown.chart.hovered]"),
    );
    let told = page.text(HOVERED);
    assert!(
        told.contains("IPI ") && told.contains("(0xf") && told.contains("handler after"),
        "{told}"
    );
    assert!(
        told.contains(&format!("CPU {source} → CPU {target}")),
        "{told}"
    );
    page.is_quiet();
}

#[test]
#[ignore = "needs a browser: make test-browser"]
fn wheel_drag_and_keys_move_through_time() {
    let written = small();
    let mut page = Page::open(&written.path(), 1400, 1000);
    let whole = page.number(SPAN);
    page.evaluate("shown.chart.place.scrollIntoView()");
    page.settle();
    let left = page.number("shown.chart.canvas.getBoundingClientRect().left");
    let top = page.number("shown.chart.canvas.getBoundingClientRect().top");
    let at = (left + 500.0, top + 60.0);
    let under = page.number("shown.chart.time(500)");
    page.pointer("mouseWheel", at, json!({ "deltaX": 0, "deltaY": -600 }));
    let narrow = page.number(SPAN);
    assert!(narrow < whole * 0.5, "{narrow} of {whole}");
    let now_under = page.number("shown.chart.time(500)");
    assert!(
        (now_under - under).abs() < whole * 1e-6,
        "what is under the pointer stays there"
    );
    let range = page.text("document.querySelector('#range').value");

    let before = page.number("shown.chart.view.from");
    let held = json!({ "button": "left", "buttons": 1, "clickCount": 1 });
    page.pointer("mousePressed", at, held.clone());
    page.pointer("mouseMoved", (at.0 - 100.0, at.1), held.clone());
    page.pointer("mouseReleased", (at.0 - 100.0, at.1), held);
    assert!(page.number("shown.chart.view.from") > before);
    assert_ne!(page.text("document.querySelector('#range').value"), range);

    page.evaluate("shown.chart.canvas.focus()");
    page.key("+");
    assert!(page.number(SPAN) < narrow);
    page.key("0");
    assert_eq!(page.number(SPAN), whole);
    // Every event can be reached and described without a pointer.
    page.key("n");
    page.key("n");
    let told = page.text("document.querySelector('#told').innerText");
    let by_whom = ["CPU ", "script"].iter().any(|who| told.contains(who));
    assert!(by_whom && told.contains(" at "), "{told}");
    page.is_quiet();
}

#[test]
#[ignore = "needs a browser: make test-browser"]
fn a_filter_leaves_what_belongs_to_a_call() {
    let written = small();
    let mut page = Page::open(&written.path(), 1400, 1000);
    let call = page.text(
        "shown.timeline.words[shown.timeline.call[\
         shown.timeline.longest(shown.timeline.numberOf('call many'))[0]]]",
    );
    page.evaluate(&format!(
        "(() => {{ const it = document.querySelector('#filter'); it.value = '{call}'; \
         it.dispatchEvent(new Event('input')); }})()"
    ));
    page.settle();
    // A call to three CPUs, with an IPI to each.
    assert_eq!(page.number("shown.chart.drawn.arrows"), 3.0, "{call}");
    let lit = "shown.chart.lanes.flatMap((lane) => lane.parts[0].rows)\
               .flatMap((row) => [...row.lit.ids])";
    let of_kind = |kind: &str| {
        format!(
            "{lit}.filter((id) => \
             shown.timeline.style[id] === shown.timeline.numberOf('{kind}')).length"
        )
    };
    assert_eq!(page.number(&of_kind("call many")), 1.0);
    assert_eq!(page.number(&of_kind("run")), 3.0);
    assert_eq!(page.number(&of_kind("interrupt")), 3.0);

    let arrows = "[...document.querySelectorAll('#legend button')]\
                  .find((it) => it.innerText.startsWith('IPI '))";
    page.evaluate(&format!("{arrows}.click()"));
    page.settle();
    assert_eq!(page.number("shown.chart.drawn.arrows"), 0.0);
    assert_eq!(
        page.text(&format!("{arrows}.getAttribute('aria-pressed')")),
        "false"
    );
    page.is_quiet();
}

#[test]
#[ignore = "needs a browser: make test-browser"]
fn strings_of_a_guest_are_never_markup() {
    const EVIL: &str =
        "</script><script>globalThis.hit = 1</script><img src=x onerror='globalThis.hit = 2'>";
    let mut trace = made(2, 4, EVIL);
    let first = trace.cpus[0].records[0];
    trace.cpus[0]
        .records
        .insert(0, Record { point: 0, ..first });
    let written = page_of(vec![trace], EVIL);
    let mut page = Page::open(&written.path(), 1000, 800);
    assert!(
        page.text("document.body.innerText").contains(EVIL),
        "the command line"
    );
    page.evaluate(
        "shown.chart.choose(shown.timeline.from.findIndex((_, id) => \
         shown.timeline.words[shown.timeline.name[id]].includes('onerror')))",
    );
    page.settle();
    assert!(
        page.text("document.querySelector('#told').innerText")
            .contains(EVIL)
    );
    assert_eq!(page.evaluate("globalThis.hit ?? 0"), 0);
    assert_eq!(page.evaluate("document.images.length"), 0);
    page.is_quiet();
}

#[test]
#[ignore = "needs a browser: make test-browser"]
fn each_machine_of_a_script_can_be_looked_at() {
    let written = page_of(vec![made(2, 4, ""), made(3, 4, "")], "");
    let mut page = Page::open(&written.path(), 1000, 800);
    assert_eq!(page.number("shown.chart.lanes.length"), 2.0);
    page.evaluate(
        "(() => { const it = document.querySelector('#machine'); it.value = '1'; \
         it.dispatchEvent(new Event('change')); })()",
    );
    page.settle();
    assert_eq!(page.number("shown.chart.lanes.length"), 3.0);
    assert_eq!(
        page.number("document.querySelectorAll('canvas').length"),
        1.0
    );
    page.is_quiet();
}

#[test]
#[ignore = "needs a browser: make test-browser"]
fn light_and_dark_are_as_the_reader_prefers() {
    let written = page_of(vec![made(2, 4, "")], "");
    let mut page = Page::open(&written.path(), 1000, 800);
    let mut looks = Vec::new();
    for scheme in ["light", "dark"] {
        page.prefer(scheme);
        looks.push(
            page.text("shown.chart.paint.page + getComputedStyle(document.body).backgroundColor"),
        );
    }
    assert_ne!(looks[0], looks[1]);
    page.is_quiet();
}

#[test]
#[ignore = "needs a browser: make test-browser"]
fn a_hundred_thousand_events_open_in_seconds() {
    let written = page_of(vec![made(16, 2_200, "")], "");
    let size = fs::metadata(written.path()).expect("a page").len();
    let mut page = Page::open(&written.path(), 1600, 1000);
    let events = page.number("shown.timeline.total");
    assert!(events >= 100_000.0, "{events}");
    assert_eq!(page.number("shown.timeline.ipis.length"), 2_200.0 * 15.0);
    assert!(page.number("shown.chart.drawn.arrows") > 1_000.0);
    let first = page.number("shown.firstPicture");
    // Zooms in step by step, and then moves across.
    let mut frames = Vec::new();
    for step in 0..20 {
        page.evaluate(&format!(
            "shown.chart.zoom(0.8, shown.timeline.end * 0.{step})"
        ));
        page.settle();
        frames.push(page.number("shown.chart.drawn.milliseconds"));
    }
    frames.sort_by(f64::total_cmp);
    let (median, longest) = (frames[10], frames[19]);
    say(&format!(
        "{events} events on 16 vCPUs, {} KiB: first picture after {first:.0} ms, then \
         {median:.1} ms each (median), {longest:.1} ms at most",
        size >> 10
    ));
    assert!(first < 10_000.0, "{first} ms");
    assert!(median < 500.0, "{median} ms");
    page.is_quiet();
}

/// Prints `text` past the test harness, which hides what passing tests print.
fn say(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{text}");
}
