//! Which accesses of different CPUs can conflict. It is learnt from the accesses themselves, over
//! all orders of a search: accesses that never conflict need not be tried in different orders.
//!
//! Two accesses *conflict* if they have a byte in common, if their order can matter there
//! ([`AccessKind::depends_on`]), if they come from different contexts (the task and the handlers of
//! a CPU are two contexts), and if no lock is held at both. A lock counts as long as its word is
//! written only to take the lock, or to release it while holding it. An access that conflicts with
//! no other is *passed over*: its CPU goes on, and no other CPU gets a choice there. That is sound
//! as long as nothing that is learnt later contradicts it. If something does, the search so far is
//! void ([`Sharing::is_void`]) and begins anew with what has been learnt. Knowledge only grows, so
//! that this happens a limited number of times. `docs/exploration.md` has the argument.
//!
//! What is known is kept by *place*: the bytes of one access, as long as no other access shares a
//! part of them; from then on the whole word of eight bytes.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::stop::Kind;

/// The context that makes an access: the task or the handlers of a CPU.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub struct CpuContext {
    /// The CPU.
    pub cpu: u32,
    /// Whether one of its handlers makes the access, and not its task.
    pub in_handler: bool,
}

/// How one context uses one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
struct Use {
    #[serde(flatten)]
    context: CpuContext,
    #[serde(rename = "way")]
    kind: AccessKind,
    /// The addresses of the locks that are held at every such access.
    locks: Vec<u64>,
    /// Whether it conflicts with another use of the place.
    conflicts: bool,
    /// Whether the search has passed over such an access.
    passed_over: bool,
}

/// The bytes of a word of eight bytes.
const WORD: u64 = 8;

/// Bytes that are accessed, within one word of eight. Two places have no byte in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
struct Place {
    address: u64,
    /// How many bytes; 0 in a file of an earlier version, which means all up to the end of the word.
    #[serde(default)]
    bytes: u64,
    /// The addresses of the accesses, if they are not all at the first byte.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    accessed: Vec<u64>,
    /// How each context uses it.
    uses: Vec<Use>,
}

impl Place {
    /// The place of an access to `bytes` bytes at `address`, which has not been made yet. It does
    /// not reach beyond its word.
    fn new(address: u64, bytes: u64) -> Self {
        let most = WORD - address % WORD;
        Self {
            address,
            bytes: if bytes == 0 { most } else { bytes.min(most) },
            accessed: Vec::new(),
            uses: Vec::new(),
        }
    }

    fn end(&self) -> u64 {
        self.address.wrapping_add(self.bytes)
    }

    fn contains(&self, other: &Self) -> bool {
        self.address <= other.address && other.end() <= self.end()
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.address < other.end() && other.address < self.end()
    }

    /// The addresses of the accesses.
    fn accessed(&self) -> &[u64] {
        match &self.accessed[..] {
            [] => std::slice::from_ref(&self.address),
            more => more,
        }
    }

    /// Notes that there is an access at `address`.
    fn note(&mut self, address: u64) {
        if !self.accessed().contains(&address) {
            self.accessed = [self.accessed(), &[address]].concat();
        }
    }

    /// Takes over what is known of `other`, a part of this place.
    fn take_over(&mut self, other: &Self) {
        let before = match self.uses[..] {
            [] => &[],
            _ => self.accessed(),
        };
        let mut accessed = [before, other.accessed()].concat();
        accessed.sort_unstable();
        accessed.dedup();
        self.accessed = accessed;
        for theirs in &other.uses {
            let known = (self.uses.iter_mut())
                .find(|known| known.context == theirs.context && known.kind == theirs.kind);
            match known {
                Some(known) => {
                    known.locks.retain(|lock| theirs.locks.contains(lock));
                    known.passed_over |= theirs.passed_over;
                }
                None => self.uses.push(theirs.clone()),
            }
        }
    }

    /// Whether accesses to it conflict, beyond the taking and releasing of a lock.
    fn is_contended(&self) -> bool {
        let takes_turns = |kind| matches!(kind, AccessKind::Locks | AccessKind::Unlocks);
        let mut conflicting = self.uses.iter().filter(|known| known.conflicts);
        conflicting.any(|known| !takes_turns(known.kind))
    }
}

/// The places of all words that are accessed, by the address of the word.
#[derive(Debug, Clone, Default)]
struct Places(HashMap<u64, Vec<Place>>);

