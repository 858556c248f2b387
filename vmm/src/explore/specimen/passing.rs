//! What CPUs pass over without an exit ([`shared::passing`]): fills the tables in the guest's memory
//! with the accesses at which a search has found that there is no choice, and tells what a CPU has
//! passed over. Decides nothing, and knows no specimen: [`super::passed_over`] says when an access
//! comes into a table.

use std::collections::HashMap;

use object::{Object, ObjectSection};
use shared::passing::{EVERY, Head, NUMBER_SHIFT, NUMBERS, SECTION, SIZE, Way, key, number, slot};
use shared::stop::Kind;

use super::stopped::{Stop, Stopped};
use crate::explore::sharing::CpuContext;
use crate::machine::ram::Ram;
use crate::page_size::PAGE_SIZE;

/// Accesses that a CPU may pass over from one entry to the next. It is far below
/// [`MOST_STOPS`](super::MOST_STOPS), so that a CPU that passes over for ever exits soon enough for
/// a signal or a time limit to be heeded.
pub(super) const MOST: u32 = 1_000;

/// Who makes accesses, and with which locks held.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Situation {
    pub(super) context: CpuContext,
    /// The addresses of the locks, ascending.
    pub(super) locks: Vec<u64>,
}

impl Situation {
    pub(super) fn new(context: CpuContext, mut locks: Vec<u64>) -> Self {
        locks.sort_unstable();
        Self { context, locks }
    }
}

/// What CPUs pass over without an exit.
#[derive(Debug)]
pub(super) struct Passing {
    /// Whether they may pass over anything at all.
    is_wanted: bool,
    /// Whether they do so in the present step. A schedule that is followed stops everywhere.
    pub(super) is_allowed: bool,
    /// Where the section is in guest memory, if the image has one.
    pub(super) section: Option<u64>,
    /// The round of the search from which the tables are ([`Sharing::round`]).
    pub(super) round: Option<u64>,
    /// The situations that have a number, from 1 on. Number 0 stands for none.
    situations: Vec<Situation>,
    numbers: HashMap<Situation, u64>,
    /// The section, as it is in guest memory, but for its head.
    words: Box<[u64]>,
    /// The offsets of the words that are not zero.
    used: Vec<usize>,
}

/// How a CPU was let go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allowance {
    /// The number of its situation; 0 if it stops everywhere.
    pub(super) number: u64,
    /// How many accesses it may pass over.
    pub(super) left: u32,
    /// How many it has passed over.
    pub(super) passed: u32,
    /// Whether a handler runs in that situation.
    pub(super) in_handler: bool,
    /// Whether it rings before its next access. Another context may have gone on since the situation
    /// was told.
    pub(super) rings: bool,
}

impl Allowance {
    /// Whether the situation can be one of a handler, or of a task.
    pub(super) fn is_of(&self, handler: bool) -> bool {
        self.rings || self.in_handler == handler
    }
}

impl Passing {
    /// What CPUs that run `image` pass over: nothing yet. Nothing ever, if not `is_wanted`, or if the
    /// image has no section for it that this VMM knows.
    pub(super) fn of(image: &[u8], is_wanted: bool) -> Self {
        let file = object::File::parse(image).ok();
        let section = file.as_ref().and_then(|file| file.section_by_name(SECTION));
        let known = section
            .filter(|it| it.size() == SIZE as u64 && it.address().is_multiple_of(PAGE_SIZE as u64));
        Self {
            is_wanted,
            is_allowed: false,
            section: known.map(|section| section.address()),
            round: None,
            situations: Vec::new(),
            numbers: HashMap::new(),
            words: vec![0; SIZE / 8].into(),
            used: Vec::new(),
        }
    }

    /// Whether page `number` is one of the section's.
    pub(super) fn is_on_page(&self, number: usize) -> bool {
        let at = (number * PAGE_SIZE) as u64;
        self.section
            .is_some_and(|start| at.checked_sub(start).is_some_and(|at| at < SIZE as u64))
    }

