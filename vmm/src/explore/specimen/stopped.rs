//! A CPU that has stopped: where, and what must be known of it to go on from there. Plain data.

use kvm_bindings::kvm_regs;
use shared::stop::Kind;

use crate::explore::sharing::Who;

/// The first of the vectors that can be pending; the others come behind it.
pub(super) const FIRST_VECTOR: u8 = 0xf0;

pub(super) const INTERRUPT_FLAG: u64 = 1 << 9;

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
    /// Before the instruction at this address.
    Instruction(u64),
}

/// One CPU, stopped.
#[derive(Debug, Clone)]
pub struct Stopped {
    pub(super) regs: kvm_regs,
    /// Where.
    pub at: Stop,
    /// Whether one of its handlers runs, and not its task.
    pub in_handler: bool,
    /// Words that its task and its handler have read since they last did anything else, or last went round in a
    /// loop in which they wait, with what they held.
    pub(super) seen: [Vec<(u64, u64)>; 2],
    /// Locks that its task and its handler hold.
    pub(super) locks: [Vec<u64>; 2],
    /// The lock that it has been said to take, whose accesses still follow.
    pub(super) taking: Option<u64>,
    /// What memory that CPUs share looked like when it came to a loop in which it waits, where nobody says
    /// what it has read.
    pub(super) waits_since: Option<u128>,
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

    pub(super) fn who(&self, cpu: usize) -> Who {
        Who {
            cpu: u32::try_from(cpu).unwrap_or(u32::MAX),
            in_handler: self.in_handler,
        }
    }

    /// Whether it takes interrupts here.
    pub fn irqs_on(&self) -> bool {
        self.regs.rflags & INTERRUPT_FLAG != 0 || self.at == Stop::Idle
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
        let seen = if self.at == Stop::Relax {
            &self.seen[self.context()][..]
        } else {
            &[]
        };
        seen.iter().map(|(word, _)| *word)
    }

    /// Its instruction pointer.
    pub fn rip(&self) -> u64 {
        self.regs.rip
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
        seen: Default::default(),
        locks: Default::default(),
        taking: None,
        waits_since: None,
        repeats: false,
        pending: 0,
        given: 0,
    }
}
