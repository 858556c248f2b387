//! Scripts that interfere at random: they pause, hold, step and delay CPUs and IPIs while CPUs call
//! each other, and release everything in the end. Whatever they do, each call runs exactly once on
//! each target, the guest survives and the run ends. A run that fails shows its script, which names
//! the options of the run.
//!
//! `MEDDLING_SCRIPTS` is how many to run, and `MEDDLING_SEED` the first of them.

use std::env;
use std::fmt::Write;

use fastrand::Rng;
use tests::{SOUND_QUEUES, Vmm, need_kvm};

const TRANSPORTS: [&str; 4] = ["x2apic", "xapic", "x2apic-cluster", "wire"];
const PROBES: [&str; 8] = [
    "single.send",
    "single.run",
    "many.targets",
    "many.wait",
    "queue.visit",
    "queue.claim",
    "csd_lock.acquired",
    "spin.relax",
];
const PLACES: [&str; 4] = [
    "Singles::handle",
    "idle_hlt",
    "Mailboxes::all_in",
    "Rcu::quiescent",
];

fn number(variable: &str, default: u64) -> u64 {
    env::var(variable).map_or(default, |number| number.parse().expect("a number"))
}

/// A CPU list in a script, which can be empty.
fn some(rng: &mut Rng, cpus: u32) -> String {
    let chosen = (0..cpus).filter(|_| rng.bool());
    let chosen: Vec<_> = chosen.map(|cpu| cpu.to_string()).collect();
    format!("[{}]", chosen.join(", "))
}

/// One statement of a script. The guest or the VMM may refuse it.
fn verb(rng: &mut Rng, cpus: u32) -> String {
    let (cpu, other) = (rng.u32(0..cpus), rng.u32(0..cpus));
    let wait = rng.choice(["wait", "nowait"]).unwrap_or_default();
    let probe = rng.choice(PROBES).unwrap_or_default();
    match rng.u32(0..22) {
        0 | 1 => format!("cpu({cpu}).pause()"),
        2 | 3 => format!("cpu({cpu}).resume()"),
        4 => format!("cpu({cpu}).hold_at(\"{probe}\", {})", rng.u32(1..4)),
        5 => format!("cpu({cpu}).disarm()"),
        6 => format!("cpu({cpu}).wait_held()"),
        7 | 8 => format!("cpu({cpu}).step({})", rng.u32(1..60)),
        9 => format!("cpu({cpu}).look()"),
        10 => {
            let place = rng.choice(PLACES).unwrap_or_default();
            format!("cpu({cpu}).break_at(\"{place}\")")
        }
        11 => "pause_all()".to_owned(),
        12 => "resume_all()".to_owned(),
        13 => format!("cpu({cpu}).call_single({other}, {wait})"),
        14 | 15 => format!("cpu({cpu}).call_many({}, {wait})", some(rng, cpus)),
        16 => format!("cpu({cpu}).on_each({wait})"),
        17 => format!("cpu({cpu}).call_async({other})"),
        18 => format!("cpu({cpu}).{}()", if rng.bool() { "spin" } else { "idle" }),
        19 => format!("wire.hold({cpu}, {other})"),
        20 => format!("wire.delay({cpu}, {other}, {})", rng.u32(0..20)),
        _ => format!("wire.release({cpu}, {other})"),
    }
}

fn script(rng: &mut Rng, cpus: u32) -> String {
    let mut text = "limit(0.05);\n".to_owned();
    for _ in 0..rng.u32(1..40) {
        let _ = writeln!(text, "try {{ {}; }} catch {{}}", verb(rng, cpus));
    }
    // The script has to release held IPIs; everything else is released when it ends.
    text + "limit(60);\nwire.release_all();\n"
}

#[test]
fn whatever_was_held_nothing_is_lost() {
    need_kvm();
    let first = number("MEDDLING_SEED", 1);
    for seed in first..first + number("MEDDLING_SCRIPTS", 8) {
        let rng = &mut Rng::with_seed(seed);
        let cpus = rng.u32(1..6);
        let queue = rng.choice(SOUND_QUEUES).unwrap_or_default();
        let transport = rng.choice(TRANSPORTS).unwrap_or_default();
        let text = script(rng, cpus);
        let run = Vmm::scripted(&text)
            .args(["--vcpus", &cpus.to_string(), "--append"])
            .arg(format!(
                "workload=puppet queue={queue} transport={transport}"
            ))
            .run();
        assert_eq!(run.status(), 0, "MEDDLING_SEED={seed}:\n{text}\n{run:?}");
        // Some scripts make no call at all.
        let good = [
            "each exactly once where it had to",
            "pass: no oracle found anything; no call was made",
        ];
        assert!(good.iter().any(|it| run.stdout.contains(it)), "{run}");
    }
}
