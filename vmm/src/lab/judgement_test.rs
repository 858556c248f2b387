use super::*;
use crate::lab::capped::CAPACITY;
use crate::lab::counts::tests::{EMPTY, LONGEST, RECEIVED, VISITS, manifest};
use crate::lab::judge::open_calls;
use crate::lab::oracles::Property;
use crate::lab::oracles::tests::{LOST, TORN, WRONG_CPU};
use proptest::prelude::*;
use shared::lab::{Header, Layout, MAX_FINDINGS, SLOTS, Tally};
use shared::ledger::{CallId, Lane, RecordHead};
use std::mem::offset_of;
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use zerocopy::{Immutable, IntoBytes};

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
        let lab = lab.knowing(manifest());
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

    /// Writes a word at offset `at` of the lab, as the guest would.
    fn put<T: IntoBytes + Immutable>(&self, at: u64, value: &T) {
        self.memory
            .write_slice(value.as_bytes(), GuestAddress(BASE + at))
            .unwrap();
    }

    /// Sets a counter of `cpu`.
    fn count(&self, cpu: u64, number: u32, value: u64) {
        let row = self.layout.counters.entry(cpu).unwrap();
        self.put(row + 8 * u64::from(number), &value);
    }

    /// Sets the counts of calls of `cpu`.
    fn tally(&self, cpu: u64, made: u64, expected: u64, executed: u64) {
        let tally = Tally {
            calls_made: made,
            calls_expected: expected,
            calls_executed: executed,
            ..Tally::default()
        };
        self.put(self.layout.tallies.entry(cpu).unwrap(), &tally);
    }

    /// Enters `count` findings of `oracle`, as a guest does.
    fn find(&self, oracle: u32, count: u32) {
        let made_at = offset_of!(Header, findings_made) as u64;
        let made = self.lab.header().findings_made;
        for index in made..(made + count).min(MAX_FINDINGS) {
            let finding = Finding {
                oracle,
                ..Finding::default()
            };
            let at = self.layout.findings.entry(index.into()).unwrap();
            self.put(at, &finding);
        }
        self.put(made_at, &(made + count));
        let at = self.layout.found.entry(oracle.into()).unwrap();
        let before: u64 = self.lab.found()[oracle as usize];
        self.put(at, &(before + u64::from(count)));
    }

    fn judgement(&self) -> Judgement {
        Judgement::on_end(&self.lab, &CpuSet::default())
    }

    fn properties(&self) -> Vec<Property> {
        let judgement = self.judgement();
        let contradictions = &judgement.contradictions.first;
        assert!(contradictions.is_empty(), "{contradictions:?}");
        (judgement.breaches.first.iter())
            .map(|breach| breach.property)
            .collect()
    }

    /// The contradictions, of which `said` must be the first.
    #[track_caller]
    fn is_not_believed(&self, said: &str) {
        let judgement = self.judgement();
        assert!(!judgement.is_believed() && judgement.judged == 0);
        let first = &judgement.contradictions.first[0];
        assert!(first.contains(said), "{first}");
    }
}

