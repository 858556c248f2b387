//! Compares every search that claims to be complete with the reference search, which shares no
//! reduction with any of them: on random cases, with sound designs, broken designs, and bugs
//! planted in them. What can break must be the same, and so must be the final states of the
//! machine.
//!
//! `REFERENCE_CASES` is the number of cases to compare, `REFERENCE_SEED` and `REFERENCE_FROM`
//! select them, and `REFERENCE_STATES` is the most states that the reference may have. Cases that
//! are too large for it are not counted; the test prints how many there were.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::Value;
use tests::{Vmm, explore_image, need_kvm};

use super::{drawing, kinds, workshop};

/// Cases in `make test`.
const CASES: u64 = 8;

/// States of the reference after which a case is too large.
const LARGEST: u64 = 25_000;

/// A search may take this long on a busy host. A livelock can take 100,000 turns to be seen.
const TIME_LIMIT: Duration = Duration::from_secs(1800);

/// The searches that are compared with the reference.
const SEARCHES: [&str; 5] = [
    "--strategy exhaustive",
    "--strategy races",
    "--strategy auto",
    "--strategy exhaustive --jobs 2",
    "--strategy auto --jobs 2",
];

/// The searches that go on past what breaks, and must find all that the reference does.
const ALL_THAT_BREAKS: [&str; 3] = [
    "--strategy exhaustive --keep-going",
    "--strategy races --keep-going",
    "--strategy exhaustive --keep-going --jobs 2",
];

fn number(variable: &str, default: u64) -> u64 {
    env::var(variable).map_or(default, |number| number.parse().expect(variable))
}

/// The result of a search.
struct SearchResult {
    /// The kind of its verdict.
    is: String,
    /// What can break, or what it found to break.
    names: BTreeSet<String>,
    outcomes: BTreeSet<String>,
}

impl SearchResult {
    /// Searches, and leaves the result beside the case.
    fn by(case: &Path, image: &Path, words: &str, options: &str) -> Self {
        let result = case.with_extension("json");
        let run = Vmm::with("explore")
            .arg(case)
            .arg(image)
            .args(["--append", words])
            .args(options.split_whitespace())
            .args(["--shorten", "0s", "--result"])
            .arg(&result)
            .limit(TIME_LIMIT)
            .run();
        assert!(
            matches!(run.status(), 0 | 1 | 5),
            "{options} with {words} of {}\n{run}",
            fs::read_to_string(case).unwrap_or_default()
        );
        let text = fs::read_to_string(&result).expect("a result");
        let document: Value = serde_json::from_str(&text).expect("a result is JSON");
        let verdict = &document["verdict"];
        let texts = |list: &Value| -> BTreeSet<String> {
            let list = list.as_array().into_iter().flatten();
            list.filter_map(|it| it.as_str().map(str::to_owned))
                .collect()
        };
        let of_ways = |ways: &Value| -> BTreeSet<String> {
            let ways = ways.as_array().into_iter().flatten();
            ways.flat_map(|way| texts(&way["names"])).collect()
        };
        let mut names = texts(&verdict["names"]);
        names.extend(of_ways(&verdict["ways"]));
        names.extend(of_ways(&document["ways"]));
        // A search that was cut off need not have found all that there is.
        let is_cut_off = !verdict["stopped"].is_null();
        let is = verdict["is"].as_str().expect("a verdict");
        Self {
            is: if is_cut_off { "stopped" } else { is }.to_owned(),
            names,
            outcomes: texts(&document["outcomes"]),
        }
    }
}

/// A run that cannot end has two names: no CPU can go on, or some CPU goes round for ever. A search
/// that lets waiting CPUs go round sees only the second.
fn is_endless(name: &str) -> bool {
    matches!(name, "hang" | "livelock")
}

