//! For every oracle a bug, planted in the guest one at a time. `vmm explore` has to find each, by
//! that oracle, in a schedule that can be replayed. Without the bug the same case breaks nothing.
//! More bugs of the same kinds are marked as ignored: `make test-plants` plants these too.
//! The bugs are in [`bugs`]. The images that are built with them, the cases and the schedules stay
//! in `plants` beside the guest image under test.

mod bugs;
mod cheats;
mod drawing;
mod kinds;
mod reference;
mod workshop;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tests::{Run, Vmm, explore_image, need_kvm};

use bugs::{Bug, Plant};
use kinds::Kind;

/// A search or a replay may take this long on a busy host.
const TIME_LIMIT: Duration = Duration::from_secs(300);

/// Seconds for which nothing may break without a bug. Most cases are completed in less.
const SOUND_FOR: u32 = 4;

/// How long the search may shorten what it has found. Nothing is required of that here.
const SHORTEN: &str = "0s";

/// How often each schedule is replayed.
const REPLAYS: u32 = 20;

/// How often a schedule is replayed whose last turn goes on for ever: each time takes seconds.
const ENDLESS_REPLAYS: u32 = 1;

fn explore(case: &Path, image: &Path, words: &str) -> Vmm {
    Vmm::with("explore")
        .arg(case)
        .arg(image)
        .args(["--append", words])
        .limit(TIME_LIMIT)
}

/// A bug that is planted, and what the search for it has to do.
struct Trial<'a> {
    name: &'a str,
    /// The search has to find one of these.
    finds: &'a [&'a str],
    case: &'a str,
    /// The image with the bug, and the words that it is given.
    image: PathBuf,
    words: String,
    /// The words for the image without the bug, if nothing may break there.
    sound: Option<&'a str>,
}

/// Whether no trial before has searched this case with these words in the guest without a bug.
fn is_first(case: &str, words: &str) -> bool {
    static SEARCHED: Mutex<BTreeSet<(String, String)>> = Mutex::new(BTreeSet::new());
    let mut searched = SEARCHED.lock().unwrap_or_else(PoisonError::into_inner);
    searched.insert((case.to_owned(), words.to_owned()))
}

/// Checks that the search finds the bug of `trial`, and that without it the case is clean.
fn is_found(trial: &Trial<'_>) {
    let &Trial { name, finds, .. } = trial;
    let directory = workshop::directory();
    let case = |end: &str, expected: &str| {
        let path = directory.join(format!("{name}{end}.case"));
        fs::write(&path, format!("{}expect {expected}\n", trial.case)).expect("room for a case");
        path
    };
    let schedule = directory.join(format!("{name}.json"));
    let found = explore(&case("", &finds.join(", ")), &trial.image, &trial.words)
        .args(["--shorten", SHORTEN, "--schedule"])
        .arg(&schedule)
        .run();
    found.ends_with(0).says("as expected: ");
    println!("{name}: {}; {}", searched(&found), last_line(&found));
    let text = fs::read_to_string(&schedule).expect("a schedule");
    let document: Value = serde_json::from_str(&text).expect("a schedule is JSON");
    let breaks = document["breaks"].as_array().expect("a list");
    let is_one = |found: &Value| finds.iter().any(|name| *found == **name);
    assert!(breaks.iter().any(is_one), "{found}");

    let times = if finds == ["livelock"] {
        ENDLESS_REPLAYS
    } else {
        REPLAYS
    };
    Vmm::with("replay")
        .args([&schedule, &trial.image])
        .args(["--times", &times.to_string()])
        .limit(TIME_LIMIT)
        .run()
        .ends_with(0)
        .says(&format!("{times} of {times} replays broke"));

    if let Some(words) = trial.sound
        && is_first(trial.case, words)
    {
        let sound = explore(&case("-sound", "clean"), &explore_image(), words)
            .args(["--time-limit", &SOUND_FOR.to_string()])
            .run();
        // The time may be too short to try everything.
        assert!(matches!(sound.status(), 0 | 5), "{sound}");
        println!("  sound: {}; {}", searched(&sound), last_line(&sound));
    }
}

