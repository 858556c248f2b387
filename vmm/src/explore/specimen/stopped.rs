//! A CPU that has stopped: where, what must be known of it to go on from there, and what follows
//! from that by the rules of the search: whether it can go on, and whether others can get in its
//! way. Plain data: knows no machine.

use std::hash::{Hash, Hasher};

use kvm_bindings::kvm_regs;
use shared::stop::Kind;
use xxhash_rust::xxh3::Xxh3;

use super::waiting::{Depth, Turns};
use crate::explore::sharing::{AccessKind, CpuContext, Sharing};

/// The first of the vectors that can be pending in a search; the others come behind it.
pub(super) const FIRST_VECTOR: u8 = 0xf0;

pub(super) const INTERRUPT_FLAG: u64 = 1 << 9;

/// The one flag that is always set (SDM Vol. 1, 3.4.3).
const FIXED_FLAG: u64 = 1 << 1;

/// Where a CPU has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stop {
    /// Before an access to shared memory, or before it disables interrupts.
    Access(Kind, u64),
    /// Before an IPI leaves it.
    Send {
        /// To which CPU.
        target: usize,
        /// Which.
        vector: u8,
    },
    /// It waits for an interrupt.
    Idle,
    /// In a loop that waits for another CPU.
    Relax,
    /// It has left, and does nothing any more.
    Left,
    /// At a named point, by its place among the image's points.
    Point(usize),
}

/// One CPU, stopped.
#[derive(Debug, Clone)]
pub struct Stopped {
    pub(super) regs: kvm_regs,
    /// Where.
    pub at: Stop,
    /// Whether one of its handlers runs, and not its task.
    pub in_handler: bool,
    /// What its task and its handler have found in the loops in which they wait.
    pub(super) turns: [Turns; 2],
    /// In how many loops its present context waits.
    pub(super) depth: Depth,
    /// In how many its task does, while a handler runs.
    pub(super) below: u64,
    /// Locks that its task and its handler hold.
    pub(super) locks: [Vec<u64>; 2],
    /// The lock that it has been said to take, whose accesses still follow.
    pub(super) taking: Option<u64>,
    /// Where nobody says what it reads: whether another turn of the loop in which it waits would
    /// change nothing, as was tried. It follows from the rest of the machine's state.
    pub(super) is_stuck: bool,
    /// Whether its task will announce once more what it was about to do when it took an interrupt.
    pub(super) repeats: bool,
    /// Vectors that are pending, from [`FIRST_VECTOR`] on.
    pub(super) pending: u16,
    /// Commands that it was given so far.
    pub(super) given: usize,
}

impl Stopped {
    /// The place of its context in what is kept for each.
    pub(super) fn context(&self) -> usize {
        usize::from(self.in_handler)
    }

    pub(super) fn cpu_context(&self, cpu: usize) -> CpuContext {
        CpuContext {
            cpu: u32::try_from(cpu).unwrap_or(u32::MAX),
            in_handler: self.in_handler,
        }
    }

    /// Whether it takes interrupts here.
    pub fn irqs_on(&self) -> bool {
        self.regs.rflags & INTERRUPT_FLAG != 0 || self.at == Stop::Idle
    }

    /// Whether it can take an interrupt that is pending.
    pub(super) fn takes_interrupts(&self) -> bool {
        self.irqs_on() && self.at != Stop::Left
    }

    /// Whether it can go on with what it is about to do, where every access is a stop and `word`
    /// says what memory holds.
    pub(super) fn can_go_on(&self, word: impl Fn(u64) -> Option<u64>) -> bool {
        match self.at {
            Stop::Idle | Stop::Left => false,
            Stop::Relax => {
                let turns = &self.turns[self.context()];
                turns.can_differ(self.depth, |address, value| word(address) == Some(value))
            }
            // The four bytes there.
            Stop::Access(Kind::Lock, address) => {
                let around = word(address & !7).unwrap_or(0);
                around >> (address % 8 * 8) & u64::from(u32::MAX) == 0
            }
            Stop::Access(..) | Stop::Send { .. } | Stop::Point(_) => true,
        }
    }

    /// Whether others can get in its way where it is, by all that is known, which also learns from
    /// it.
    pub(super) fn is_contended(&self, cpu: usize, sharing: &mut Sharing) -> bool {
        let locks = &self.locks[self.context()];
        match self.at {
            Stop::Access(Kind::IrqsOff, _) => sharing.is_interrupted(cpu),
            // Whoever wants the lock waits for it to be let go, and can do nothing else with it.
            // But its own handler can want it too, and then waits for ever: the last moment for
            // that is before it is let go.
            Stop::Access(Kind::Store, address) if locks.contains(&address) => {
                let is_seen =
                    sharing.conflicts(self.cpu_context(cpu), AccessKind::Unlocks, address, locks);
                is_seen || self.takes_interrupts() && sharing.is_interrupted(cpu)
            }
            Stop::Access(kind, address) => {
                sharing.conflicts(self.cpu_context(cpu), AccessKind::of(kind), address, locks)
            }
            _ => true,
        }
    }

