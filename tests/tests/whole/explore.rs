//! `vmm explore` and `vmm replay`, as a user sees them: the shipped cases have the verdicts that
//! they expect, what is found can be replayed, and what cannot be explored or replayed is refused
//! with advice.
//!
//! `EXPLORE_REPLAYS` is how often each schedule is replayed, `EXPLORE_TIME` how many seconds a
//! search may take that is to find nothing.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{Run, Vmm, explore_image, need_kvm};

use super::formats::hold_explored;
use super::terminal::Terminal;

const LOST_CALL: &str = include_str!("../../../scenarios/explore/lost-call.case");
const DELETED_FIRST: &str = include_str!("../../../scenarios/explore/deleted-first.case");
pub(super) const SHRINKING_MASK: &str =
    include_str!("../../../scenarios/explore/shrinking-mask.case");
pub(super) const CALL_WHILE_COMING: &str =
    include_str!("../../../scenarios/explore/call-while-coming.case");
const FREED_MASK: &str = include_str!("../../../scenarios/explore/freed-mask.case");

/// What a search of every order prints first.
pub(super) const COMPLETE: &str =
    "complete (x86-TSO, at every access): no order of steps of these ";

/// The same, with `--memory sc`.
pub(super) const COMPLETE_SC: &str =
    "complete (sequentially consistent, at every access): no order of steps of these ";

/// More orders than can be tried.
const ENDLESS: &str = "cpus 6\n0: all; all wait\n1: all; all wait\n2: all; all wait\n";

/// A search or a replay may take this long on a busy host.
const TIME_LIMIT: Duration = Duration::from_secs(600);

fn number(variable: &str, default: u64) -> u64 {
    env::var(variable).map_or(default, |number| number.parse().expect(variable))
}

/// A directory with a case, and the files that a search of it writes.
pub(super) struct Workspace {
    dir: TempDir,
}

impl Workspace {
    pub(super) fn with(case: &str) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        fs::write(dir.path().join("a.case"), case).expect("room for a case");
        Self { dir }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The search of the case, on `image`.
    pub(super) fn explore_on(&self, image: &Path, options: &str) -> Vmm {
        Vmm::with("explore")
            .arg(self.path("a.case"))
            .arg(image)
            .args(options.split_whitespace())
            .limit(TIME_LIMIT)
    }

    pub(super) fn explore(&self, options: &str) -> Vmm {
        self.explore_on(&explore_image(), options)
    }

    /// Searches, and returns what was printed and the schedule that was found.
    pub(super) fn find(&self, options: &str, verdict: &str) -> (Run, Value) {
        let found = self.path("found.json");
        let run = self.explore(options).arg("--schedule").arg(&found).run();
        run.ends_with(0).says(verdict);
        let text = fs::read_to_string(found).expect("a schedule");
        let schedule = serde_json::from_str(&text).expect("a schedule is JSON");
        (run, schedule)
    }

    pub(super) fn replay(&self, schedule: &Value, image: &Path, options: &str) -> Run {
        let path = self.path("schedule.json");
        fs::write(&path, schedule.to_string()).expect("room for a schedule");
        Vmm::with("replay")
            .arg(path)
            .arg(image)
            .args(options.split_whitespace())
            .limit(TIME_LIMIT)
            .run()
    }
}

/// What a search with `mask-check=off` finds, for all tests that need a schedule.
fn unchecked_mask() -> &'static (Run, Value) {
    static FOUND: OnceLock<(Run, Value)> = OnceLock::new();
    FOUND.get_or_init(|| {
        Workspace::with(SHRINKING_MASK).find("--append mask-check=off", "left-locked")
    })
}

/// The story that a search or a replay prints: all that comes before the figures.
fn story(run: &Run) -> &str {
    run.stdout.split("\n\n").next().unwrap_or_default()
}

pub(super) fn comes_again(workspace: &Workspace, found: &Run, schedule: &Value) {
    let times = number("EXPLORE_REPLAYS", 3);
    let run = workspace.replay(schedule, &explore_image(), &format!("--times {times}"));
    run.ends_with(0)
        .says(&format!("{times} of {times} replays broke"))
        .says("compared   stops and states");
    assert_eq!(story(&run), story(found), "{run}");
}

