//! Contradictions in a lab: pages that contradict themselves or the machine, whatever became of the
//! calls. The guest keeps its books apart from the code that it watches. So a lab with a
//! contradiction was overwritten or forged, and nothing in it can be used.

use shared::lab::{Layout, MAX_FINDINGS};
use shared::ledger::{CallId, Lane};

use super::call_name::CallName;
use super::capped::Capped;
use super::counts::word;
use super::{Lab, Record, oracles};
use crate::cpus::CpuSet;

/// More than any counter can reach: one step per nanosecond for three days. Sums of such counts
/// over all CPUs do not wrap.
const MOST_COUNTED: u64 = 1 << 48;

/// By how much a CPU's count of calls and its ledger can differ if the CPU was stopped anywhere: it
/// may be entering a call, and a handler that interrupted it may be entering another.
const BEING_ENTERED: u64 = 2;

/// Which CPUs were quiescent, that is, between two of their deeds, when the lab was read. The
/// others may have left half of what they were writing.
#[derive(Debug, Clone)]
pub(super) enum Quiescent {
    /// All but these: the workload has ended, and did not wait for these.
    AllBut(CpuSet),
    /// None that is known to be.
    None,
}

impl Quiescent {
    fn contains(&self, cpu: u32) -> bool {
        match self {
            Self::AllBut(others) => !others.contains(cpu),
            Self::None => false,
        }
    }

    pub(super) fn is_all(&self) -> bool {
        matches!(self, Self::AllBut(others) if others.is_empty())
    }
}

/// Why `record` cannot be the record of a call, if it cannot. It then says nothing of any call.
pub(super) fn of_record(record: &Record, slots: u32, cpus: u32) -> Option<String> {
    let id = CallId::from_raw(record.head.id);
    let name = CallName(id);
    let (row, index) = (record.row, record.index);
    let is_in_place =
        u32::from(id.source()) == row && id.sequence() != 0 && id.record_index(slots) == index;
    if !is_in_place {
        return Some(format!(
            "record {index} of CPU {row} holds {name}, whose place is elsewhere"
        ));
    }
    for (set, what) in [(&record.targets, "was made to"), (&record.ran, "ran on")] {
        let nobody: CpuSet = set.iter().filter(|cpu| *cpu >= cpus).collect();
        if !nobody.is_empty() {
            let nobody = nobody.noun();
            return Some(format!(
                "{name} {what} {nobody}, and the machine has {cpus} CPUs"
            ));
        }
    }
    None
}

/// What the ledger holds of the calls that one CPU made.
#[derive(Debug, Clone, Default)]
struct CpuLedger {
    /// Sequence numbers, by lane. Deeds that are no calls have some of them.
    sequences: [Vec<u64>; Lane::COUNT],
    /// How many of them are of calls.
    calls: u64,
    /// Executions that all these calls owe: the sum of their targets.
    owed: u64,
    /// Executions on this CPU of the calls of all CPUs.
    ran: u64,
}

/// The sums over the records, to be compared with what the CPUs have counted.
#[derive(Debug)]
pub(super) struct LedgerSums {
    rows: Vec<CpuLedger>,
    slots: u32,
}

impl LedgerSums {
    pub(super) fn new(cpus: u32, slots: u32) -> Self {
        Self {
            rows: vec![CpuLedger::default(); cpus as usize],
            slots,
        }
    }

    /// Adds a record in which [`of_record`] found no contradiction.
    pub(super) fn add(&mut self, record: &Record) {
        let id = CallId::from_raw(record.head.id);
        if let Some(row) = self.rows.get_mut(record.row as usize) {
            row.sequences[id.lane() as usize].push(id.sequence());
            if !record.is_call() {
                return;
            }
            row.calls += 1;
            row.owed += record.targets.iter().count() as u64;
        }
        for cpu in record.ran.iter() {
            if let Some(row) = self.rows.get_mut(cpu as usize) {
                row.ran += 1;
            }
        }
    }

    /// How many calls the ledger holds: the last ones of each CPU and lane.
    pub(super) fn held(&self) -> u64 {
        self.rows.iter().map(|row| row.calls).sum()
    }

    /// Executions of calls on `cpu`.
    pub(super) fn ran(&self, cpu: u32) -> u64 {
        self.rows.get(cpu as usize).map_or(0, |row| row.ran)
    }
}

impl CpuLedger {
    fn held(&self) -> u64 {
        self.sequences.iter().map(|lane| lane.len() as u64).sum()
    }

    /// How many calls and deeds the CPU must have entered, by the sequence numbers in its records.
    fn entered(&self) -> u64 {
        let last = |lane: &Vec<u64>| lane.iter().copied().max().unwrap_or(0);
        self.sequences.iter().map(last).sum()
    }

    /// A call that is missing although later ones are there, and the last call.
    fn missing(&self, cpu: u32, slots: u32) -> Option<(CallId, CallId)> {
        for lane in [Lane::Task, Lane::Handler] {
            let sequences = &self.sequences[lane as usize];
            let Some(last) = sequences.iter().copied().max() else {
                continue;
            };
            // Each slot holds the last call that belongs there.
            let first = last.saturating_sub(u64::from(slots) - 1).max(1);
            let call = |sequence| CallId::new(cpu as u16, 0, lane, sequence);
            if let Some(gap) = (first..=last).find(|sequence| !sequences.contains(sequence)) {
                return Some((call(gap), call(last)));
            }
        }
        None
    }
}

