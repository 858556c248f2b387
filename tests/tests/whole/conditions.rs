//! What a search says of the conditions of a case, of everything that breaks, and of orders to look
//! at: by every strategy the same, as a user sees it.

use std::fs;

use serde_json::{Value, json};
use tests::{explore_image, need_kvm};

use super::explore::Workspace;
use super::formats::hold_explored;

/// Two CPUs set one word, so that two ends are possible.
const TWO_ENDS: &str = "cpus 2\n0: set 0 1\n1: set 0 2\n";

/// The word that they set.
const WORD: &str = "GUEST.ipi.functions.objects.words[0]";

/// The document that `--result` has written.
fn result(workspace: &Workspace) -> Value {
    let text = fs::read_to_string(workspace.path("result.json")).expect("a result");
    let document: Value = serde_json::from_str(&text).expect("JSON");
    hold_explored(&document);
    document
}

/// What is known of each condition.
fn known(document: &Value) -> Vec<&str> {
    let conditions = document["conditions"].as_array().expect("conditions");
    conditions
        .iter()
        .map(|it| it["known"].as_str().expect("a word"))
        .collect()
}

/// Explores with these options, and returns the exit status and the result.
fn explored(workspace: &Workspace, options: &str) -> (tests::Run, Value) {
    let run = workspace
        .explore(options)
        .arg("--result")
        .arg(workspace.path("result.json"))
        .run();
    let document = result(workspace);
    (run, document)
}

#[test]
fn every_strategy_says_the_same_of_ends() {
    need_kvm();
    let case = format!(
        "{TWO_ENDS}reach {WORD} = 1\nreach {WORD} = 2\nnever {WORD} = 0\nnever not {WORD} < 3\n"
    );
    let workspace = Workspace::with(&case);
    for (strategy, way) in [
        ("races", "not_reached"),
        ("exhaustive", "not_reached"),
        ("auto", "not_reached"),
        ("reference", "not_reached"),
        ("exhaustive --jobs 2", "not_reached"),
        ("bounded", "not_reached_by_these"),
        ("random --runs 40", "not_reached_by_these"),
    ] {
        let (run, document) = explored(&workspace, &format!("--strategy {strategy}"));
        run.ends_with(0);
        assert_eq!(known(&document), ["reached", "reached", way, way], "{run}");
        run.says(&format!("; reached: {WORD} = 1; reached: {WORD} = 2; "));
    }
}

#[test]
fn what_no_order_reaches_or_one_reaches_that_must_not_speaks_against_the_case() {
    need_kvm();
    let workspace = Workspace::with(&format!("{TWO_ENDS}reach {WORD} = 7\n"));
    for strategy in ["races", "reference", "exhaustive --jobs 2"] {
        let (run, _) = explored(&workspace, &format!("--strategy {strategy}"));
        run.ends_with(1).says("complete (x86-TSO, at every access)");
        run.says(&format!("; no order reaches {WORD} = 7"));
    }
    // What was not tried says nothing.
    let (run, document) = explored(&workspace, "--strategy bounded");
    run.ends_with(5);
    assert_eq!(known(&document), ["not_reached_by_these"], "{run}");
    let large = "cpus 4\n0: all; all wait\n1: all; all wait\n2: all wait\n";
    for verb in ["reach", "never"] {
        let workspace = Workspace::with(&format!("{large}{verb} {WORD} = 7\n"));
        let (run, document) = explored(&workspace, "--strategy races --max-states 100");
        run.ends_with(5).says("not known whether an order reaches ");
        assert_eq!(known(&document), ["unknown"], "{run}");
    }

    let workspace = Workspace::with(&format!("{TWO_ENDS}never {WORD} = 1\n"));
    for strategy in ["auto", "races", "exhaustive --jobs 2"] {
        let schedule = workspace.path("found.json");
        let run = workspace
            .explore(&format!("--strategy {strategy}"))
            .arg("--schedule")
            .arg(&schedule)
            .run();
        run.ends_with(1);
        run.says(&format!("reached, and must never be: {WORD} = 1"));
        run.says(&format!("✓  ✓   here: never {WORD} = 1"));
        let schedule = fs::read_to_string(schedule).expect("a schedule");
        let mut schedule: Value = serde_json::from_str(&schedule).expect("JSON");
        let again = workspace.replay(&schedule, &explore_image(), "--times 5");
        again.ends_with(0);
        again.says(&format!(
            "5 of 5 replays reached what it says: never {WORD} = 1"
        ));
        // In another order the word ends as 2, and the replay says that it does not reach it.
        schedule["case"] = json!(format!("{TWO_ENDS}never {WORD} = 2\n"));
        schedule["reaches"] = json!(format!("never {WORD} = 2"));
        let other = workspace.replay(&schedule, &explore_image(), "");
        other.ends_with(1).says("it did not reach that");
        schedule["reaches"] = json!("never x = 1");
        let strange = workspace.replay(&schedule, &explore_image(), "");
        strange.ends_with(2).says("which is no line of its case");
    }
}

