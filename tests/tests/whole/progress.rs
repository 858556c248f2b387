//! The line on how far something is, on a terminal that is read as a user would see it: it appears
//! by itself when something takes long, and nothing of it is left.

use std::fs;

use tempfile::TempDir;
use tests::{Running, Vmm, need_kvm};

use super::terminal::Terminal;

/// A case whose searches do not end soon, if nothing breaks.
const ENDLESS: &str = include_str!("../../../scenarios/explore/deleted-first.case");

const LOST_CALL: &str = include_str!("../../../scenarios/explore/lost-call.case");

/// A folder with this case in it, and its path.
fn case(text: &str) -> (TempDir, std::path::PathBuf) {
    let folder = TempDir::new().expect("a temporary directory");
    let path = folder.path().join("the.case");
    fs::write(&path, text).expect("room for a case");
    (folder, path)
}

/// Waits for a line with all of these words, and then for the end by ^C, after which nothing of it
/// is on the screen.
#[track_caller]
fn shows_and_leaves_nothing(terminal: &Terminal, running: Running, words: &[&str]) {
    let has_all = |line: &String| words.iter().all(|word| line.contains(word));
    let lines = terminal.wait("progress", |lines| lines.iter().any(has_all));
    let shown = lines.iter().filter(|line| has_all(line)).count();
    assert_eq!(shown, 1, "{lines:#?}");
    running.signal(libc::SIGINT);
    running.finish().ends_with(130);
    terminal.wait("a clean screen", |lines| !lines.iter().any(has_all));
    let parser = terminal.screen.0.lock().expect("no panic");
    assert!(!parser.screen().hide_cursor(), "the cursor is there again");
}

fn stress() -> Vmm {
    Vmm::with("--vcpus 2 --append")
        .arg("workload=stress for=600s")
        .arg(tests::guest())
}

#[test]
fn a_run_says_how_many_calls_it_has_made() {
    need_kvm();
    let mut terminal = Terminal::new(100, 120);
    let vmm = Vmm::with("--vcpus 2 --append").arg("workload=stress for=600s");
    let running = terminal.start(vmm.arg(tests::guest()));
    shows_and_leaves_nothing(&terminal, running, &[" s, ", " calls made, ", " calls/s"]);
    // What the guest has printed is above, and the report below.
    let left = terminal.wait("the report", |lines| {
        lines.iter().any(|line| line.starts_with("interrupted: "))
    });
    let up = left.iter().filter(|line| line.contains("2 CPUs up"));
    assert_eq!(up.count(), 1, "{left:#?}");
}

#[test]
fn a_guest_that_plans_its_work_says_how_much_is_left() {
    need_kvm();
    let mut terminal = Terminal::new(40, 120);
    let vmm = Vmm::with("--vcpus 2 --append").arg("calls=10000000");
    let running = terminal.start(vmm.arg(tests::guest()));
    shows_and_leaves_nothing(
        &terminal,
        running,
        &[" % done, ", " calls/s, about ", " left"],
    );
}

#[test]
fn a_guest_without_calls_counts_its_work_as_well() {
    need_kvm();
    let mut terminal = Terminal::new(40, 120);
    let words = "test=0:store,x,1;load,y|1:store,y,1;load,x exists=0:r0=0&1:r0=0 rounds=1000000";
    let vmm = Vmm::with("--vcpus 2 --append").arg(words);
    let running = terminal.start(vmm.arg(tests::other_image("litmus.bin")));
    shows_and_leaves_nothing(&terminal, running, &[" % done, about ", " left"]);
}

#[test]
fn a_bench_says_at_which_line_it_is() {
    need_kvm();
    let mut terminal = Terminal::new(40, 120);
    let vmm = Vmm::with("bench --vcpus 2 --by ipi --rounds 1000000 --runs 1000");
    let running = terminal.start(vmm.arg(tests::guest()));
    shows_and_leaves_nothing(&terminal, running, &["0 of ", " left "]);
}

#[test]
fn a_search_says_how_much_it_has_seen() {
    need_kvm();
    let mut terminal = Terminal::new(40, 120);
    let vmm = Vmm::with("explore --strategy random --runs 100000000 --append queue=filo");
    let (_folder, case) = case(ENDLESS);
    let running = terminal.start(vmm.arg(case).arg(tests::explore_image()));
    let words = [" states, ", " of 100000000 schedules, about ", " steps/s"];
    shows_and_leaves_nothing(&terminal, running, &words);
}

#[test]
fn a_replay_says_how_often_it_has_run() {
    need_kvm();
    let (folder, case) = case(LOST_CALL);
    let schedule = folder.path().join("lost.json");
    Vmm::with("explore --shorten 0s --append queue=fifo --schedule")
        .arg(&schedule)
        .arg(case)
        .arg(tests::explore_image())
        .run()
        .ends_with(0);
    let mut terminal = Terminal::new(40, 120);
    let vmm = Vmm::with("replay --times 100000000").arg(&schedule);
    let running = terminal.start(vmm.arg(tests::explore_image()));
    shows_and_leaves_nothing(&terminal, running, &[" of 100000000, ", " left"]);
}

#[test]
fn quiet_shows_nothing_and_neither_does_a_log() {
    need_kvm();
    for option in ["--quiet", "--log=warn"] {
        let mut terminal = Terminal::new(40, 120);
        let vmm = Vmm::with("--vcpus 2 --append").arg("workload=stress for=4s");
        let running = terminal.start(vmm.arg(option).arg(tests::guest()));
        running.finish().ends_with(0);
        terminal.wait("the verdict", |lines| {
            lines.iter().any(|line| line.starts_with("pass: "))
        });
        let written = terminal.written();
        assert!(!written.contains("calls/s"), "{option}: {written}");
        assert!(!written.contains('\x1b'), "{option}: {written}");
    }
}

#[test]
fn a_pipe_gets_no_progress() {
    need_kvm();
    let mut vmm = stress();
    vmm.command().env("TERM", "xterm");
    let running = vmm.start();
    running.wait_for("2 CPUs up");
    running.signal(libc::SIGINT);
    let run = running.finish();
    run.ends_with(130);
    assert!(!run.stderr.contains("calls/s"), "{run}");
    let run = Vmm::with("--vcpus 2 --append")
        .arg("workload=stress for=4s")
        .arg(tests::guest())
        .run();
    run.ends_with(0);
    assert_eq!(run.stderr, "", "{run}");
}
