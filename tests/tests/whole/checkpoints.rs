//! `vmm explore --checkpoint`: a search that is killed, or stopped, goes on where it was, and comes to
//! what it would have come to. What is no checkpoint of the same search is refused, and stays.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::{Run, Running, Vmm, need_kvm};

use super::explore::{COMPLETE, COMPLETE_SC, SHRINKING_MASK, Workspace};

/// Words with which the case has some ten thousand states.
const LARGE: &str = "--append queue=kmalloc --memory sc";

/// A file appears within this time on a busy host.
const TIME_LIMIT: Duration = Duration::from_secs(120);

/// Waits until a checkpoint was written that is not `last`, by whichever file it is. Returns that;
/// `None` if the search ended before.
fn next_checkpoint(file: &Path, running: &mut Running, last: Option<u64>) -> Option<u64> {
    let begun = Instant::now();
    loop {
        // Each checkpoint is a new file, which replaces the last.
        let inode = fs::metadata(file).ok().map(|found| found.ino());
        if inode.is_some() && inode != last {
            return inode;
        }
        if running.has_ended() {
            return None;
        }
        assert!(begun.elapsed() < TIME_LIMIT, "no checkpoint");
        thread::yield_now();
    }
}

fn with_checkpoint(workspace: &Workspace, options: &str) -> Vmm {
    let file = workspace.path("a.checkpoint");
    workspace.explore(options).arg("--checkpoint").arg(file)
}

/// Kills the search whenever it has written two checkpoints, `kills` times at most, and lets the last
/// one be. Returns its result, and how often it was killed.
fn search_with_kills(workspace: &Workspace, options: &[&str], kills: usize) -> (Run, Value, usize) {
    let file = workspace.path("a.checkpoint");
    let result = workspace.path("result.json");
    let mut killed = 0;
    loop {
        let options = options[killed % options.len()];
        let vmm = with_checkpoint(workspace, &format!("{options} --checkpoint-every 100ms"));
        let mut running = vmm.arg("--result").arg(&result).start();
        if killed < kills {
            let before = fs::metadata(&file).ok().map(|found| found.ino());
            let first = next_checkpoint(&file, &mut running, before);
            if first.is_some() && next_checkpoint(&file, &mut running, first).is_some() {
                running.signal(libc::SIGKILL);
                running.finish();
                killed += 1;
                continue;
            }
        }
        let run = running.finish();
        let text = fs::read_to_string(&result).expect("a result");
        return (run, serde_json::from_str(&text).expect("JSON"), killed);
    }
}

/// The states of an exhaustive search are the same however often it is killed, with however many
/// machines others go on.
#[test]
fn a_search_that_is_killed_comes_to_the_same_states() {
    need_kvm();
    let strategy = format!("{LARGE} --strategy exhaustive");
    let whole = Workspace::with(SHRINKING_MASK);
    let result = whole.path("result.json");
    let run = whole.explore(&strategy).arg("--result").arg(&result).run();
    run.ends_with(0).says(COMPLETE_SC);
    let expected: Value =
        serde_json::from_str(&fs::read_to_string(&result).expect("a result")).expect("JSON");

    let workspace = Workspace::with(SHRINKING_MASK);
    let (one, three) = (strategy.clone(), format!("{strategy} --jobs 3"));
    let (run, result, killed) = search_with_kills(&workspace, &[&one, &three], 1);
    assert!(killed > 0, "killed {killed} times: {run}");
    run.ends_with(0)
        .says(COMPLETE_SC)
        .says("by another process");
    for what in ["states", "ends"] {
        assert_eq!(result["counts"][what], expected["counts"][what], "{what}");
    }
    assert_eq!(result["counts"]["resumed"], killed);
    assert_eq!(result["outcomes"], expected["outcomes"]);
    // The keys of the states, which the file beside the result has.
    assert_eq!(result["states"], expected["states"]);
    assert!(!workspace.path("a.checkpoint").exists(), "it is through");
    assert!(!workspace.path("a.checkpoint.new").exists());
}