#[test]
fn the_lost_call_is_found_and_comes_again() {
    need_kvm();
    let workspace = Workspace::with(LOST_CALL);
    let (found, schedule) = workspace.find("--append queue=fifo", "as expected: ");
    assert!(schedule["breaks"].to_string().contains("\"lost\""));
    found.says("never ran on CPU");
    comes_again(&workspace, &found, &schedule);
    let (found, schedule) = workspace.find("--append queue=fifo --memory sc", "as expected: ");
    names_words_and_marks_the_step(&workspace, &found, &schedule);
}

/// The point of no return is when CPU 0's element, on which CPU 2 stands, becomes the last of the
/// list: CPU 2 then goes on to the end of the list, and not to the element that it should have
/// served.
fn names_words_and_marks_the_step(workspace: &Workspace, found: &Run, schedule: &Value) {
    let lines: Vec<_> = story(found).lines().collect();
    let line = |mark: char| {
        let found = lines.iter().find(|line| line.contains(mark));
        *found.unwrap_or_else(|| panic!("no {mark} in {lines:#?}"))
    };
    let (lost, met) = (line('◆'), line('◇'));
    for (line, access) in [(lost, "store"), (met, "load")] {
        let what = format!("{access} GUEST.ipi.many.elements.list.links[0].next");
        assert!(line.contains(&what), "{line}");
        assert!(line.contains("guest/src/ipi/list.rs:"), "{line}");
    }
    assert!(lost.contains("point of no return"), "{lost}");
    assert!(met.contains("CPU 2 meets what was changed"), "{met}");
    let point = &schedule["point_of_no_return"];
    let turn = |step: &Value| {
        let turn = step["turn"].as_u64().expect("a number");
        schedule["turns"][turn as usize]["cpu"].clone()
    };
    assert_eq!(turn(&point["step"]), 0, "{point}");
    assert_eq!(turn(&point["meets"]), 2, "{point}");
    let place = point["place"].as_str().expect("a text");
    assert!(place.starts_with("guest/src/ipi/list.rs:"), "{point}");
    // What replays compare is unchanged.
    let untils = schedule["turns"].to_string();
    assert!(
        untils.contains("\"load 0x") && !untils.contains("GUEST"),
        "{untils}"
    );
    // With another image the same schedule can mean something else.
    let other = workspace.path("other.bin");
    let mut bytes = fs::read(explore_image()).expect("an image");
    bytes.push(0);
    fs::write(&other, bytes).expect("room for an image");
    let run = workspace.replay(schedule, &other, "--any-image");
    run.ends_with(0).says("1 of 1 replays broke");
    assert!(!run.stdout.contains("point of no return"), "{run}");
}

#[test]
fn a_call_at_the_head_is_not_lost_without_a_preemption() {
    need_kvm();
    let workspace = Workspace::with(LOST_CALL);
    let options = "--append queue=filo --strategy bounded --preemptions 0";
    let run = workspace.explore(options).run();
    run.ends_with(0).says("no order with 0 preemptions");
}

#[test]
fn a_mask_that_is_not_checked_is_found_out_and_one_that_is_breaks_in_no_order() {
    need_kvm();
    let workspace = Workspace::with(SHRINKING_MASK);
    let (found, schedule) = unchecked_mask();
    comes_again(&workspace, found, schedule);
    workspace
        .explore("--strategy races")
        .run()
        .ends_with(0)
        .says(COMPLETE);
}

#[test]
fn a_mask_that_is_freed_is_found_out() {
    need_kvm();
    let workspace = Workspace::with(FREED_MASK);
    let (found, schedule) = workspace.find("--append hotplug=no-stop", "as expected: ");
    comes_again(&workspace, &found, &schedule);
}

/// The second call waits, with interrupts off, for the descriptor of the first, unless that is free
/// by then.
#[test]
fn what_is_found_before_the_search_has_begun_comes_again() {
    need_kvm();
    let workspace = Workspace::with("cpus 2\n0: async 1; irqs-off; async 1\nexpect contract\n");
    let (found, schedule) = workspace.find("", "as expected: contract");
    found
        .says("searched   0 states")
        .says("broke the calling contract");
    comes_again(&workspace, &found, &schedule);
    // In the order that was found, CPU 1 could have run the first call in time, but did not get
    // that far.
    found.says("point of no return").says("GUEST.");
    assert!(!found.stdout.contains("the beginning"), "{found}");
}