    /// Goes on from where it is, with what it is about to do, where the word it accesses holds
    /// `read`. Returns the word that it writes, if it does and what it leaves there can matter to a
    /// loop it is in.
    pub(super) fn leave(&mut self, read: u64) -> Option<u64> {
        let (context, depth) = (self.context(), self.depth);
        let (locks, turns) = (&mut self.locks[context], &mut self.turns[context]);
        match self.at {
            // To take a lock and let it go again leaves nothing behind.
            Stop::Access(Kind::Lock, address) => {
                locks.push(address);
                self.taking = Some(address);
            }
            Stop::Access(Kind::Store, address) if locks.contains(&address) => {
                locks.retain(|lock| *lock != address);
            }
            Stop::Access(Kind::Load, address) => turns.find(depth, address & !7, read),
            Stop::Access(Kind::Store, address) => return Some(address & !7),
            Stop::Access(Kind::ReadModifyWrite | Kind::Mark, address) => {
                turns.find(depth, address & !7, read);
                return Some(address & !7);
            }
            Stop::Send { .. } => turns.act(depth),
            Stop::Relax => turns.begin(depth),
            Stop::Access(Kind::IrqsOff, _) | Stop::Idle | Stop::Left | Stop::Point(_) => {}
        }
        None
    }

    /// The vectors that are pending.
    pub fn pending(&self) -> impl Iterator<Item = u8> + use<> {
        let pending = self.pending;
        (0..16)
            .filter(move |bit| pending >> bit & 1 != 0)
            .map(|bit| FIRST_VECTOR + bit)
    }

    /// Words that it waits to see changed, if it does.
    pub fn watched(&self) -> impl Iterator<Item = u64> {
        let waits = self.at == Stop::Relax;
        let words = waits.then(|| self.turns[self.context()].words(self.depth));
        words.into_iter().flatten()
    }

    /// Gives the registers that mean nothing at a stop, by [`shared::stop`], the values they always
    /// have there. What the doorbell is rung with stays: it is rung once more when an interrupt was
    /// taken first.
    pub(super) fn forget_dead(&mut self) {
        let regs = &mut self.regs;
        (regs.rcx, regs.r8, regs.r9, regs.r10, regs.r11) = (0, 0, 0, 0, 0);
        if !matches!(self.at, Stop::Access(..)) {
            regs.rsi = 0;
        }
        regs.rflags = FIXED_FLAG | regs.rflags & INTERRUPT_FLAG;
    }

    /// Whether it stands where `other` does, as far as that can matter.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let number = |stopped: &Self| {
            let mut hash = Xxh3::new();
            stopped.hash(&mut hash);
            hash.digest128()
        };
        number(self) == number(other)
    }

    /// Its instruction pointer.
    pub fn rip(&self) -> u64 {
        self.regs.rip
    }
}

/// All that can matter from there on. Whether it [`Stopped::is_stuck`] follows from that and from
/// memory.
impl Hash for Stopped {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let kvm_regs {
            rax,
            rbx,
            rcx,
            rdx,
            rsi,
            rdi,
            rsp,
            rbp,
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
            rip,
            rflags,
        } = self.regs;
        [
            rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip,
            rflags,
        ]
        .hash(state);
        let Self { at, in_handler, .. } = self;
        (at, in_handler).hash(state);
        for (turns, locks) in self.turns.iter().zip(&self.locks) {
            turns.hash(state);
            let mut locks = locks.clone();
            locks.sort_unstable();
            locks.hash(state);
        }
        (self.below, self.taking, self.repeats).hash(state);
        (self.pending, self.given).hash(state);
    }
}

pub(super) fn bit(vector: u8) -> u16 {
    1 << (vector - FIRST_VECTOR)
}

pub(super) fn at_rest(regs: kvm_regs) -> Stopped {
    Stopped {
        regs,
        at: Stop::Idle,
        in_handler: false,
        turns: Default::default(),
        depth: Depth::of(0, 0),
        below: 0,
        locks: Default::default(),
        taking: None,
        is_stuck: false,
        repeats: false,
        pending: 0,
        given: 0,
    }
}