/// Plants the bug, and checks that it is found.
fn plant_is_found(plant: &Plant) {
    need_kvm();
    let (image, words) = match &plant.bug {
        Bug::Source(change) => (workshop::build(plant.finds, change), plant.words.to_owned()),
        Bug::Words(more) => (explore_image(), format!("{} {more}", plant.words)),
    };
    is_found(&Trial {
        name: plant.finds,
        finds: &[plant.finds],
        case: plant.case,
        image,
        words,
        sound: Some(plant.words),
    });
}

/// Plants a bug of another kind, and checks that it is found.
fn kind_is_found(kind: &Kind) {
    need_kvm();
    // What is broken without the bug too need not be clean.
    let is_sound = !kind.words.contains("hotplug=no-stop");
    is_found(&Trial {
        name: kind.name,
        finds: kind.finds,
        case: kind.case,
        image: workshop::build(kind.name, &kind.change),
        words: kind.words.to_owned(),
        sound: is_sound.then_some(kind.words),
    });
}

/// The line in which a search says how much it has tried.
fn searched(run: &Run) -> &str {
    let mut lines = run.stdout.lines();
    lines
        .find(|line| line.starts_with("searched"))
        .unwrap_or_default()
}

fn last_line(run: &Run) -> &str {
    run.stdout.lines().last().unwrap_or_default()
}

/// A test for each plant, so that they are listed one by one and run in parallel.
macro_rules! each_is_found {
    ($($name:ident: $plant:ident,)*) => {
        const PLANTS: &[&Plant] = &[$(&bugs::$plant),*];

        $(#[test]
        fn $name() {
            plant_is_found(&bugs::$plant);
        })*
    };
}

each_is_found! {
    lost: LOST,
    duplicate: DUPLICATE,
    wrong_cpu: WRONG_CPU,
    wrong_function: WRONG_FUNCTION,
    stale_argument: STALE_ARGUMENT,
    early_return: EARLY_RETURN,
    left_locked: LEFT_LOCKED,
    broken_queue: BROKEN_QUEUE,
    interrupts_on: INTERRUPTS_ON,
    bad_refs: BAD_REFS,
    contract: CONTRACT,
    accounting: ACCOUNTING,
    use_after_free: USE_AFTER_FREE,
    leak: LEAK,
    reused_too_soon: REUSED_TOO_SOON,
    hang: HANG,
    livelock: LIVELOCK,
    died: DIED,
    not_believed: NOT_BELIEVED,
}

/// A test for each kind.
macro_rules! each_kind_is_found {
    ($($name:ident,)*) => {
        const KIND_NAMES: &[&str] = &[$(stringify!($name)),*];

        mod kind {
            $(#[test]
            #[ignore = "one of a kind is among the others: make test-plants"]
            fn $name() {
                let name = stringify!($name).replace('_', "-");
                let kind = super::kinds::ALL.iter().find(|kind| kind.name == name);
                super::kind_is_found(kind.expect("a kind of this name"));
            })*
        }
    };
}

each_kind_is_found! {
    panic_at_the_end,
    element_lock_with_irqs_on,
    no_wait_without_an_interrupt,
    descriptor_of_two_cpus,
    no_flush_by_a_dying_cpu,
    push_with_irqs_on,
    next_after_the_unlock,
    references_before_the_mask,
    unlock_before_removal,
    grace_before_the_lock,
    only_the_victim_flushes,
    prepared_once_it_is_online,
    interrupts_enabled_in_a_handler,
    waits_for_ever_unannounced,
}

#[test]
fn each_kind_is_tried() {
    let tried: BTreeSet<_> = KIND_NAMES
        .iter()
        .map(|name| name.replace('_', "-"))
        .collect();
    let all: BTreeSet<_> = kinds::ALL.iter().map(|kind| kind.name.to_owned()).collect();
    assert_eq!(tried, all);
}

/// A waiting loop that also stores the same value in each turn is no bug: the CPU waits for what
/// the turn has read before the store.
#[test]
fn a_store_in_a_waiting_loop_is_no_hang() {
    need_kvm();
    let image = workshop::build("store-in-a-loop", &kinds::HARMLESS_STORE);
    let case = workshop::directory().join("store-in-a-loop.case");
    fs::write(&case, "cpus 2\n0: single 1 wait\n1: single 0 wait\n").expect("room for a case");
    for strategy in ["exhaustive", "races"] {
        explore(&case, &image, "queue=filo")
            .args(["--strategy", strategy])
            .run()
            .ends_with(0)
            .says("complete ");
    }
}