#[test]
fn what_breaks_in_every_order_is_lost_from_the_beginning() {
    need_kvm();
    let workspace = Workspace::with("cpus 2\n0: irqs-off; single 1 wait\nexpect contract\n");
    let (found, _) = workspace.find("", "as expected: contract");
    found.says("point of no return: the beginning; every order breaks from here on");
}

#[test]
fn what_breaks_against_expectation_is_a_failure() {
    need_kvm();
    let workspace =
        Workspace::with("cpus 3\n0: many 1,2\n1: leave-mask 0\n2: leave-mask 0\nexpect clean\n");
    let run = workspace.explore("--append mask-check=off").run();
    run.ends_with(1).says("expected: nothing to break");
}

#[test]
fn a_schedule_that_leads_elsewhere_says_where() {
    need_kvm();
    let workspace = Workspace::with(SHRINKING_MASK);
    let (_, schedule) = unchecked_mask();
    let last = schedule["turns"].as_array().expect("turns").len() - 1;
    let altered = |turn: usize, key: &str, value: Value| {
        let mut altered = schedule.clone();
        altered["turns"][turn][key] = value;
        let run = workspace.replay(&altered, &explore_image(), "");
        run.ends_with(1).says("0 of 1 replays broke");
        run
    };
    altered(0, "until", json!("left"))
        .says("turn 1: CPU ")
        .says("not to \"left\"");
    altered(0, "cpu", json!(77)).says("turn 1: CPU 77 cannot go on");
    altered(0, "takes", json!(0xf1))
        .says("turn 1: CPU ")
        .says("has no such interrupt");
    // Otherwise it would wait for ever with nothing to do.
    altered(last, "stops", json!(u32::MAX)).says(&format!("turn {}: CPU ", last + 1));
    let state = altered(1, "state", json!("0".repeat(32)));
    state.says("turn 2: the machine is in state ");
}

#[test]
fn a_schedule_of_another_image_is_refused_unless_one_insists() {
    need_kvm();
    let workspace = Workspace::with(SHRINKING_MASK);
    let (_, schedule) = unchecked_mask();
    let other = workspace.path("other.bin");
    let mut bytes = fs::read(explore_image()).expect("an image");
    bytes.push(0);
    fs::write(&other, bytes).expect("room for an image");
    let run = workspace.replay(schedule, &other, "");
    run.ends_with(2).complains_of("--any-image");
    let run = workspace.replay(schedule, &other, "--any-image");
    run.ends_with(0).says("1 of 1 replays broke");
}

#[test]
fn what_is_no_schedule_is_refused() {
    let workspace = Workspace::with("");
    for (text, complaint) in [
        (json!({}), "no schedule"),
        (json!([1, 2]), "no schedule"),
        (
            json!({ "form": "ipi-lab-schedule/99" }),
            "ipi-lab-schedule/99",
        ),
    ] {
        let run = workspace.replay(&text, &explore_image(), "");
        run.ends_with(2).complains_of(complaint);
        assert!(run.stderr.contains("schedule.json"), "{run}");
    }
}

#[test]
fn a_case_that_makes_no_sense_names_file_and_line() {
    for (text, line) in [
        ("cpus 4\n# fine so far\n9: many 1\n", "line 3: "),
        (
            "cpus 4\n# fine so far\n0: many 9\n",
            "line 3: there is no CPU 9",
        ),
        (
            "cpus 4\n0: sing 1\n",
            "line 2: there is no deed \"sing\"; there are call-single (single), ",
        ),
    ] {
        let run = Workspace::with(text).explore("").run();
        run.ends_with(2).complains_of(&format!("a.case: {line}"));
    }
    let workspace = Workspace::with("cpus 4\n");
    fs::remove_file(workspace.path("a.case")).expect("it was there");
    workspace
        .explore("")
        .run()
        .ends_with(2)
        .complains_of("a.case");
}

#[test]
fn the_image_that_does_not_stop_is_refused_unless_named_points_will_do() {
    need_kvm();
    let workspace = Workspace::with(SHRINKING_MASK);
    let plain = tests::guest();
    let run = workspace.explore_on(&plain, "").run();
    run.ends_with(2).complains_of("--granularity probe");
    // The other image has these points too. Points before accesses are not among them: with those
    // there would be many more states.
    for image in [&plain, &explore_image()] {
        let probe = "--granularity probe --strategy exhaustive --max-states 20000";
        let run = workspace.explore_on(image, probe).run();
        run.ends_with(0)
            .says("complete (sequentially consistent, at every probe): no order of steps");
    }
}