impl Places {
    fn all(&self) -> impl Iterator<Item = &Place> {
        self.0.values().flatten()
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Place> {
        self.0.values_mut().flatten()
    }

    /// The place in which the byte at `address` is.
    fn at(&self, address: u64) -> Option<&Place> {
        let places = self.0.get(&(address & !(WORD - 1)))?;
        let byte = Place::new(address, 1);
        places.iter().find(|place| place.contains(&byte))
    }

    /// The place of the access for which `new` was made. Returns as well whether other places have
    /// become part of it.
    fn of(&mut self, new: &Place) -> (&mut Place, bool) {
        let word = new.address & !(WORD - 1);
        let places = self.0.entry(word).or_default();
        if let Some(at) = places.iter().position(|place| place.contains(new)) {
            return (&mut places[at], false);
        }
        let grows = places.iter().any(|place| place.overlaps(new));
        let mut place = new.clone();
        if grows {
            place = Place::new(word, WORD);
            places.iter().for_each(|part| place.take_over(part));
            places.clear();
        }
        places.push(place);
        let at = places.len() - 1;
        (&mut places[at], grows)
    }
}

/// What is known about the memory that CPUs share, and about the interrupts between them.
#[derive(Debug, Clone, Default)]
pub struct Sharing {
    places: Places,
    /// The addresses at which accesses conflict, beyond the taking and releasing of a lock.
    contended: BTreeSet<u64>,
    /// Interrupts.
    interrupts: Sent,
    /// INITs, once the CPU ran.
    inits: Sent,
    is_void: bool,
    round: Round,
}

/// What CPUs can be sent, by CPU.
#[derive(Debug, Clone, Default)]
struct Sent {
    /// Whether it was ever sent one.
    was: Vec<bool>,
    /// Whether the search has assumed that it is never sent one.
    ruled_out: Vec<bool>,
}

impl Sent {
    fn new(cpus: usize) -> Self {
        Self {
            was: vec![false; cpus],
            ruled_out: vec![false; cpus],
        }
    }

    /// `cpu` is sent one. Returns whether that is new and contradicts what was assumed.
    fn learn(&mut self, cpu: usize) -> bool {
        !std::mem::replace(&mut self.was[cpu], true) && self.ruled_out[cpu]
    }

    /// Whether `cpu` can be sent one. If not, that is assumed from now on.
    fn can_be(&mut self, cpu: usize) -> bool {
        self.ruled_out[cpu] |= !self.was[cpu];
        self.was[cpu]
    }

    /// Learns what another search knows, and has assumed, of `cpu`. Returns whether the one
    /// contradicts the other.
    fn learn_from_other(&mut self, cpu: usize, was: bool, ruled_out: bool) -> bool {
        self.was[cpu] |= was;
        self.ruled_out[cpu] |= ruled_out;
        self.was[cpu] && self.ruled_out[cpu]
    }
}

/// The number of a round of a search ([`Sharing::round`]). A copy gets one of its own: what was
/// passed over by the original may be unknown to it.
#[derive(Debug)]
struct Round(u64);

impl Default for Round {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl Clone for Round {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// What is known, in its form in files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SharingRecord {
    /// The places that are accessed, by address.
    words: Vec<Place>,
    /// By CPU: whether it was ever sent an interrupt.
    interrupted: Vec<bool>,
    /// By CPU: whether the search has assumed that it is never sent an interrupt.
    taken_for_quiet: Vec<bool>,
    /// The CPUs that were ever sent an INIT once they ran.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    reset: Vec<usize>,
    /// The CPUs of which the search has assumed that they are never sent an INIT once they run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    taken_for_lasting: Vec<usize>,
}

impl SharingRecord {
    /// The number of words that are known, and the number of those with conflicting accesses.
    pub fn size(&self) -> (usize, usize) {
        let conflict = |place: &&Place| place.uses.iter().any(|known| known.conflicts);
        (self.words.len(), self.words.iter().filter(conflict).count())
    }
}

/// What was learnt is about a machine with another number of CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what CPUs share was learnt with {theirs} CPUs, the case has {ours}")]
pub struct OtherCpus {
    theirs: usize,
    ours: usize,
}

/// What an access does to a word.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum AccessKind {
    /// Reads it.
    Reads,
    /// Writes it, or reads and writes it.
    Writes,
    /// Changes it in such a way that the order of these changes does not matter.
    Marks,
    /// Takes it as a lock, when the lock is free.
    Locks,
    /// Releases the lock.
    Unlocks,
}

impl AccessKind {
    /// The kind of an access that the guest announces as `kind`.
    pub fn of(kind: Kind) -> Self {
        match kind {
            Kind::Load | Kind::IrqsOff | Kind::Fence => Self::Reads,
            Kind::Mark => Self::Marks,
            Kind::Store | Kind::ReadModifyWrite | Kind::Change => Self::Writes,
            Kind::Lock => Self::Locks,
        }
    }

