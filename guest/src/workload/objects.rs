//! What deeds act on besides the path: locks and words that all CPUs share, the masks with which
//! CPUs call many, and descriptors and timers of their own. Makes no calls, and knows no deed.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU32 as OwnU32, Ordering as OwnOrdering};

use kit::mailbox::Refusal;
use kit::platform::CpuId;
use kit::sync::atomic::{AtomicU64, Ordering};
use kit::sync::mask::AtomicCpuMask;
use kit::sync::spin::SpinLock;

use crate::ipi::csd::CallSingleData;

/// Locks that deeds can take, from 0 on.
pub const LOCKS: usize = 8;

/// Words that deeds can read and write, from 0 on. Each is 0 at first.
pub const WORDS: usize = 8;

/// The objects of one machine.
#[derive(Debug)]
pub struct Objects {
    locks: [OwnLine<SpinLock>; LOCKS],
    words: [OwnLine<AtomicU64>; WORDS],
    cpus: Box<[OfCpu]>,
    csds: &'static [CallSingleData],
}

/// Something in a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
struct OwnLine<T>(T);

/// What belongs to one CPU.
#[derive(Debug)]
#[repr(align(64))]
struct OfCpu {
    /// The mask with which it calls many, and which other CPUs can leave. It is kept while the CPU
    /// is offline.
    mask: AtomicCpuMask,
    /// The locks that its task has.
    held: Held,
    timer: Timer,
}

/// The timer of one CPU. The CPU's task sets it, and its handler finds what it was set for.
#[derive(Debug)]
pub struct Timer {
    /// How often it still comes.
    left: AtomicU64,
    /// The program that its handler carries out.
    program: AtomicU64,
}

impl Timer {
    /// It comes `times` from now on, for this program.
    pub fn set(&self, times: u64, program: u64) {
        self.program.store(program, Ordering::Relaxed);
        self.left.store(times, Ordering::Relaxed);
    }

    /// It has come. Returns the program that it was set for, and whether it comes again; `None` if
    /// it was set anew meanwhile, to come no more.
    pub fn take(&self) -> Option<(u64, bool)> {
        let left = self.left.load(Ordering::Relaxed).checked_sub(1)?;
        self.left.store(left, Ordering::Relaxed);
        Some((self.program.load(Ordering::Relaxed), left != 0))
    }
}

/// The locks that one context has, by its own account: a CPU's task, or one run of a function. No
/// other context may look at it.
#[derive(Debug)]
pub struct Held(OwnU32);

const _: () = assert!(LOCKS <= u32::BITS as usize);

impl Held {
    /// None.
    pub const fn none() -> Self {
        Self(OwnU32::new(0))
    }

    /// Notes that the context has taken this lock.
    pub fn insert(&self, lock: usize) {
        self.0.fetch_or(1 << lock, OwnOrdering::Relaxed);
    }

    /// Notes that it has this lock no longer. Returns whether it had it.
    pub fn remove(&self, lock: usize) -> bool {
        let bit = 1 << lock;
        self.0.fetch_and(!bit, OwnOrdering::Relaxed) & bit != 0
    }
}

impl Objects {
    /// The objects of a machine of `cpus` CPUs.
    pub fn new(cpus: usize) -> Self {
        let of_cpu = |_| OfCpu {
            mask: AtomicCpuMask::none(cpus),
            held: Held::none(),
            timer: Timer {
                left: AtomicU64::new(0),
                program: AtomicU64::new(0),
            },
        };
        let csds: Box<[_]> = (0..cpus).map(|_| CallSingleData::new()).collect();
        Self {
            locks: core::array::from_fn(|_| OwnLine(SpinLock::new())),
            words: core::array::from_fn(|_| OwnLine(AtomicU64::new(0))),
            cpus: (0..cpus).map(of_cpu).collect(),
            csds: Box::leak(csds),
        }
    }

    /// Lock `number`.
    ///
    /// # Errors
    /// If there is no such lock.
    pub fn lock(&self, number: u64) -> Result<(usize, &SpinLock), Refusal> {
        let place = usize::try_from(number).map_err(|_| Refusal::Invalid)?;
        let OwnLine(lock) = self.locks.get(place).ok_or(Refusal::Invalid)?;
        Ok((place, lock))
    }

    /// Word `number`.
    ///
    /// # Errors
    /// If there is no such word.
    pub fn word(&self, number: u64) -> Result<&AtomicU64, Refusal> {
        let place = usize::try_from(number).map_err(|_| Refusal::Invalid)?;
        let OwnLine(word) = self.words.get(place).ok_or(Refusal::Invalid)?;
        Ok(word)
    }

    /// The mask with which `cpu` calls many, if there is such a CPU.
    pub fn mask_of(&self, cpu: CpuId) -> Option<&AtomicCpuMask> {
        self.cpus.get(cpu).map(|of| &of.mask)
    }

    /// The locks that the task of `cpu` has.
    pub fn held_by_task(&self, cpu: CpuId) -> &Held {
        &self.cpus[cpu].held
    }

    /// The timer of `cpu`.
    pub fn timer_of(&self, cpu: CpuId) -> &Timer {
        &self.cpus[cpu].timer
    }

    /// The descriptor of `cpu` for its own calls.
    pub fn csd_of(&self, cpu: CpuId) -> &'static CallSingleData {
        &self.csds[cpu]
    }
}