#[test]
fn a_guest_that_does_not_know_an_option_is_no_result() {
    need_kvm();
    let workspace = Workspace::with(SHRINKING_MASK);
    let run = workspace.explore("--append queue=nonsense").run();
    run.ends_with(2).complains_of("nonsense");
}

#[test]
fn a_schedule_that_cannot_be_written_is_refused_before_the_search() {
    let workspace = Workspace::with(ENDLESS);
    for path in ["/nonexistent/schedule.json", "/"] {
        let run = workspace.explore("").args(["--schedule", path]).run();
        run.ends_with(2).complains_of(path);
    }
}

#[test]
fn a_limit_ends_a_search_without_a_verdict() {
    need_kvm();
    let workspace = Workspace::with(ENDLESS);
    let run = workspace.explore("--max-states 500").run();
    run.ends_with(5).says("--max-states");
    for limit in ["1", "1s", "500ms", "0.01m"] {
        let run = workspace.explore("--time-limit").arg(limit).run();
        run.ends_with(5).says("--time-limit");
    }
    let run = workspace.explore("--time-limit 20x").run();
    run.ends_with(2).complains_of("500ms");
    // The same units as for the guest's own `for=`, and wherever the command takes a time.
    let run = Vmm::boot("--timeout 300ms --watchdog 1m --append workload=puppet").run();
    run.ends_with(5).says("0.3 s (--timeout)");
}

#[test]
fn a_replay_ends_when_its_time_is_up_or_a_signal_comes() {
    need_kvm();
    let workspace = Workspace::with(SHRINKING_MASK);
    let (_, schedule) = unchecked_mask();
    let many = format!("--times {}", u64::MAX);
    let run = workspace.replay(
        schedule,
        &explore_image(),
        &format!("{many} --time-limit 2s"),
    );
    run.ends_with(5)
        .says(" replays broke ")
        .says(" were made when the time was up (--time-limit)");
    let path = workspace.path("schedule.json");
    let replay = Vmm::with("replay").arg(path).arg(explore_image());
    let running = replay.args(many.split_whitespace()).start();
    running.wait_until_it_catches(libc::SIGTERM);
    // The thread exists once the boot is over.
    running.wait_for_thread("alarm");
    running.signal(libc::SIGTERM);
    running.finish().ends_with(128 + libc::SIGTERM);
}

#[test]
fn what_comes_to_nothing_writes_no_file_and_spares_an_earlier_one() {
    need_kvm();
    let workspace = Workspace::with(SHRINKING_MASK);
    let earlier = workspace.path("earlier.json");
    fs::write(&earlier, "of another search").expect("room");
    for path in [workspace.path("none.json"), earlier.clone()] {
        let run = workspace.explore("--schedule").arg(&path).run();
        run.ends_with(0).says("no order");
    }
    // Neither does a search that is refused, or that is cut off.
    let page = workspace.path("page.html");
    let run = workspace
        .explore("--append queue=nonsense --result")
        .arg(&earlier)
        .run();
    run.ends_with(2);
    let run = Vmm::with("replay --report")
        .args([&page, &workspace.path("a.case"), &explore_image()])
        .run();
    run.ends_with(2);
    let run = Vmm::with("merge --schedule")
        .args([&earlier, &workspace.path("none")])
        .run();
    run.ends_with(2);
    let kept = fs::read_to_string(&earlier).expect("it was there");
    assert_eq!(kept, "of another search");
    let mut names: Vec<_> = fs::read_dir(workspace.dir.path())
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["a.case", "earlier.json"]);
}

