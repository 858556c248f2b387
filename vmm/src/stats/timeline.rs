//! What happened, as computed from a [`Trace`] alone: stretches of time on each CPU (the guest's
//! lanes, handlers, stalls, exits), instants, and IPIs from the CPU that sent them to the handler
//! that served them. Must cope with any trace: a guest can write anything into one.

use std::collections::HashMap;

use shared::ports::Dispatch;
use shared::trace::Record;

use super::marks::{Actor, Marks};
use super::meaning::{Lane, Meaning};
use super::trace::{CpuTrace, Trace};
use crate::machine::exit_counts::{REASONS, WAITING};
use crate::machine::journal::Entry;
use crate::machine::lifecycle::{Stall, State};
use crate::manifest::{Vector, vectors};

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
    /// Waiting in a loop that leaves the guest again and again, and doing nothing else.
    Waiting,
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
        matches!(self, Self::Paused | Self::Held | Self::Exit | Self::Waiting)
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
    /// How many exits are in it, if the CPU waited in a loop; 0 otherwise.
    pub exits: u64,
}

impl Stretch {
    /// Who ordered it, if it is a stall that `marks` tell of.
    pub fn ordered_by(&self, marks: &Marks) -> Option<Actor> {
        marks.who_stalled(self.cpu, self.kind.stall()?, self.from)
    }
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
    /// The vectors that have a name.
    pub vectors: Vec<Vector>,
    /// Sorted by CPU, and those of the guest by beginning; those of the host behind them.
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
            vectors: trace.meanings.vectors().to_vec(),
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
            StretchKind::Waiting => "waiting",
        }
    }

    /// A short description of a stretch.
    pub fn name(&self, stretch: &Stretch) -> String {
        match stretch.kind {
            StretchKind::Handler => format!("interrupt {}", self.vector(stretch.detail)),
            StretchKind::Exit => {
                let reason = usize::try_from(stretch.detail)
                    .ok()
                    .and_then(|it| REASONS.get(it));
                format!("exit: {}", reason.copied().unwrap_or("?"))
            }
            kind => self.kind(kind).to_owned(),
        }
    }

    /// The name of a vector, which can be anything that a guest has written.
    pub fn vector(&self, number: u64) -> String {
        match u8::try_from(number) {
            Ok(number) => vectors::name(&self.vectors, number),
            Err(_) => format!("{number:#x}"),
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
                Meaning::Run
                | Meaning::Round
                | Meaning::Delivered
                | Meaning::Total
                | Meaning::Instant => {
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
                    exits: 0,
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
        let CpuTrace { records, host, .. } = &trace.cpus[cpu];
        let mut side = HostSide {
            cpu,
            records,
            stretches: &mut self.stretches,
            stalled: None,
            came_out: None,
            waiting: None,
            was_stalled: false,
        };
        for entry in host {
            match *entry {
                Entry::Stay { from, to, reason } => {
                    side.enter(from);
                    side.came_out = Some((to, reason));
                }
                Entry::Unseen { at } => {
                    side.enter(at);
                    side.waiting = None;
                }
                Entry::Became { at, state } => {
                    side.end_stall(at);
                    side.was_stalled = true;
                    side.stalled = match state {
                        State::Stalled(Stall::Paused) => Some((StretchKind::Paused, at)),
                        State::Stalled(Stall::Held) => Some((StretchKind::Held, at)),
                        _ => None,
                    };
                }
            }
        }
        side.end_stall(end);
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

/// The host's side of one CPU, while its entries are gone through.
struct HostSide<'a> {
    cpu: usize,
    records: &'a [Record],
    stretches: &'a mut Vec<Stretch>,
    /// How it is stalled, and since when.
    stalled: Option<(StretchKind, u64)>,
    /// When it came out of the guest, and for which reason.
    came_out: Option<(u64, usize)>,
    /// The place of its last stretch, if it may still be in the same loop.
    waiting: Option<usize>,
    /// Whether it was stalled since it came out.
    was_stalled: bool,
}

impl HostSide<'_> {
    fn add(&mut self, kind: StretchKind, from: u64, to: u64, detail: usize) {
        self.stretches.push(Stretch {
            cpu: self.cpu,
            kind,
            from,
            to: to.max(from),
            call: 0,
            detail: detail as u64,
            exits: u64::from(kind == StretchKind::Waiting),
        });
    }

    fn end_stall(&mut self, at: u64) {
        if let Some((kind, since)) = self.stalled.take() {
            self.add(kind, since, at, 0);
        }
    }

    /// It enters the guest: an exit and a stall are over.
    fn enter(&mut self, at: u64) {
        self.end_stall(at);
        let was_stalled = std::mem::take(&mut self.was_stalled);
        let before = self.waiting.take().filter(|_| !was_stalled);
        let Some((out, reason)) = self.came_out.take() else {
            return;
        };
        if reason != WAITING {
            self.add(StretchKind::Exit, out, at, reason);
            return;
        }
        match before {
            Some(place) if self.is_quiet(self.stretches[place].to, at) => {
                let stretch = &mut self.stretches[place];
                stretch.to = at.max(stretch.to);
                stretch.exits += 1;
                self.waiting = Some(place);
            }
            _ => {
                self.waiting = (!was_stalled).then_some(self.stretches.len());
                self.add(StretchKind::Waiting, out, at, reason);
            }
        }
    }

    /// Whether the guest has recorded nothing between two times.
    fn is_quiet(&self, from: u64, to: u64) -> bool {
        let next = self.records.partition_point(|record| record.tsc < from);
        self.records.get(next).is_none_or(|record| record.tsc >= to)
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
    use shared::manifest::{PointRole, Record as Said, VectorRole};

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
                Said::vector(0xfc, "many", VectorRole::Call, ""),
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
        assert_eq!(
            names,
            ["call", "interrupt 0xfb", "interrupt many", "interrupt many"]
        );
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

    #[test]
    fn a_loop_that_waits_is_one_stretch_until_something_else_happens() {
        let stay = |from, to, reason| Entry::Stay { from, to, reason };
        let became = |at, state| Entry::Became { at, state };
        let host = vec![
            stay(0, 10, WAITING),
            stay(12, 20, WAITING),
            stay(22, 30, WAITING),
            // Something is recorded in this stay.
            stay(32, 40, WAITING),
            // It is paused before it goes back to its loop.
            stay(42, 50, WAITING),
            became(52, State::Stalled(Stall::Paused)),
            became(58, State::Running),
            stay(60, 70, 1),
            stay(72, 80, WAITING),
            stay(82, 90, WAITING),
        ];
        let records = vec![record("in", 35, 0, 0xfb), record("out", 36, 0, 0xfb)];
        let timeline = Timeline::new(&trace(vec![(records, host)]));
        let host = timeline.stretches.iter().filter(|it| it.kind.is_host());
        let told: Vec<_> = host
            .map(|it| (timeline.kind(it.kind), it.from, it.to, it.exits))
            .collect();
        assert_eq!(
            told,
            [
                ("waiting", 10, 32, 3),
                ("waiting", 40, 42, 1),
                ("paused", 52, 58, 0),
                ("waiting", 50, 60, 1),
                ("exit", 70, 72, 0),
                ("waiting", 80, 82, 1),
            ]
        );
    }

    #[test]
    fn while_nothing_is_recorded_there_is_no_exit() {
        let stay = |from, to| Entry::Stay {
            from,
            to,
            reason: 1,
        };
        let unseen = Entry::Unseen { at: 12 };
        let host = vec![stay(0, 10), unseen, stay(500, 510), stay(512, 520)];
        let timeline = Timeline::new(&trace(vec![(vec![], host)]));
        let told = timeline.stretches.iter().map(|it| (it.from, it.to));
        assert_eq!(told.collect::<Vec<_>>(), [(10, 12), (510, 512)]);
    }

    #[test]
    fn a_stall_whose_end_is_missing_is_over_when_the_vcpu_enters() {
        let stay = |from, to| Entry::Stay {
            from,
            to,
            reason: 1,
        };
        let paused = Entry::Became {
            at: 12,
            state: State::Stalled(Stall::Paused),
        };
        let host = vec![stay(0, 10), paused, stay(20, 30), stay(32, 40)];
        let timeline = Timeline::new(&trace(vec![(vec![], host)]));
        let told: Vec<_> = timeline
            .stretches
            .iter()
            .map(|it| (it.kind, it.from, it.to))
            .collect();
        assert_eq!(
            told,
            [
                (StretchKind::Paused, 12, 20),
                (StretchKind::Exit, 10, 20),
                (StretchKind::Exit, 30, 32),
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
