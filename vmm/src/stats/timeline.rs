//! What happened, as computed from a [`Trace`] alone: stretches of time on each CPU (the guest's
//! lanes, handlers, stalls, exits), instants, and IPIs from the CPU that sent them to the handler
//! that served them. Must cope with any trace: a guest can write anything into one.

use std::collections::HashMap;

use shared::ports::Dispatch;

use super::meaning::{Lane, Meaning};
use super::trace::Trace;
use crate::machine::exit_counts::REASONS;
use crate::machine::journal::Entry;
use crate::machine::lifecycle::{Stall, State};

/// What a stretch of time was spent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StretchKind {
    /// A lane of the guest's, as an index of [`Timeline::lanes`].
    Lane(usize),
    /// Handling an interrupt.
    Handler,
    /// Paused, wherever it was.
    Paused,
    /// Held at a point.
    Held,
    /// Out of the guest for an exit.
    Exit,
}

impl StretchKind {
    /// The stall, if it is one.
    pub fn stall(self) -> Option<Stall> {
        match self {
            Self::Paused => Some(Stall::Paused),
            Self::Held => Some(Stall::Held),
            _ => None,
        }
    }

    /// Whether the host recorded it, and not the guest.
    pub fn is_host(self) -> bool {
        matches!(self, Self::Paused | Self::Held | Self::Exit)
    }
}

/// A stretch of time on one CPU. Stretches of the guest nest, and so do those of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// The CPU.
    pub cpu: usize,
    /// What it was spent on.
    pub kind: StretchKind,
    /// When it began, in cycles of the guest's TSC.
    pub from: u64,
    /// When it ended; the end of the trace if its end was not recorded.
    pub to: u64,
    /// The call, or 0.
    pub call: u64,
    /// For a handler its vector, for an exit its index in [`REASONS`].
    pub detail: u64,
}

/// An event on one CPU without a duration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstantEvent {
    /// The CPU.
    pub cpu: usize,
    /// When.
    pub at: u64,
    /// The call, or 0.
    pub call: u64,
    /// Its point, as its place in the image's section.
    pub point: u32,
}

/// An IPI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ipi {
    /// The CPU that sent it.
    pub from: usize,
    /// When it was sent: the time just before.
    pub sent: u64,
    /// The CPU that it was sent to.
    pub to: usize,
    /// When the target entered the handler that served it, if it did. One handler may have served
    /// several IPIs.
    pub taken: Option<u64>,
    /// The vector.
    pub vector: u8,
}

/// What happened in a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timeline {
    /// The lanes of the guest.
    pub lanes: Vec<Lane>,
    /// Sorted by CPU and then by beginning.
    pub stretches: Vec<Stretch>,
    /// Sorted by CPU and time.
    pub instants: Vec<InstantEvent>,
    /// Sorted by sender and time.
    pub ipis: Vec<Ipi>,
}

impl Timeline {
    /// Computes the timeline of `trace`.
    pub fn new(trace: &Trace) -> Self {
        let mut timeline = Self {
            lanes: trace.meanings.lanes().to_vec(),
            ..Self::default()
        };
        let Some((_, end)) = trace.span() else {
            return timeline;
        };
        for cpu in 0..trace.cpus.len() {
            timeline.add_guest(trace, cpu, end);
            timeline.add_host(trace, cpu, end);
        }
        timeline.find_takers(trace.cpus.len());
        timeline
    }

    /// The name of a kind of stretch in reports.
    pub fn kind(&self, kind: StretchKind) -> &str {
        match kind {
            StretchKind::Lane(place) => self.lanes.get(place).map_or("?", |lane| &lane.name),
            StretchKind::Handler => "interrupt",
            StretchKind::Paused => "paused",
            StretchKind::Held => "held",
            StretchKind::Exit => "exit",
        }
    }

    /// A short description of a stretch.
    pub fn name(&self, stretch: &Stretch) -> String {
        match stretch.kind {
            StretchKind::Handler => format!("interrupt {:#04x}", stretch.detail),
            StretchKind::Exit => {
                let reason = usize::try_from(stretch.detail)
                    .ok()
                    .and_then(|it| REASONS.get(it));
                format!("exit: {}", reason.copied().unwrap_or("?"))
            }
            kind => self.kind(kind).to_owned(),
        }
    }

    /// Whether a CPU only waits in stretches of this kind.
    pub fn is_wait(&self, kind: StretchKind) -> bool {
        match kind {
            StretchKind::Lane(place) => self.lanes.get(place).is_some_and(|it| it.wait.is_some()),
            _ => false,
        }
    }

