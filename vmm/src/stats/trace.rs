//! The trace of a machine: the points that its CPUs came to, as the guest recorded them, and what
//! their threads recorded on the host, both in the time of the guest's TSC. Data only;
//! [`super::timeline`] interprets it.

use shared::trace::Record;

use super::cycles::nanoseconds;
use super::marks::Marks;
use super::meaning::{Meaning, Meanings};
use crate::machine::journal::{Entry, JournalEntries};

/// Share of the records that may lie outside their vCPU's stays in the guest while the clocks of
/// host and guest still count as the same. A record can be stamped in the instruction with which a
/// stay begins.
const STRAY: f64 = 0.001;

/// The trace of one machine.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// The traces of the CPUs, in order.
    pub cpus: Vec<CpuTrace>,
    /// The names of the guest's points, by their place in the section.
    pub points: Vec<String>,
    /// What they mean.
    pub meanings: Meanings,
    /// The frequency of the guest's TSC, in kHz.
    pub tsc_khz: u32,
    /// Why nothing from the host was used, if so.
    pub host_blind: Option<String>,
    /// What was done to the machine, and by whom.
    pub marks: Marks,
}

/// The trace of one CPU. All times are in cycles of the guest's TSC.
#[derive(Debug, Clone, Default)]
pub struct CpuTrace {
    /// The points that it came to, the earliest first.
    pub records: Vec<Record>,
    /// Records for which there was no room, in its ring or in the VMM.
    pub dropped: u64,
    /// What its thread recorded, in the order in which it ended.
    pub host: Vec<Entry>,
    /// Entries for which there was no room.
    pub host_dropped: u64,
}

/// The trace of one CPU as it was collected.
#[derive(Debug)]
pub struct RawCpuTrace {
    /// The points that it came to, in any order.
    pub records: Vec<Record>,
    /// Records for which there was no room.
    pub dropped: u64,
    /// Its journal, in cycles of the host's TSC.
    pub journal: JournalEntries,
    /// What to add to a host time to get the guest's, or why that is not known.
    pub offset: Result<u64, String>,
}

impl Default for RawCpuTrace {
    fn default() -> Self {
        Self {
            records: Vec::new(),
            dropped: 0,
            journal: JournalEntries::default(),
            offset: Ok(0),
        }
    }
}

impl Trace {
    /// Puts everything on one time line. If the clocks do not agree, what the host recorded is left
    /// out, and [`Trace::host_blind`] says why.
    pub fn new(
        raw: Vec<RawCpuTrace>,
        points: Vec<String>,
        meanings: Meanings,
        tsc_khz: u32,
    ) -> Self {
        let mut host_blind = None;
        let mut cpus = Vec::with_capacity(raw.len());
        for (id, mut one) in raw.into_iter().enumerate() {
            // The sort is stable: of records with equal times, the one that was written first stays
            // first.
            one.records.sort_by_key(|record| record.tsc);
            let host = match one.offset {
                Ok(offset) => shifted(one.journal.entries, offset),
                Err(why) => {
                    host_blind.get_or_insert(why);
                    Vec::new()
                }
            };
            if one.journal.lost == 0 && !agree(&one.records, &host) {
                host_blind.get_or_insert_with(|| format!(
                    "the clocks of host and guest do not agree: CPU {id} did things while it was \
                     out of the guest"
                ));
            }
            cpus.push(CpuTrace {
                records: one.records,
                dropped: one.dropped,
                host,
                host_dropped: one.journal.lost,
            });
        }
        if host_blind.is_some() {
            for cpu in &mut cpus {
                cpu.host.clear();
            }
        }
        Self {
            cpus,
            points,
            meanings,
            tsc_khz,
            host_blind,
            marks: Marks::default(),
        }
    }

    /// What the point of `record` means, if there is one.
    pub fn meaning(&self, record: &Record) -> Option<Meaning> {
        self.meanings.of(record.point)
    }

    /// The first and the last time in the trace; `None` if it is empty.
    pub fn span(&self) -> Option<(u64, u64)> {
        let stamps = |cpu: &CpuTrace| {
            let records = cpu.records.first().into_iter().chain(cpu.records.last());
            let mut times: Vec<_> = records.map(|record| record.tsc).collect();
            for entry in cpu.host.first().into_iter().chain(cpu.host.last()) {
                match *entry {
                    Entry::Stay { from, to, .. } => times.extend([from, to]),
                    Entry::Became { at, .. } | Entry::Unseen { at } => times.push(at),
                }
            }
            times
        };
        let done = self.marks.span().into_iter();
        let done = done.flat_map(|(first, last)| [first, last]);
        let times: Vec<_> = self.cpus.iter().flat_map(stamps).chain(done).collect();
        Some((*times.iter().min()?, *times.iter().max()?))
    }

