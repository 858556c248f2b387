//! Results for continuous integration: whatever way a run, a script, a search or a replay ends,
//! `--stats junit` and `--stats ktap` write a valid document that says so, with stable names. JUnit
//! is read by an XML parser, KTAP by one made from its specification.

use std::fs;

use roxmltree::{Document, Node};
use tempfile::TempDir;
use tests::image::Code;
use tests::{Run, Vmm, ktap, need_kvm};

use super::explore::{SHRINKING_MASK, Workspace};

/// How a test came out, for either form.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    suite: String,
    name: String,
    /// `ok`, or what else.
    came_to: &'static str,
    why: String,
}

#[track_caller]
fn of_ktap(run: &Run, text: &str) -> Vec<Said> {
    let suites = ktap::parse(text).unwrap_or_else(|error| panic!("{error}: {text}: {run}"));
    let mut said = Vec::new();
    for suite in suites {
        assert!(!suite.tests.is_empty(), "{text}");
        for test in suite.tests {
            said.push(Said {
                suite: suite.name.clone(),
                name: test.name,
                came_to: match (test.is_ok, test.directive.as_deref()) {
                    (true, None) => "ok",
                    (true, Some("SKIP")) => "skipped",
                    (false, None) => "failed",
                    (false, Some("TIMEOUT")) => "timed out",
                    (false, Some("ERROR")) => "error",
                    other => panic!("{other:?}: {text}"),
                },
                why: test.data,
            });
        }
    }
    said
}

#[track_caller]
fn of_junit(run: &Run, text: &str) -> Vec<Said> {
    let document = Document::parse(text).unwrap_or_else(|error| panic!("{error}: {text}: {run}"));
    let root = document.root_element();
    assert_eq!(root.tag_name().name(), "testsuites");
    let mut said = Vec::new();
    for suite in elements(root, "testsuite") {
        let name = attribute(suite, "name");
        let tests: Vec<_> = elements(suite, "testcase")
            .map(|it| of_case(name, it))
            .collect();
        for (key, outcomes) in [
            (
                "tests",
                &["ok", "failed", "error", "timed out", "skipped"][..],
            ),
            ("failures", &["failed"]),
            ("errors", &["error", "timed out"]),
            ("skipped", &["skipped"]),
        ] {
            let counted = tests.iter().filter(|it| outcomes.contains(&it.came_to));
            assert_eq!(
                attribute(suite, key),
                counted.count().to_string(),
                "{key}: {text}"
            );
        }
        said.extend(tests);
    }
    assert_eq!(attribute(root, "tests"), said.len().to_string());
    said
}

fn of_case(suite: &str, case: Node<'_, '_>) -> Said {
    assert_eq!(attribute(case, "classname"), suite);
    let reason = case.children().find(Node::is_element);
    let reason = reason.filter(|it| it.tag_name().name() != "system-out");
    Said {
        suite: suite.to_owned(),
        name: attribute(case, "name").to_owned(),
        came_to: match reason.map(|it| (it.tag_name().name(), it.attribute("type"))) {
            None => "ok",
            Some(("skipped", _)) => "skipped",
            Some(("failure", Some("failed"))) => "failed",
            Some(("error", Some("timed out"))) => "timed out",
            Some(("error", Some("error"))) => "error",
            other => panic!("{other:?}"),
        },
        why: reason.map_or_else(String::new, |it| attribute(it, "message").to_owned()),
    }
}

fn elements<'a, 'b>(node: Node<'a, 'b>, name: &'static str) -> impl Iterator<Item = Node<'a, 'b>> {
    let children = node.children();
    children.filter(move |it| it.tag_name().name() == name)
}

fn attribute<'a>(node: Node<'a, '_>, name: &str) -> &'a str {
    node.attribute(name)
        .unwrap_or_else(|| panic!("no {name}: {node:?}"))
}

/// What both forms say, which has to be the same. `run` starts the command with one of them.
#[track_caller]
fn both(status: i32, run: impl Fn(&str) -> Run) -> Vec<Said> {
    let [junit, ktap] = ["--stats=junit", "--stats=ktap"].map(run);
    junit.ends_with(status);
    ktap.ends_with(status);
    let (xml, lines) = (
        of_junit(&junit, &junit.stdout),
        of_ktap(&ktap, &ktap.stdout),
    );
    let brief = |said: &[Said]| -> Vec<_> {
        let said = said.iter();
        said.map(|it| (it.suite.clone(), it.name.clone(), it.came_to))
            .collect()
    };
    assert_eq!(brief(&xml), brief(&lines), "{junit}");
    lines
}