#[test]
fn words_without_effect_are_refused_in_a_case_as_on_the_command_line() {
    need_kvm();
    let plain = Workspace::with("cpus 2\n0: single 1\n");
    for word in [
        "transport=shorthand",
        "transport=pv",
        "workload=stress",
        "clock=running",
        "eoi=pv",
        "calls=7",
        "for=3s",
        "seed=7",
        "to=one",
    ] {
        let run = plain.explore(&format!("--append {word}")).run();
        run.ends_with(2)
            .complains_of(&format!("--append: \"{word}\" has no effect"));
        let workspace = Workspace::with(&format!("cpus 2\nappend {word}\n0: single 1\n"));
        let run = workspace.explore("").run();
        run.ends_with(2)
            .complains_of(&format!("\"{word}\" has no effect"));
    }
    let (_, schedule) = unchecked_mask();
    let mut altered = schedule.clone();
    altered["append"] = "mask-check=off transport=pv".into();
    let run = plain.replay(&altered, &explore_image(), "");
    run.ends_with(2).complains_of("transport=pv");
    let run = plain
        .explore("--append")
        .arg("transport=wire workload=puppet")
        .run();
    run.ends_with(0).says("no order");
}

#[test]
fn a_verdict_names_what_it_covers_wherever_it_stands() {
    need_kvm();
    let workspace = Workspace::with("cpus 2\n0: single 1\n");
    let (result, page) = (workspace.path("result"), workspace.path("page.html"));
    let options = "--strategy exhaustive --memory sc --append csd-barrier=off";
    let run = workspace
        .explore(options)
        .arg("--result")
        .arg(&result)
        .arg("--report")
        .arg(&page)
        .run();
    let verdict = format!("{COMPLETE_SC}2 CPUs' deeds breaks anything");
    let warning = "csd-barrier=off can break nothing in this search";
    run.ends_with(0)
        .says(&format!("\n{verdict}\n"))
        .says(&format!("warning    {warning}"));
    let page = fs::read_to_string(page).expect("a page");
    assert!(page.contains(&verdict) && page.contains(warning));
    let text = fs::read_to_string(&result).expect("a result");
    let document: Value = serde_json::from_str(&text).expect("JSON");
    hold_explored(&document);
    assert_eq!(document["of"]["memory"], "sequentially_consistent");
    assert_eq!(document["of"]["granularity"], "access");
    let warnings = document["warnings"].as_array().expect("a list");
    assert!(
        warnings[0]
            .as_str()
            .is_some_and(|it| it.starts_with(warning))
    );
    let merged = Vmm::with("merge").arg(&result).run();
    merged.ends_with(0).says(&verdict).says(warning);
    // A file from before there were warnings can still be read.
    let mut old = document.clone();
    for key in ["warnings", "shortening_ms"] {
        old.as_object_mut().expect("an object").remove(key);
    }
    old["of"]
        .as_object_mut()
        .expect("an object")
        .remove("memory");
    fs::write(&result, old.to_string()).expect("room");
    Vmm::with("merge")
        .arg(&result)
        .run()
        .ends_with(0)
        .says(&verdict);
    let plain = workspace.explore("--strategy exhaustive --memory sc").run();
    assert!(!plain.stdout.contains("warning"), "{plain}");
    // Where accesses are reordered, it can break something.
    let options = options.replace("--memory sc", "--memory tso");
    let run = workspace.explore(&options).run();
    run.ends_with(0)
        .says(&format!("{COMPLETE}2 CPUs' deeds breaks anything"));
    assert!(!run.stdout.contains("warning"), "{run}");
}

/// No order has shown what such a deed does, and "complete" alone would hide that.
#[test]
fn a_deed_that_every_order_refuses_is_named() {
    need_kvm();
    let workspace = Workspace::with("cpus 2\n0: offline 0\n1: single 0\n");
    let refused = "CPU 0 never did \"offline 0\": this cannot be asked of this CPU now";
    for how in ["--strategy races", "--strategy exhaustive --jobs 2"] {
        let result = workspace.path("result");
        let run = workspace.explore(how).arg("--result").arg(&result).run();
        run.ends_with(0)
            .says(&format!("{COMPLETE}2 CPUs' deeds breaks anything"))
            .says(&format!("warning    {refused}\n"));
        let text = fs::read_to_string(&result).expect("a result");
        let document: Value = serde_json::from_str(&text).expect("JSON");
        hold_explored(&document);
        assert_eq!(document["answers"][0]["done"], false);
        assert_eq!(document["answers"][1]["done"], true);
    }
    let workspace = Workspace::with("cpus 2\n0: offline 1; single 1\n1: single 0\n");
    let run = workspace.explore("--strategy races").run();
    let offline = "warning    CPU 0 never did \"single 1\": the target is not online\n";
    run.ends_with(0).says(offline);
    assert!(!run.stdout.contains("CPU 1 "), "{run}");
}