    fn add_guest(&mut self, trace: &Trace, cpu: usize, end: u64) {
        let first = self.stretches.len();
        // The open stretches of this CPU, the innermost last, as indices of `stretches`, and how
        // many of each kind are open. A guest can close a kind that was never opened; the counts
        // spare a search for it.
        let mut open: Vec<usize> = Vec::new();
        let mut open_of: HashMap<StretchKind, usize> = HashMap::new();
        for record in &trace.cpus[cpu].records {
            let Some(meaning) = trace.meaning(record) else {
                continue;
            };
            let at = record.tsc;
            let (begins, over) = match meaning {
                Meaning::Begin(lane) => (Some(StretchKind::Lane(lane)), None),
                Meaning::End(lane) => (None, Some(StretchKind::Lane(lane))),
                Meaning::HandlerBegin => (Some(StretchKind::Handler), None),
                Meaning::HandlerEnd => (None, Some(StretchKind::Handler)),
                Meaning::Send => {
                    let Ok(Dispatch { target, vector, .. }) =
                        Dispatch::try_from(record.detail as u32)
                    else {
                        continue;
                    };
                    self.ipis.push(Ipi {
                        from: cpu,
                        sent: at,
                        to: target as usize,
                        taken: None,
                        vector,
                    });
                    (None, None)
                }
                Meaning::Run | Meaning::Round | Meaning::Instant => {
                    self.instants.push(InstantEvent {
                        cpu,
                        at,
                        call: record.call,
                        point: record.point,
                    });
                    (None, None)
                }
            };
            if let Some(kind) = begins {
                open.push(self.stretches.len());
                *open_of.entry(kind).or_default() += 1;
                self.stretches.push(Stretch {
                    cpu,
                    kind,
                    from: at,
                    to: end,
                    call: record.call,
                    detail: record.detail,
                });
            }
            let Some(kind) = over else { continue };
            // An inner stretch that is still open has lost its end, and ends here.
            while open_of.get(&kind).is_some_and(|count| *count > 0)
                && let Some(index) = open.pop()
            {
                let stretch = &mut self.stretches[index];
                stretch.to = at;
                open_of.entry(stretch.kind).and_modify(|count| *count -= 1);
                if stretch.kind == kind {
                    break;
                }
            }
        }
        self.stretches[first..].sort_by_key(|stretch| stretch.from);
    }

    fn add_host(&mut self, trace: &Trace, cpu: usize, end: u64) {
        let mut stalled: Option<(StretchKind, u64)> = None;
        let mut came_out: Option<(u64, usize)> = None;
        let mut add = |kind, from, to, detail| {
            self.stretches.push(Stretch {
                cpu,
                kind,
                from,
                to,
                call: 0,
                detail,
            });
        };
        for entry in &trace.cpus[cpu].host {
            match *entry {
                Entry::Stay { from, to, reason } => {
                    if let Some((out, why)) = came_out {
                        add(StretchKind::Exit, out, from.max(out), why as u64);
                    }
                    came_out = Some((to, reason));
                }
                Entry::Became { at, state } => {
                    if let Some((kind, since)) = stalled.take() {
                        add(kind, since, at.max(since), 0);
                    }
                    stalled = match state {
                        State::Stalled(Stall::Paused) => Some((StretchKind::Paused, at)),
                        State::Stalled(Stall::Held) => Some((StretchKind::Held, at)),
                        _ => None,
                    };
                }
            }
        }
        if let Some((kind, since)) = stalled {
            add(kind, since, end.max(since), 0);
        }
    }