fn head(id: CallId, open: u32) -> RecordHead {
    RecordHead {
        id: id.raw(),
        open,
        wait: 1,
        deed: 0,
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
    assert!(fake.properties().is_empty());
}

/// Five calls of CPU 1 to three CPUs each, in order.
fn five_calls() -> Fake {
    let fake = Fake::new(4);
    for sequence in 1..=5 {
        let at = sequence as u32;
        fake.record(1, at, head(call(1, sequence), 0), 0b1101, 0b1101);
    }
    for cpu in 0..4 {
        let (made, expected) = if cpu == 1 { (5, 15) } else { (0, 0) };
        fake.tally(cpu, made, expected, if cpu == 1 { 0 } else { 5 });
    }
    fake
}

#[test]
fn calls_that_ran_everywhere_are_in_order() {
    let fake = five_calls();
    assert!(fake.properties().is_empty());
    assert!(fake.lab.is_used());
    assert_eq!(fake.judgement().judged, 5);
}

/// It is about CPU 2, where nothing runs.
#[test]
fn a_deed_that_is_no_call_is_entered_among_them_and_not_judged() {
    let fake = five_calls();
    let mut deed = head(call(1, 6), 0);
    deed.deed = 9;
    fake.record(1, 6, deed, 0b100, 0);
    fake.is_not_believed("CPU 1 counts 5 calls made, and 6 by its ledger");
    let entered = Tally {
        calls_made: 5,
        calls_expected: 15,
        deeds_entered: 1,
        ..Tally::default()
    };
    fake.put(fake.layout.tallies.entry(1).unwrap(), &entered);
    assert!(fake.properties().is_empty());
    assert_eq!(fake.judgement().judged, 5);
    assert_eq!(fake.lab.records().count(), 5);
    assert_eq!(fake.lab.records_and_deeds().count(), 6);
    assert!(fake.lab.record(call(1, 6)).is_none());
    assert!(fake.lab.record(call(1, 5)).is_some());
}

#[test]
fn of_calls_whose_records_are_used_again_the_last_are_judged() {
    let fake = Fake::new(2);
    let made = u64::from(SLOTS) + 36;
    for sequence in 37..=made {
        let at = (sequence % u64::from(SLOTS)) as u32;
        fake.record(0, at, head(call(0, sequence), 0), 0b10, 0b10);
    }
    fake.tally(0, made, made + 3, 0);
    fake.tally(1, 0, 0, made + 3);
    assert!(fake.properties().is_empty());
    assert_eq!(fake.judgement().judged, u64::from(SLOTS));
    // No call has more targets than there are CPUs.
    fake.tally(0, made, made + 37, 0);
    fake.tally(1, 0, 0, made + 37);
    fake.is_not_believed("CPU 0 counts 137 executions that its calls owe");
    // No sequence number is left out either.
    fake.tally(0, made, made + 3, 0);
    fake.tally(1, 0, 0, made + 3);
    fake.record(0, 40, RecordHead::default(), 0, 0);
    fake.is_not_believed("the ledger holds call 0:0:100 and not call 0:0:40");
}

#[test]
fn counters_that_the_ledger_does_not_bear_out_are_not_believed() {
    let fake = Fake::new(2);
    fake.tally(0, 1_000_000, 1_000_000, 1_000_000);
    fake.is_not_believed("CPU 0 counts 1000000 calls made, and 0 by its ledger");

    let fake = five_calls();
    fake.tally(1, 6, 15, 0);
    fake.is_not_believed("CPU 1 counts 6 calls made, and 5 by its ledger");
    fake.tally(1, 5, 14, 0);
    fake.is_not_believed(
        "CPU 1 counts 14 executions that its calls owe, and by its ledger they owe 15",
    );

    let fake = five_calls();
    fake.tally(2, 0, 0, 4);
    fake.is_not_believed("CPU 2 counts 4 executions, and the ledger holds 5 there");

    let fake = Fake::new(2);
    // This holds whatever it counts.
    fake.count(1, 63, u64::MAX);
    fake.is_not_believed("a counter of CPU 1 stands at 18446744073709551615");
    let fake = Fake::new(2);
    fake.count(1, RECEIVED, 1);
    fake.count(1, EMPTY, 2);
    fake.is_not_believed("CPU 1 counts 2 IPIs that found nothing to do, and 1 IPIs received");
    let fake = Fake::new(2);
    fake.count(0, VISITS, 3);
    fake.count(0, LONGEST, 4);
    fake.is_not_believed("CPU 0 counts 4 as longest_walk, and 3 as visits");
    // The counters of a guest without a manifest have no names.
    let fake = Fake::new(2);
    fake.count(0, LONGEST, 4);
    let fake = Fake {
        lab: fake.lab.knowing(Arc::default()),
        ..fake
    };
    assert!(fake.judgement().is_believed());
}

#[test]
fn a_cpu_that_stands_anywhere_may_be_in_the_middle_of_a_call() {
    let fake = five_calls();
    fake.tally(1, 4, 12, 0);
    assert!(!fake.judgement().is_believed());
    assert!(Judgement::on_end(&fake.lab, &CpuSet::from_iter([1])).is_believed());
    assert!(Judgement::on_the_way(&fake.lab).is_believed());
    fake.tally(1, 1, 3, 0);
    assert!(!Judgement::on_end(&fake.lab, &CpuSet::from_iter([1])).is_believed());
    assert!(!Judgement::on_the_way(&fake.lab).is_believed());
}

#[test]
fn what_comes_after_many_findings_is_counted_all_the_same() {
    let fake = Fake::new(4);
    fake.find(LOST, MAX_FINDINGS);
    fake.find(WRONG_CPU, 1);
    let judgement = fake.judgement();
    assert!(judgement.is_believed(), "{:?}", judgement.contradictions);
    assert_eq!(judgement.findings.len(), MAX_FINDINGS as usize);
    assert_eq!(judgement.oracles(), ["lost", "wrong-cpu"]);
    assert_eq!(judgement.found.to_string(), "64 lost, 1 wrong-cpu");

    // The same with a breach that comes after many others.
    let fake = Fake::new(4);
    for row in 0..2 {
        for sequence in 1..=u64::from(SLOTS) {
            let at = (sequence % u64::from(SLOTS)) as u32;
            let ran = if row == 1 && sequence == 64 {
                0b1100
            } else {
                0
            };
            let id = CallId::new(row, 3, Lane::Task, sequence);
            fake.record(row.into(), at, head(id, 1), 0b0100, ran);
        }
        fake.tally(row.into(), SLOTS.into(), SLOTS.into(), 0);
    }
    fake.tally(2, 0, 0, 1);
    fake.tally(3, 0, 0, 1);
    let judgement = fake.judgement();
    let by_oracle: Vec<_> = judgement.breached.found().collect();
    assert_eq!(
        by_oracle,
        [("lost", 127), ("wrong-cpu", 1), ("accounting", 2)]
    );
    let kept = |property| {
        let mut breaches = judgement.breaches.first.iter();
        breaches.any(|it| it.property == property)
    };
    assert!(kept(Property::WrongCpu) && kept(Property::Accounting));
}

#[test]
fn findings_that_contradict_each_other_are_not_believed() {
    let made_at = offset_of!(Header, findings_made) as u64;
    let fake = Fake::new(4);
    fake.put(made_at, &u32::MAX);
    fake.is_not_believed("a finding is of oracle 0, which there is not");

    let fake = Fake::new(4);
    fake.find(LOST, 3);
    fake.put(made_at, &2_u32);
    fake.is_not_believed("2 findings were made, and by oracle there are 3");

    let fake = Fake::new(4);
    fake.find(LOST, 1);
    let nobody = Finding {
        oracle: LOST,
        cpu: 57,
        ..Finding::default()
    };
    fake.put(fake.layout.findings.offset, &nobody);
    fake.is_not_believed("a finding was made on CPU 57, and the machine has 4 CPUs");
    let other = Finding {
        oracle: TORN,
        ..Finding::default()
    };
    fake.put(fake.layout.findings.offset, &other);
    fake.is_not_believed("1 findings are counted as lost, and 0 of those kept are");

    let fake = Fake::new(4);
    fake.find(31, 1);
    fake.is_not_believed("1 findings are of oracle 31, which there is not");
    // They are reported all the same.
    assert_eq!(fake.judgement().found.to_string(), "1 oracle-31");
}

#[test]
fn findings_of_a_guest_that_names_no_oracle_are_believed_by_their_numbers() {
    let fake = Fake::new(4);
    fake.find(31, 2);
    fake.find(LOST, 1);
    fake.record(3, 1, head(call(3, 1), 1), 0b0111, 0b0011);
    fake.tally(3, 1, 3, 0);
    fake.tally(0, 0, 0, 1);
    fake.tally(1, 0, 0, 1);
    let fake = Fake {
        lab: fake.lab.knowing(Arc::default()),
        ..fake
    };
    let judgement = fake.judgement();
    assert!(judgement.is_believed(), "{:?}", judgement.contradictions);
    assert_eq!(judgement.found.to_string(), "1 oracle-1, 2 oracle-31");
    // What the VMM judges itself has its name all the same.
    assert_eq!(judgement.breached.to_string(), "1 lost, 1 accounting");
    let all = ["lost", "accounting", "oracle-1", "oracle-31"];
    assert_eq!(judgement.oracles(), all);
    // A number beyond the table of findings is no oracle of such a guest either.
    fake.put(fake.layout.findings.offset, &32_u32);
    fake.is_not_believed("a finding is of oracle 32, which there is not");
}

#[test]
fn a_lab_of_another_machine_is_not_believed() {
    let fake = Fake::new(4);
    fake.put(offset_of!(Header, cpus_online) as u64, &u32::MAX);
    fake.is_not_believed("4294967295 CPUs came up, of 4");
    assert_eq!(fake.judgement().cpus_online, None);

    let fake = Fake::new(4);
    fake.put(0, &0_u64);
    fake.is_not_believed("its header was overwritten: the lab starts with 0x0");
    fake.put(0, &Layout::new(5).unwrap().header());
    fake.is_not_believed("its header describes another machine");

    let fake = Fake::new(2);
    fake.record(0, 1, head(call(0, 1), 1), 0x7f << 57, 0);
    fake.is_not_believed("call 0:0:1 was made to CPUs 57-63, and the machine has 2 CPUs");
    assert_eq!(
        open_calls(&fake.lab).total,
        0,
        "nobody's call is on its way"
    );
    fake.record(0, 1, head(call(0, 1), 0), 0b10, 0b110);
    fake.is_not_believed("call 0:0:1 ran on CPU 2, and the machine has 2 CPUs");
    fake.record(0, 1, head(call(1, 1), 0), 0b10, 0b10);
    fake.is_not_believed("record 1 of CPU 0 holds call 1:0:1, whose place is elsewhere");
}

#[test]
fn a_lost_call_is_named_with_its_cpu() {
    let fake = Fake::new(4);
    fake.record(3, 1, head(call(3, 1), 1), 0b0111, 0b0011);
    let judgement = fake.judgement();
    assert_eq!(judgement.breaches.first[0].property, Property::Lost);
    assert_eq!(
        judgement.breaches.first[0].text,
        "call 3:0:1, made to CPUs 0-2, never ran on CPU 2"
    );
    assert_eq!(
        open_calls(&fake.lab).first[0].to_string(),
        "call 3:0:1 from CPU 3, waiting, made to CPUs 0-2, has not run on CPU 2"
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
    fake.tally(0, 1, 1, 0);
    fake.tally(1, 0, 0, 1);
    fake.tally(2, 0, 0, 1);
    assert_eq!(
        fake.properties(),
        [Property::WrongCpu, Property::Accounting]
    );

    let fake = Fake::new(4);
    fake.record(0, 1, head(call(0, 1), 1), 0b0010, 0b0010);
    fake.tally(0, 1, 1, 0);
    fake.tally(1, 0, 0, 1);
    assert_eq!(fake.properties(), [Property::Accounting]);

    // One call ran twice on one CPU, and one never ran on another: the sum is right.
    let fake = five_calls();
    fake.record(1, 5, head(call(1, 5), 0), 0b1101, 0b0101);
    fake.tally(2, 0, 0, 6);
    fake.tally(3, 0, 0, 4);
    assert_eq!(fake.properties(), [Property::Lost, Property::Accounting]);
}

proptest! {
    // Each is a lab full of garbage, megabytes of it.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn garbage_is_judged_and_nothing_worse(cpus in 1_u32..70, seed: u64, density in 1_usize..64) {
        let fake = Fake::new(cpus);
        let mut word = seed | 1;
        for at in (BASE..BASE + fake.layout.size - 8).step_by(8 * density) {
            word = word
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            fake.memory.write_obj(word, GuestAddress(at)).unwrap();
        }
        let judgement = fake.judgement();
        prop_assert!(!judgement.is_believed());
        prop_assert!(judgement.breaches.first.len() <= CAPACITY + Property::ALL.len());
        for breach in &judgement.breaches.first {
            prop_assert!(!breach.text.is_empty());
        }
        let _ = Judgement::on_the_way(&fake.lab);
        for open in &open_calls(&fake.lab).first {
            prop_assert!(!open.to_string().is_empty());
        }
        prop_assert!(fake.lab.findings().len() <= 64);
        let _ = (fake.lab.progress(), fake.lab.is_used());
    }
}