#[track_caller]
fn verdict(said: &[Said]) -> &Said {
    assert_eq!(said[0].name, "verdict", "{said:?}");
    &said[0]
}

#[test]
fn a_run_that_passes_has_a_test_for_each_oracle() {
    need_kvm();
    let said = both(0, |form| Vmm::boot("--vcpus 2").arg(form).run());
    assert_eq!(
        (verdict(&said).suite.as_str(), said[0].came_to),
        ("guest.bin", "ok")
    );
    for oracle in ["oracle.lost", "oracle.left-locked", "oracle.accounting"] {
        let of = said.iter().filter(|it| it.name == oracle);
        assert_eq!(
            of.map(|it| it.came_to).collect::<Vec<_>>(),
            ["ok"],
            "{oracle}"
        );
    }
    assert!(said.len() > 10, "{said:?}");
}

#[test]
fn what_an_oracle_finds_fails_with_its_sentence() {
    need_kvm();
    // The story of the lost call, without its script's word that this is expected.
    let story = include_str!("../../../scenarios/mckenney-2009.rhai");
    let unexpected = story.replace("must_break(\"lost\");", "");
    assert_ne!(story, unexpected);
    let fifo = |text: &str, form: &str| {
        Vmm::scripted(text)
            .args(["--append", "queue=fifo"])
            .arg(form)
            .run()
    };
    let said = both(1, |form| fifo(&unexpected, form));
    let lost = said
        .iter()
        .find(|it| it.name == "oracle.lost")
        .expect("an oracle");
    assert_eq!(verdict(&said).came_to, "failed");
    assert_eq!(
        (lost.suite.as_str(), lost.came_to),
        ("script.rhai machine 0", "failed")
    );
    assert!(lost.why.contains("never ran on CPU 2"), "{lost:?}");
    let said = both(0, |form| fifo(story, form));
    assert!(said.iter().all(|it| it.came_to == "ok"), "{said:?}");
}

#[test]
fn each_machine_of_a_script_has_a_suite_and_so_has_what_ends_it() {
    need_kvm();
    let two = "boot(#{ append: `workload=selftest` }); finish();";
    let said = both(2, |form| {
        Vmm::scripted(&format!("{two} {two} nonsense();"))
            .arg(form)
            .run()
    });
    let verdicts: Vec<_> = said.iter().filter(|it| it.name == "verdict").collect();
    let told: Vec<_> = verdicts
        .iter()
        .map(|it| (it.suite.as_str(), it.came_to))
        .collect();
    let expected = [
        ("script.rhai machine 0", "ok"),
        ("script.rhai machine 1", "ok"),
        ("script.rhai", "error"),
    ];
    assert_eq!(told, expected);
    assert!(verdicts[2].why.contains("nonsense"), "{verdicts:?}");
}

#[test]
fn an_early_end_is_told() {
    need_kvm();
    let spins = || {
        Code::image(|code| {
            code.say("ready\n");
            code.spin();
        })
    };
    let (dies, hangs) = (Code::image(Code::triple_fault), spins());
    let died = both(4, |form| Vmm::with(form).arg(dies.path()).run());
    assert_eq!(verdict(&died).came_to, "error");
    let timed_out = both(5, |form| {
        Vmm::with("--timeout 300ms")
            .arg(form)
            .arg(hangs.path())
            .run()
    });
    assert_eq!(verdict(&timed_out).came_to, "timed out");
    let watched = both(5, |form| {
        Vmm::with("--watchdog 300ms --vcpus 2")
            .arg(form)
            .arg(hangs.path())
            .run()
    });
    assert_eq!(verdict(&watched).came_to, "timed out");
    let directory = TempDir::new().expect("a temporary directory");
    let path = directory.path().join("results");
    let interrupted = both(130, |form| {
        // With a file the console is on standard output, where it says when it has begun.
        let vmm = Vmm::with(form).arg("--stats-file").arg(&path);
        let running = vmm.arg(hangs.path()).start();
        running.wait_for("ready");
        running.signal(libc::SIGINT);
        let mut run = running.finish();
        run.stdout = fs::read_to_string(&path).expect("results");
        run
    });
    assert_eq!(verdict(&interrupted).came_to, "error");
    assert!(interrupted[0].why.contains("signal") || interrupted[0].why.contains("interrupt"));
    let refused = both(2, |form| Vmm::with(form).arg("/nowhere/guest.bin").run());
    assert_eq!(verdict(&refused).came_to, "error");
    assert!(refused[0].why.contains("/nowhere"), "{refused:?}");
    let options = both(2, |form| Vmm::boot("--append queue=lifo").arg(form).run());
    assert_eq!(verdict(&options).came_to, "error");
}