#[test]
fn calls_and_places_are_conditions_too() {
    need_kvm();
    let workspace = Workspace::with(
        "cpus 2\n0: single 1 wait\nreach ran 0:0:1 on 1\nnever ran 0:0:1 on 0\n\
         never not ran 0:0:1 on 1\nnever ran 0:0:2 on 1\nreach on the way at 0 idle and at 1 idle\n\
         reach on the way not ran 0:0:1 on 1 and at 0 csd.rs:120\n",
    );
    let (run, document) = explored(&workspace, "--strategy races");
    run.ends_with(0);
    let no = "not_reached";
    assert_eq!(
        known(&document),
        ["reached", no, no, no, "reached", "reached"],
        "{run}"
    );
    let (run, document) = explored(&workspace, "--strategy reference");
    run.ends_with(0);
    assert_eq!(
        known(&document),
        ["reached", no, no, no, "reached", "reached"],
        "{run}"
    );
    // On the way only the reference can say that there is none.
    let never = "cpus 2\n0: single 1 wait\nnever on the way at 1 no.rs:1\n";
    let workspace = Workspace::with(never);
    let (run, document) = explored(&workspace, "--strategy races");
    run.ends_with(5).says("--strategy reference tries them");
    assert_eq!(known(&document), ["unknown"]);
    let (run, document) = explored(&workspace, "--strategy reference");
    run.ends_with(0);
    assert_eq!(known(&document), [no]);
}

#[test]
fn a_condition_that_makes_no_sense_is_refused() {
    need_kvm();
    for (line, what) in [
        ("reach no.such = 1", "the guest has no word \"no.such\""),
        ("reach 0xffffffff000 = 1", "is no address of guest memory"),
        ("reach 0x1005:4 = 1", "not within eight bytes"),
        ("reach ran 0:0 on 1", "no name of a call"),
        ("reach at 0 csd.rs:1", "on the way"),
        (
            "reach on the way 0x1000 = 1",
            "--memory sc or --strategy reference",
        ),
    ] {
        let workspace = Workspace::with(&format!("cpus 2\n0: single 1\n{line}\n"));
        let run = workspace.explore("").run();
        run.ends_with(2).complains_of(what);
    }
}

/// A case in which one order breaks one thing, and another order another one.
const SEVERAL: &str = "cpus 2\n0: lock 0; single 1 wait; unlock 0\n\
                       1: irqs-off; lock 0; unlock 0; irqs-on; unlock 1\n";

#[test]
fn a_search_that_keeps_going_lists_all_that_breaks() {
    need_kvm();
    let workspace = Workspace::with(SEVERAL);
    let mut all = Vec::new();
    for strategy in ["races", "exhaustive", "auto", "exhaustive --jobs 2"] {
        let (run, document) = explored(&workspace, &format!("--strategy {strategy} --keep-going"));
        run.ends_with(1);
        run.says("breaks anything else first");
        assert_eq!(document["verdict"], json!({"is": "complete"}), "{run}");
        let ways = document["ways"].as_array().expect("ways");
        let mut texts: Vec<_> = ways.iter().map(|way| way["texts"].to_string()).collect();
        texts.sort();
        assert!(texts.len() > 1, "{run}");
        assert!(
            texts.iter().any(|text| text.contains("waits for ever")),
            "{run}"
        );
        for way in ways {
            let again = workspace.replay(&way["schedule"], &explore_image(), "");
            again.ends_with(0).says("1 of 1 replays broke");
        }
        all.push(texts);
    }
    assert!(all.iter().all(|texts| *texts == all[0]), "{all:#?}");
    // Without, the first ends it; and what the case expects has to be all that there is.
    let (_, document) = explored(&workspace, "--strategy races");
    assert_eq!(document["verdict"]["is"], "broke");
    let workspace = Workspace::with(&format!("{SEVERAL}expect hang\n"));
    let (run, _) = explored(&workspace, "--strategy races --keep-going");
    run.ends_with(1).says("expected: hang");
    let workspace = Workspace::with(&format!("{SEVERAL}expect hang, contract\n"));
    let (run, _) = explored(&workspace, "--strategy races --keep-going");
    run.ends_with(0).says("as expected, in some order each");
}

#[test]
fn a_clean_search_leaves_an_order_to_look_at() {
    need_kvm();
    let workspace = Workspace::with("cpus 2\n0: single 1 wait\n1: single 0 wait\n");
    let witness = workspace.path("witness.json");
    let run = workspace
        .explore("--strategy races")
        .arg("--witness")
        .arg(&witness)
        .run();
    run.ends_with(0);
    let schedule = fs::read_to_string(witness).expect("a schedule");
    let schedule: Value = serde_json::from_str(&schedule).expect("JSON");
    assert_eq!(schedule["breaks"], json!([]));
    let again = workspace.replay(&schedule, &explore_image(), "--times 3");
    again.ends_with(0).says("3 of 3 replays broke nothing");
    again.says("compared   stops and states");
}
