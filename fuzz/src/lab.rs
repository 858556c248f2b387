//! The pages that guest and VMM share, as each of their readers reads them: judge, counters,
//! findings, mailboxes, words. The input is a number of CPUs, and writes of a guest into the pages.

use std::collections::BTreeSet;

use shared::lab::{Layout, Section};
use shared::ledger::CallId;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm::cpus::CpuSet;
use vmm::lab::judgement::Judgement;
use vmm::lab::{Lab, finding, judge};

use crate::guest::MANIFEST;

/// Where the lab lies.
const BASE: u64 = 0x1000;

/// How many CPUs the machines have.
const CPUS: [u32; 4] = [2, 1, 4, 65];

/// A lab into which a guest has written what `data` says: a byte for the number of CPUs, and then
/// for each write the section, the entry, the place in it, the length, and that many bytes.
pub(crate) fn written(data: &[u8]) -> Option<Lab> {
    let (cpus, mut rest) = data.split_first()?;
    let layout = Layout::new(CPUS[usize::from(*cpus) % CPUS.len()]).expect("a machine");
    let size = usize::try_from(layout.size).expect("a small lab");
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(BASE), size)]).expect("memory");
    let lab = Lab::prepare(memory.clone(), BASE, layout).expect("room for it");
    while let Some(([section, entry @ .., length], bytes)) = rest.split_first_chunk::<6>() {
        let [e0, e1, p0, p1] = *entry;
        let (bytes, after) = bytes.split_at(bytes.len().min((*length).into()));
        rest = after;
        let section = section_of(&layout, *section);
        let entry = u64::from(u16::from_le_bytes([e0, e1])) % section.count;
        let place = u64::from(u16::from_le_bytes([p0, p1])) % section.stride;
        let at = section.offset + entry * section.stride + place;
        let room = usize::try_from(section.stride - place).expect("a small section");
        let bytes = &bytes[..bytes.len().min(room)];
        memory.write_slice(bytes, GuestAddress(BASE + at)).expect("within the lab");
    }
    Some(lab.knowing(MANIFEST.clone()))
}

/// The section with this number.
fn section_of(layout: &Layout, number: u8) -> Section {
    let header = Section {
        offset: 0,
        stride: size_of::<shared::lab::Header>() as u64,
        count: 1,
    };
    let all = [
        header,
        layout.tallies,
        layout.ledger,
        layout.findings,
        layout.found,
        layout.counters,
        layout.mailboxes,
        layout.words,
        layout.contexts,
        layout.rings,
        layout.arms,
        layout.programs,
    ];
    all[usize::from(number) % all.len()]
}

/// Has every reader of a lab read one that a guest has written.
pub fn read(data: &[u8]) {
    let Some(lab) = written(data) else { return };
    let manifest = lab.manifest();
    for abandoned in [CpuSet::default(), CpuSet::from_iter([0])] {
        judged(&lab, &Judgement::on_end(&lab, &abandoned));
    }
    judged(&lab, &Judgement::on_the_way(&lab));
    for found in lab.findings() {
        let _ = finding::sentence(&found, manifest);
        let _ = finding::call_name(&found);
        if let Some(call) = finding::call(&found) {
            let _ = lab.record(call);
        }
    }
    for record in lab.records_and_deeds() {
        let id = CallId::from_raw(record.head.id);
        let _ = (lab.record(id), lab.record_named(record.row, id.lane(), id.sequence()));
        let _ = (record.targets.to_string(), record.ran.noun());
    }
    let open = judge::open_calls(&lab);
    assert!(open.total >= open.first.len() as u64);
    let _ = (lab.words(), lab.progress(), lab.totals(), lab.takes_commands());
    for counted in lab.counted() {
        let _ = counted.counts.named(manifest).count();
    }
    for cpu in 0..=lab.cpus() {
        let _ = lab.mailbox(cpu);
    }
}

/// What holds of every judgement.
fn judged(lab: &Lab, judgement: &Judgement) {
    let breaks = judgement.oracles();
    let unique: BTreeSet<_> = breaks.iter().collect();
    assert_eq!(unique.len(), breaks.len(), "an oracle is named once");
    assert!(judgement.judged <= lab.records().count() as u64);
    assert_eq!(judgement.is_believed(), judgement.contradictions.total == 0);
    assert!(judgement.breaches.total >= judgement.breaches.first.len() as u64);
    // What a pass would be built on.
    if judgement.is_believed() && judgement.ended {
        assert_eq!(judgement.found.total(), lab.found().iter().sum::<u64>());
    }
}
