//! A time line as the page's scripts get it: columns of numbers, so that a hundred thousand events
//! take a megabyte or two. Each time is the distance from the one before, and strings are indices
//! into one table.

mod driven;

use std::cmp::Reverse;
use std::collections::HashMap;

use serde::Serialize;
use shared::ledger::CallId;

use crate::counted::counted;
use crate::lab::call_name::CallName;
use crate::manifest::vectors;
use crate::report::FoundByGuest;
use crate::stats::meaning::Meaning;
use crate::stats::timeline::{Ipi, Stretch, StretchKind, Timeline};
use crate::stats::trace::Trace;

/// Most events on the page; of more, those that began first are kept.
const MOST: usize = 1_000_000;

/// A time line. Times are cycles of the guest's TSC since its first event.
#[derive(Debug, Serialize)]
pub(super) struct Document {
    tsc_khz: u32,
    /// All strings, the empty one first.
    words: Vec<String>,
    /// The lanes that the guest has, in the order of their colours.
    lanes: Vec<String>,
    /// The names, as `words`, of the steps at which the function of a call begins to run.
    runs: Vec<usize>,
    /// The waits whose times are reported: their names in reports, and those of their lanes.
    waits: Vec<(String, String)>,
    length: u64,
    /// Number of events in the trace that are not here.
    left_out: usize,
    cpus: Vec<Cpu>,
    ipis: Ipis,
    marks: Vec<Mark>,
    /// What was done to the machine, by who did it.
    driven: Vec<driven::Lane>,
}

#[derive(Debug, Default, Serialize)]
struct Cpu {
    /// What the guest spent time on.
    guest: Stretches,
    /// What took no time.
    steps: Steps,
    /// What the host spent the vCPU's time on.
    host: Stretches,
}

/// One entry per stretch, ordered by their beginnings. `kind` has `words`.
#[derive(Debug, Default, Serialize)]
struct Stretches {
    kind: Vec<usize>,
    #[serde(flatten)]
    steps: Steps,
    length: Vec<u64>,
}

/// One entry per step. `name` and `call` have `words`.
#[derive(Debug, Default, Serialize)]
struct Steps {
    name: Vec<usize>,
    call: Vec<usize>,
    from: Vec<u64>,
    #[serde(skip)]
    last: u64,
}

/// One entry per IPI, ordered by when they were sent.
#[derive(Debug, Default, Serialize)]
struct Ipis {
    #[serde(flatten)]
    steps: Steps,
    /// Until its handler; `null` if there is none.
    length: Vec<Option<u64>>,
    source: Vec<usize>,
    target: Vec<usize>,
}

/// A moment at which the guest found something.
#[derive(Debug, Serialize)]
struct Mark {
    at: u64,
    text: String,
}

/// A table of strings, each of which is in it once.
#[derive(Debug)]
struct StringTable {
    list: Vec<String>,
    places: HashMap<String, usize>,
    /// The places of the names of calls, so that not each has to be formatted to find it.
    calls: HashMap<u64, usize>,
}

impl StringTable {
    fn new() -> Self {
        Self {
            list: vec![String::new()],
            places: HashMap::new(),
            calls: HashMap::from([(0, 0)]),
        }
    }

    fn add(&mut self, word: &str) -> usize {
        if let Some(place) = self.places.get(word) {
            return *place;
        }
        let place = self.list.len();
        self.list.push(word.to_owned());
        self.places.insert(word.to_owned(), place);
        place
    }

    fn call(&mut self, raw: u64) -> usize {
        if let Some(place) = self.calls.get(&raw) {
            return *place;
        }
        let place = self.add(&CallName(CallId::from_raw(raw)).to_string());
        self.calls.insert(raw, place);
        place
    }
}

impl Steps {
    fn add(&mut self, name: usize, call: usize, from: u64) {
        self.name.push(name);
        self.call.push(call);
        self.from.push(from - self.last);
        self.last = from;
    }
}