    /// Whether the order of two accesses to one word can matter. A context that wants a lock waits
    /// until it is released, so that releasing and taking have only one order.
    pub fn depends_on(self, other: Self) -> bool {
        match (self, other) {
            (Self::Unlocks, Self::Unlocks | Self::Locks) | (Self::Locks, Self::Unlocks) => false,
            _ => self != other || matches!(self, Self::Writes | Self::Locks),
        }
    }

    /// Whether such an access to the word of a lock can release it for a context that does not hold
    /// it.
    fn breaks_locks(self) -> bool {
        matches!(self, Self::Writes | Self::Marks)
    }
}

/// Whether the word at `address` is written in another way than by taking and releasing it as a
/// lock.
fn is_written(places: &Places, address: u64) -> bool {
    let uses = places.at(address).map_or(&[][..], |place| &place.uses);
    uses.iter().any(|known| known.kind.breaks_locks())
}

impl Sharing {
    /// Nothing is known yet about a machine with this number of CPUs.
    pub fn new(cpus: usize) -> Self {
        Self {
            interrupts: Sent::new(cpus),
            inits: Sent::new(cpus),
            ..Self::default()
        }
    }

    /// The number of CPUs.
    pub fn cpus(&self) -> usize {
        self.interrupts.was.len()
    }

    /// The addresses of the places that are accessed.
    pub fn addresses(&self) -> impl Iterator<Item = u64> {
        self.places.all().map(|place| place.address)
    }

    /// Learns that `context` is about to access `bytes` bytes at `address` with `locks` held: 1 to 8
    /// within one word, or 0 for all up to the end of the word. Returns whether the access conflicts
    /// with another one. If not, the search passes over it.
    pub fn conflicts(
        &mut self,
        context: CpuContext,
        kind: AccessKind,
        address: u64,
        bytes: u8,
        locks: &[u64],
    ) -> bool {
        let access = Place::new(address, bytes.into());
        let (place, mut has_grown) = self.places.of(&access);
        place.note(address);
        let same = |known: &Use| known.context == context && known.kind == kind;
        match place.uses.iter_mut().find(|known| same(known)) {
            Some(known) => {
                let before = known.locks.len();
                known.locks.retain(|lock| locks.contains(lock));
                if known.locks.len() != before || has_grown {
                    self.find_conflicts(address);
                }
            }
            None => {
                let locks = locks.iter().copied();
                let locks = locks.filter(|lock| !is_written(&self.places, *lock));
                let new = Use {
                    context,
                    kind,
                    locks: locks.collect(),
                    conflicts: false,
                    passed_over: false,
                };
                self.places.of(&access).0.uses.push(new);
                self.find_conflicts(address);
                has_grown |= kind.breaks_locks();
            }
        }
        if has_grown {
            self.trust_no_lock_that_is_written();
        }
        let place = self.places.of(&access).0;
        if place.is_contended() {
            self.contended.insert(address);
        }
        let this = place.uses.iter_mut().find(|known| same(known));
        this.is_some_and(|this| {
            this.passed_over |= !this.conflicts;
            this.conflicts
        })
    }

    /// A lock excludes nothing if its word is also written by contexts that do not hold it. It is
    /// then removed from the locks of every use.
    fn trust_no_lock_that_is_written(&mut self) {
        let locks: BTreeSet<u64> = (self.places.all())
            .flat_map(|place| place.uses.iter().flat_map(|known| &known.locks))
            .copied()
            .collect();
        let is_written = |lock: &u64| is_written(&self.places, *lock);
        let written: Vec<u64> = locks.into_iter().filter(is_written).collect();
        let mut changed = Vec::new();
        for place in self.places.all_mut() {
            let mut is_new = false;
            for known in &mut place.uses {
                let before = known.locks.len();
                known.locks.retain(|lock| !written.contains(lock));
                is_new |= known.locks.len() != before;
            }
            if is_new {
                changed.push(place.address);
            }
        }
        changed
            .into_iter()
            .for_each(|address| self.find_conflicts(address));
    }