    /// Records and entries for which there was no room.
    pub fn dropped(&self) -> u64 {
        let of = |cpu: &CpuTrace| cpu.dropped.saturating_add(cpu.host_dropped);
        let dropped = self.cpus.iter().map(of);
        dropped.fold(self.marks.dropped, u64::saturating_add)
    }

    /// `cycles` of the guest's TSC in nanoseconds.
    pub fn nanoseconds(&self, cycles: u64) -> f64 {
        nanoseconds(cycles, self.tsc_khz)
    }
}

fn shifted(entries: Vec<Entry>, offset: u64) -> Vec<Entry> {
    let guest = |host: u64| host.wrapping_add(offset);
    let shift = |entry| match entry {
        Entry::Stay { from, to, reason } => Entry::Stay {
            from: guest(from),
            to: guest(to),
            reason,
        },
        Entry::Became { at, state } => Entry::Became {
            at: guest(at),
            state,
        },
        Entry::Unseen { at } => Entry::Unseen { at: guest(at) },
    };
    entries.into_iter().map(shift).collect()
}

/// Whether the records of a CPU lie within its stays in the guest, as far as the stays were
/// recorded.
fn agree(records: &[Record], host: &[Entry]) -> bool {
    let stays: Vec<_> = host
        .iter()
        .filter_map(|entry| match *entry {
            Entry::Stay { from, to, .. } => Some((from, to)),
            Entry::Became { .. } | Entry::Unseen { .. } => None,
        })
        .collect();
    let (Some((first, _)), Some((_, last))) = (stays.first(), stays.last()) else {
        return true;
    };
    let in_time = records
        .iter()
        .filter(|it| (*first..=*last).contains(&it.tsc));
    let (mut inside, mut all) = (0_u32, 0_u32);
    for record in in_time {
        let stay = stays.partition_point(|(_, to)| *to < record.tsc);
        all += 1;
        inside += u32::from(stays.get(stay).is_some_and(|(from, _)| *from <= record.tsc));
    }
    // If the clocks differ by more than the length of the trace, the two have no time in common.
    let any = all > 0 || records.is_empty();
    any && f64::from(all - inside) <= STRAY * f64::from(all) + 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(tsc: u64) -> Record {
        Record {
            tsc,
            ..Record::default()
        }
    }

    fn stay(from: u64, to: u64) -> Entry {
        Entry::Stay {
            from,
            to,
            reason: 0,
        }
    }

    fn raw(times: &[u64], offset: u64) -> RawCpuTrace {
        RawCpuTrace {
            records: times.iter().copied().map(record).collect(),
            journal: JournalEntries {
                entries: vec![stay(100, 200), stay(300, 400), stay(500, 600)],
                lost: 0,
            },
            offset: Ok(offset),
            ..RawCpuTrace::default()
        }
    }

    #[test]
    fn host_and_guest_are_put_on_one_line() {
        let trace = Trace::new(
            vec![raw(&[1150, 1110, 1310, 1555], 1000)],
            vec![],
            Meanings::default(),
            1,
        );
        assert_eq!(trace.host_blind, None);
        assert_eq!(trace.cpus[0].host[1], stay(1300, 1400));
        assert_eq!(trace.cpus[0].records[0].tsc, 1110);
        assert_eq!(trace.span(), Some((1100, 1600)));
    }

    #[test]
    fn clocks_that_do_not_agree_are_found_out() {
        for (times, offset) in [
            (&[1150, 1210, 1250, 1450, 1470][..], 1000),
            (&[50_000, 50_010, 50_100][..], 0),
        ] {
            let cpus = vec![raw(times, offset)];
            let trace = Trace::new(cpus, vec![], Meanings::default(), 1);
            assert!(trace.host_blind.is_some(), "{times:?}");
            assert!(trace.cpus[0].host.is_empty());
            assert_eq!(trace.cpus[0].records.len(), times.len());
        }
    }

    #[test]
    fn an_empty_trace_has_no_span() {
        let cpus = vec![RawCpuTrace::default()];
        let trace = Trace::new(cpus, vec![], Meanings::default(), 0);
        assert_eq!(trace.span(), None);
    }
}