/// Continuous integration reads what is in the file afterwards: it must not be the last run's.
#[test]
fn what_is_nowhere_does_not_leave_an_earlier_result() {
    let directory = TempDir::new().expect("a temporary directory");
    let path = directory.path().join("results");
    for command in [
        "no-such-image",
        "--script no-such-script.rhai",
        "explore no-such.case",
        "replay no-such.json",
    ] {
        let refused = both(2, |form| {
            fs::write(&path, "KTAP version 1\n").expect("room for a line");
            let vmm = Vmm::with(command).arg(form).arg("--stats-file").arg(&path);
            let mut run = vmm.run();
            run.stdout = fs::read_to_string(&path).expect("results");
            run
        });
        assert_eq!(verdict(&refused).came_to, "error", "{command}");
        assert!(refused[0].why.contains("no-such"), "{refused:?}");
    }
    // What was named twice may be the image that is missed.
    fs::write(&path, "an image").expect("room for a word");
    let vmm = Vmm::with("--stats junit --script no-such-script.rhai --stats-file");
    vmm.arg(&path).arg(&path).run().ends_with(2);
    assert_eq!(fs::read_to_string(&path).expect("the image"), "an image");
}

#[test]
fn a_search_and_a_replay_have_a_verdict() {
    need_kvm();
    let workspace = Workspace::with(SHRINKING_MASK);
    let schedule = workspace.path("found.json");
    let as_expected = both(0, |form| {
        let search = workspace.explore("--append mask-check=off");
        search.arg(form).arg("--schedule").arg(&schedule).run()
    });
    assert_eq!(
        (verdict(&as_expected).suite.as_str(), as_expected[0].came_to),
        ("a.case", "ok")
    );
    let replayed = both(0, |form| {
        let image = tests::explore_image();
        Vmm::with("replay")
            .arg(&schedule)
            .arg(image)
            .arg(form)
            .run()
    });
    assert_eq!(
        (verdict(&replayed).suite.as_str(), replayed[0].came_to),
        ("found.json", "ok")
    );

    // The same, as if nothing was expected.
    let case = SHRINKING_MASK
        .lines()
        .filter(|line| !line.starts_with("expect"));
    let unexpected = Workspace::with(&case.collect::<Vec<_>>().join("\n"));
    let broken = both(1, |form| {
        unexpected
            .explore("--append mask-check=off")
            .arg(form)
            .run()
    });
    assert_eq!(verdict(&broken).came_to, "failed");
    assert!(broken[0].why.contains("left-locked"), "{broken:?}");
    assert!(broken[0].why.len() > 60, "a sentence: {broken:?}");

    let stopped = both(5, |form| {
        unexpected
            .explore("--time-limit 1ms --strategy exhaustive")
            .arg(form)
            .run()
    });
    assert_eq!(verdict(&stopped).came_to, "timed out");
    let refused = both(2, |form| {
        workspace.explore("--append queue=lifo").arg(form).run()
    });
    assert_eq!(verdict(&refused).came_to, "error");
}

#[test]
fn a_search_that_is_interrupted_says_so() {
    need_kvm();
    let workspace =
        Workspace::with("cpus 6\n0: all; all wait\n1: all; all wait\n2: all; all wait\n");
    let interrupted = both(143, |form| {
        let running = workspace.explore("--strategy exhaustive").arg(form).start();
        running.wait_until_it_catches(libc::SIGTERM);
        running.signal(libc::SIGTERM);
        running.finish()
    });
    assert_eq!(verdict(&interrupted).came_to, "error");
}

#[test]
fn a_file_has_the_document_and_people_the_rest() {
    need_kvm();
    let directory = TempDir::new().expect("a temporary directory");
    let path = directory.path().join("results.xml");
    let run = Vmm::with("--vcpus 2 --stats junit --stats-file")
        .arg(&path)
        .arg(tests::guest())
        .run();
    run.ends_with(0).says("pass: ").says("CPUs up");
    let text = fs::read_to_string(&path).expect("results");
    assert_eq!(verdict(&of_junit(&run, &text)).came_to, "ok");
    let workspace = Workspace::with(SHRINKING_MASK);
    let run = workspace
        .explore("--stats ktap --stats-file")
        .arg(&path)
        .run();
    run.ends_with(0).says("complete");
    assert!(run.stdout.contains("searched"), "{run}");
    let text = fs::read_to_string(&path).expect("results");
    assert_eq!(verdict(&of_ktap(&run, &text)).came_to, "ok");
    let full = Vmm::with("--stats ktap --stats-file /dev/full")
        .arg(tests::guest())
        .run();
    full.ends_with(3).says("cannot write the report");
}
