//! What a trace says happened: stretches of time on each CPU (calls, waits, handlers, stalls, exits), instants,
//! and IPIs from the CPU that sent them to the one that took them. Computed from a [`Trace`] alone, and for any
//! trace: a guest can write what it likes into one.

use std::collections::HashMap;

use shared::ports::Dispatch;

use super::trace::Trace;
use crate::machine::journal::Entry;
use crate::machine::lifecycle::State;
use crate::machine::tally::REASONS;

/// What a stretch of time was spent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Making a call to many.
    CallMany,
    /// Making a call to one.
    CallSingle,
    /// Waiting for a call descriptor.
    CsdWait,
    /// Handling an interrupt.
    Handler,
    /// Kept out of the guest at once, wherever it was.
    Paused,
    /// Kept out of the guest at a point.
    Held,
    /// Out of the guest, for the VMM to do something.
    Exit,
}

impl Kind {
    /// The name by which reports know it.
    pub fn name(self) -> &'static str {
        match self {
            Self::CallMany => "call many",
            Self::CallSingle => "call single",
            Self::CsdWait => "csd wait",
            Self::Handler => "interrupt",
            Self::Paused => "paused",
            Self::Held => "held",
            Self::Exit => "exit",
        }
    }

    /// Whether it was the host that saw it.
    pub fn is_host(self) -> bool {
        matches!(self, Self::Paused | Self::Held | Self::Exit)
    }
}

/// A stretch of time on one CPU. Those of the guest nest; so do those of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// The CPU.
    pub cpu: usize,
    /// What for.
    pub kind: Kind,
    /// When it began, in cycles of the guest's TSC.
    pub from: u64,
    /// When it ended; the end of the trace if that is not in it.
    pub to: u64,
    /// The call, or 0.
    pub call: u64,
    /// The vector of a handler, the place in [`REASONS`] of an exit.
    pub detail: u64,
}

impl Stretch {
    /// What it was, in a few words.
    pub fn name(&self) -> String {
        match self.kind {
            Kind::Handler => format!("interrupt {:#04x}", self.detail),
            Kind::Exit => {
                let reason = usize::try_from(self.detail)
                    .ok()
                    .and_then(|it| REASONS.get(it));
                format!("exit: {}", reason.copied().unwrap_or("?"))
            }
            kind => kind.name().to_owned(),
        }
    }
}

/// A step on one CPU that took no time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instant {
    /// The CPU.
    pub cpu: usize,
    /// When.
    pub at: u64,
    /// The call, or 0.
    pub call: u64,
    /// Its point, by its place in the section.
    pub point: u32,
}

/// An IPI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ipi {
    /// The CPU that sent it.
    pub from: usize,
    /// When, just before.
    pub sent: u64,
    /// The CPU that it was sent to.
    pub to: usize,
    /// When that one entered the handler that served it, if it did. It may have served several.
    pub taken: Option<u64>,
    /// The vector.
    pub vector: u8,
}

/// What happened in a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timeline {
    /// By CPU, and for each by its beginning.
    pub stretches: Vec<Stretch>,
    /// By CPU and time.
    pub instants: Vec<Instant>,
    /// By sender and time.
    pub ipis: Vec<Ipi>,
}

/// What begins with a point of the first name and ends with one of the second.
const STRETCHES: [(&str, &str, Kind); 4] = [
    ("many.enter", "many.done", Kind::CallMany),
    ("single.enter", "single.done", Kind::CallSingle),
    ("csd.lock.wait", "csd.lock.over", Kind::CsdWait),
    ("irq.enter", "irq.exit", Kind::Handler),
];

/// Where an IPI is sent.
const SEND: &str = "ipi.send";

/// Where the function of a call begins to run.
pub(super) const RUNS: [&str; 2] = ["queue.run", "single.run"];

/// The points that make a timeline.
pub fn points() -> Vec<&'static str> {
    STRETCHES
        .iter()
        .flat_map(|(begin, end, _)| [*begin, *end])
        .chain(RUNS)
        .chain([SEND])
        .collect()
}

