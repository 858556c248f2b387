//! The values of the guest's counters, of one CPU and of all. The guest's manifest says what each
//! counter is and how it is added up; the counters of a guest without a manifest have no names and
//! are left out. Sums wrap, because a broken guest can write anything.

use shared::lab::Counters;
use shared::manifest::{CounterRole, Total};

use crate::manifest::Manifest;

/// The values of the counters of one CPU, or of all CPUs together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CounterValues {
    /// By counter, in the order of the manifest.
    pub values: Vec<u64>,
    /// Operations that sent IPIs.
    pub sent: u64,
    /// Targets of those.
    pub targets: u64,
    /// Handlers entered.
    pub received: u64,
    /// Handlers that found nothing to do.
    pub empty: u64,
    /// Operations that sent IPIs for calls.
    pub sent_for_calls: u64,
    /// CPUs that went offline.
    pub departed: u64,
    /// Pieces of work that the workload will do, if the guest counts them.
    pub planned: u64,
    /// Those that it has done.
    pub done: u64,
}

/// The value of the counter with this number in the row of one CPU; 0 if there is no such counter.
pub(super) fn word(row: &Counters, number: u32) -> u64 {
    row.words.get(number as usize).copied().unwrap_or(0)
}

impl CounterValues {
    /// The values in the row of one CPU.
    pub(super) fn of(row: &Counters, manifest: &Manifest) -> Self {
        let values = manifest.counters.iter().map(|it| word(row, it.number));
        Self::reckoned(values.collect(), manifest)
    }

    /// The values of all CPUs, added up.
    pub(super) fn of_all(rows: impl Iterator<Item = Counters>, manifest: &Manifest) -> Self {
        let mut values = vec![0_u64; manifest.counters.len()];
        for row in rows {
            for (sum, counter) in values.iter_mut().zip(&manifest.counters) {
                let one = word(&row, counter.number);
                *sum = match counter.total {
                    Total::Sum => sum.wrapping_add(one),
                    Total::Max => one.max(*sum),
                };
            }
        }
        Self::reckoned(values, manifest)
    }

    fn reckoned(values: Vec<u64>, manifest: &Manifest) -> Self {
        let mut counts = Self::default();
        for (value, counter) in values.iter().zip(&manifest.counters) {
            let sum = match counter.role {
                CounterRole::Plain => continue,
                CounterRole::Sent => &mut counts.sent,
                CounterRole::Targets => &mut counts.targets,
                CounterRole::Received => &mut counts.received,
                CounterRole::Empty => &mut counts.empty,
                CounterRole::SentForCalls => &mut counts.sent_for_calls,
                CounterRole::Departed => &mut counts.departed,
                CounterRole::Planned => &mut counts.planned,
                CounterRole::Done => &mut counts.done,
            };
            *sum = sum.wrapping_add(*value);
        }
        Self { values, ..counts }
    }

    /// Each counter by its name.
    pub fn named<'a>(&'a self, manifest: &'a Manifest) -> impl Iterator<Item = (&'a str, u64)> {
        let names = manifest.counters.iter().map(|it| &*it.name);
        names.zip(self.values.iter().copied())
    }

    /// Operations that sent IPIs, by transport.
    pub fn by_transport<'a>(
        &'a self,
        manifest: &'a Manifest,
    ) -> impl Iterator<Item = (&'a str, u64)> {
        let transports = manifest.counters.iter().map(|it| it.transport.as_deref());
        let counts = transports.zip(self.values.iter().copied());
        counts.filter_map(|(transport, count)| Some((transport?, count)))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use shared::manifest::{PROGRESS, Record};

    use super::*;
    use crate::lab::oracles::tests::ORACLES;

    pub(crate) const RECEIVED: u32 = 0;
    pub(crate) const EMPTY: u32 = 1;
    pub(crate) const TARGETS: u32 = 2;
    pub(crate) const DEPARTED: u32 = 3;
    pub(crate) const SENT: u32 = 4;
    pub(crate) const SENT_OTHERWISE: u32 = 5;
    pub(crate) const VISITS: u32 = 40;
    pub(crate) const LONGEST: u32 = 41;

    /// The manifest of a guest with a counter of each role, and some oracles.
    pub(crate) fn manifest() -> Arc<Manifest> {
        let counter = |number, name| Record::counter(number, name, "Is counted.");
        let reckoned = |number, name, role| counter(number, name).reckoned(role);
        let records = [
            reckoned(RECEIVED, "received", CounterRole::Received).with(PROGRESS),
            reckoned(EMPTY, "empty", CounterRole::Empty),
            reckoned(TARGETS, "targets", CounterRole::Targets),
            reckoned(DEPARTED, "departed", CounterRole::Departed),
            counter(SENT, "sent_x2apic")
                .sent_by("x2apic")
                .with(PROGRESS),
            counter(SENT_OTHERWISE, "sent_pigeon").sent_by("pigeon"),
            counter(VISITS, "visits").shown("walks", "visits", "stood on {}", "calls_total"),
            counter(LONGEST, "longest_walk")
                .largest()
                .part_of(VISITS)
                .shown("walks", "longest", "the longest {}", "vcpus"),
        ];
        let records = [&records[..], &ORACLES].concat();
        Arc::new(Manifest::saying(&records))
    }

    #[test]
    fn counters_become_one_as_each_says() {
        let manifest = manifest();
        let row = |words: &[(u32, u64)]| {
            let mut row = Counters::default();
            for (number, value) in words {
                row.words[*number as usize] = *value;
            }
            row
        };
        let rows = [
            row(&[(VISITS, 5), (LONGEST, 3), (SENT, 7), (SENT_OTHERWISE, 1)]),
            row(&[(VISITS, 6), (LONGEST, 2), (SENT, u64::MAX), (9, 1)]),
        ];
        let counts = CounterValues::of_all(rows.into_iter(), &manifest);
        let named: Vec<_> = counts.named(&manifest).filter(|(_, it)| *it != 0).collect();
        let expected = [
            ("sent_x2apic", 6),
            ("sent_pigeon", 1),
            ("visits", 11),
            ("longest_walk", 3),
        ];
        assert_eq!(named, expected);
        assert_eq!(counts.sent, 7);
        let by_transport: Vec<_> = counts.by_transport(&manifest).collect();
        assert_eq!(by_transport, [("x2apic", 6), ("pigeon", 1)]);
        assert_eq!(CounterValues::of(&rows[0], &manifest).sent, 8);
        assert_eq!(
            CounterValues::of(&rows[0], &Manifest::default()),
            CounterValues::default()
        );
    }
}