impl Document {
    /// The document of `trace` and its `timeline`, with what the guest found; `None` if nothing was
    /// traced.
    pub fn new(trace: &Trace, timeline: &Timeline, findings: &[FoundByGuest]) -> Option<Self> {
        let (start, end) = trace.span()?;
        let (cut, left_out) = cut(timeline, MOST);
        let mut words = StringTable::new();
        let since = |tsc: u64| tsc.saturating_sub(start);
        let cpus = (0..trace.cpus.len()).map(|cpu| {
            let mut own = Cpu::default();
            for stretch in in_order(timeline, cpu, cut) {
                let side = if stretch.kind.is_host() {
                    &mut own.host
                } else {
                    &mut own.guest
                };
                side.kind.push(words.add(timeline.kind(stretch.kind)));
                let (name, call) = (name(trace, timeline, stretch), words.call(stretch.call));
                side.steps.add(words.add(&name), call, since(stretch.from));
                side.length.push(stretch.to.min(cut) - stretch.from);
            }
            for step in of_cpu(&timeline.instants, cpu, |it| it.cpu) {
                let point = usize::try_from(step.point).ok();
                let name = point.and_then(|it| trace.points.get(it));
                if let Some(name) = name.filter(|_| step.at < cut) {
                    let (name, call) = (words.add(name), words.call(step.call));
                    own.steps.add(name, call, since(step.at));
                }
            }
            own
        });
        let cpus = cpus.collect();

        let mut sent: Vec<_> = timeline.ipis.iter().filter(|ipi| ipi.sent < cut).collect();
        let calls = sending_calls(timeline);
        sent.sort_by_key(|ipi| ipi.sent);
        let mut ipis = Ipis::default();
        for ipi in sent {
            let vector = vectors::name_and_number(&timeline.vectors, ipi.vector);
            let name = words.add(&format!("IPI {vector}"));
            let call = calls.get(&(ipi.from, ipi.sent)).copied().unwrap_or(0);
            ipis.steps.add(name, words.call(call), since(ipi.sent));
            ipis.length.push(ipi.taken.map(|taken| taken - ipi.sent));
            ipis.source.push(ipi.from);
            ipis.target.push(ipi.to);
        }
        let (lanes, points) = (&timeline.lanes, 0..);
        let runs = points.zip(&trace.points);
        let runs = runs.filter(|(point, _)| trace.meanings.of(*point) == Some(Meaning::Run));
        let mut runs: Vec<_> = runs.map(|(_, name)| words.add(name)).collect();
        runs.sort_unstable();
        runs.dedup();
        let waits = trace.meanings.waits();
        let marks = findings
            .iter()
            .filter(|found| (start..=end.min(cut)).contains(&found.tsc))
            .map(|found| Mark {
                at: since(found.tsc),
                text: found.text.clone(),
            });
        Some(Self {
            driven: driven::lanes(trace, start, cut, &mut words),
            tsc_khz: trace.tsc_khz,
            length: since(end.min(cut)),
            left_out,
            cpus,
            ipis,
            marks: marks.collect(),
            lanes: lanes.iter().map(|lane| lane.name.clone()).collect(),
            runs,
            waits: waits
                .map(|(_, lane, wait)| (wait.key.clone(), lane.name.clone()))
                .collect(),
            words: words.list,
        })
    }
}

/// What a stretch is called on the page.
fn name(trace: &Trace, timeline: &Timeline, stretch: &Stretch) -> String {
    let name = timeline.name(stretch);
    match (stretch.kind, stretch.ordered_by(&trace.marks)) {
        (StretchKind::Waiting, _) => format!("{name}, {}", counted(stretch.exits, "exit")),
        (_, Some(who)) => format!("{name} ({who})"),
        (_, None) => name,
    }
}