    /// The address of the first word of the section that the guest has written although it must
    /// not.
    pub(super) fn first_overwritten(&self, ram: &Ram) -> Option<u64> {
        let start = self.section?;
        let words = self.words.iter().enumerate().skip(size_of::<Head>() / 8);
        let mut words = words.map(|(at, word)| (start.wrapping_add(8 * at as u64), *word));
        words
            .find(|(at, word)| ram.word(*at) != Some(*word))
            .map(|(at, _)| at)
    }

    /// The number of `situation`, if there is one for it.
    pub(super) fn number(&mut self, situation: Situation) -> Option<u64> {
        if let Some(number) = self.numbers.get(&situation) {
            return Some(*number);
        }
        let number = self.situations.len() as u64 + 1;
        (number < NUMBERS).then(|| {
            self.situations.push(situation.clone());
            self.numbers.insert(situation, number);
            number
        })
    }

    /// The situation with this number.
    pub(super) fn situation(&self, number: u64) -> Option<&Situation> {
        let at = usize::try_from(number.checked_sub(1)?).ok()?;
        self.situations.get(at)
    }

    /// Empties the tables if they are not of this `round`.
    pub(super) fn begin(&mut self, round: u64, ram: &mut Ram) {
        self.is_allowed = self.is_wanted && self.section.is_some();
        if self.is_allowed && self.round.replace(round) != Some(round) {
            for offset in std::mem::take(&mut self.used) {
                self.put(offset, 0, ram);
            }
        }
    }

    fn put(&mut self, offset: usize, word: u64, ram: &mut Ram) {
        if let Some(start) = self.section {
            self.words[offset / 8] = word;
            ram.set_word(start.wrapping_add(offset as u64), word);
        }
    }

    /// What has become of `before`, by the first two words of the section. `None` if a CPU that
    /// was told `before` cannot have left these.
    pub(super) fn used(&self, before: &Allowance, situation: u64, left: u64) -> Option<Allowance> {
        // Negative where the CPU has exited because it was zero.
        let left = (left as u32).cast_signed().max(0).cast_unsigned();
        let passed = before.left.checked_sub(left)?;
        let number = number(situation);
        let was = self.situation(before.number)?;
        let is = self.situation(number)?;
        (is.context == was.context).then_some(Allowance {
            number,
            left,
            passed: before.passed + passed,
            in_handler: before.in_handler,
            rings: situation & EVERY != 0,
        })
    }

