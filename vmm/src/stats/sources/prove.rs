//! Shows every source what it is to count, and looks what it has counted.

use std::io;

use super::canary::{Canary, CanaryError, Step, TIMES, VECTOR};
use super::{Lack, STATS, Shown, Source, Sources, Status};
use crate::stats::binary;
use crate::stats::tracepoints::events::{
    self, ACCEPT_IRQ, APIC_IPI, EOI, EXIT, MSR, X2APIC_ICR, exit_filter, msr_filter,
};
use crate::stats::tracepoints::{Counter, Event, GRANT, Isa, Tracefs, Tracepoints};

const KVM_RUN: &str = "returns of KVM_RUN, counted by the VMM";
const STATS_FD: &str = "KVM_GET_STATS_FD";
const PERF: &str = "perf_event_open, a counter per vCPU thread";

impl Source {
    fn lacking(name: &str, via: &str, lack: Lack) -> Self {
        Self {
            name: name.to_owned(),
            via: via.to_owned(),
            canary: None,
            status: lack.status,
            reason: Some(lack.reason),
            remedy: lack.remedy,
        }
    }

    /// One that was shown something, of which it may have seen `more` as well.
    fn shown(name: &str, via: &str, step: Step, seen: u64, more: u64) -> Self {
        let is_ok = (TIMES - TIMES / 100..=TIMES + TIMES / 100 + more).contains(&seen);
        let what = step.describe();
        Self {
            name: name.to_owned(),
            via: via.to_owned(),
            canary: Some(Shown {
                what: what.to_owned(),
                expected: TIMES,
                seen,
            }),
            status: if is_ok { Status::Ok } else { Status::Blind },
            reason: (!is_ok).then(|| format!("of {TIMES} {what} it counted {seen}")),
            remedy: None,
        }
    }
}

/// A tracepoint, with the events of it that the canary forces.
struct Probe {
    tracepoint: &'static str,
    step: Step,
    /// Each is tried for itself.
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
struct Counting {
    id: u64,
    counters: Vec<Counter>,
}

impl Counting {
    fn new(probe: &Probe, tracefs: &Tracefs) -> Result<Self, Lack> {
        let name = probe.tracepoint;
        let format = tracefs.kvm_event(name)?;
        // What every filter below names; without it, the kernel would only say that it is not valid.
        let needed: &[&str] = match name {
            EXIT => &["isa", "exit_reason"],
            MSR => &["write", "ecx"],
            ACCEPT_IRQ => &["vec"],
            _ => &[],
        };
        if let Some(field) = needed.iter().find(|field| !format.has(field)) {
            return Err(Lack {
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

/// What it means that the kernel does not count for us.
fn refused(error: &io::Error) -> Lack {
    let paranoid = std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid");
    let paranoid = paranoid.map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned());
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => Lack {
            status: Status::Denied,
            reason: format!(
                "this user may not count what the kernel does (kernel.perf_event_paranoid is {paranoid}; a \
                 container may forbid perf_event_open)"
            ),
            remedy: Some(format!(
                "{GRANT}, or sysctl kernel.perf_event_paranoid=1 and access to tracefs"
            )),
        },
        _ => Lack {
            status: Status::Absent,
            reason: format!("perf_event_open: {error}"),
            remedy: None,
        },
    }
}

impl Sources {
    /// Shows every source of this host what it is to count, and keeps those that have seen it. Takes some
    /// milliseconds, on an emulated host some tenths of a second.
    pub fn prove() -> Self {
        let tracefs = Tracefs::find();
        let probes = probes();
        let counting: Vec<_> = probes
            .iter()
            .map(|probe| Counting::new(probe, tracefs.as_ref().map_err(Lack::clone)?))
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
        match sing(&counting) {
            Ok(song) => {
                list.push(song.stats);
                for ((probe, counting), seen) in probes.iter().zip(counting).zip(song.seen) {
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
            // Nobody can be believed then.
            Err(error) => {
                let untried = |name: &str, via: &str| {
                    let lack = Lack {
                        status: Status::Blind,
                        reason: format!("it could not be tried: {}", explain(&error)),
                        remedy: None,
                    };
                    Source::lacking(name, via, lack)
                };
                list.push(untried(STATS, STATS_FD));
                let names = probes.iter().map(|probe| probe.tracepoint);
                list.extend(names.map(|name| untried(name, PERF)));
            }
        }
        Self {
            list,
            tracepoints: Tracepoints::new(events),
        }
    }
}

/// Whose exits were seen, by how many there were of each.
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

/// What was counted while the canary did its steps.
struct Song {
    stats: Source,
    /// By probe and its filters, what was counted in its step.
    seen: Vec<Vec<u64>>,
}

fn sing(counting: &[Result<Counting, Lack>]) -> Result<Song, CanaryError> {
    let mut canary = Canary::new()?;
    let stats = binary::Source::open(canary.vcpu(), None);
    let exits = || -> Option<(u64, u64)> {
        let stats = stats.as_ref().ok()?;
        let sample = stats.sample().ok()?;
        let of = |name| stats.schema().field(name)?.of(&sample).first().copied();
        // Interrupts of the host are exits as well, as many as the time is long.
        Some((of("exits")?, of("irq_exits").unwrap_or(0)))
    };
    let sample = || -> Vec<Vec<u64>> {
        let own = |one: &Result<Counting, Lack>| one.as_ref().map_or(Vec::new(), Counting::sample);
        counting.iter().map(own).collect()
    };
    let mut looks = vec![(exits(), sample())];
    for _ in Step::ALL {
        canary.step()?;
        looks.push((exits(), sample()));
    }
    let during = |step: Step| (&looks[step as usize], &looks[step as usize + 1]);
    let seen = probes()
        .iter()
        .enumerate()
        .map(|(number, probe)| {
            let (before, behind) = during(probe.step);
            let pairs = before.1[number].iter().zip(&behind.1[number]);
            pairs.map(|(before, behind)| behind - before).collect()
        })
        .collect();
    let (before, behind) = during(Step::Cpuid);
    let stats = match (before.0, behind.0) {
        (Some(before), Some(behind)) => {
            let (all, interrupts) = (behind.0 - before.0, behind.1 - before.1);
            Source::shown(STATS, STATS_FD, Step::Cpuid, all, interrupts)
        }
        _ => Source::lacking(
            STATS,
            STATS_FD,
            Lack {
                status: Status::Absent,
                reason: stats.err().map_or_else(
                    || "KVM counts no exits".to_owned(),
                    |error| error.to_string(),
                ),
                remedy: Some("Linux 5.14 and later have them".to_owned()),
            },
        ),
    };
    Ok(Song { stats, seen })
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
        let Sources { list, tracepoints } = Sources::prove();
        let names: Vec<_> = list.iter().map(|source| source.name.as_str()).collect();
        assert_eq!(names, ["user", STATS, EXIT, MSR, APIC_IPI, ACCEPT_IRQ, EOI]);
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
