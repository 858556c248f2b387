//! Searches in which CPUs pass over by themselves what needs no choice, held against searches in
//! which they exit at every access: they find the same, in fewer entries of the guest.

use std::fs;

use serde_json::Value;
use tests::need_kvm;

use super::explore::{SHRINKING_MASK, Workspace};

/// Everything in `result` that does not depend on the host, on time, or on how often the guest was
/// entered.
fn found(mut result: Value) -> Value {
    for of_the_run in ["provenance", "took_ms", "shortening_ms"] {
        result
            .as_object_mut()
            .and_then(|result| result.remove(of_the_run));
    }
    if let Some(schedule) = result.pointer_mut("/verdict/schedule") {
        schedule["provenance"] = Value::Null;
        // It is looked for as long as there is time.
        schedule["point_of_no_return"] = Value::Null;
    }
    result["counts"]["entries"] = Value::Null;
    result
}

/// The result of a search, and the number of entries for each step.
fn result(case: &str, options: &str) -> (Value, f64) {
    let workspace = Workspace::with(case);
    let file = workspace.path("result.json");
    let run = workspace.explore(options).arg("--result").arg(&file).run();
    assert!([0, 1].contains(&run.status()), "{run}");
    let text = fs::read_to_string(file).expect("a result");
    let result: Value = serde_json::from_str(&text).expect("a result is JSON");
    let count = |name: &str| result["counts"][name].as_f64().expect(name);
    let each = count("entries") / count("transitions");
    (found(result), each)
}

fn finds_the_same(case: &str, options: &str) {
    need_kvm();
    let (passing, few) = result(case, options);
    let (exiting, many) = result(case, &format!("{options} --every-exit"));
    assert_eq!(passing, exiting, "{case}{options}");
    // Each sampled run begins with an empty table.
    // And while a store waits, its CPU stops everywhere.
    let most = if options.contains("--runs") {
        0.95
    } else {
        0.75
    };
    assert!(few < many * most, "{few} and {many}: {case}{options}");
}

/// A test for each search.
macro_rules! the_same_is_found {
    ($($name:ident: $case:expr, $options:literal;)*) => {
        $(
            #[test]
            fn $name() {
                finds_the_same($case, $options);
            }
        )*
    };
}

the_same_is_found! {
    with_locks: SHRINKING_MASK, "--append queue=filo";
    of_every_state:
        SHRINKING_MASK, "--append queue=counting-rcu --strategy exhaustive --check-keys";
    of_what_breaks: SHRINKING_MASK, "--append mask-check=off --shorten 0s";
    with_waiting_loops: "cpus 2\n0: single 1 wait\n1: single 0\n", "";
    in_random_runs: "cpus 3\n0: many 1,2 wait\n1: many 0,2\n",
        "--append queue=fixed-2011 --strategy random --runs 30";
    with_interrupts_off: "cpus 2\n0: all wait; irqs-off; single 1; irqs-on\n1: each\n",
        "--append queue=llist --strategy pct --runs 30";
}