    /// Finds out anew which uses conflict of the place in which the byte at `address` is.
    fn find_conflicts(&mut self, address: u64) {
        let (place, _) = self.places.of(&Place::new(address, 1));
        let contradicts = find_conflicts(&mut place.uses);
        if place.is_contended() {
            self.contended.extend(place.accessed());
        }
        self.void_if(contradicts);
    }

    /// What was passed over may not be passed over again, if something `contradicts` that.
    fn void_if(&mut self, contradicts: bool) {
        if contradicts {
            self.is_void = true;
            self.round = Round::default();
        }
    }

    /// The addresses at which accesses conflict, beyond the taking and releasing of a lock.
    pub fn contended(&self) -> &BTreeSet<u64> {
        &self.contended
    }

    /// Learns that `cpu` is sent an interrupt.
    pub fn interrupts(&mut self, cpu: usize) {
        let contradicts = self.interrupts.learn(cpu);
        self.void_if(contradicts);
    }

    /// Whether `cpu` can be sent an interrupt. If not, the search passes over the stops that matter
    /// only to interrupts.
    pub fn is_interrupted(&mut self, cpu: usize) -> bool {
        self.interrupts.can_be(cpu)
    }

    /// Learns that `cpu` is sent an INIT, which can put an end to what it does.
    pub fn resets(&mut self, cpu: usize) {
        let contradicts = self.inits.learn(cpu);
        self.void_if(contradicts);
    }

    /// Whether `cpu` can be sent an INIT once it runs. If not, the search passes over what it writes
    /// where no other context can see it at the same time.
    pub fn is_reset(&mut self, cpu: usize) -> bool {
        self.inits.can_be(cpu)
    }

    /// Whether something was learnt that contradicts what was passed over before.
    pub fn is_void(&self) -> bool {
        self.is_void
    }

    /// A number that stays the same as long as whatever was passed over once can be passed over
    /// again. No other value of this type has it, not even a copy.
    pub fn round(&self) -> u64 {
        self.round.0
    }

    /// Begins anew, with everything that has been learnt.
    pub fn begin_anew(&mut self) {
        self.round = Round::default();
        self.is_void = false;
        self.interrupts.ruled_out.fill(false);
        self.inits.ruled_out.fill(false);
        for place in self.places.all_mut() {
            for known in &mut place.uses {
                known.passed_over = false;
            }
        }
    }

    /// What is known, in its form in files. Equal knowledge has the same form.
    pub fn to_record(&self) -> SharingRecord {
        let mut words: Vec<Place> = self.places.all().cloned().collect();
        for place in &mut words {
            (place.uses).sort_by_key(|known| (known.context, known.kind));
            (place.uses.iter_mut()).for_each(|known| known.locks.sort_unstable());
            place.accessed.sort_unstable();
            if place.accessed == [place.address] {
                place.accessed.clear();
            }
        }
        words.sort_by_key(|word| word.address);
        SharingRecord {
            words,
            interrupted: self.interrupts.was.clone(),
            taken_for_quiet: self.interrupts.ruled_out.clone(),
            reset: those(&self.inits.was),
            taken_for_lasting: those(&self.inits.ruled_out),
        }
    }

    /// Learns what another search has learnt in another part of the same orders. The result is void
    /// if either search has passed over something that conflicts by what both know.
    ///
    /// # Errors
    /// [`OtherCpus`] if that is about another number of CPUs.
    pub fn learn(&mut self, other: &SharingRecord) -> Result<(), OtherCpus> {
        let cpus = self.cpus();
        let mut named = other.reset.iter().chain(&other.taken_for_lasting);
        if let Some(cpu) = named.find(|cpu| **cpu >= cpus) {
            return Err(OtherCpus {
                theirs: cpu.saturating_add(1),
                ours: cpus,
            });
        }
        if other.interrupted.len() != cpus || other.taken_for_quiet.len() != cpus {
            return Err(OtherCpus {
                theirs: other.interrupted.len(),
                ours: cpus,
            });
        }
        self.round = Round::default();
        for theirs in &other.words {
            let (place, _) = self.places.of(&Place::new(theirs.address, theirs.bytes));
            place.take_over(theirs);
            self.find_conflicts(theirs.address);
        }
        self.trust_no_lock_that_is_written();
        for cpu in 0..cpus {
            let (was, ruled_out) = (other.interrupted[cpu], other.taken_for_quiet[cpu]);
            self.is_void |= self.interrupts.learn_from_other(cpu, was, ruled_out);
            let named = |cpus: &[usize]| cpus.contains(&cpu);
            let (was, ruled_out) = (named(&other.reset), named(&other.taken_for_lasting));
            self.is_void |= self.inits.learn_from_other(cpu, was, ruled_out);
        }
        Ok(())
    }

