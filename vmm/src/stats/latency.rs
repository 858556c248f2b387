//! How long IPIs, calls and waits took, from a [`Timeline`]: from just before an IPI is sent to the
//! entry of its handler (after it has saved registers), from the beginning of a call to its last
//! execution, and from the beginning of a wait to its end. In cycles of the guest's TSC.

use std::collections::{BTreeMap, HashMap};

use hdrhistogram::Histogram;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cycles::nanoseconds;
use super::meaning::Meaning;
use super::timeline::{StretchKind, Timeline};
use super::trace::Trace;

/// Significant digits of the histograms.
const DIGITS: u8 = 3;

/// The longest time in cycles; longer ones count as this. A day at 4 GHz.
const LONGEST: u64 = 86_400 * 4_000_000_000;

/// A histogram of times of one kind, in cycles.
#[derive(Debug, Clone)]
pub struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        // A histogram that grows on demand, since there is one per pair of CPUs.
        Self(Histogram::new(DIGITS).expect("a number of digits that it knows"))
    }
}

impl Times {
    /// Adds one.
    pub fn record(&mut self, cycles: u64) {
        // Fails only for values that are too large, and `LONGEST` is not.
        let _ = self.0.record(cycles.min(LONGEST));
    }

    /// Adds those of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("it grows as it must");
    }

    /// The median, in cycles.
    pub fn median(&self) -> u64 {
        self.0.value_at_quantile(0.5)
    }

    /// Quantiles of the times, with a TSC of `tsc_khz`; `None` if there are none.
    pub fn spread(&self, tsc_khz: u32) -> Option<Spread> {
        let at = |quantile| self.0.value_at_quantile(quantile);
        let show = |cycles| Time {
            cycles,
            ns: nanoseconds(cycles, tsc_khz).round() as u64,
        };
        (!self.0.is_empty()).then(|| Spread {
            count: self.0.len(),
            min: show(self.0.min()),
            p50: show(at(0.5)),
            p90: show(at(0.9)),
            p99: show(at(0.99)),
            p99_9: show(at(0.999)),
            max: show(self.0.max()),
        })
    }

    /// The buckets that are not empty: lowest and highest time in cycles, and the number of times.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
        self.0.iter_recorded().map(|it| {
            let value = it.value_iterated_to();
            let low = self.0.lowest_equivalent(value);
            (low, self.0.highest_equivalent(value), it.count_at_value())
        })
    }

    /// How many took `cycles` or less, to the precision of the histogram.
    pub fn at_most(&self, cycles: u64) -> u64 {
        self.0.count_between(0, cycles)
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The sum, in cycles.
    pub fn sum(&self) -> f64 {
        self.0.mean() * self.0.len() as f64
    }
}

/// A time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Time {
    /// In cycles of the guest's TSC.
    pub cycles: u64,
    /// In nanoseconds.
    pub ns: u64,
}

/// How times are spread; three digits are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Spread {
    /// How many there are.
    pub count: u64,
    /// The shortest.
    pub min: Time,
    /// Half took no longer.
    pub p50: Time,
    /// 90 in 100 took no longer.
    pub p90: Time,
    /// 99 in 100.
    pub p99: Time,
    /// 999 in 1,000.
    pub p99_9: Time,
    /// The longest.
    pub max: Time,
}

/// The latencies of a machine.
#[derive(Debug, Clone, Default)]
pub struct Latencies {
    /// From just before an IPI was sent to its handler. If one handler served several IPIs, each
    /// counts.
    pub ipi: Times,
    /// From the beginning of a call to the start of its function on the last of its targets.
    pub call: Times,
    /// From the beginning of a wait to its end, by lane. Every lane in which CPUs wait has an
    /// entry.
    pub waits: BTreeMap<usize, Times>,
    /// All of these from one CPU to another.
    pub pairs: BTreeMap<(usize, usize), PairTimes>,
    /// IPIs without a handler in the trace.
    pub untaken: u64,
    /// IPIs that were served together with another of the same vector.
    pub coalesced: u64,
}

/// The latencies from one CPU to another.
#[derive(Debug, Clone, Default)]
pub struct PairTimes {
    /// From just before an IPI was sent to its handler.
    pub ipi: Times,
    /// From the beginning of a call to the start of its function on the other CPU.
    pub call: Times,
    /// From the beginning of a wait to its end, by lane. Only waits for calls that ran last on the
    /// other CPU.
    pub waits: BTreeMap<usize, Times>,
}