/// What a search of `case` learns, from the guest without a bug, of what CPUs share: in a file.
fn learnt(case: &Path, words: &str) -> PathBuf {
    let [result, sharing] = ["json", "sharing"].map(|end| case.with_extension(end));
    explore(case, &explore_image(), words)
        .args(["--strategy", "random", "--runs", "100", "--result"])
        .arg(&result)
        .run()
        .ends_with(0);
    let text = fs::read_to_string(&result).expect("a result");
    let learnt: Value = serde_json::from_str(&text).expect("a result is JSON");
    fs::write(&sharing, learnt["sharing"].to_string()).expect("room for what it has learnt");
    sharing
}

/// Two CPUs that each go round in a loop of their own. No cycle of states is one of both CPUs, and
/// a search may skip turns of one that it has seen elsewhere. A random run could find this before
/// the search begins, as below.
#[test]
fn who_waits_for_ever_in_a_loop_that_nobody_announced_is_found_by_every_search() {
    need_kvm();
    let name = "waits-for-ever-unannounced";
    let kind = kinds::ALL.iter().find(|kind| kind.name == name);
    let kind = kind.expect("a kind of this name");
    let image = workshop::build("waits-unannounced", &kind.change);
    let case = workshop::directory().join("waits-unannounced.case");
    fs::write(&case, kind.case).expect("room for a case");
    let sharing = learnt(&case, kind.words);
    for options in [
        "--strategy exhaustive",
        "--strategy races",
        "--strategy exhaustive --jobs 2",
        "--strategy races --jobs 2",
    ] {
        explore(&case, &image, kind.words)
            .args(options.split_whitespace())
            .arg("--sharing")
            .arg(&sharing)
            .run()
            .ends_with(1)
            .says("broken: livelock");
    }
}

/// The random runs, from which a search learns what CPUs share, could find this before the search
/// begins. So here the search is given that, from the guest without the bug.
#[test]
fn what_goes_round_for_ever_is_found_by_every_search() {
    need_kvm();
    let words = "queue=llist";
    let directory = workshop::directory();
    let [case, schedule] = ["case", "schedule"].map(|end| directory.join(format!("round.{end}")));
    fs::write(&case, bugs::BOTH_CALL_MANY).expect("room for a case");
    let sharing = learnt(&case, words);

    let image = workshop::build("round", &bugs::ROUND);
    for strategy in ["bounded", "exhaustive", "races"] {
        let found = explore(&case, &image, words)
            .args(["--strategy", strategy, "--sharing"])
            .arg(&sharing)
            .arg("--schedule")
            .arg(&schedule)
            .run();
        found
            .ends_with(1)
            .says("goes round in a circle")
            .says("broken: livelock");
        Vmm::with("replay")
            .args([&schedule, &image])
            .args(["--times", &REPLAYS.to_string()])
            .run()
            .ends_with(0)
            .says(&format!("{REPLAYS} of {REPLAYS} replays broke livelock"));
    }
}

/// What a case can expect of this guest, its oracles included: the command lists it when a case
/// expects something else. Of a data race there can be none: the guest has no plain access. That is
/// tried with a guest in C (`guests_in_c::` of the whole runs).
fn kinds() -> BTreeSet<String> {
    let case = workshop::directory().join("kinds.case");
    fs::write(&case, "cpus 1\nexpect nonsense\n").expect("room for a case");
    let run = explore(&case, &explore_image(), "").run();
    run.ends_with(2);
    let (_, known) = run.stderr.split_once("there are ").expect("a list");
    let names = known.split("; besides, ").flat_map(|list| list.split(", "));
    names
        .map(|name| name.trim().to_owned())
        .filter(|name| !["clean", "data-race"].contains(&&**name))
        .collect()
}

#[test]
fn there_is_one_of_every_kind() {
    let planted: Vec<_> = PLANTS.iter().map(|plant| plant.finds.to_owned()).collect();
    let once: BTreeSet<_> = planted.iter().cloned().collect();
    assert_eq!(once.len(), planted.len(), "{planted:?}");
    assert_eq!(once, kinds());
}