    /// The number of words that are known, and the number of those with conflicting accesses.
    pub fn size(&self) -> (usize, usize) {
        let conflict = |place: &&Place| place.uses.iter().any(|known| known.conflicts);
        let places = || self.places.all();
        (places().count(), places().filter(conflict).count())
    }
}

/// The numbers of the CPUs for which it `holds`.
fn those(holds: &[bool]) -> Vec<usize> {
    (0..holds.len()).filter(|cpu| holds[*cpu]).collect()
}

/// Finds out anew which `uses` of one place conflict. Returns whether one of them does that was
/// passed over.
fn find_conflicts(uses: &mut [Use]) -> bool {
    let mut is_void = false;
    // If the lock is also released by a context that does not hold it, its holder may have lost it
    // before it releases it.
    let is_broken = uses.iter().any(|known| known.kind.breaks_locks());
    let kind = |known: &Use| match known.kind {
        AccessKind::Unlocks if is_broken => AccessKind::Writes,
        kind => kind,
    };
    for at in 0..uses.len() {
        let one = &uses[at];
        let conflicts = uses.iter().any(|other| {
            other.context != one.context
                && kind(other).depends_on(kind(one))
                && !other.locks.iter().any(|lock| one.locks.contains(lock))
        });
        let one = &mut uses[at];
        is_void |= conflicts && one.passed_over;
        one.conflicts = conflicts;
    }
    is_void
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: CpuContext = CpuContext {
        cpu: 0,
        in_handler: false,
    };
    const OTHER: CpuContext = CpuContext {
        cpu: 1,
        in_handler: true,
    };

    #[test]
    fn readers_do_not_conflict_and_a_writer_does() {
        let mut sharing = Sharing::new(2);
        assert!(!sharing.conflicts(TASK, AccessKind::Reads, 8, 8, &[]));
        assert!(!sharing.conflicts(OTHER, AccessKind::Reads, 8, 8, &[]));
        assert!(!sharing.is_void());
        assert!(sharing.conflicts(OTHER, AccessKind::Writes, 8, 8, &[]));
        // The reads were passed over, but they conflict with this write.
        assert!(sharing.is_void());
        sharing.begin_anew();
        assert!(sharing.conflicts(TASK, AccessKind::Reads, 8, 8, &[]));
        // The only writer reads what no other context writes.
        assert!(!sharing.conflicts(OTHER, AccessKind::Reads, 8, 8, &[]));
        assert!(!sharing.is_void());
        assert_eq!(sharing.size(), (1, 1));
    }

    #[test]
    fn accesses_that_share_a_part_of_their_bytes_conflict() {
        let (reads, writes) = (AccessKind::Reads, AccessKind::Writes);
        let mut sharing = Sharing::new(2);
        assert!(!sharing.conflicts(TASK, writes, 8, 4, &[]));
        assert!(!sharing.conflicts(TASK, writes, 14, 2, &[]));
        assert!(!sharing.conflicts(OTHER, writes, 12, 2, &[]));
        assert!(!sharing.is_void());
        // Of the bytes at 8 the other CPU reads a part, and with them those at 12 and 14.
        assert!(sharing.conflicts(OTHER, reads, 10, 8, &[]));
        assert!(sharing.is_void());
        sharing.begin_anew();
        for (address, bytes) in [(8, 4), (14, 2), (9, 1), (8, 0)] {
            assert!(sharing.conflicts(TASK, writes, address, bytes, &[]));
        }
        assert!(!sharing.conflicts(TASK, writes, 16, 4, &[]));
        // Each address is named to which stores have to wait.
        assert!(sharing.contended().iter().eq(&[8, 9, 10, 12, 14]));
        assert_eq!(sharing.size(), (2, 1));
    }

    #[test]
    fn a_lock_is_not_trusted_that_lies_in_what_is_written_as_a_whole() {
        let under = &[16][..];
        let mut sharing = Sharing::new(2);
        assert!(!sharing.conflicts(TASK, AccessKind::Locks, 16, 4, &[]));
        assert!(!sharing.conflicts(TASK, AccessKind::Writes, 8, 8, under));
        assert!(!sharing.conflicts(OTHER, AccessKind::Writes, 8, 8, under));
        sharing.conflicts(OTHER, AccessKind::Writes, 16, 8, under);
        assert!(sharing.is_void());
        sharing.begin_anew();
        assert!(sharing.conflicts(TASK, AccessKind::Writes, 8, 8, under));
    }

    #[test]
    fn shards_learn_of_accesses_that_share_a_part_of_their_bytes() {
        let (reads, writes) = (AccessKind::Reads, AccessKind::Writes);
        let (mut one, mut other) = (Sharing::new(2), Sharing::new(2));
        assert!(!one.conflicts(TASK, writes, 12, 4, &[]));
        assert!(!other.conflicts(OTHER, reads, 8, 8, &[]));
        for (first, second) in [(&one, &other), (&other, &one)] {
            let mut both = Sharing::new(2);
            both.learn(&first.to_record()).unwrap();
            both.learn(&second.to_record()).unwrap();
            assert!(both.is_void());
            both.begin_anew();
            assert!(both.conflicts(TASK, writes, 12, 4, &[]));
            assert!(both.contended().iter().eq(&[8, 12]));
        }
        // Files of earlier versions do not say how many bytes.
        let text = serde_json::to_string(&other.to_record()).unwrap();
        let text = text.replace(r#""bytes":8,"#, "");
        let mut earlier = Sharing::new(2);
        earlier
            .learn(&serde_json::from_str(&text).unwrap())
            .unwrap();
        assert!(earlier.conflicts(TASK, writes, 12, 4, &[]));
    }

    #[test]
    fn marks_depend_on_all_but_marks() {
        let mut sharing = Sharing::new(2);
        assert!(!sharing.conflicts(TASK, AccessKind::Marks, 8, 8, &[]));
        assert!(!sharing.conflicts(OTHER, AccessKind::Marks, 8, 8, &[]));
        assert!(sharing.conflicts(TASK, AccessKind::Reads, 8, 8, &[]));
        assert!(sharing.conflicts(OTHER, AccessKind::Marks, 8, 8, &[]));
    }

    #[test]
    fn a_common_lock_keeps_accesses_apart_until_one_is_made_without() {
        let mut sharing = Sharing::new(2);
        assert!(!sharing.conflicts(TASK, AccessKind::Writes, 8, 8, &[1, 2]));
        assert!(!sharing.conflicts(OTHER, AccessKind::Writes, 8, 8, &[2, 3]));
        assert!(!sharing.conflicts(OTHER, AccessKind::Writes, 8, 8, &[2]));
        assert!(!sharing.is_void());
        assert!(sharing.conflicts(OTHER, AccessKind::Reads, 8, 8, &[]));
        assert!(sharing.is_void());
    }

    #[test]
    fn a_lock_that_another_context_releases_excludes_nothing() {
        let under = &[16][..];
        let mut sharing = Sharing::new(2);
        assert!(!sharing.conflicts(TASK, AccessKind::Writes, 8, 8, under));
        assert!(!sharing.conflicts(OTHER, AccessKind::Writes, 8, 8, under));
        assert!(!sharing.conflicts(TASK, AccessKind::Unlocks, 16, 8, under));
        let known = sharing.to_record();
        let third = CpuContext { cpu: 1, ..TASK };
        sharing.conflicts(third, AccessKind::Writes, 16, 8, &[]);
        assert!(sharing.is_void());
        sharing.begin_anew();
        assert!(sharing.conflicts(TASK, AccessKind::Writes, 8, 8, under));
        assert!(sharing.conflicts(TASK, AccessKind::Unlocks, 16, 8, under));
        // A context that comes to the word only now holds no valid lock either.
        assert!(sharing.conflicts(third, AccessKind::Writes, 8, 8, under));
        assert!(!sharing.is_void());

        // Another shard, which never saw that, learns it.
        let mut other = Sharing::new(2);
        other.learn(&known).unwrap();
        assert!(!other.is_void());
        other.learn(&sharing.to_record()).unwrap();
        assert!(other.is_void());
    }

    #[test]
    fn a_round_ends_when_something_contradicts_it_and_is_not_that_of_a_copy() {
        let mut sharing = Sharing::new(2);
        let round = sharing.round();
        assert!(!sharing.conflicts(TASK, AccessKind::Reads, 8, 8, &[1]));
        assert!(!sharing.conflicts(TASK, AccessKind::Reads, 8, 8, &[]));
        assert!(sharing.is_interrupted(0) || sharing.round() == round);
        let mut copy = sharing.clone();
        assert_ne!(copy.round(), round);
        sharing.conflicts(OTHER, AccessKind::Writes, 8, 8, &[]);
        let void = sharing.round();
        assert!(sharing.is_void() && void != round);
        sharing.interrupts(0);
        let interrupted = sharing.round();
        assert_ne!(interrupted, void);
        sharing.begin_anew();
        assert_ne!(sharing.round(), interrupted);
        let of_copy = copy.round();
        copy.learn(&sharing.to_record()).unwrap();
        assert_ne!(copy.round(), of_copy);
        copy.clone_from(&sharing);
        assert_ne!(copy.round(), sharing.round());
    }

    #[test]
    fn a_cpu_that_was_taken_for_quiet_and_is_not_makes_it_void() {
        let mut sharing = Sharing::new(2);
        sharing.interrupts(0);
        assert!(sharing.is_interrupted(0));
        assert!(!sharing.is_interrupted(1));
        assert!(!sharing.is_void());
        sharing.interrupts(1);
        assert!(sharing.is_void());
    }

    #[test]
    fn one_shard_contradicts_what_another_passed_over() {
        let mut one = Sharing::new(2);
        let mut other = Sharing::new(2);
        assert!(!one.conflicts(TASK, AccessKind::Writes, 8, 8, &[]));
        assert!(!other.conflicts(OTHER, AccessKind::Reads, 8, 8, &[]));
        let mut both = Sharing::new(2);
        both.learn(&one.to_record()).unwrap();
        assert!(!both.is_void());
        both.learn(&other.to_record()).unwrap();
        assert!(both.is_void());
        // With what both know, neither passes over it.
        let written = serde_json::to_string(&both.to_record()).unwrap();
        let mut anew = Sharing::new(2);
        anew.learn(&serde_json::from_str(&written).unwrap())
            .unwrap();
        anew.begin_anew();
        assert!(anew.conflicts(TASK, AccessKind::Writes, 8, 8, &[]));
        assert!(!anew.is_void());
        assert!(Sharing::new(3).learn(&one.to_record()).is_err());
    }

    #[test]
    fn a_cpu_that_one_shard_took_for_quiet_and_the_other_interrupts_makes_both_void() {
        let mut one = Sharing::new(2);
        let mut other = Sharing::new(2);
        assert!(!one.is_interrupted(1));
        other.interrupts(1);
        one.learn(&other.to_record()).unwrap();
        assert!(one.is_void());
    }

    #[test]
    fn a_cpu_that_was_taken_for_lasting_and_is_reset_makes_it_void() {
        let mut sharing = Sharing::new(2);
        sharing.resets(0);
        assert!(sharing.is_reset(0));
        assert!(!sharing.is_reset(1));
        assert!(!sharing.is_void());
        let (before, round) = (sharing.to_record(), sharing.round());
        sharing.resets(1);
        assert!(sharing.is_void());
        assert_ne!(sharing.round(), round);
        sharing.begin_anew();
        assert!(sharing.is_reset(1) && !sharing.is_void());
        // The same by two shards.
        let mut other = Sharing::new(2);
        other.resets(1);
        other.learn(&before).unwrap();
        assert!(other.is_void());
        assert!(other.is_reset(0));
        // An earlier version did not know of it, and a file can name any CPU.
        let text = serde_json::to_string(&Sharing::new(2).to_record()).unwrap();
        assert!(
            !text.contains("reset") && !text.contains("lasting"),
            "{text}"
        );
        let mut beyond = before;
        beyond.taken_for_lasting.push(2);
        assert!(other.learn(&beyond).is_err());
    }
}