#[test]
#[ignore = "another strategy: the model test kills it too"]
fn a_search_by_races_that_is_killed_has_the_same_ends_and_finds_the_same() {
    need_kvm();
    let workspace = Workspace::with(SHRINKING_MASK);
    let strategy = format!("{LARGE} --strategy races --jobs 2");
    let run = workspace
        .explore(&strategy)
        .arg("--result")
        .arg(workspace.path("b.json"))
        .run();
    run.ends_with(0).says(COMPLETE_SC);
    let text = fs::read_to_string(workspace.path("b.json")).expect("a result");
    let expected: Value = serde_json::from_str(&text).expect("JSON");
    let (run, result, killed) = search_with_kills(&workspace, &[&strategy], 1);
    assert!(killed > 0, "killed {killed} times: {run}");
    run.ends_with(0).says(COMPLETE_SC);
    assert_eq!(result["outcomes"], expected["outcomes"]);
}

/// Where time is up, or a signal comes, the search is kept as it is then, and not only as it was when
/// the last checkpoint was due.
#[test]
fn a_search_that_is_stopped_goes_on_where_it_was() {
    need_kvm();
    let workspace = Workspace::with(SHRINKING_MASK);
    let file = workspace.path("a.checkpoint");
    let search = |options: &str| {
        let options = format!("--append queue=llist --strategy races {options}");
        with_checkpoint(&workspace, &options)
    };
    let stopped = search("--max-states 400").run();
    stopped.ends_with(5).says("too many states");
    assert!(file.exists());
    let stopped = search("--max-states 800 --jobs 2").run();
    stopped.ends_with(5).says("too many states");
    let done = search("").run();
    done.ends_with(0)
        .says(COMPLETE)
        .says("2 times, by another process");
    assert!(!file.exists());
}

#[test]
fn what_is_no_checkpoint_of_the_search_is_refused_and_stays() {
    need_kvm();
    let workspace = Workspace::with(SHRINKING_MASK);
    let file = workspace.path("a.checkpoint");
    let search = |options: &str| {
        let append = match options.contains("--append") {
            true => "",
            false => "--append queue=llist",
        };
        with_checkpoint(&workspace, &format!("{append} {options}"))
    };
    let refused = |options: &str, why: &str| {
        let before = fs::read(&file).expect("a file");
        search(options).run().ends_with(2).complains_of(why);
        assert_eq!(fs::read(&file).expect("a file"), before, "it stays");
    };
    search("--strategy races --max-states 400")
        .run()
        .ends_with(5);
    let whole = fs::read(&file).expect("a checkpoint");
    refused("--strategy exhaustive", "another --strategy");
    refused("--strategy races --memory sc", "another --memory");
    refused(
        "--strategy races --append queue=filo",
        "other words for the guest",
    );
    for at in [30, whole.len() / 2, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(&file, damaged).expect("room");
        refused("--strategy races", "is damaged");
    }
    fs::write(&file, &whole[..whole.len() / 2]).expect("room");
    refused("--strategy races", "is damaged");
    fs::write(&file, "a letter").expect("room");
    refused("--strategy races", "is no checkpoint");
    fs::write(&file, "").expect("room");
    refused("--strategy races", "is no checkpoint");
    fs::write(&file, &whole).expect("room");
    refused("--strategy random", "not for --strategy random");
    search("--strategy races").run().ends_with(0).says(COMPLETE);
}

/// A checkpoint that cannot be written costs nothing but itself.
#[test]
fn a_search_whose_checkpoints_have_no_place_any_more_goes_on() {
    need_kvm();
    let workspace = Workspace::with(SHRINKING_MASK);
    let directory = workspace.path("place");
    fs::create_dir(&directory).expect("room");
    let file = directory.join("a.checkpoint");
    let search = || {
        let options =
            format!("{LARGE} --strategy races --max-states 20000 --checkpoint-every 100ms");
        workspace.explore(&options).arg("--checkpoint").arg(&file)
    };
    let mut running = search().start();
    next_checkpoint(&file, &mut running, None).expect("the search takes longer than that");
    fs::remove_dir_all(&directory).expect("it can be removed");
    let run = running.finish();
    run.ends_with(5).says("too many states");
    let text = run.to_string();
    assert!(text.contains("cannot write the checkpoint"), "{text}");
    // It is known from the beginning where there is no place at all.
    let run = search().run();
    run.ends_with(2).complains_of("No such file or directory");
}
