use super::*;
use proptest::prelude::*;
use shared::lab::{Layout, SLOTS, Tally};
use shared::ledger::{Lane, RecordHead};
use std::mem::offset_of;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use zerocopy::IntoBytes;

const BASE: u64 = 0x4000;

struct Fake {
    lab: Lab,
    memory: GuestMemoryMmap,
    layout: Layout,
}

impl Fake {
    fn new(cpus: u32) -> Self {
        let layout = Layout::new(cpus).unwrap();
        let size = usize::try_from(BASE + layout.size).unwrap();
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), size)]).unwrap();
        let lab = Lab::prepare(memory.clone(), BASE, layout).unwrap();
        Self {
            lab,
            memory,
            layout,
        }
    }

    fn record(&self, row: u32, index: u32, head: RecordHead, targets: u64, ran: u64) {
        let number = u64::from(row * 2 * SLOTS + index);
        let at = BASE + self.layout.ledger.entry(number).unwrap();
        self.memory
            .write_slice(head.as_bytes(), GuestAddress(at))
            .unwrap();
        self.memory
            .write_slice(&targets.to_le_bytes(), GuestAddress(at + 32))
            .unwrap();
        let ran_at = at + 32 + 8 * u64::from(self.layout.mask_words);
        self.memory
            .write_slice(&ran.to_le_bytes(), GuestAddress(ran_at))
            .unwrap();
    }

    fn oracles(&self) -> Vec<Oracle> {
        judge(&self.lab)
            .first
            .iter()
            .map(|breach| breach.oracle)
            .collect()
    }
}

fn head(id: CallId, open: u32) -> RecordHead {
    RecordHead {
        id: id.raw(),
        open,
        wait: 1,
        made_tsc: 1,
        returned_tsc: 2,
    }
}

fn call(source: u16, sequence: u64) -> CallId {
    CallId::new(source, 3, Lane::Task, sequence)
}

#[test]
fn an_untouched_lab_is_in_order() {
    let fake = Fake::new(4);
    assert!(!fake.lab.is_used());
    assert!(fake.oracles().is_empty());
}

#[test]
fn a_call_that_ran_everywhere_is_in_order() {
    let fake = Fake::new(4);
    fake.record(1, 5, head(call(1, u64::from(SLOTS) + 5), 0), 0b1101, 0b1101);
    assert!(fake.oracles().is_empty());
}

#[test]
fn a_lost_call_is_named_with_its_cpu() {
    let fake = Fake::new(4);
    fake.record(3, 17, head(call(3, 17), 1), 0b0111, 0b0011);
    let breaches = judge(&fake.lab);
    assert_eq!(breaches.first[0].oracle, Oracle::Lost);
    assert_eq!(
        breaches.first[0].text,
        "call 3:0:17, made to CPUs 0-2, never ran on CPU 2"
    );
    assert_eq!(
        open_calls(&fake.lab).first[0].to_string(),
        "call 3:0:17 from CPU 3, waiting, made to CPUs 0-2, has not run on CPU 2"
    );
}

#[test]
fn only_calls_on_their_way_are_open() {
    let fake = Fake::new(4);
    fake.record(0, 1, head(call(0, 1), 1), 0b0010, 0b0010);
    assert_eq!(open_calls(&fake.lab).total, 0);
    let entering = RecordHead {
        returned_tsc: 0,
        ..head(call(0, 2), 1)
    };
    fake.record(0, 2, entering, 0b0010, 0b0010);
    let text = open_calls(&fake.lab).first[0].to_string();
    assert!(text.ends_with("made to CPU 1, has run everywhere, and its caller has not noticed"));
}

#[test]
fn every_other_disorder_is_seen() {
    let fake = Fake::new(4);
    fake.record(0, 1, head(call(0, 1), 0), 0b0010, 0b0110);
    assert_eq!(fake.oracles(), [Oracle::WrongCpu]);

    let fake = Fake::new(4);
    fake.record(0, 1, head(call(2, 1), 0), 0b0010, 0b0010);
    assert_eq!(fake.oracles(), [Oracle::Accounting]);

    let fake = Fake::new(4);
    fake.record(0, 1, head(call(0, 1), 1), 0b0010, 0b0010);
    assert_eq!(fake.oracles(), [Oracle::Accounting]);

    let fake = Fake::new(4);
    let tally = BASE + fake.layout.tallies.entry(2).unwrap();
    let expected = tally + offset_of!(Tally, calls_expected) as u64;
    fake.memory
        .write_obj(3_u64, GuestAddress(expected))
        .unwrap();
    assert_eq!(fake.oracles(), [Oracle::Accounting]);
}

proptest! {
    #[test]
    fn garbage_is_judged_and_nothing_worse(cpus in 1_u32..70, seed: u64, density in 1_usize..64) {
        let fake = Fake::new(cpus);
        let mut word = seed | 1;
        for at in (BASE..BASE + fake.layout.size - 8).step_by(8 * density) {
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            fake.memory.write_obj(word, GuestAddress(at)).unwrap();
        }
        let breaches = judge(&fake.lab);
        prop_assert!(breaches.first.len() <= KEPT);
        for breach in &breaches.first {
            prop_assert!(!breach.text.is_empty());
        }
        for open in &open_calls(&fake.lab).first {
            prop_assert!(!open.to_string().is_empty());
        }
        prop_assert!(fake.lab.findings().len() <= 64);
        let _ = (fake.lab.progress(), fake.lab.is_used());
    }
}