/// How the result of `one` differs from that of the reference.
fn difference(reference: &SearchResult, one: &SearchResult) -> Option<String> {
    match (&*reference.is, &*one.is) {
        ("complete", "complete") if reference.outcomes == one.outcomes => None,
        ("complete", "complete") => Some(format!(
            "it comes to {} ends that differ, the reference to {}",
            one.outcomes.len(),
            reference.outcomes.len()
        )),
        ("refuted", "broke") => {
            let endless = reference.names.iter().any(|name| is_endless(name));
            // A call under way that can never be completed is also called lost.
            let is_known = |name: &String| {
                reference.names.contains(name) || endless && (is_endless(name) || name == "lost")
            };
            let unknown: Vec<_> = one.names.iter().filter(|name| !is_known(name)).collect();
            (!unknown.is_empty()).then(|| format!("it finds {unknown:?}, the reference does not"))
        }
        (is, other) => Some(format!(
            "the reference is {is} {:?}, it is {other} {:?}",
            reference.names, one.names
        )),
    }
}

/// How what `one` has found, which goes on past what breaks, differs from what the reference has.
fn difference_of_all(reference: &SearchResult, one: &SearchResult) -> Option<String> {
    // The guest counts what a call under way owes, and the VMM calls it lost: where CPUs wait for
    // ever, that is seen at another place.
    let of_ends = |result: &SearchResult| -> BTreeSet<String> {
        let names = result.names.iter();
        let endless = result.names.iter().any(|name| is_endless(name));
        let rest = names.filter(|name| !(is_endless(name) || endless && *name == "lost"));
        let endless = endless.then(|| "endless".to_owned());
        rest.cloned().chain(endless).collect()
    };
    let (known, found) = (of_ends(reference), of_ends(one));
    (one.is != "complete" || known != found).then(|| {
        format!(
            "it is {} and finds {found:?}, the reference {known:?}",
            one.is
        )
    })
}

/// Chooses an image, and builds it if it is not there: the product's, or one for a kind of bug.
/// Cases without a bug are as likely as cases with one.
fn image(random: &mut Rng) -> (&'static str, PathBuf) {
    // With this one, interrupts nest while the guest boots, and no two boots leave the same state.
    let planted: Vec<_> = (kinds::ALL.iter())
        .filter(|kind| kind.name != "interrupts-enabled-in-a-handler")
        .collect();
    match planted.get(random.usize(0..2 * planted.len())) {
        Some(kind) => (kind.name, workshop::build(kind.name, &kind.change)),
        None => ("no bug", explore_image()),
    }
}

#[test]
fn searches_come_to_what_the_reference_comes_to() {
    need_kvm();
    let wanted = number("REFERENCE_CASES", CASES);
    let largest = number("REFERENCE_STATES", LARGEST);
    let seed = number("REFERENCE_SEED", 1);
    let from = number("REFERENCE_FROM", 0);
    let case = workshop::directory().join(format!("reference-{seed}-{from}.case"));
    let (mut compared, mut broken, mut too_large) = (0, 0, 0);
    let begun = Instant::now();
    let mut number = from;
    while compared < wanted {
        let mut random = Rng::with_seed(seed << 32 | number);
        number += 1;
        let (bug, image) = image(&mut random);
        let text = drawing::case(&mut random);
        let words = drawing::words(&mut random);
        let memory = ["--memory sc", "--memory tso"][random.usize(0..2)];
        fs::write(&case, &text).expect("room for a case");
        let most = format!("--strategy reference {memory} --max-states {largest}");
        let reference = SearchResult::by(&case, &image, &words, &most);
        if reference.is == "stopped" {
            too_large += 1;
            continue;
        }
        for options in SEARCHES {
            let one = SearchResult::by(&case, &image, &words, &format!("{options} {memory}"));
            if let Some(difference) = difference(&reference, &one) {
                panic!("{options} {memory} with {words}, {bug}: {difference}, of\n{text}");
            }
        }
        for options in ALL_THAT_BREAKS {
            if reference.is != "refuted" {
                break;
            }
            let one = SearchResult::by(&case, &image, &words, &format!("{options} {memory}"));
            if let Some(difference) = difference_of_all(&reference, &one) {
                panic!("{options} {memory} with {words}, {bug}: {difference}, of\n{text}");
            }
        }
        compared += 1;
        if wanted > CASES && compared % 20 == 0 {
            println!("{compared} of {wanted}, {too_large} too large; the next is number {number}");
        }
        broken += u64::from(reference.is == "refuted");
    }
    println!(
        "{compared} cases, of which {broken} break something, and {too_large} more that were \
         too large: {} searches each as the reference, {} s",
        SEARCHES.len(),
        begun.elapsed().as_secs()
    );
}
