//! Tries every source: runs the canary, and compares what the source counted with what happened.

use std::io;
use std::time::{Duration, Instant};

use super::canary::{Canary, CanaryError, INSTRUCTIONS_OF_MMIO, Step, TIMES, VECTOR};
use super::host::Kvm;
use super::{PERF, STATS, STATS_FD, Shown, Source, Sources, Status, Unavailable};
use crate::stats::binary::{self, StatsError};
use crate::stats::tracepoints::events::{
    self, ACCEPT_IRQ, APIC_IPI, EOI, EXIT, MSR, X2APIC_ICR, exit_filter, msr_filter,
};
use crate::stats::tracepoints::{Counter, Event, GRANT, Isa, Tracefs, Tracepoints};

const KVM_RUN: &str = "returns of KVM_RUN, counted by the VMM";

impl Source {
    fn lacking(name: &str, via: &str, lack: Unavailable) -> Self {
        Self {
            name: name.to_owned(),
            via: via.to_owned(),
            canary: None,
            status: lack.status,
            reason: Some(lack.reason),
            remedy: lack.remedy,
        }
    }

    /// A source that was tried on `step`. It may have counted up to `more` events beside those.
    fn shown(name: &str, via: &str, step: Step, seen: u64, more: u64) -> Self {
        let shown = Shown {
            what: step.describe().to_owned(),
            expected: step.times(),
            seen,
        };
        Self::tried(name, via, shown, more)
    }

    fn tried(name: &str, via: &str, shown: Shown, more: u64) -> Self {
        let Shown {
            what,
            expected,
            seen,
        } = &shown;
        // The end of a step is one more exit.
        let slack = (expected / 100).max(1);
        let is_ok = (expected.saturating_sub(slack)..=expected + slack + more).contains(seen);
        Self {
            name: name.to_owned(),
            via: via.to_owned(),
            status: if is_ok { Status::Ok } else { Status::Blind },
            reason: (!is_ok).then(|| format!("of {expected} {what} it counted {seen}")),
            canary: Some(shown),
            remedy: None,
        }
    }
}

/// KVM's count of the instructions that it has emulated.
const EMULATED: &str = "insn_emulation";
/// KVM's count of exits for interrupts of the host.
const INTERRUPTS: &str = "irq_exits";

/// Statistics that count what a step does, and nothing else.
const STATISTICS: [(&str, Step); 6] = [
    (STATS, Step::Cpuid),
    ("io_exits", Step::Port),
    ("mmio_exits", Step::Mmio),
    ("halt_exits", Step::Halt),
    ("irq_injections", Step::Halt),
    ("pf_taken", Step::Touch),
];

/// How long to wait for an interrupt of the host. One comes with every tick of its timer.
const INTERRUPT: Duration = Duration::from_millis(20);

/// A tracepoint, with those of its events that the canary causes.
struct Probe {
    tracepoint: &'static str,
    step: Step,
    /// Each filter is tried by itself.
    filters: Vec<Option<String>>,
}

fn probes() -> [Probe; 5] {
    let probe = |tracepoint, step, filter: Option<String>| Probe {
        tracepoint,
        step,
        filters: vec![filter],
    };
    [
        Probe {
            filters: Isa::ALL
                .map(|isa| Some(exit_filter(isa, isa.cpuid())))
                .to_vec(),
            ..probe(EXIT, Step::Cpuid, None)
        },
        probe(MSR, Step::Ipi, Some(msr_filter(X2APIC_ICR))),
        probe(APIC_IPI, Step::Ipi, None),
        probe(ACCEPT_IRQ, Step::Ipi, Some(format!("vec == {VECTOR:#x}"))),
        probe(EOI, Step::Eoi, None),
    ]
}

/// A probe that counts.
struct OpenProbe {
    id: u64,
    counters: Vec<Counter>,
}

impl OpenProbe {
    fn new(probe: &Probe, tracefs: &Tracefs) -> Result<Self, Unavailable> {
        let name = probe.tracepoint;
        let format = tracefs.kvm_event(name)?;
        // The fields that the filters use. If one is missing, the kernel would only say that the
        // filter is invalid.
        let needed: &[&str] = match name {
            EXIT => &["isa", "exit_reason"],
            MSR => &["write", "ecx"],
            ACCEPT_IRQ => &["vec"],
            _ => &[],
        };
        if let Some(field) = needed.iter().find(|field| !format.has(field)) {
            return Err(Unavailable {
                status: Status::Absent,
                reason: format!("this kernel's {name} has no field {field}"),
                remedy: None,
            });
        }
        // SAFETY: takes nothing and cannot fail.
        let tid = unsafe { libc::gettid() };
        let open = |filter: &Option<String>| Counter::open(format.id, filter.as_deref(), tid);
        let counters = probe.filters.iter().map(open).collect::<io::Result<_>>();
        Ok(Self {
            id: format.id,
            counters: counters.map_err(|error| refused(&error))?,
        })
    }