#[test]
fn steps_per_second_are_those_of_the_search() {
    need_kvm();
    let workspace = Workspace::with(SHRINKING_MASK);
    let result = workspace.path("result");
    let run = workspace
        .explore("--append mask-check=off --result")
        .arg(&result)
        .run();
    run.ends_with(0).says("shortened  from ");
    let text = fs::read_to_string(&result).expect("a result");
    let document: Value = serde_json::from_str(&text).expect("JSON");
    hold_explored(&document);
    let number = |value: &Value| value.as_u64().expect("a number");
    let (took, shortening) = (
        number(&document["took_ms"]),
        number(&document["shortening_ms"]),
    );
    assert!(shortening > 0, "{document:#}");
    let all = run.elapsed.as_millis();
    assert!(
        u128::from(took + shortening) <= all,
        "{took} and {shortening} of {all} ms"
    );
    let seconds = took as f64 / 1000.0;
    run.says(&format!(
        "{} steps in {seconds:.1} s (",
        document["counts"]["transitions"]
    ));
}

#[test]
fn a_search_that_is_interrupted_says_what_it_has_done() {
    need_kvm();
    let workspace = Workspace::with(ENDLESS);
    let mut terminal = Terminal::new(40, 140);
    let running = terminal.start(workspace.explore("--strategy exhaustive"));
    let has = |lines: &[String], text: &str| lines.iter().any(|line| line.contains(text));
    terminal.wait("progress", |lines| has(lines, " steps/s, "));
    running.signal(libc::SIGINT);
    running.finish().ends_with(130);
    let lines = terminal.wait("the verdict", |lines| has(lines, "a signal came"));
    let searched = lines.iter().find(|line| line.starts_with("searched "));
    let searched = searched.unwrap_or_else(|| panic!("{lines:#?}"));
    let steps = searched.split(" steps in ").next();
    let steps = steps.and_then(|before| before.rsplit(' ').next());
    let steps: u64 = steps.and_then(|it| it.parse().ok()).expect(searched);
    assert!(steps > 0, "{searched}");
}

/// Designs that are sound with every case.
const SOUND: [&str; 7] = [
    "queue=filo",
    "queue=counters",
    "queue=shared-refs",
    "queue=counting-rcu",
    "queue=fixed-2011",
    "queue=llist",
    "queue=kmalloc",
];

/// The cases that are shipped.
const CASES: [(&str, &str); 5] = [
    ("lost-call", LOST_CALL),
    ("deleted-first", DELETED_FIRST),
    ("shrinking-mask", SHRINKING_MASK),
    ("freed-mask", FREED_MASK),
    ("call-while-coming", CALL_WHILE_COMING),
];

/// The options with which a case says what it expects of which guest.
fn spoken_of(case: &str) -> Vec<String> {
    let with = |line: &str| {
        Some(
            line.strip_prefix("expect ")?
                .split_once(" with ")?
                .1
                .to_owned(),
        )
    };
    case.lines().filter_map(with).collect()
}

#[test]
fn an_element_that_is_wanted_twice_breaks_nothing_that_is_sound() {
    need_kvm();
    let workspace = Workspace::with("cpus 3\n0: many 1,2; many 1,2 wait\n");
    // Elements that are allocated, and freed after a grace period, make too many states for a short
    // test.
    for words in SOUND.iter().filter(|words| **words != "queue=kmalloc") {
        // A few thousand states. If a waiting CPU were let go on without need, there would be no
        // end of them.
        let run = workspace
            .explore("--strategy races --max-states 100000")
            .args(["--append", words])
            .run();
        run.ends_with(0).says(COMPLETE);
    }
}

#[test]
#[ignore = "takes hours: make cases"]
fn every_case_breaks_what_it_says_and_that_comes_again() {
    need_kvm();
    for (name, case) in CASES {
        let workspace = Workspace::with(case);
        let broken = spoken_of(case);
        assert!(!broken.is_empty(), "{name} expects nothing");
        for words in broken {
            let append = format!("--append {words}");
            let (found, schedule) = workspace.find(&append, "as expected: ");
            println!(
                "{name} {words}: {} ({:.0?})",
                last_line(&found),
                found.elapsed
            );
            comes_again(&workspace, &found, &schedule);
        }
    }
}

