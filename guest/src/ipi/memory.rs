//! Memory as the path sees it: it can run out, it can be freed, and it can be used after that.
//!
//! Nothing here is ever given back to the guest's own heap. What is freed is overwritten with
//! poison and marked, so that a use after free reads poison and is reported, where the kernel would
//! crash, or worse, would not.

use alloc::boxed::Box;
use core::fmt;
use core::sync::atomic::{AtomicU8 as GhostU8, AtomicU64 as GhostU64, Ordering as GhostOrdering};

use kit::counters::count;
use kit::platform::Platform;
use kit::sync::atomic::{AtomicU32, Ordering};
use kit::sync::ghost;
use kit::sync::irq::irqs_off;
use kit::sync::spin::SpinLock;

use crate::machine::Machine;
use crate::oracle::Oracle;

/// What freed memory holds (Linux `POISON_FREE`).
pub const POISON: u8 = 0x6b;

/// There was no memory (`-ENOMEM`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory;

impl fmt::Display for NoMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("out of memory")
    }
}

impl core::error::Error for NoMemory {}

/// What memory can hold: something that can be overwritten with any byte while others look on.
pub trait Contents {
    /// Sets every byte to `byte`.
    fn fill(&self, byte: u8);
}

const FREE: u8 = 0;
const LIVE: u8 = 1;

/// A piece of memory for one `T`.
#[derive(Debug)]
pub struct Cell<T> {
    state: GhostU8,
    value: T,
}

impl<T: Contents> Cell<T> {
    /// A piece that is free, with room for `value`.
    pub fn free_for(value: T) -> Self {
        value.fill(POISON);
        Self {
            state: GhostU8::new(FREE),
            value,
        }
    }

    /// A piece that is in use from the beginning, and holds `value`.
    pub fn holding(value: T) -> Self {
        Self {
            state: GhostU8::new(LIVE),
            value,
        }
    }

    /// Takes the piece into use, zeroed, if it is free.
    ///
    /// # Errors
    /// [`NoMemory`] if the allocator was told so.
    pub fn allocate<P: Platform>(&self, machine: &Machine<P>) -> Result<(), NoMemory> {
        if self.is_live() {
            return Ok(());
        }
        if !machine.grants_memory() {
            return Err(NoMemory);
        }
        self.revive();
        Ok(())
    }

    /// Frees the piece. Freeing what is free is a finding.
    pub fn free<P: Platform>(&self, machine: &Machine<P>) {
        ghost::changes(&self.state);
        if self.state.swap(FREE, GhostOrdering::Relaxed) == FREE {
            machine.report(Oracle::UseAfterFree, 0, u64::from(POISON));
        }
        self.value.fill(POISON);
    }

    /// What it holds. If it has been freed, that is reported, for `call`, and what it holds is
    /// poison.
    pub fn get<P: Platform>(&self, machine: &Machine<P>, call: impl FnOnce() -> u64) -> &T {
        if !self.is_live() {
            machine.report(Oracle::UseAfterFree, call(), u64::from(POISON));
        }
        &self.value
    }

    /// What it holds, in use or not. For observers, such as probes.
    pub fn peek(&self) -> &T {
        &self.value
    }

    /// Whether it is in use.
    pub fn is_live(&self) -> bool {
        ghost::reads(&self.state);
        self.state.load(GhostOrdering::Relaxed) == LIVE
    }

    /// Takes the piece into use even if the allocator is to refuse memory: it stands for stack
    /// memory.
    pub fn revive(&self) -> &T {
        self.value.fill(0);
        ghost::changes(&self.state);
        self.state.store(LIVE, GhostOrdering::Relaxed);
        &self.value
    }
}

/// A piece within a larger one is filled with it.
impl<T: Contents> Contents for Cell<T> {
    fn fill(&self, byte: u8) {
        self.value.fill(byte);
    }
}

/// No piece: the end of the free list.
const NONE: u32 = u32::MAX;

/// Pieces of memory for values of one kind (`kmalloc`, `kfree`).
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Pool<T> {
    cells: Box<[Cell<T>]>,
    lock: SpinLock,
    first_free: AtomicU32,
    next_free: Box<[AtomicU32]>,
    live: GhostU64,
}

impl<T: Contents> Pool<T> {
    /// `count` pieces, all free, each with room for what `make` returns.
    pub fn new(count: usize, make: impl FnMut(usize) -> T) -> Self {
        let next = |index: usize| {
            AtomicU32::new(if index + 1 < count {
                index as u32 + 1
            } else {
                NONE
            })
        };
        Self {
            cells: (0..count).map(make).map(Cell::free_for).collect(),
            lock: SpinLock::new(),
            first_free: AtomicU32::new(if count == 0 { NONE } else { 0 }),
            next_free: (0..count).map(next).collect(),
            live: GhostU64::new(0),
        }
    }

    /// Takes a piece into use, zeroed. From any context.
    ///
    /// # Errors
    /// [`NoMemory`] if none is free, or the allocator was told so.
    pub fn allocate<P: Platform>(&self, machine: &Machine<P>) -> Result<usize, NoMemory> {
        if !machine.grants_memory() {
            return Err(NoMemory);
        }
        let index = irqs_off(&machine.platform, || {
            self.lock.with(&machine.platform, || {
                let first = self.first_free.load(Ordering::Relaxed);
                let next = self.next_free.get(first as usize)?;
                self.first_free
                    .store(next.load(Ordering::Relaxed), Ordering::Relaxed);
                Some(first as usize)
            })
        });
        let Some(index) = index else {
            count(&machine.counters().refused, 1);
            return Err(NoMemory);
        };
        self.live.fetch_add(1, GhostOrdering::Relaxed);
        self.cells[index].revive();
        Ok(index)
    }

    /// Frees piece `index`. From any context.
    pub fn free<P: Platform>(&self, machine: &Machine<P>, index: usize) {
        let was_live = self.cells[index].is_live();
        self.cells[index].free(machine);
        if !was_live {
            return;
        }
        self.live.fetch_sub(1, GhostOrdering::Relaxed);
        irqs_off(&machine.platform, || {
            self.lock.with(&machine.platform, || {
                let first = self.first_free.load(Ordering::Relaxed);
                self.next_free[index].store(first, Ordering::Relaxed);
                self.first_free.store(index as u32, Ordering::Relaxed);
            });
        });
    }

    /// Piece `index`, free or not.
    pub fn cell(&self, index: usize) -> &Cell<T> {
        &self.cells[index]
    }

    /// Number of pieces, free or not.
    pub fn pieces(&self) -> usize {
        self.cells.len()
    }

    /// Number of pieces in use.
    pub fn live(&self) -> u64 {
        self.live.load(GhostOrdering::Relaxed)
    }
}