    /// Finds the handler that served each IPI: the first one for its vector that its target entered
    /// after the IPI was sent.
    fn find_takers(&mut self, cpus: usize) {
        let mut entered: Vec<Vec<(u8, u64)>> = vec![Vec::new(); cpus];
        for stretch in self
            .stretches
            .iter()
            .filter(|it| it.kind == StretchKind::Handler)
        {
            entered[stretch.cpu].push((stretch.detail as u8, stretch.from));
        }
        for handlers in &mut entered {
            handlers.sort_unstable();
        }
        for ipi in &mut self.ipis {
            let Some(handlers) = entered.get(ipi.to) else {
                continue;
            };
            let after = handlers.partition_point(|handler| *handler < (ipi.vector, ipi.sent));
            ipi.taken = handlers
                .get(after)
                .filter(|(vector, _)| *vector == ipi.vector)
                .map(|(_, at)| *at);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::machine::journal::JournalEntries;
    use crate::manifest::Manifest;
    use crate::stats::meaning::Meanings;
    use crate::stats::trace::RawCpuTrace;
    use proptest::prelude::*;
    use shared::manifest::{PointRole, Record as Said};
    use shared::trace::Record;

    /// The names of a guest's points. One of them is not declared in the manifest.
    pub(crate) fn names() -> Vec<String> {
        let manifest = manifest();
        let declared = manifest.points.iter().map(|it| it.name.clone());
        declared.chain(["look".to_owned()]).collect()
    }

    /// The meanings of these points.
    pub(crate) fn meanings() -> Meanings {
        Meanings::new(&names(), &manifest())
    }

    fn manifest() -> Manifest {
        let about = "Waits for a lock.";
        let records = [
            &Said::stretch("call", "called", "call")[..],
            &Said::stretch("inner", "inner.over", "inner call"),
            &Said::wait("lock", "locked", "lock wait", "lock_wait", about),
            &[
                Said::point("in", PointRole::HandlerBegin),
                Said::point("out", PointRole::HandlerEnd),
                Said::point("send", PointRole::Send),
                Said::point("run", PointRole::Run),
                Said::point("round", PointRole::Round),
            ],
        ]
        .concat();
        Manifest::saying(&records)
    }

    pub(crate) fn record(name: &str, tsc: u64, call: u64, detail: u64) -> Record {
        let point = names().iter().position(|it| it == name).unwrap() as u32;
        Record {
            tsc,
            call,
            detail,
            point,
            number: 0,
        }
    }

    pub(crate) fn trace(cpus: Vec<(Vec<Record>, Vec<Entry>)>) -> Trace {
        let raw = cpus.into_iter().map(|(records, entries)| RawCpuTrace {
            records,
            journal: JournalEntries { entries, lost: 0 },
            ..RawCpuTrace::default()
        });
        Trace::new(raw.collect(), names(), meanings(), 1000)
    }

    /// The detail of an IPI that is sent.
    pub(crate) fn sent(target: u32, vector: u8) -> u64 {
        u32::from(Dispatch::fixed(target, vector)).into()
    }

    #[test]
    fn handlers_nest_in_calls_and_ipis_find_their_takers() {
        let sender = vec![
            record("call", 10, 7, 0),
            record("send", 20, 0, sent(1, 0xfc)),
            record("in", 25, 0, 0xfb),
            record("out", 28, 0, 0xfb),
            record("send", 30, 0, sent(1, 0xfc)),
            record("send", 32, 0, sent(1, 0xfb)),
            record("send", 33, 0, sent(9, 0xfb)),
            record("called", 40, 7, 0),
        ];
        let target = vec![
            record("in", 15, 0, 0xfc),
            record("out", 18, 0, 0xfc),
            record("in", 35, 0, 0xfc),
            record("run", 36, 7, 0),
        ];
        let timeline = Timeline::new(&trace(vec![(sender, vec![]), (target, vec![])]));
        let of = |cpu: usize| {
            let mine = timeline.stretches.iter().filter(move |it| it.cpu == cpu);
            mine.map(|it| (it.kind, it.from, it.to)).collect::<Vec<_>>()
        };
        assert_eq!(
            of(0),
            [
                (StretchKind::Lane(0), 10, 40),
                (StretchKind::Handler, 25, 28)
            ]
        );
        // The last stretch has no end of its own, and ends with the trace.
        assert_eq!(
            of(1),
            [
                (StretchKind::Handler, 15, 18),
                (StretchKind::Handler, 35, 40)
            ]
        );
        let taken: Vec<_> = timeline.ipis.iter().map(|ipi| ipi.taken).collect();
        assert_eq!(taken, [Some(35), Some(35), None, None]);
        assert_eq!(timeline.instants.len(), 1);
        let names = timeline.stretches.iter().map(|it| timeline.name(it));
        let names: Vec<_> = names.collect();
        assert_eq!(names[..2], ["call", "interrupt 0xfb"]);
    }

    #[test]
    fn the_host_shows_stalls_and_what_it_did_between_stays() {
        let stay = |from, to| Entry::Stay {
            from,
            to,
            reason: 1,
        };
        let became = |at, state| Entry::Became { at, state };
        let host = vec![
            stay(0, 10),
            stay(12, 20),
            became(22, State::Stalled(Stall::Paused)),
            became(30, State::Running),
            stay(31, 40),
            became(41, State::Stalled(Stall::Held)),
        ];
        let records = vec![record("in", 5, 0, 0), record("out", 50, 0, 0)];
        let timeline = Timeline::new(&trace(vec![(records, host)]));
        let stretches: Vec<_> = timeline
            .stretches
            .iter()
            .filter(|it| it.kind.is_host())
            .map(|it| (it.kind, it.from, it.to))
            .collect();
        assert_eq!(
            stretches,
            [
                (StretchKind::Exit, 10, 12),
                (StretchKind::Paused, 22, 30),
                (StretchKind::Exit, 20, 31),
                (StretchKind::Held, 41, 50),
            ]
        );
    }

    proptest! {
        #[test]
        fn any_trace_has_a_timeline(
            raw in proptest::collection::vec(
                (0_u64..100, any::<u64>(), any::<u64>(), 0_u32..20), 0..200,
            ),
        ) {
            let record = |(tsc, call, detail, point)| {
                Record { tsc, call, detail, point, number: 0 }
            };
            let records = raw.into_iter().map(record).collect();
            let timeline = Timeline::new(&trace(vec![(records, vec![]), (vec![], vec![])]));
            prop_assert!(timeline.stretches.iter().all(|it| it.from <= it.to));
            let in_order = |ipi: &Ipi| ipi.taken.is_none_or(|taken| ipi.sent <= taken);
            prop_assert!(timeline.ipis.iter().all(in_order));
        }
    }
}