impl Timeline {
    /// What `trace` says.
    pub fn new(trace: &Trace) -> Self {
        let mut timeline = Self::default();
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

    fn add_guest(&mut self, trace: &Trace, cpu: usize, end: u64) {
        let first = self.stretches.len();
        // What is open on this CPU, the innermost last, by its place in `stretches`; and how many of each kind. A
        // guest can open what it likes and close what was never open, and is not to be searched for in vain.
        let mut open: Vec<usize> = Vec::new();
        let mut open_of: HashMap<Kind, usize> = HashMap::new();
        for record in &trace.cpus[cpu].records {
            let Some(name) = trace.name(record) else {
                continue;
            };
            let at = record.tsc;
            if let Some((.., kind)) = STRETCHES.iter().find(|(begin, ..)| *begin == name) {
                open.push(self.stretches.len());
                *open_of.entry(*kind).or_default() += 1;
                self.stretches.push(Stretch {
                    cpu,
                    kind: *kind,
                    from: at,
                    to: end,
                    call: record.call,
                    detail: record.detail,
                });
            } else if let Some((.., kind)) = STRETCHES.iter().find(|(_, over, _)| *over == name) {
                // What was opened inside and is still open has lost its end.
                while open_of.get(kind).is_some_and(|count| *count > 0)
                    && let Some(index) = open.pop()
                {
                    let stretch = &mut self.stretches[index];
                    stretch.to = at;
                    open_of.entry(stretch.kind).and_modify(|count| *count -= 1);
                    if stretch.kind == *kind {
                        break;
                    }
                }
            } else if name == SEND {
                let Dispatch { target, vector } = Dispatch::from(record.detail as u32);
                self.ipis.push(Ipi {
                    from: cpu,
                    sent: at,
                    to: target as usize,
                    taken: None,
                    vector,
                });
            } else {
                self.instants.push(Instant {
                    cpu,
                    at,
                    call: record.call,
                    point: record.point,
                });
            }
        }
        self.stretches[first..].sort_by_key(|stretch| stretch.from);
    }

    fn add_host(&mut self, trace: &Trace, cpu: usize, end: u64) {
        let mut stalled: Option<(Kind, u64)> = None;
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
                        add(Kind::Exit, out, from.max(out), why as u64);
                    }
                    came_out = Some((to, reason));
                }
                Entry::Became { at, state } => {
                    if let Some((kind, since)) = stalled.take() {
                        add(kind, since, at.max(since), 0);
                    }
                    stalled = match state {
                        State::Stalled(crate::machine::lifecycle::Stall::Paused) => {
                            Some((Kind::Paused, at))
                        }
                        State::Stalled(crate::machine::lifecycle::Stall::Held) => {
                            Some((Kind::Held, at))
                        }
                        _ => None,
                    };
                }
            }
        }
        if let Some((kind, since)) = stalled {
            add(kind, since, end.max(since), 0);
        }
    }

    /// Finds for each IPI the handler that served it: the first for its vector that its target entered after
    /// it was sent.
    fn find_takers(&mut self, cpus: usize) {
        let mut entered: Vec<Vec<(u8, u64)>> = vec![Vec::new(); cpus];
        for stretch in self.stretches.iter().filter(|it| it.kind == Kind::Handler) {
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
    use crate::machine::journal::Kept;
    use crate::machine::lifecycle::Stall;
    use crate::stats::trace::Brought;
    use proptest::prelude::*;
    use shared::trace::Record;

    fn names() -> Vec<String> {
        points().into_iter().map(str::to_owned).collect()
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
        let brought = cpus.into_iter().map(|(records, entries)| Brought {
            records,
            journal: Kept { entries, lost: 0 },
            ..Brought::default()
        });
        Trace::new(brought.collect(), names(), 1000)
    }

    /// The detail of an IPI that is sent.
    pub(crate) fn sent(target: u32, vector: u8) -> u64 {
        u32::from(Dispatch { target, vector }).into()
    }

    #[test]
    fn handlers_nest_in_calls_and_ipis_find_their_takers() {
        let sender = vec![
            record("many.enter", 10, 7, 0),
            record("ipi.send", 20, 0, sent(1, 0xfc)),
            record("irq.enter", 25, 0, 0xfb),
            record("irq.exit", 28, 0, 0xfb),
            record("ipi.send", 30, 0, sent(1, 0xfc)),
            record("ipi.send", 32, 0, sent(1, 0xfb)),
            record("ipi.send", 33, 0, sent(9, 0xfb)),
            record("many.done", 40, 7, 0),
        ];
        let target = vec![
            record("irq.enter", 15, 0, 0xfc),
            record("irq.exit", 18, 0, 0xfc),
            record("irq.enter", 35, 0, 0xfc),
            record("queue.run", 36, 7, 0),
        ];
        let timeline = Timeline::new(&trace(vec![(sender, vec![]), (target, vec![])]));
        let of = |cpu: usize| {
            let mine = timeline.stretches.iter().filter(move |it| it.cpu == cpu);
            mine.map(|it| (it.kind, it.from, it.to)).collect::<Vec<_>>()
        };
        assert_eq!(of(0), [(Kind::CallMany, 10, 40), (Kind::Handler, 25, 28)]);
        // The last has no end, and ends with the trace.
        assert_eq!(of(1), [(Kind::Handler, 15, 18), (Kind::Handler, 35, 40)]);
        let taken: Vec<_> = timeline.ipis.iter().map(|ipi| ipi.taken).collect();
        assert_eq!(taken, [Some(35), Some(35), None, None]);
        assert_eq!(timeline.instants.len(), 1);
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
        let records = vec![record("irq.enter", 5, 0, 0), record("irq.exit", 50, 0, 0)];
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
                (Kind::Exit, 10, 12),
                (Kind::Paused, 22, 30),
                (Kind::Exit, 20, 31),
                (Kind::Held, 41, 50),
            ]
        );
    }

    proptest! {
        #[test]
        fn any_trace_has_a_timeline(
            raw in proptest::collection::vec((0_u64..100, any::<u64>(), any::<u64>(), 0_u32..20), 0..200),
        ) {
            let records = raw.into_iter().map(|(tsc, call, detail, point)| Record { tsc, call, detail, point, number: 0 });
            let timeline = Timeline::new(&trace(vec![(records.collect(), vec![]), (vec![], vec![])]));
            prop_assert!(timeline.stretches.iter().all(|it| it.from <= it.to));
            prop_assert!(timeline.ipis.iter().all(|it| it.taken.is_none_or(|taken| it.sent <= taken)));
        }
    }
}
