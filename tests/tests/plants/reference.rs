//! Every search that claims to be complete, held against the reference search, which shares no rule
//! with any of them: on cases drawn at random, with designs that are sound, designs that are
//! broken, and bugs planted in them. What can break must be the same, and so must be what becomes
//! of the machine at the ends.
//!
//! `REFERENCE_CASES` is how many cases are held against it, `REFERENCE_SEED` which, from number
//! `REFERENCE_FROM` on, and `REFERENCE_STATES` how many states the reference may have. Cases that
//! are too large for it count as none; it is said how many they were.

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
const CASES: u64 = 24;

/// States of the reference after which a case is too large.
const LARGEST: u64 = 25_000;

/// A search may take this long on a busy host. What goes round for ever is seen after 100,000 turns
/// only.
const PATIENCE: Duration = Duration::from_secs(1800);

/// Searches that must come to the same.
const SEARCHES: [&str; 4] = [
    "--strategy exhaustive",
    "--strategy races",
    "--strategy auto",
    "--strategy exhaustive --jobs 2",
];

fn number(variable: &str, default: u64) -> u64 {
    env::var(variable).map_or(default, |number| number.parse().expect(variable))
}

/// What a search came to.
struct Searched {
    /// In a word.
    is: String,
    /// What can break, or what it found to.
    names: BTreeSet<String>,
    outcomes: BTreeSet<String>,
}

impl Searched {
    /// Does one, of which the result is left beside the case.
    fn by(case: &Path, image: &Path, words: &str, options: &str) -> Self {
        let result = case.with_extension("json");
        let run = Vmm::with("explore")
            .arg(case)
            .arg(image)
            .args(["--append", words])
            .args(options.split_whitespace())
            .args(["--shorten", "0s", "--result"])
            .arg(&result)
            .limit(PATIENCE)
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
        let names = match verdict["ways"].as_array() {
            Some(ways) => ways.iter().flat_map(|way| texts(&way["names"])).collect(),
            None => texts(&verdict["names"]),
        };
        // What it found by then need not be all that there is.
        let is_cut_off = !verdict["stopped"].is_null();
        let is = verdict["is"].as_str().expect("a verdict");
        Self {
            is: if is_cut_off { "stopped" } else { is }.to_owned(),
            names,
            outcomes: texts(&document["outcomes"]),
        }
    }
}

/// An end that cannot be reached has two names: that nobody can go on, and that somebody goes round
/// for ever. Who lets waiting CPUs go round sees only one of them.
fn is_endless(name: &str) -> bool {
    matches!(name, "hang" | "livelock")
}

/// In what `one` is not what the reference came to.
fn difference(reference: &Searched, one: &Searched) -> Option<String> {
    match (&*reference.is, &*one.is) {
        ("complete", "complete") if reference.outcomes == one.outcomes => None,
        ("complete", "complete") => Some(format!(
            "it comes to {} ends that differ, the reference to {}",
            one.outcomes.len(),
            reference.outcomes.len()
        )),
        ("refuted", "broke") => {
            let endless = reference.names.iter().any(|name| is_endless(name));
            // What a call on its way that nobody can bring to its end is called besides.
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

/// Images to draw from: the product's, and one for each kind of bug.
fn images() -> Vec<(&'static str, PathBuf)> {
    // With this one interrupts nest while the guest boots, and no two boots leave the same.
    let planted = (kinds::ALL.iter())
        .filter(|kind| kind.name != "interrupts-enabled-in-a-handler")
        .map(|kind| (kind.name, workshop::build(kind.name, &kind.change)));
    // As often without a bug as with one.
    let sound = std::iter::repeat_n(("no bug", explore_image()), kinds::ALL.len());
    sound.chain(planted).collect()
}

#[test]
fn searches_come_to_what_the_reference_comes_to() {
    need_kvm();
    let wanted = number("REFERENCE_CASES", CASES);
    let largest = number("REFERENCE_STATES", LARGEST);
    let seed = number("REFERENCE_SEED", 1);
    let from = number("REFERENCE_FROM", 0);
    let images = images();
    let case = workshop::bench().join(format!("reference-{seed}-{from}.case"));
    let (mut compared, mut broken, mut too_large) = (0, 0, 0);
    let begun = Instant::now();
    let mut number = from;
    while compared < wanted {
        let mut random = Rng::with_seed(seed << 32 | number);
        number += 1;
        let (bug, image) = &images[random.usize(0..images.len())];
        let text = drawing::case(&mut random);
        let words = drawing::words(&mut random);
        fs::write(&case, &text).expect("room for a case");
        let most = format!("--strategy reference --max-states {largest}");
        let reference = Searched::by(&case, image, &words, &most);
        if reference.is == "stopped" {
            too_large += 1;
            continue;
        }
        for options in SEARCHES {
            let one = Searched::by(&case, image, &words, options);
            if let Some(difference) = difference(&reference, &one) {
                panic!("{options} with {words}, {bug}: {difference}, of\n{text}");
            }
        }
        compared += 1;
        if wanted > CASES && compared % 20 == 0 {
            println!("{compared} of {wanted}, {too_large} too large; the next is number {number}");
        }
        broken += u64::from(reference.is == "refuted");
    }
    println!(
        "{compared} cases, of which {broken} break something, and {too_large} more that were too large: {} searches \
         each as the reference, {} s",
        SEARCHES.len(),
        begun.elapsed().as_secs()
    );
}