/// Whose walks are announced by a store that can wait in a store buffer while the list is read.
#[test]
#[ignore = "takes a minute: make cases"]
fn a_case_breaks_a_walk_that_is_announced_without_a_fence() {
    need_kvm();
    let workspace = Workspace::with(DELETED_FIRST);
    let found = workspace.path("found.json");
    let options = "--append queue=counters-nofence --shorten 5s --schedule";
    let run = workspace.explore(options).arg(&found).run();
    run.ends_with(1).says("broken: reused-too-soon");
    let text = fs::read_to_string(found).expect("a schedule");
    let schedule: Value = serde_json::from_str(&text).expect("a schedule is JSON");
    assert_eq!(schedule["memory"], "tso");
    comes_again(&workspace, &run, &schedule);
}

#[test]
#[ignore = "takes hours: make cases"]
fn no_case_breaks_what_is_sound() {
    need_kvm();
    let seconds = number("EXPLORE_TIME", 60);
    let mut failed = Vec::new();
    for (name, case) in CASES {
        let workspace = Workspace::with(case);
        for words in SOUND {
            let run = workspace
                .explore(&format!("--strategy races --time-limit {seconds}"))
                .args(["--append", words])
                .limit(Duration::from_secs(seconds) + TIME_LIMIT)
                .run();
            println!("{name} {words}: {} ({:.0?})", last_line(&run), run.elapsed);
            // The time may be too short for the verdict.
            if ![0, 5].contains(&run.status()) {
                failed.push(run.to_string());
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn last_line(run: &Run) -> &str {
    run.stdout.lines().last().unwrap_or_default()
}

/// The results of all shards of a search, and the output of `vmm merge` for them.
fn in_shards(workspace: &Workspace, options: &str, shards: u64) -> Run {
    let mut merge = Vmm::with("merge --result").arg(workspace.path(&format!("all{shards}")));
    for shard in 0..shards {
        let result = workspace.path(&format!("{shard}of{shards}"));
        let run = workspace
            .explore(&format!("{options} --shard {shard}/{shards}"))
            .arg("--result")
            .arg(&result)
            .run();
        run.ends_with(0);
        merge = merge.arg(result);
    }
    merge.run()
}

pub(super) fn counts(workspace: &Workspace, result: &str) -> Value {
    let text = fs::read_to_string(workspace.path(result)).expect("a result");
    let document: Value = serde_json::from_str(&text).expect("JSON");
    hold_explored(&document);
    document["counts"].clone()
}

#[test]
fn shards_merge_to_what_one_process_comes_to() {
    need_kvm();
    let workspace = Workspace::with(SHRINKING_MASK);
    let options = "--append queue=filo --strategy exhaustive";
    let one = workspace
        .explore(options)
        .arg("--result")
        .arg(workspace.path("one"))
        .run();
    one.ends_with(0).says(COMPLETE);
    let alone = counts(&workspace, "one");
    let states = fs::read(workspace.path("one.states")).expect("states");
    // The number of states depends on the compiler too: a dead value in a register or on a stack
    // makes two states of one. The final states do not depend on it.
    assert_eq!(alone["ends"].as_u64(), Some(13));
    let number = alone["states"].as_u64().expect("a number");
    for shards in [2, 5] {
        in_shards(&workspace, options, shards)
            .ends_with(0)
            .says(COMPLETE);
        let all = format!("all{shards}");
        let merged = counts(&workspace, &all);
        for count in ["states", "ends"] {
            assert_eq!(merged[count], alone[count], "{count} of {shards} shards");
        }
        let merged = fs::read(workspace.path(&format!("{all}.states"))).expect("states");
        assert!(merged == states, "{shards} shards have seen other states");
    }
    let jobs = workspace.explore(options).args(["--jobs", "2"]).run();
    jobs.ends_with(0)
        .says(&format!("searched   {number} states"))
        .says(COMPLETE);
    // Both ways of dividing it at once.
    in_shards(&workspace, &format!("{options} --jobs 2"), 2)
        .ends_with(0)
        .says(COMPLETE);
    assert_eq!(counts(&workspace, "all2")["states"], alone["states"]);

    // Shards that do not belong together, or are not complete, are refused.
    let merge = |results: &[&str]| {
        let results = results.iter().map(|name| workspace.path(name));
        Vmm::with("merge").args(results).run()
    };
    merge(&["0of2"])
        .ends_with(2)
        .complains_of("no result of shard 1/2");
    merge(&["0of2", "1of2", "1of2"])
        .ends_with(2)
        .complains_of("two results of shard 1/2");
    merge(&["0of2", "1of5"]).ends_with(2);
    let spoilt = workspace.path("1of2.states");
    let mut bytes = fs::read(&spoilt).expect("states");
    bytes[0] ^= 1;
    fs::write(&spoilt, bytes).expect("room");
    merge(&["0of2", "1of2"])
        .ends_with(2)
        .complains_of("check sum");
}

#[test]
fn sampled_runs_are_shared_out() {
    need_kvm();
    let workspace = Workspace::with(SHRINKING_MASK);
    let options = "--append queue=filo --strategy random --runs 50";
    let one = workspace
        .explore(options)
        .arg("--result")
        .arg(workspace.path("one"))
        .run();
    one.ends_with(0).says("none of 50 orders");
    let alone = counts(&workspace, "one");
    for shards in [2, 5] {
        in_shards(&workspace, options, shards)
            .ends_with(0)
            .says("none of 50 orders");
        let merged = counts(&workspace, &format!("all{shards}"));
        for count in ["ends", "schedules", "deepest"] {
            assert_eq!(merged[count], alone[count], "{count} of {shards} shards");
        }
    }
}

/// What is found by chance is what one machine finds, however many there are.
#[test]
#[ignore = "half a minute, and the model test divides every strategy: make test-long"]
fn several_machines_find_what_one_does() {
    need_kvm();
    let workspace = Workspace::with(LOST_CALL);
    let found = |jobs: &str| {
        let options = "--append queue=fifo --strategy random --shorten 0s";
        let run = workspace
            .explore(&format!("{options} --jobs {jobs} --schedule"))
            .arg(workspace.path("schedule"))
            .run();
        run.ends_with(0).says("as expected");
        Vmm::with("replay")
            .arg(workspace.path("schedule"))
            .arg(explore_image())
            .run()
            .ends_with(0);
        let schedule = fs::read_to_string(workspace.path("schedule")).expect("a schedule");
        let schedule: serde_json::Value = serde_json::from_str(&schedule).expect("JSON");
        schedule["turns"].clone()
    };
    let alone = found("1");
    for jobs in ["2", "3"] {
        assert_eq!(found(jobs), alone, "{jobs} machines");
    }
    workspace
        .explore("--strategy reference --jobs 2")
        .run()
        .ends_with(2)
        .complains_of("--strategy reference is for one machine alone");
}

/// However a search is divided, it comes to the ends and the verdict of one machine.
#[test]
#[ignore = "the model test divides every strategy too: make test-long"]
fn every_strategy_can_be_divided() {
    need_kvm();
    let workspace = Workspace::with(SHRINKING_MASK);
    for strategy in ["bounded", "races"] {
        let options = format!("--append queue=filo --strategy {strategy}");
        let outcomes = |name: &str| {
            let result = fs::read_to_string(workspace.path(name)).expect("a result");
            let result: serde_json::Value = serde_json::from_str(&result).expect("JSON");
            result["outcomes"].clone()
        };
        let verdict = match strategy {
            "bounded" => "no order with 2 preemptions or fewer",
            _ => COMPLETE,
        };
        let one = workspace
            .explore(&options)
            .arg("--result")
            .arg(workspace.path("one"));
        one.run().ends_with(0).says(verdict);
        let alone = outcomes("one");
        let jobs = workspace
            .explore(&format!("{options} --jobs 3"))
            .arg("--result");
        jobs.arg(workspace.path("jobs"))
            .run()
            .ends_with(0)
            .says(verdict);
        assert_eq!(outcomes("jobs"), alone, "{strategy} by several machines");
        if strategy == "bounded" {
            let states = |name| counts(&workspace, name)["states"].as_u64();
            assert_eq!(states("jobs"), states("one"));
        }
        in_shards(&workspace, &options, 3)
            .ends_with(0)
            .says(verdict);
        assert_eq!(outcomes("all3"), alone, "{strategy} in shards");
    }
}