    /// From now on lets CPUs pass over the access before which CPU `cpu` has stopped, in the
    /// situation in which it is.
    pub(super) fn add(&mut self, cpu: usize, stopped: &Stopped, ram: &mut Ram) {
        let Stop::Access(kind, address) = stopped.at else {
            return;
        };
        if !self.is_allowed || stopped.depth.is_in_loop() || address >> NUMBER_SHIFT != 0 {
            return;
        }
        let way = match kind {
            // The CPU rings there in any case.
            Kind::Store if stopped.holds(address) && stopped.irqs_on() => return,
            Kind::Store if stopped.holds(address) => Way::Release,
            kind => match Way::of(kind, stopped.bytes) {
                Some(way) => way,
                None => return,
            },
        };
        let context = stopped.cpu_context(cpu);
        let locks = stopped.locks[stopped.context()].clone();
        let now = self.number(Situation::new(context, locks));
        let next = self.number(Situation::new(context, stopped.locks_after()));
        if let (Some(now), Some(next)) = (now, next) {
            let in_guest = |number| shared::passing::situation(number, context.in_handler);
            let key = key(address, in_guest(now));
            let place = 8 * slot(key);
            let mut words = vec![(way.keys() + place, key)];
            words.extend(way.nexts().map(|nexts| (nexts + place, in_guest(next))));
            for (offset, word) in words {
                self.put(offset, word, ram);
                self.used.push(offset);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use kvm_bindings::kvm_regs;
    use proptest::prelude::*;
    use vm_memory::{GuestAddress, GuestMemoryMmap};

    use super::super::stopped::{INTERRUPT_FLAG, at_rest};
    use super::super::waiting::Depth;
    use super::*;

    const START: u64 = 0x1000;
    const LOCK: u64 = 0x2_0010;
    const WORD: u64 = 0x2_0040;

    fn ram() -> Ram {
        let size = SIZE + 2 * PAGE_SIZE;
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), size)]).unwrap();
        // SAFETY: nothing else knows this memory.
        unsafe { Ram::of(&memory) }.unwrap()
    }

    fn passing(ram: &mut Ram) -> Passing {
        let mut passing = Passing::of(&[], true);
        passing.section = Some(START);
        passing.begin(0, ram);
        passing
    }

    /// A CPU with interrupts disabled before an access, with these locks held by its task.
    fn before(kind: Kind, address: u64, locks: &[u64]) -> Stopped {
        Stopped {
            at: Stop::Access(kind, address),
            bytes: 4,
            locks: [locks.to_vec(), Vec::new()],
            ..at_rest(kvm_regs::default())
        }
    }

    /// The number of the situation of CPU `cpu`, stopped there.
    fn number_of(passing: &mut Passing, cpu: usize, stopped: &Stopped) -> u64 {
        let locks = stopped.locks[stopped.context()].clone();
        let situation = Situation::new(stopped.cpu_context(cpu), locks);
        passing.number(situation).unwrap()
    }

    /// As the guest looks it up: whether it passes over, and in which situation it is then.
    fn look_up(ram: &Ram, way: Way, address: u64, situation: u64) -> Option<u64> {
        let key = key(address, situation);
        let word = |table: usize| ram.word(START + (table + 8 * slot(key)) as u64).unwrap();
        (word(way.keys()) == key).then(|| way.nexts().map_or(situation, word))
    }

    /// Where CPU `cpu`, stopped there, comes to without ringing.
    fn passed(ram: &Ram, passing: &mut Passing, cpu: usize, stopped: &Stopped) -> Option<u64> {
        let Stop::Access(kind, address) = stopped.at else {
            panic!("{:?}", stopped.at);
        };
        let way = match kind {
            Kind::Store if stopped.holds(address) => Way::Release,
            kind => Way::of(kind, stopped.bytes).unwrap(),
        };
        let now = number_of(passing, cpu, stopped);
        look_up(
            ram,
            way,
            address,
            shared::passing::situation(now, stopped.in_handler),
        )
    }

    #[test]
    fn only_the_same_access_in_the_same_situation_is_passed_over_and_only_in_its_round() {
        let mut ram = ram();
        let mut passing = passing(&mut ram);
        let one = before(Kind::Load, WORD, &[LOCK]);
        assert_eq!(passed(&ram, &mut passing, 0, &one), None);
        passing.add(0, &one, &mut ram);
        assert!(passed(&ram, &mut passing, 0, &one).is_some());
        assert_eq!(passing.first_overwritten(&ram), None);
        let mut handler = one.clone();
        handler.in_handler = true;
        handler.locks.swap(0, 1);
        let larger = Stopped {
            bytes: 8,
            ..one.clone()
        };
        let others = [
            (1, one.clone()),
            (0, handler),
            (0, larger),
            (0, before(Kind::Load, WORD, &[])),
            (0, before(Kind::Load, WORD, &[LOCK, LOCK + 8])),
            (0, before(Kind::Load, WORD + 4, &[LOCK])),
            (0, before(Kind::Store, WORD, &[LOCK])),
            (0, before(Kind::ReadModifyWrite, WORD, &[LOCK])),
        ];
        for (cpu, other) in others {
            assert_eq!(passed(&ram, &mut passing, cpu, &other), None, "{other:?}");
        }
        passing.begin(0, &mut ram);
        assert!(passed(&ram, &mut passing, 0, &one).is_some());
        passing.begin(1, &mut ram);
        assert_eq!(passed(&ram, &mut passing, 0, &one), None);
        assert!(
            (START..START + SIZE as u64)
                .step_by(8)
                .all(|at| ram.word(at) == Some(0))
        );
    }

    #[test]
    fn a_lock_that_is_passed_over_is_held_until_its_release_is() {
        let mut ram = ram();
        let mut passing = passing(&mut ram);
        let (take, release) = (
            before(Kind::Lock, LOCK, &[8]),
            before(Kind::Store, LOCK, &[8, LOCK]),
        );
        passing.add(0, &take, &mut ram);
        passing.add(0, &release, &mut ram);
        let (without, with) = (
            number_of(&mut passing, 0, &take),
            number_of(&mut passing, 0, &release),
        );
        let in_guest = |number| shared::passing::situation(number, false);
        assert_eq!(passed(&ram, &mut passing, 0, &take), Some(in_guest(with)));
        assert_eq!(
            passed(&ram, &mut passing, 0, &release),
            Some(in_guest(without))
        );
        let told = Allowance {
            number: without,
            left: 9,
            passed: 0,
            in_handler: false,
            rings: false,
        };
        let used = passing.used(&told, in_guest(with), 7).unwrap();
        assert_eq!((used.number, used.left, used.passed), (with, 7, 2));
        assert_eq!(passing.situation(used.number).unwrap().locks, [8, LOCK]);
        // Whatever has made it ring goes on to do so until it comes to a stop.
        assert!(used.is_of(false) && !used.is_of(true) && !used.rings);
        let rings = passing.used(&told, in_guest(with) | EVERY, 7).unwrap();
        assert!(rings.is_of(true) && rings.rings);
    }

    #[test]
    fn what_the_search_must_see_is_never_passed_over() {
        let mut ram = ram();
        let mut passing = passing(&mut ram);
        let mut in_loop = before(Kind::Load, WORD, &[]);
        in_loop.depth = Depth::of(1, 0);
        let mut interruptible = before(Kind::Store, LOCK, &[LOCK]);
        interruptible.regs.rflags = INTERRUPT_FLAG;
        for stopped in [
            in_loop,
            interruptible,
            before(Kind::Load, 1 << NUMBER_SHIFT, &[]),
            at_rest(kvm_regs::default()),
        ] {
            passing.add(0, &stopped, &mut ram);
            assert!(passing.used.is_empty(), "{stopped:?}");
        }
        passing.is_allowed = false;
        passing.add(0, &before(Kind::Load, WORD, &[]), &mut ram);
        assert!(passing.used.is_empty());
    }

    #[test]
    fn a_table_that_the_guest_writes_is_noticed() {
        let mut ram = ram();
        let passing = passing(&mut ram);
        ram.set_word(START, 7);
        ram.set_word(START + 8, 7);
        assert_eq!(passing.first_overwritten(&ram), None);
        for at in [START + 16, START + SIZE as u64 - 8] {
            ram.set_word(at, 7);
            assert_eq!(passing.first_overwritten(&ram), Some(at));
            ram.set_word(at, 0);
        }
    }

    #[test]
    fn there_are_no_more_situations_than_numbers() {
        let mut passing = Passing::of(&[], true);
        let context = at_rest(kvm_regs::default()).cpu_context(0);
        let mut number = |lock| passing.number(Situation::new(context, vec![lock]));
        assert!((1..NUMBERS).all(|lock| number(lock) == Some(lock)));
        assert_eq!(number(0), None);
        assert_eq!(number(1), Some(1));
    }

    proptest! {
        /// A guest can write anything there.
        #[test]
        fn whatever_a_guest_says_of_its_situation_is_bounded(
            situation in prop_oneof![any::<u64>(), (0..5_u64).prop_map(|n| n << NUMBER_SHIFT)],
            left in any::<u64>(),
            told in 0..4_u64,
        ) {
            let mut passing = Passing::of(&[], true);
            let one = before(Kind::Load, WORD, &[]);
            number_of(&mut passing, 0, &one);
            number_of(&mut passing, 0, &before(Kind::Load, WORD, &[LOCK]));
            number_of(&mut passing, 1, &one);
            let told = Allowance {
                number: told,
                left: 5,
                passed: 1,
                in_handler: false,
                rings: false,
            };
            if let Some(used) = passing.used(&told, situation, left) {
                prop_assert_eq!(used.passed + used.left, 6);
                let (was, is) = (passing.situation(told.number), passing.situation(used.number));
                prop_assert_eq!(was.unwrap().context, is.unwrap().context);
            }
        }
    }
}
