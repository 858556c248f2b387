//! Which accesses of which CPUs can get into each other's way. Learnt from the accesses themselves, all
//! orders of a search together: what never conflicts with anything need not be tried in different orders.
//!
//! Two accesses *conflict* if they touch the same word, their order can matter there ([`Way`]), they come from different
//! contexts (the task and the handlers of one CPU are two), and no lock is held at both. An access that
//! conflicts with none is *passed over*: its CPU goes on without anybody being asked. That is sound as long as
//! nothing is learnt later that speaks against it; if so, the search so far is void and [`Sharing::is_void`].
//! It then begins anew with what has been learnt, which only grows, so that it does not begin anew for ever.
//! `docs/exploration.md` has the argument.

use std::collections::HashMap;

use shared::stop::Kind;

/// Who makes an access: a CPU, in one of its two contexts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Who {
    /// The CPU.
    pub cpu: u32,
    /// Whether one of its handlers does.
    pub in_handler: bool,
}

/// How one context uses one word.
#[derive(Debug, Clone)]
struct Use {
    who: Who,
    way: Way,
    /// Locks held at each such access.
    locks: Vec<u64>,
    conflicts: bool,
    passed_over: bool,
}

/// What is known of all words.
#[derive(Debug, Default)]
pub struct Sharing {
    words: HashMap<u64, Vec<Use>>,
    /// By CPU: whether it was ever sent an interrupt.
    interrupted: Vec<bool>,
    /// CPUs of which it was taken for granted that they are not.
    taken_for_quiet: Vec<bool>,
    is_void: bool,
}

/// What an access does to a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// Reads it.
    Reads,
    /// Writes it, or reads and writes it.
    Writes,
    /// Changes it so that the order of such changes does not matter.
    Marks,
}

impl Way {
    /// That of accesses of this kind.
    pub fn of(kind: Kind) -> Self {
        match kind {
            Kind::Load | Kind::IrqsOff => Self::Reads,
            Kind::Mark => Self::Marks,
            Kind::Store | Kind::ReadModifyWrite | Kind::Lock => Self::Writes,
        }
    }

    /// Whether the order of two accesses to one word can matter.
    pub fn collides(self, other: Self) -> bool {
        self != other || self == Self::Writes
    }
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

    /// Learns that `who` is about to access the word at `address` with `locks` held. Whether that can conflict
    /// with another access; if not, the search passes over it.
    pub fn conflicts(&mut self, who: Who, kind: Kind, address: u64, locks: &[u64]) -> bool {
        let way = Way::of(kind);
        let uses = self.words.entry(address).or_default();
        let at = uses
            .iter()
            .position(|known| known.who == who && known.way == way);
        let (at, is_new) = match at {
            Some(at) => {
                let known = &mut uses[at];
                let before = known.locks.len();
                known.locks.retain(|lock| locks.contains(lock));
                (at, known.locks.len() != before)
            }
            None => {
                uses.push(Use {
                    who,
                    way,
                    locks: locks.to_vec(),
                    conflicts: false,
                    passed_over: false,
                });
                (uses.len() - 1, true)
            }
        };
        if is_new {
            self.is_void |= judge(uses);
        }
        let this = &mut uses[at];
        this.passed_over |= !this.conflicts;
        this.conflicts
    }

    /// Learns that `cpu` is sent an interrupt.
    pub fn interrupts(&mut self, cpu: usize) {
        if !self.interrupted[cpu] {
            self.interrupted[cpu] = true;
            self.is_void |= self.taken_for_quiet[cpu];
        }
    }

    /// Whether `cpu` can be sent an interrupt; if not, the search passes over the moments that matter only
    /// for that.
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
    for at in 0..uses.len() {
        let one = &uses[at];
        let conflicts = uses.iter().any(|other| {
            other.who != one.who
                && other.way.collides(one.way)
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

    const TASK: Who = Who {
        cpu: 0,
        in_handler: false,
    };
    const OTHER: Who = Who {
        cpu: 1,
        in_handler: true,
    };

    #[test]
    fn readers_do_not_conflict_and_a_writer_does() {
        let mut sharing = Sharing::new(2);
        assert!(!sharing.conflicts(TASK, Kind::Load, 8, &[]));
        assert!(!sharing.conflicts(OTHER, Kind::Load, 8, &[]));
        assert!(!sharing.is_void());
        assert!(sharing.conflicts(OTHER, Kind::Store, 8, &[]));
        // The reads were passed over, and should not have been.
        assert!(sharing.is_void());
        sharing.begin_anew();
        assert!(sharing.conflicts(TASK, Kind::Load, 8, &[]));
        // The one writer reads what nobody else writes.
        assert!(!sharing.conflicts(OTHER, Kind::Load, 8, &[]));
        assert!(!sharing.is_void());
        assert_eq!(sharing.size(), (1, 1));
    }

    #[test]
    fn marks_collide_with_all_but_marks() {
        let mut sharing = Sharing::new(2);
        assert!(!sharing.conflicts(TASK, Kind::Mark, 8, &[]));
        assert!(!sharing.conflicts(OTHER, Kind::Mark, 8, &[]));
        assert!(sharing.conflicts(TASK, Kind::Load, 8, &[]));
        assert!(sharing.conflicts(OTHER, Kind::Mark, 8, &[]));
    }

    #[test]
    fn a_common_lock_keeps_accesses_apart_until_one_is_made_without() {
        let mut sharing = Sharing::new(2);
        assert!(!sharing.conflicts(TASK, Kind::Store, 8, &[1, 2]));
        assert!(!sharing.conflicts(OTHER, Kind::Store, 8, &[2, 3]));
        assert!(!sharing.conflicts(OTHER, Kind::Store, 8, &[2]));
        assert!(!sharing.is_void());
        assert!(sharing.conflicts(OTHER, Kind::Load, 8, &[]));
        assert!(sharing.is_void());
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
}