impl Latencies {
    /// Computes the latencies in `timeline`, which was made from `trace`.
    pub fn new(trace: &Trace, timeline: &Timeline) -> Self {
        let waits = trace.meanings.waits();
        let mut latencies = Self {
            waits: waits.map(|(lane, ..)| (lane, Times::default())).collect(),
            ..Self::default()
        };
        let mut served = HashMap::new();
        for ipi in &timeline.ipis {
            let Some(taken) = ipi.taken else {
                latencies.untaken += 1;
                continue;
            };
            let cycles = taken - ipi.sent;
            latencies.ipi.record(cycles);
            let pair = latencies.pairs.entry((ipi.from, ipi.to));
            pair.or_default().ipi.record(cycles);
            *served.entry((ipi.to, ipi.vector, taken)).or_insert(0_u64) += 1;
        }
        latencies.coalesced = served.values().map(|count| count - 1).sum();

        let mut runs: HashMap<u64, Vec<(u64, usize)>> = HashMap::new();
        for instant in &timeline.instants {
            if trace.meanings.of(instant.point) == Some(Meaning::Run) {
                let ran = runs.entry(instant.call).or_default();
                ran.push((instant.at, instant.cpu));
            }
        }
        // When and where a call ran last, up to `until`.
        let last_run = |call, until| {
            let ran: &Vec<(u64, usize)> = runs.get(&call)?;
            ran.iter().filter(|(at, _)| *at <= until).max().copied()
        };
        // One call can be made by means of another with the same number: a call to many CPUs, by
        // one to its only target. The outer one begins first.
        let mut begun: HashMap<u64, (u64, usize)> = HashMap::new();
        for stretch in &timeline.stretches {
            match stretch.kind {
                StretchKind::Lane(lane) if timeline.is_wait(stretch.kind) => {
                    let cycles = stretch.to - stretch.from;
                    latencies.waits.entry(lane).or_default().record(cycles);
                    if let Some((_, cpu)) = last_run(stretch.call, stretch.to) {
                        let pair = latencies.pairs.entry((stretch.cpu, cpu));
                        let waits = &mut pair.or_default().waits;
                        waits.entry(lane).or_default().record(cycles);
                    }
                }
                StretchKind::Lane(_) if stretch.call != 0 => {
                    let start = (stretch.from, stretch.cpu);
                    let first = begun.entry(stretch.call).or_insert(start);
                    *first = (*first).min(start);
                }
                _ => {}
            }
        }
        for (call, (from, caller)) in begun {
            let ran = runs.get(&call).into_iter().flatten();
            let mut last = None;
            for (at, cpu) in ran.filter(|(at, _)| *at >= from) {
                last = last.max(Some(*at));
                let pair = latencies.pairs.entry((caller, *cpu));
                pair.or_default().call.record(at - from);
            }
            if let Some(last) = last {
                latencies.call.record(last - from);
            }
        }
        latencies
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::timeline::tests::{meanings, names};
    use crate::stats::timeline::{InstantEvent, Ipi, Stretch};

    const CALL: StretchKind = StretchKind::Lane(0);
    const INNER: StretchKind = StretchKind::Lane(1);
    const LOCK: StretchKind = StretchKind::Lane(2);

    #[test]
    fn each_kind_of_time_is_taken_from_where_it_begins_to_where_it_ends() {
        let trace = Trace {
            points: names(),
            meanings: meanings(),
            tsc_khz: 2_000_000,
            ..Trace::default()
        };
        let run = trace.points.iter().position(|name| name == "run").unwrap();
        let stretch = |kind, from, to, call| Stretch {
            cpu: 0,
            kind,
            from,
            to,
            call,
            detail: 0,
            exits: 0,
        };
        let ipi = |to, sent, taken| Ipi {
            from: 0,
            sent,
            to,
            taken,
            vector: 0xfc,
        };
        let ran = |cpu, at, call| InstantEvent {
            cpu,
            at,
            call,
            point: run as u32,
        };
        let timeline = Timeline {
            lanes: trace.meanings.lanes().to_vec(),
            vectors: Vec::new(),
            stretches: vec![
                stretch(CALL, 10, 90, 5),
                stretch(LOCK, 20, 50, 4),
                stretch(INNER, 60, 70, 5),
                stretch(INNER, 95, 99, 6),
            ],
            instants: vec![
                ran(1, 80, 5),
                ran(2, 110, 5),
                ran(1, 1, 6),
                ran(1, 10, 4),
                ran(2, 15, 4),
            ],
            ipis: vec![
                ipi(1, 30, Some(100)),
                ipi(1, 40, Some(100)),
                ipi(2, 45, None),
            ],
        };
        let latencies = Latencies::new(&trace, &timeline);
        let spread = latencies.ipi.spread(trace.tsc_khz).unwrap();
        assert_eq!(
            (spread.count, spread.min.cycles, spread.max.cycles),
            (2, 60, 70)
        );
        assert_eq!(spread.max.ns, 35);
        assert_eq!((latencies.untaken, latencies.coalesced), (1, 1));
        let pair = |to| &latencies.pairs[&(0, to)];
        let counts = |to| {
            let waits = pair(to).waits.get(&2).map_or(0, Times::count);
            [pair(to).ipi.count(), pair(to).call.count(), waits]
        };
        assert_eq!(counts(1), [2, 1, 0]);
        assert_eq!(counts(2), [0, 1, 1]);
        assert_eq!(pair(1).call.median(), 70);
        assert_eq!(pair(2).call.median(), 100);
        let call = latencies.call.spread(trace.tsc_khz).unwrap();
        assert_eq!((call.count, call.max.cycles), (1, 100));
        assert_eq!(
            latencies.waits[&2]
                .spread(trace.tsc_khz)
                .unwrap()
                .p50
                .cycles,
            30
        );
        assert_eq!(latencies.ipi.at_most(65), 1);
        assert!(Times::default().spread(trace.tsc_khz).is_none());
    }
}