    fn sample(&self) -> Vec<u64> {
        let read = |counter: &Counter| counter.read().unwrap_or(0);
        self.counters.iter().map(read).collect()
    }
}

/// Why the kernel refuses to count.
fn refused(error: &io::Error) -> Unavailable {
    let paranoid = std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid");
    let paranoid = paranoid.map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned());
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => Unavailable {
            status: Status::Denied,
            reason: format!(
                "this user may not count what the kernel does (kernel.perf_event_paranoid is \
                 {paranoid}; a container may forbid perf_event_open)"
            ),
            remedy: Some(format!(
                "{GRANT}, or sysctl kernel.perf_event_paranoid=1 and access to tracefs"
            )),
        },
        _ => Unavailable {
            status: Status::Absent,
            reason: format!("perf_event_open: {error}"),
            remedy: None,
        },
    }
}

impl Sources {
    /// Tries every source of this host. Takes some milliseconds, and some tenths of a second where
    /// KVM emulates ring 0.
    pub fn prove() -> Self {
        Self::try_out(&probes())
    }

    /// The same without tracepoints, which need a permission and make every exit slower while they
    /// are counted.
    pub fn prove_statistics() -> Self {
        Self::try_out(&[])
    }

    fn try_out(probes: &[Probe]) -> Self {
        let tracefs = (!probes.is_empty()).then(Tracefs::find);
        let counting: Vec<_> = probes
            .iter()
            .zip(tracefs.iter().cycle())
            .map(|(probe, tracefs)| {
                OpenProbe::new(probe, tracefs.as_ref().map_err(Unavailable::clone)?)
            })
            .collect();
        let mut list = vec![Source {
            name: "user".to_owned(),
            via: KVM_RUN.to_owned(),
            canary: None,
            status: Status::Ok,
            reason: None,
            remedy: None,
        }];
        let mut events = Vec::new();
        let mut kvm = None;
        match run_canary(probes, &counting) {
            Ok(run) => {
                kvm = run.emulates.then_some(Kvm::Emulated);
                list.extend(run.stats);
                for ((probe, counting), seen) in probes.iter().zip(counting).zip(run.seen) {
                    let name = probe.tracepoint;
                    let source = match &counting {
                        Ok(_) => {
                            let most = seen.iter().copied().max().unwrap_or(0);
                            Source::shown(name, PERF, probe.step, most, 0)
                        }
                        Err(lack) => Source::lacking(name, PERF, lack.clone()),
                    };
                    if let (Ok(counting), Status::Ok) = (&counting, source.status) {
                        let own = events::counted(isa(&seen)).into_iter();
                        let own = own.filter(|event| event.tracepoint == name);
                        events.extend(own.map(|event: Event| (counting.id, event)));
                    }
                    list.push(source);
                }
            }
            // No source can be believed then.
            Err(error) => {
                let untried = |name: &str, via: &str| {
                    let lack = Unavailable {
                        status: Status::Blind,
                        reason: format!("it could not be tried: {}", explain(&error)),
                        remedy: None,
                    };
                    Source::lacking(name, via, lack)
                };
                let names = STATISTICS.iter().map(|(name, _)| *name);
                let names = names.chain([INTERRUPTS, EMULATED]);
                list.extend(names.map(|name| untried(name, STATS_FD)));
                let names = probes.iter().map(|probe| probe.tracepoint);
                list.extend(names.map(|name| untried(name, PERF)));
            }
        }
        Self {
            list,
            kvm: kvm.unwrap_or_else(Kvm::by_processor),
            tracepoints: Tracepoints::new(events),
        }
    }
}

/// The extension whose exits were seen, given the counts for each.
fn isa(seen: &[u64]) -> Option<Isa> {
    let mut of = Isa::ALL.into_iter().zip(seen);
    of.find_map(|(isa, seen)| (*seen > 0).then_some(isa))
}