/// The time before which events are on a page that holds `most`, and how many are not on it.
fn cut(timeline: &Timeline, most: usize) -> (u64, usize) {
    let stretches = timeline.stretches.iter().map(|it| it.from);
    let instants = timeline.instants.iter().map(|it| it.at);
    let ipis = timeline.ipis.iter().map(|it| it.sent);
    let mut begun: Vec<_> = stretches.chain(instants).chain(ipis).collect();
    if begun.len() <= most {
        return (u64::MAX, 0);
    }
    let (before, cut, _) = begun.select_nth_unstable(most);
    let cut = *cut;
    let kept = before.iter().filter(|at| **at < cut).count();
    (cut, begun.len() - kept)
}

/// The part of a list, ordered by CPU, that belongs to `cpu`.
fn of_cpu<T>(list: &[T], cpu: usize, by: impl Fn(&T) -> usize) -> &[T] {
    let from = list.partition_point(|it| by(it) < cpu);
    let to = list.partition_point(|it| by(it) <= cpu);
    &list[from..to]
}

/// The stretches of a CPU that began before `cut`, each in front of those within it.
fn in_order(timeline: &Timeline, cpu: usize, cut: u64) -> Vec<&Stretch> {
    let own = of_cpu(&timeline.stretches, cpu, |it| it.cpu);
    let mut own: Vec<_> = own.iter().filter(|it| it.from < cut).collect();
    own.sort_by_key(|it| (it.from, Reverse(it.to)));
    own
}

/// The call in which each IPI was sent, by sender and time. An IPI that a handler sends belongs to
/// no call that the handler interrupted.
fn sending_calls(timeline: &Timeline) -> HashMap<(usize, u64), u64> {
    let mut calls = HashMap::new();
    let last = timeline.ipis.last().map_or(0, |ipi| ipi.from + 1);
    for cpu in 0..last {
        let own = in_order(timeline, cpu, u64::MAX);
        let is_senders = |it: &&&Stretch| !it.kind.is_host() && !timeline.is_wait(it.kind);
        let mut begin = own.iter().filter(is_senders).peekable();
        let mut open: Vec<&Stretch> = Vec::new();
        for Ipi { sent, .. } in of_cpu(&timeline.ipis, cpu, |it| it.from) {
            while let Some(stretch) = begin.next_if(|it| it.from <= *sent) {
                close(&mut open, |it| it.to <= stretch.from);
                open.push(stretch);
            }
            close(&mut open, |it| it.to < *sent);
            if let Some(within) = open.last() {
                calls.insert((cpu, *sent), within.call);
            }
        }
    }
    calls
}

