//! That the workloads which need no monitor pass on threads, each with every queue that is sound.

use core::sync::atomic::{AtomicU64, Ordering};
use kit::lab::Lab;
use kit::specimen::Specimen;
use kit::threads::{self, Threads, run_guest as run_on_threads};
use shared::exit::ExitCode;
use std::string::ToString;
use std::sync::Arc;

use crate::Guest;
use crate::counters::CpuCounters;
use crate::ipi::queue::QueueKind;
use crate::options::{Options, Workload};
use crate::rules::{FailRate, HotplugMode, Rules};
use crate::summary::RunSummary;
use crate::workload::amount::{self, Pairs};
use crate::workload::classic::Classic;
use crate::workload::round::{By, Receiver, Round, To};

/// Runs the guest that `options` ask for on `cpus` threads, and judges it.
fn run_guest(cpus: usize, options: &Options) -> RunSummary {
    run_on_threads::<Guest<Arc<Threads>>>(cpus, options).judge()
}

fn selftest(cpus: usize, options: &Options) -> RunSummary {
    run_guest(cpus, options)
}

#[test]
fn selftest_passes_on_threads() {
    for cpus in [1, 2, 3, 5] {
        let verdict = selftest(cpus, &Options::default());
        assert_eq!(verdict.code(), ExitCode::Pass, "{cpus} CPUs: {verdict}");
    }
}

#[test]
fn a_sample_of_a_large_machine_is_counted() {
    let cpus = 80;
    let (machine, lab) = (Threads::new(cpus), Lab::allocate(cpus as u32).unwrap());
    let guest = Arc::new(Guest::new(machine.clone(), &Options::default(), lab));
    threads::run(&machine, &guest);
    let verdict = guest.judge();
    assert_eq!(verdict.code(), ExitCode::Pass, "{verdict}");
    let sum = |count: fn(&CpuCounters) -> &AtomicU64| -> usize {
        let counters = (0..cpus).map(|cpu| count(lab.own_counters(cpu)));
        let counts = counters.map(|it| it.load(Ordering::Relaxed));
        counts.sum::<u64>() as usize
    };
    let share = amount::share(Pairs::Sampled, cpus);
    assert!(share < cpus, "{share}");
    assert_eq!(sum(|it| &it.cpu_pairs), cpus * cpus);
    assert_eq!(sum(|it| &it.cpu_pairs_called), cpus * share);
    assert_eq!(sum(|it| &it.many_callers), share);
}

#[test]
fn every_sound_queue_passes_the_selftest() {
    let sound = QueueKind::ALL.into_iter().filter(|kind| !kind.is_broken());
    for queue in sound {
        let verdict = selftest(
            4,
            &Options {
                queue,
                ..Options::default()
            },
        );
        assert_eq!(
            verdict.code(),
            ExitCode::Pass,
            "{}: {verdict}",
            queue.name()
        );
    }
}

#[test]
fn equal_seeds_make_equal_calls() {
    let run = |seed| {
        selftest(
            3,
            &Options {
                seed,
                ..Options::default()
            },
        )
        .to_string()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn every_round_passes_on_threads() {
    for to in To::ALL {
        for by in By::ALL {
            let options = Options {
                workload: Workload::Bench,
                calls: Some(20),
                round: Round {
                    to,
                    by,
                    receiver: Receiver::Halted,
                },
                ..Options::default()
            };
            let verdict = run_guest(5, &options);
            let what = (to.name(), by.name());
            assert_eq!(verdict.code(), ExitCode::Pass, "{what:?}: {verdict}");
        }
    }
}

#[test]
fn every_row_of_the_classic_bench_passes_on_threads() {
    for row in Classic::ALL {
        let options = Options {
            workload: Workload::Bench,
            calls: Some(20),
            classic: Some(row),
            ..Options::default()
        };
        passes(4, &options);
    }
}

const STRESS: Options = Options {
    workload: Workload::Stress,
    ..Options::DEFAULT
};

#[track_caller]
fn passes(cpus: usize, options: &Options) {
    let verdict = run_guest(cpus, options);
    assert_eq!(verdict.code(), ExitCode::Pass, "{options:?}: {verdict}");
}

#[test]
fn every_sound_queue_passes_stress_with_cpus_leaving_and_coming() {
    for queue in QueueKind::ALL {
        if !queue.is_broken() {
            passes(4, &Options { queue, ..STRESS });
        }
    }
}

#[test]
fn stress_passes_on_machines_of_any_size() {
    for cpus in [1, 2, 3, 5] {
        passes(cpus, &STRESS);
    }
}

#[test]
fn cpus_may_keep_their_memory() {
    let rules = Rules {
        hotplug: HotplugMode::Keep,
        ..Rules::DEFAULT
    };
    passes(4, &Options { rules, ..STRESS });
}

#[test]
fn a_cpu_without_memory_stays_away() {
    for refused in [1, 7] {
        let rules = Rules {
            alloc_fail: Some(FailRate { refused, of: 7 }),
            ..Rules::DEFAULT
        };
        passes(4, &Options { rules, ..STRESS });
    }
}

#[test]
fn stress_can_go_on_for_a_time() {
    let milliseconds = Some(50);
    passes(
        3,
        &Options {
            milliseconds,
            ..STRESS
        },
    );
}
