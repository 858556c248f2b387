//! Which accesses of which CPUs can get into each other's way. Learnt from the accesses themselves,
//! all orders of a search together: what never conflicts with anything need not be tried in
//! different orders.
//!
//! Two accesses *conflict* if they touch the same word, their order can matter there ([`AccessKind`]),
//! they come from different contexts (the task and the handlers of one CPU are two), and no lock is
//! held at both. A lock counts as long as nobody writes its word but to take it, or to let it go
//! again while holding it. An access that conflicts with none is *passed over*: its CPU goes on
//! without anybody being asked. That is sound as long as nothing is learnt later that speaks
//! against it; if so, the search so far is void and [`Sharing::is_void`]. It then begins anew with
//! what has been learnt, which only grows, so that it does not begin anew for ever.
//! `docs/exploration.md` has the argument.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::stop::Kind;

/// Who makes an access: a CPU, in one of its two contexts.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub struct CpuContext {
    /// The CPU.
    pub cpu: u32,
    /// Whether one of its handlers does.
    pub in_handler: bool,
}

/// How one context uses one word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
struct Use {
    #[serde(flatten)]
    who: CpuContext,
    way: AccessKind,
    /// Locks held at each such access.
    locks: Vec<u64>,
    /// Whether the order of it and of another use of the word can matter.
    conflicts: bool,
    /// Whether the search has gone on at such an access without a choice.
    passed_over: bool,
}

/// What is known of all words.
#[derive(Debug, Clone, Default)]
pub struct Sharing {
    words: HashMap<u64, Vec<Use>>,
    /// By CPU: whether it was ever sent an interrupt.
    interrupted: Vec<bool>,
    /// CPUs of which it was taken for granted that they are not.
    taken_for_quiet: Vec<bool>,
    is_void: bool,
}

/// What is known, as it stands in files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SharingRecord {
    /// The words that are accessed, by address.
    words: Vec<Word>,
    /// By CPU: whether it was ever sent an interrupt.
    interrupted: Vec<bool>,
    /// By CPU: whether the search has taken for granted that it is not.
    taken_for_quiet: Vec<bool>,
}

impl SharingRecord {
    /// Words that are known, and those of them on which something conflicts.
    pub fn size(&self) -> (usize, usize) {
        let conflict = |word: &&Word| word.uses.iter().any(|known| known.conflicts);
        (self.words.len(), self.words.iter().filter(conflict).count())
    }
}

/// A word that is accessed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
struct Word {
    address: u64,
    /// By whom, and how.
    uses: Vec<Use>,
}

/// What was learnt is of a machine with another number of CPUs.
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
    /// Changes it so that the order of such changes does not matter.
    Marks,
    /// Takes the lock that it is, when that is free.
    Locks,
    /// Lets that lock go.
    Unlocks,
}

impl AccessKind {
    /// That of accesses of this kind.
    pub fn of(kind: Kind) -> Self {
        match kind {
            Kind::Load | Kind::IrqsOff => Self::Reads,
            Kind::Mark => Self::Marks,
            Kind::Store | Kind::ReadModifyWrite => Self::Writes,
            Kind::Lock => Self::Locks,
        }
    }

    /// Whether the order of two accesses to one word can matter. Whoever wants a lock waits until
    /// it is let go, so that there is one order of these two.
    pub fn depends_on(self, other: Self) -> bool {
        match (self, other) {
            (Self::Unlocks, Self::Unlocks | Self::Locks) | (Self::Locks, Self::Unlocks) => false,
            _ => self != other || matches!(self, Self::Writes | Self::Locks),
        }
    }

    /// Whether this, done to the word of a lock, can let go a lock that somebody else holds.
    fn breaks_locks(self) -> bool {
        matches!(self, Self::Writes | Self::Marks)
    }
}

/// Whether the word at `address` is written otherwise than by taking it as a lock and letting that
/// go.
fn is_written(words: &HashMap<u64, Vec<Use>>, address: u64) -> bool {
    let uses = words.get(&address).map_or(&[][..], Vec::as_slice);
    uses.iter().any(|known| known.way.breaks_locks())
}

impl Sharing {
    /// Nothing is known yet of the words of `cpus` CPUs.
    pub fn new(cpus: usize) -> Self {
        Self {
            interrupted: vec![false; cpus],
            taken_for_quiet: vec![false; cpus],
            ..Self::default()
        }
    }

    /// The words that are accessed.
    pub fn addresses(&self) -> impl Iterator<Item = u64> {
        self.words.keys().copied()
    }