/// Adds every other contradiction in `lab`, given the sums over its records.
pub(super) fn of_lab(
    lab: &Lab,
    sums: &LedgerSums,
    quiescent: &Quiescent,
    found: &mut Capped<String>,
) {
    header(lab, found);
    findings(lab, quiescent, found);
    tallies(lab, sums, quiescent, found);
    counters(lab, found);
}

fn header(lab: &Lab, found: &mut Capped<String>) {
    let header = lab.header();
    match Layout::from_header(&header) {
        Ok(layout) if layout == lab.layout => {}
        Ok(_) => found.push("its header describes another machine".to_owned()),
        Err(error) => found.push(format!("its header was overwritten: {error}")),
    }
    if header.cpus_online > lab.cpus() {
        found.push(format!(
            "{} CPUs came up, of {}",
            header.cpus_online,
            lab.cpus()
        ));
    }
}

fn findings(lab: &Lab, quiescent: &Quiescent, found: &mut Capped<String>) {
    let (manifest, counts) = (lab.manifest(), lab.found());
    let mut sum = 0_u64;
    for (number, count) in (0_u32..).zip(&counts) {
        sum = sum.wrapping_add(*count);
        if *count > 0 && !oracles::can_be(manifest, number) {
            found.push(format!(
                "{count} findings are of oracle {number}, which there is not"
            ));
        }
    }
    let mut kept = vec![0_u64; counts.len()];
    for finding in lab.findings() {
        match finding.oracle {
            // A finding's place is taken before it is written.
            0 if !quiescent.is_all() => continue,
            number if !oracles::can_be(manifest, number) => found.push(format!(
                "a finding is of oracle {number}, which there is not"
            )),
            number => kept[number as usize] += 1,
        }
        if finding.cpu >= lab.cpus() {
            found.push(format!(
                "a finding was made on CPU {}, and the machine has {} CPUs",
                finding.cpu,
                lab.cpus()
            ));
        }
    }
    if !quiescent.is_all() {
        return;
    }
    let made = lab.header().findings_made;
    // The guest counts them in 32 bits.
    if sum as u32 != made {
        found.push(format!(
            "{made} findings were made, and by oracle there are {sum}"
        ));
    }
    let are_all_kept = made <= MAX_FINDINGS;
    for ((number, kept), counted) in (0_u32..).zip(kept).zip(counts) {
        let can_be = oracles::can_be(manifest, number);
        if can_be && (kept > counted || are_all_kept && kept < counted) {
            found.push(format!(
                "{counted} findings are counted as {}, and {kept} of those kept are",
                oracles::name(manifest, number)
            ));
        }
    }
}

/// Compares the counts of calls with the ledger. Sequence numbers run on when records are used
/// again, so the ledger says how many calls each CPU made, although it holds only the last of them.
fn tallies(lab: &Lab, sums: &LedgerSums, quiescent: &Quiescent, found: &mut Capped<String>) {
    for ((cpu, row), counted) in (0_u32..).zip(&sums.rows).zip(lab.counted()) {
        let tally = counted.tally;
        if let Some((gap, last)) = row.missing(cpu, sums.slots) {
            found.push(format!(
                "the ledger holds {} and not {}, which came before it",
                CallName(last),
                CallName(gap)
            ));
        }
        let (entered, held) = (row.entered(), row.held());
        let made = entered.saturating_sub(tally.deeds_entered);
        let slack = if quiescent.contains(cpu) {
            0
        } else {
            BEING_ENTERED
        };
        if tally.calls_made.abs_diff(made) > slack {
            found.push(format!(
                "CPU {cpu} counts {} calls made, and {made} by its ledger",
                tally.calls_made
            ));
        } else if quiescent.contains(cpu) {
            // Of what records that were used again have held it is only known that a call has no
            // more targets than there are CPUs.
            let forgotten = entered
                .saturating_sub(held)
                .saturating_mul(lab.cpus().into());
            let most = row.owed.saturating_add(forgotten);
            if !(row.owed..=most).contains(&tally.calls_expected) {
                let at_least = if forgotten == 0 { "" } else { "at least " };
                found.push(format!(
                    "CPU {cpu} counts {} executions that its calls owe, and by its ledger they \
                     owe {at_least}{}",
                    tally.calls_expected, row.owed
                ));
            }
        }
        // The guest counts an execution before it enters it in the ledger.
        if tally.calls_executed < row.ran || tally.calls_executed > MOST_COUNTED {
            found.push(format!(
                "CPU {cpu} counts {} executions, and the ledger holds {} there",
                tally.calls_executed, row.ran
            ));
        }
    }
}

fn counters(lab: &Lab, found: &mut Capped<String>) {
    let manifest = lab.manifest();
    for ((cpu, row), counted) in (0_u32..).zip(lab.rows()).zip(lab.counted()) {
        // Words that belong to no counter are checked too: nothing else writes there.
        if let Some(most) = row.words.into_iter().find(|word| *word > MOST_COUNTED) {
            found.push(format!(
                "a counter of CPU {cpu} stands at {most}, which nothing can have counted"
            ));
            continue;
        }
        let counts = &counted.counts;
        if counts.empty > counts.received {
            found.push(format!(
                "CPU {cpu} counts {} IPIs that found nothing to do, and {} IPIs received",
                counts.empty, counts.received
            ));
        }
        for part in &manifest.counters {
            let Some(whole) = part.part_of.and_then(|number| manifest.counter(number)) else {
                continue;
            };
            let (counted, all) = (word(&row, part.number), word(&row, whole.number));
            if counted > all {
                found.push(format!(
                    "CPU {cpu} counts {counted} as {}, and {all} as {}, of which that is a part",
                    part.name, whole.name
                ));
            }
        }
    }
}