/// Removes stretches that are over from the end of `open`, where the innermost ones are.
fn close(open: &mut Vec<&Stretch>, is_over: impl Fn(&Stretch) -> bool) {
    while open.pop_if(|it| is_over(it)).is_some() {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::journal::Entry;
    use crate::stats::timeline;
    use crate::stats::timeline::tests::{record, trace};
    use proptest::prelude::*;
    use shared::trace::Record;

    fn sent(tsc: u64, target: u32) -> Record {
        record("send", tsc, 0, timeline::tests::sent(target, 0xfc))
    }

    #[test]
    fn times_count_from_the_one_before_and_strings_stand_once() {
        let call = CallId::from_raw(7);
        let sender = vec![
            record("call", 1000, 7, 0),
            sent(1010, 1),
            record("in", 1020, 0, 0xfb),
            sent(1025, 1),
            record("out", 1030, 0, 0xfb),
            sent(1035, 9),
            record("called", 1050, 7, 0),
        ];
        let target = vec![
            record("in", 1015, 0, 0xfc),
            record("run", 1016, 7, 0),
            record("out", 1018, 0, 0xfc),
        ];
        let stay = |from, to| Entry::Stay {
            from,
            to,
            reason: 0,
        };
        let host = vec![stay(1000, 1018), stay(1040, 1060)];
        let trace = trace(vec![(sender, vec![]), (target, host)]);
        let timeline = Timeline::new(&trace);
        let found = FoundByGuest {
            oracle: String::new(),
            call: None,
            cpu: 0,
            tsc: 1042,
            seen: 0,
            text: "lost".to_owned(),
        };
        let document = Document::new(&trace, &timeline, &[found]).unwrap();
        let word = |place: &usize| document.words[*place].as_str();
        let [first, second] = &document.cpus[..] else {
            panic!("two CPUs");
        };
        assert_eq!(
            first.guest.kind.iter().map(word).collect::<Vec<_>>(),
            ["call", "interrupt"]
        );
        assert_eq!(
            (&first.guest.steps.from[..], &first.guest.length[..]),
            (&[0, 20][..], &[50, 10][..])
        );
        assert_eq!(word(&first.guest.steps.call[0]), CallName(call).to_string());
        assert_eq!(word(&first.guest.steps.name[1]), "interrupt 0xfb");
        assert_eq!(
            second.host.steps.name.iter().map(word).collect::<Vec<_>>(),
            ["exit: pio"]
        );
        assert_eq!(
            (&second.host.steps.from[..], &second.host.length[..]),
            (&[18][..], &[22][..])
        );
        assert_eq!(second.steps.call, first.guest.steps.call[..1]);
        let ipis = &document.ipis;
        assert_eq!(ipis.steps.from, [10, 15, 10]);
        assert_eq!(ipis.length, [Some(5), None, None]);
        assert_eq!(ipis.target, [1, 1, 9]);
        assert_eq!(document.lanes, ["call", "inner call", "lock wait"]);
        assert_eq!(
            document.waits,
            [("lock_wait".to_owned(), "lock wait".to_owned())]
        );
        assert_eq!(document.runs.iter().map(word).collect::<Vec<_>>(), ["run"]);
        assert_eq!(second.steps.name, document.runs);
        // The IPI that the handler sent does not belong to the call.
        let calls = [first.guest.steps.call[0], 0, first.guest.steps.call[0]];
        assert_eq!(ipis.steps.call, calls);
        assert_eq!((document.length, document.left_out), (60, 0));
        assert_eq!(
            (document.marks[0].at, &*document.marks[0].text),
            (42, "lost")
        );
    }

    #[test]
    fn of_too_many_events_the_first_stay() {
        let records = (0..10).map(|round| sent(round / 2, 0)).collect();
        let timeline = Timeline::new(&trace(vec![(records, vec![])]));
        assert_eq!(cut(&timeline, 10), (u64::MAX, 0));
        // Of several events at one time, all are kept or none.
        assert_eq!(cut(&timeline, 5), (2, 6));
        assert_eq!(cut(&timeline, 4), (2, 6));
    }

    #[test]
    fn what_was_not_traced_has_no_time_line() {
        let trace = trace(vec![(vec![], vec![])]);
        assert!(Document::new(&trace, &Timeline::new(&trace), &[]).is_none());
    }

    proptest! {
        #[test]
        fn whatever_a_guest_writes_columns_are_of_one_length(
            raw in proptest::collection::vec(
                (any::<u64>(), any::<u64>(), any::<u64>(), 0_u32..20), 1..100,
            ),
        ) {
            let records = raw.into_iter().map(|(tsc, call, detail, point)| {
                Record { tsc, call, detail, point, number: 0 }
            });
            let trace = trace(vec![(records.collect(), vec![]), (vec![], vec![])]);
            let timeline = Timeline::new(&trace);
            let document = Document::new(&trace, &timeline, &[]).unwrap();
            let Cpu { guest, steps, .. } = &document.cpus[0];
            let columns = [&guest.kind, &guest.steps.name, &guest.steps.call].map(Vec::len);
            for length in columns.into_iter().chain([guest.length.len()]) {
                prop_assert_eq!(length, timeline.stretches.len());
            }
            prop_assert_eq!(steps.name.len(), timeline.instants.len());
            prop_assert_eq!(document.ipis.source.len(), timeline.ipis.len());
            let places = steps.name.iter().chain(&guest.steps.call);
            let mut places = places.chain(&document.ipis.steps.name);
            prop_assert!(places.all(|place| *place < document.words.len()));
        }
    }
}
