//! The scenarios that ship with the product, each with every design that it is about. The scripts
//! say what must come out; the tests check that it did, and that a broken design did break.
//!
//! `STORY_RUNS` is how often each is run; `make stories` runs each a thousand times.

use std::env;
use std::fs;

use tempfile::NamedTempFile;
use tests::{SOUND_QUEUES, Vmm, need_kvm};

fn runs() -> u32 {
    env::var("STORY_RUNS").map_or(1, |runs| runs.parse().expect("a number of runs"))
}

/// A script in a temporary file.
fn file(text: &str) -> NamedTempFile {
    let file = NamedTempFile::with_suffix(".rhai").expect("a temporary file");
    fs::write(file.path(), text).expect("room for a script");
    file
}

/// Runs the script `text` with `options` for the guest, and with `params`. It has to end with
/// status 0, and with `verdict`.
fn tell(text: &str, options: &str, params: &[&str], verdict: &str) {
    need_kvm();
    let script = file(text);
    for _ in 0..runs() {
        let run = Vmm::boot("")
            .arg("--script")
            .arg(script.path())
            .args(["--append", options])
            .args(params.iter().flat_map(|param| ["--param", param]))
            .run();
        run.ends_with(0).says(verdict);
    }
}

const EXACTLY_ONCE: &str = "each exactly once where it had to";

const MCKENNEY: &str = include_str!("../../../scenarios/mckenney-2009.rhai");

fn mckenney(away: &str) {
    let away = &[away][..];
    tell(MCKENNEY, "queue=fifo", away, "pass: as expected: lost");
    for queue in SOUND_QUEUES {
        tell(MCKENNEY, &format!("queue={queue}"), away, EXACTLY_ONCE);
    }
}

#[test]
fn mckenney_2009_with_interrupts_off() {
    mckenney("away=irqs-off");
}

#[test]
fn mckenney_2009_with_a_stalled_vcpu() {
    mckenney("away=stall");
}

#[test]
fn mckenney_2009_with_a_held_wire() {
    mckenney("away=wire");
}

#[test]
fn csd_reuse() {
    const STORY: &str = include_str!("../../../scenarios/csd-reuse.rhai");
    tell(STORY, "", &[], "in csd_lock");
    tell(STORY, "queue=llist", &[], "in csd_lock");
    tell(STORY, "queue=kmalloc", &[], "descriptor of its own");
}

#[test]
fn anton_2011() {
    const STORY: &str = include_str!("../../../scenarios/anton-2011.rhai");
    tell(
        STORY,
        "queue=lockless",
        &[],
        "pass: as expected: lost, early-return",
    );
    tell(STORY, "queue=fixed-2011", &[], EXACTLY_ONCE);
}

#[test]
fn milton_2011() {
    const STORY: &str = include_str!("../../../scenarios/milton-2011.rhai");
    tell(
        STORY,
        "queue=lockless-2011a",
        &[],
        "pass: as expected: broken-queue",
    );
    tell(STORY, "queue=fixed-2011", &[], EXACTLY_ONCE);
}

#[test]
fn shrinking_mask() {
    const STORY: &str = include_str!("../../../scenarios/shrinking-mask.rhai");
    for queue in ["filo", "counters", "fixed-2011"] {
        let checked = format!("queue={queue}");
        tell(STORY, &checked, &[], EXACTLY_ONCE);
        let unchecked = format!("{checked} mask-check=off");
        tell(STORY, &unchecked, &[], "left-locked, broken-queue");
    }
}

#[test]
fn naive_flip() {
    const STORY: &str = include_str!("../../../scenarios/naive-flip.rhai");
    tell(STORY, "queue=shared-refs-naive", &[], "reused-too-soon");
    tell(STORY, "queue=shared-refs", &[], EXACTLY_ONCE);
}

#[test]
fn hotplug_free() {
    const STORY: &str = include_str!("../../../scenarios/hotplug-free.rhai");
    tell(STORY, "hotplug=no-stop", &[], "use-after-free");
    tell(STORY, "hotplug=stop", &[], EXACTLY_ONCE);
    tell(STORY, "hotplug=keep", &[], EXACTLY_ONCE);
}

#[test]
fn lock_holder() {
    const STORY: &str = include_str!("../../../scenarios/lock-holder.rhai");
    for queue in ["filo", "counters", "kmalloc"] {
        tell(STORY, &format!("queue={queue}"), &[], EXACTLY_ONCE);
    }
}