    /// Learns that `who` is about to access the word at `address` in that `way` with `locks` held.
    /// Whether that can conflict with another access; if not, the search passes over it.
    pub fn conflicts(
        &mut self,
        who: CpuContext,
        way: AccessKind,
        address: u64,
        locks: &[u64],
    ) -> bool {
        let uses = self.words.entry(address).or_default();
        let at = uses
            .iter()
            .position(|known| known.who == who && known.way == way);
        let at = match at {
            Some(at) => {
                let known = &mut uses[at];
                let before = known.locks.len();
                known.locks.retain(|lock| locks.contains(lock));
                if known.locks.len() != before {
                    self.is_void |= judge(uses);
                }
                at
            }
            None => {
                let locks = locks.iter().copied();
                let locks = locks.filter(|lock| !is_written(&self.words, *lock));
                let new = Use {
                    who,
                    way,
                    locks: locks.collect(),
                    conflicts: false,
                    passed_over: false,
                };
                let uses = self.words.entry(address).or_default();
                uses.push(new);
                let at = uses.len() - 1;
                self.is_void |= judge(uses);
                if way.breaks_locks() {
                    self.trust_no_lock_that_is_written();
                }
                at
            }
        };
        let this = &mut self.words.entry(address).or_default()[at];
        this.passed_over |= !this.conflicts;
        this.conflicts
    }

    /// A lock keeps nobody apart if its word is written by whoever does not hold it. Nothing is
    /// then known to be done under it.
    fn trust_no_lock_that_is_written(&mut self) {
        let written: Vec<u64> = (self.words.keys().copied())
            .filter(|word| is_written(&self.words, *word))
            .collect();
        for uses in self.words.values_mut() {
            let mut is_new = false;
            for known in &mut *uses {
                let before = known.locks.len();
                known.locks.retain(|lock| !written.contains(lock));
                is_new |= known.locks.len() != before;
            }
            if is_new {
                self.is_void |= judge(uses);
            }
        }
    }

    /// Learns that `cpu` is sent an interrupt.
    pub fn interrupts(&mut self, cpu: usize) {
        if !self.interrupted[cpu] {
            self.interrupted[cpu] = true;
            self.is_void |= self.taken_for_quiet[cpu];
        }
    }

    /// Whether `cpu` can be sent an interrupt; if not, the search passes over the moments that
    /// matter only for that.
    pub fn is_interrupted(&mut self, cpu: usize) -> bool {
        self.taken_for_quiet[cpu] |= !self.interrupted[cpu];
        self.interrupted[cpu]
    }

    /// Whether something was learnt that speaks against what was passed over before.
    pub fn is_void(&self) -> bool {
        self.is_void
    }

    /// Begins anew, with all that has been learnt.
    pub fn begin_anew(&mut self) {
        self.is_void = false;
        self.taken_for_quiet.fill(false);
        for known in self.words.values_mut().flatten() {
            known.passed_over = false;
        }
    }

    /// What is known, for a file. Equal knowledge is written equally.
    pub fn to_record(&self) -> SharingRecord {
        let mut words: Vec<_> = (self.words.iter())
            .map(|(address, uses)| {
                let mut uses = uses.clone();
                uses.sort_by_key(|known| (known.who, known.way));
                uses.iter_mut()
                    .for_each(|known| known.locks.sort_unstable());
                Word {
                    address: *address,
                    uses,
                }
            })
            .collect();
        words.sort_by_key(|word| word.address);
        SharingRecord {
            words,
            interrupted: self.interrupted.clone(),
            taken_for_quiet: self.taken_for_quiet.clone(),
        }
    }

    /// Learns what another search has learnt, of another part of the same orders. Void if either
    /// passed over what, by what both know, it should not have.
    ///
    /// # Errors
    /// If that was of another number of CPUs.
    pub fn learn(&mut self, other: &SharingRecord) -> Result<(), OtherCpus> {
        let cpus = self.interrupted.len();
        if other.interrupted.len() != cpus || other.taken_for_quiet.len() != cpus {
            return Err(OtherCpus {
                theirs: other.interrupted.len(),
                ours: cpus,
            });
        }
        for word in &other.words {
            let uses = self.words.entry(word.address).or_default();
            for theirs in &word.uses {
                let known = uses
                    .iter_mut()
                    .find(|known| known.who == theirs.who && known.way == theirs.way);
                match known {
                    Some(known) => {
                        known.locks.retain(|lock| theirs.locks.contains(lock));
                        known.passed_over |= theirs.passed_over;
                    }
                    None => uses.push(theirs.clone()),
                }
            }
            self.is_void |= judge(uses);
        }
        self.trust_no_lock_that_is_written();
        for cpu in 0..cpus {
            self.interrupted[cpu] |= other.interrupted[cpu];
            self.taken_for_quiet[cpu] |= other.taken_for_quiet[cpu];
            self.is_void |= self.interrupted[cpu] && self.taken_for_quiet[cpu];
        }
        Ok(())
    }

    /// Words that are known, and those of them on which something conflicts.
    pub fn size(&self) -> (usize, usize) {
        let conflict = |uses: &&Vec<Use>| uses.iter().any(|known| known.conflicts);
        (
            self.words.len(),
            self.words.values().filter(conflict).count(),
        )
    }
}