fn explain(error: &CanaryError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// The results of running the canary.
struct CanaryRun {
    /// The sources for KVM's statistics.
    stats: Vec<Source>,
    /// Whether KVM executes the instructions of the guest itself.
    emulates: bool,
    /// By probe and filter, what was counted in the step of the probe.
    seen: Vec<Vec<u64>>,
}

/// KVM's statistics of the canary's vCPU.
struct Statistics(Result<binary::StatsFile, StatsError>);

impl Statistics {
    fn sample(&self) -> Vec<u64> {
        let source = self.0.as_ref().ok();
        let sample = source.and_then(|source| source.sample().ok());
        sample.unwrap_or_default()
    }

    /// By how much the statistic `name` has grown; `None` if there is none.
    fn grown(&self, name: &str, before: &[u64], behind: &[u64]) -> Option<u64> {
        let field = self.0.as_ref().ok()?.schema().field(name)?;
        let of = |sample| field.of(sample).first().copied();
        Some(of(behind)?.wrapping_sub(of(before)?))
    }

    /// The source for a statistic `name` that KVM does not have.
    fn lacking(&self, name: &str) -> Source {
        let reason = match &self.0 {
            Ok(_) => format!("KVM does not count {name}"),
            Err(error) => error.to_string(),
        };
        let lack = Unavailable {
            status: Status::Absent,
            reason,
            remedy: Some("Linux 5.14 and later have it".to_owned()),
        };
        Source::lacking(name, STATS_FD, lack)
    }
}

/// All counters at one moment.
struct Reading {
    stats: Vec<u64>,
    tracepoints: Vec<Vec<u64>>,
}

fn run_canary(
    probes: &[Probe],
    counting: &[Result<OpenProbe, Unavailable>],
) -> Result<CanaryRun, CanaryError> {
    let mut canary = Canary::new()?;
    let statistics = Statistics(binary::StatsFile::open(canary.vcpu(), None));
    let read = || {
        let own = |one: &Result<OpenProbe, Unavailable>| {
            one.as_ref().map_or(Vec::new(), OpenProbe::sample)
        };
        Reading {
            stats: statistics.sample(),
            tracepoints: counting.iter().map(own).collect(),
        }
    };
    let grown = |name: &str, (before, behind): &(Reading, Reading)| {
        statistics.grown(name, &before.stats, &behind.stats)
    };
    let mut readings = Vec::new();
    let mut interrupts = None;
    for step in Step::ALL {
        let before = read();
        canary.step()?;
        let behind = read();
        readings.push((before, behind));
        if step == Step::Cpuid {
            // Where exits are not seen, nothing can be said of interrupts, and none is waited for.
            let seen = grown(STATS, &readings[step as usize]);
            let sees_exits = seen.is_some_and(|seen| seen >= TIMES / 2);
            let limit = if sees_exits {
                INTERRUPT
            } else {
                Duration::ZERO
            };
            interrupts = await_interrupt(&mut canary, &statistics, limit)?;
        }
    }
    let grown = |name: &str, step: Step| grown(name, &readings[step as usize]);
    // Interrupts of the host are exits as well; their number depends on the time.
    let in_between = grown(INTERRUPTS, Step::Cpuid).unwrap_or(0);
    let mut stats: Vec<_> = STATISTICS
        .iter()
        .map(|(name, step)| match grown(name, *step) {
            Some(seen) => {
                let more = if *name == STATS { in_between } else { 0 };
                Source::shown(name, STATS_FD, *step, seen, more)
            }
            None => statistics.lacking(name),
        })
        .collect();
    let sees_exits = stats[0].status == Status::Ok;
    stats.push(match interrupts {
        Some(shown) => by_what_is_left(shown, sees_exits),
        None => statistics.lacking(INTERRUPTS),
    });
    // Each turn of the loop has three instructions. Where KVM does not emulate ring 0 it only sees
    // the first, `cpuid`.
    let emulates = grown(EMULATED, Step::Cpuid).is_some_and(|seen| seen >= 2 * TIMES);
    stats.push(match grown(EMULATED, Step::Mmio) {
        Some(seen) if emulates => {
            let shown = Shown {
                what: "instructions of a loop that writes to no memory".to_owned(),
                expected: INSTRUCTIONS_OF_MMIO,
                seen,
            };
            Source::tried(EMULATED, STATS_FD, shown, 0)
        }
        Some(seen) => Source::shown(EMULATED, STATS_FD, Step::Mmio, seen, 0),
        None => statistics.lacking(EMULATED),
    });
    let seen = probes
        .iter()
        .enumerate()
        .map(|(number, probe)| {
            let (before, behind) = &readings[probe.step as usize];
            let pairs = before.tracepoints[number].iter();
            let pairs = pairs.zip(&behind.tracepoints[number]);
            pairs.map(|(before, behind)| behind - before).collect()
        })
        .collect();
    Ok(CanaryRun {
        stats,
        emulates,
        seen,
    })
}

/// Runs the canary until an interrupt of the host has come, up to `limit`. Returns the exits that the canary did not cause, and how many of these KVM counted as interrupts; `None` if KVM
/// does not count them.
fn await_interrupt(
    canary: &mut Canary,
    statistics: &Statistics,
    limit: Duration,
) -> Result<Option<Shown>, CanaryError> {
    // Beside the events of a round, its two ends are exits.
    const OWN: u64 = TIMES + 2;
    let begun = Instant::now();
    let before = statistics.sample();
    let mut rounds = 0;
    loop {
        canary.again()?;
        rounds += 1;
        let behind = statistics.sample();
        let grown = |name| statistics.grown(name, &before, &behind);
        let (Some(exits), Some(seen)) = (grown(STATS), grown(INTERRUPTS)) else {
            return Ok(None);
        };
        let expected = exits.saturating_sub(rounds * OWN);
        if (expected > 0 && seen > 0) || begun.elapsed() >= limit {
            return Ok(Some(Shown {
                what: "exits that were not the guest's".to_owned(),
                expected,
                seen,
            }));
        }
    }
}

/// Whether interrupts are counted: where every exit is counted, they are those that the canary did
/// not cause.
fn by_what_is_left(shown: Shown, sees_exits: bool) -> Source {
    let cannot = |reason: &str| Unavailable {
        status: Status::Blind,
        reason: reason.to_owned(),
        remedy: None,
    };
    let lacking = |reason: &str| Source::lacking(INTERRUPTS, STATS_FD, cannot(reason));
    match (sees_exits, shown.expected) {
        (false, _) => lacking("where exits are not seen, it cannot be tried"),
        (true, 0) if shown.seen == 0 => lacking("none came while it was tried"),
        (true, _) => Source::tried(INTERRUPTS, STATS_FD, shown, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(seen: u64) -> Source {
        Source::shown(EXIT, PERF, Step::Cpuid, seen, 10)
    }

    #[test]
    fn who_sees_too_little_is_blind() {
        for seen in [0, 95, TIMES - TIMES / 100 - 1, TIMES * 2] {
            let source = shown(seen);
            assert_eq!(source.status, Status::Blind, "{seen}");
            assert!(source.reason.unwrap().contains(&format!("counted {seen}")));
        }
        for seen in [TIMES - 1, TIMES, TIMES + 15] {
            assert_eq!(shown(seen).status, Status::Ok, "{seen}");
            assert_eq!(shown(seen).reason, None);
        }
    }

    #[test]
    fn interrupts_are_believed_if_they_are_what_is_left() {
        let of = |expected, seen, sees_exits| {
            let what = "exits".to_owned();
            let shown = Shown {
                what,
                expected,
                seen,
            };
            by_what_is_left(shown, sees_exits).status
        };
        assert_eq!(of(3, 3, true), Status::Ok);
        assert_eq!(of(9, 3, true), Status::Blind);
        assert_eq!(of(0, 0, true), Status::Blind, "nothing was shown");
        assert_eq!(of(3, 3, false), Status::Blind);
    }

    #[test]
    fn a_missing_permission_has_a_remedy() {
        for errno in [libc::EACCES, libc::EPERM] {
            let lack = refused(&io::Error::from_raw_os_error(errno));
            assert_eq!(lack.status, Status::Denied);
            assert!(lack.reason.contains("perf_event_paranoid"));
            assert!(lack.remedy.unwrap().contains("cap_perfmon"));
        }
        let lack = refused(&io::Error::from_raw_os_error(libc::ENOSYS));
        assert_eq!(lack.status, Status::Absent);
    }

    #[test]
    fn the_processor_is_known_by_its_exits() {
        assert_eq!(isa(&[0, 0]), None);
        assert_eq!(isa(&[TIMES, 0]), Some(Isa::Vmx));
        assert_eq!(isa(&[0, TIMES]), Some(Isa::Svm));
    }

    #[test]
    fn every_source_of_this_host_is_tried_or_says_why_not() {
        if ::tests::open_kvm().is_err() {
            ::tests::skip("the sources of figures: no /dev/kvm");
            return;
        }
        let Sources {
            list, tracepoints, ..
        } = Sources::prove();
        let names: Vec<_> = list.iter().map(|source| source.name.as_str()).collect();
        let statistics = [
            "user",
            STATS,
            "io_exits",
            "mmio_exits",
            "halt_exits",
            "irq_injections",
            "pf_taken",
            INTERRUPTS,
            EMULATED,
        ];
        let tracepoints_too = [EXIT, MSR, APIC_IPI, ACCEPT_IRQ, EOI];
        assert_eq!(names, [&statistics[..], &tracepoints_too].concat());
        let without = Sources::prove_statistics();
        let names: Vec<_> = without.list.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, statistics);
        assert!(without.tracepoints.is_empty());
        for source in &list {
            let is_ok = source.status == Status::Ok;
            assert_eq!(source.reason.is_none(), is_ok, "{source:?}");
            let counts = |event: &Event| event.tracepoint == source.name;
            let is_tracepoint = source.via == PERF;
            assert_eq!(
                tracepoints.events().any(counts),
                is_ok && is_tracepoint,
                "{source:?}"
            );
        }
    }
}