/// Finds out anew which `uses` of one word conflict. Whether one does that was passed over.
fn judge(uses: &mut [Use]) -> bool {
    let mut is_void = false;
    // Where others let a lock go as well, whoever lets it go may not hold it any more.
    let is_broken = uses.iter().any(|known| known.way.breaks_locks());
    let way = |known: &Use| match known.way {
        AccessKind::Unlocks if is_broken => AccessKind::Writes,
        way => way,
    };
    for at in 0..uses.len() {
        let one = &uses[at];
        let conflicts = uses.iter().any(|other| {
            other.who != one.who
                && way(other).depends_on(way(one))
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
        assert!(!sharing.conflicts(TASK, AccessKind::Reads, 8, &[]));
        assert!(!sharing.conflicts(OTHER, AccessKind::Reads, 8, &[]));
        assert!(!sharing.is_void());
        assert!(sharing.conflicts(OTHER, AccessKind::Writes, 8, &[]));
        // The reads were passed over, and should not have been.
        assert!(sharing.is_void());
        sharing.begin_anew();
        assert!(sharing.conflicts(TASK, AccessKind::Reads, 8, &[]));
        // The one writer reads what nobody else writes.
        assert!(!sharing.conflicts(OTHER, AccessKind::Reads, 8, &[]));
        assert!(!sharing.is_void());
        assert_eq!(sharing.size(), (1, 1));
    }

    #[test]
    fn marks_collide_with_all_but_marks() {
        let mut sharing = Sharing::new(2);
        assert!(!sharing.conflicts(TASK, AccessKind::Marks, 8, &[]));
        assert!(!sharing.conflicts(OTHER, AccessKind::Marks, 8, &[]));
        assert!(sharing.conflicts(TASK, AccessKind::Reads, 8, &[]));
        assert!(sharing.conflicts(OTHER, AccessKind::Marks, 8, &[]));
    }

    #[test]
    fn a_common_lock_keeps_accesses_apart_until_one_is_made_without() {
        let mut sharing = Sharing::new(2);
        assert!(!sharing.conflicts(TASK, AccessKind::Writes, 8, &[1, 2]));
        assert!(!sharing.conflicts(OTHER, AccessKind::Writes, 8, &[2, 3]));
        assert!(!sharing.conflicts(OTHER, AccessKind::Writes, 8, &[2]));
        assert!(!sharing.is_void());
        assert!(sharing.conflicts(OTHER, AccessKind::Reads, 8, &[]));
        assert!(sharing.is_void());
    }

    #[test]
    fn a_lock_that_somebody_else_lets_go_keeps_nobody_apart() {
        let under = &[16][..];
        let mut sharing = Sharing::new(2);
        assert!(!sharing.conflicts(TASK, AccessKind::Writes, 8, under));
        assert!(!sharing.conflicts(OTHER, AccessKind::Writes, 8, under));
        assert!(!sharing.conflicts(TASK, AccessKind::Unlocks, 16, under));
        let known = sharing.to_record();
        let third = CpuContext { cpu: 1, ..TASK };
        sharing.conflicts(third, AccessKind::Writes, 16, &[]);
        assert!(sharing.is_void());
        sharing.begin_anew();
        assert!(sharing.conflicts(TASK, AccessKind::Writes, 8, under));
        assert!(sharing.conflicts(TASK, AccessKind::Unlocks, 16, under));
        // One that comes to the word only now holds nothing either.
        assert!(sharing.conflicts(third, AccessKind::Writes, 8, under));
        assert!(!sharing.is_void());

        // A part of the search that never saw that learns it.
        let mut other = Sharing::new(2);
        other.learn(&known).unwrap();
        assert!(!other.is_void());
        other.learn(&sharing.to_record()).unwrap();
        assert!(other.is_void());
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
    fn what_one_part_passed_over_the_other_speaks_against() {
        let mut one = Sharing::new(2);
        let mut other = Sharing::new(2);
        assert!(!one.conflicts(TASK, AccessKind::Writes, 8, &[]));
        assert!(!other.conflicts(OTHER, AccessKind::Reads, 8, &[]));
        let mut both = Sharing::new(2);
        both.learn(&one.to_record()).unwrap();
        assert!(!both.is_void());
        both.learn(&other.to_record()).unwrap();
        assert!(both.is_void());
        // With what both know neither passes over it.
        let written = serde_json::to_string(&both.to_record()).unwrap();
        let mut anew = Sharing::new(2);
        anew.learn(&serde_json::from_str(&written).unwrap())
            .unwrap();
        anew.begin_anew();
        assert!(anew.conflicts(TASK, AccessKind::Writes, 8, &[]));
        assert!(!anew.is_void());
        assert!(Sharing::new(3).learn(&one.to_record()).is_err());
    }

    #[test]
    fn a_cpu_that_one_part_took_for_quiet_and_the_other_interrupts_makes_both_void() {
        let mut one = Sharing::new(2);
        let mut other = Sharing::new(2);
        assert!(!one.is_interrupted(1));
        other.interrupts(1);
        one.learn(&other.to_record()).unwrap();
        assert!(one.is_void());
    }
}
