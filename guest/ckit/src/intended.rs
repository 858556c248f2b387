//! Races that the source says are intended (`LAB_DATA_RACE` of `lab.h`, the kernel's `data_race()`):
//! while a context is in such an expression, its accesses are not announced as plain. Counts, for
//! each task and handler of a CPU, how many of these it is in; knows nothing of accesses.

use core::sync::atomic::{AtomicU32, Ordering};

/// By CPU: how many such expressions its task and its handler are in.
#[cfg(feature = "image")]
static NESTED: [[AtomicU32; 2]; kit::sync::mask::MAX_CPUS] =
    [const { [const { AtomicU32::new(0) }; 2] }; kit::sync::mask::MAX_CPUS];

/// How many there are on all CPUs. Every plain access looks here first.
static ALL: AtomicU32 = AtomicU32::new(0);

/// Whether the accesses of this context are intended to race.
#[inline(always)]
pub fn is_intended() -> bool {
    ALL.load(Ordering::Relaxed) != 0 && is_here()
}

#[cold]
#[inline(never)]
fn is_here() -> bool {
    here().load(Ordering::Relaxed) != 0
}

/// A context enters such an expression.
pub fn begin() {
    change(1);
}

/// It leaves the expression.
pub fn end() {
    change(u32::MAX);
}

/// This CPU starts anew, and what it was in before is over.
#[cfg(feature = "image")]
pub fn starts(cpu: usize) {
    for count in &NESTED[cpu] {
        let were = count.load(Ordering::Relaxed);
        ALL.store(
            ALL.load(Ordering::Relaxed).wrapping_sub(were),
            Ordering::Relaxed,
        );
        count.store(0, Ordering::Relaxed);
    }
}

/// A load and a store: no other CPU runs meanwhile, and handlers leave everything as it was.
fn change(by: u32) {
    for count in [here(), &ALL] {
        let before = count.load(Ordering::Relaxed);
        count.store(before.wrapping_add(by), Ordering::Relaxed);
    }
}

#[cfg(feature = "image")]
fn here() -> &'static AtomicU32 {
    use crate::surface::{lab_cpu, lab_in_handler};

    &NESTED[lab_cpu() as usize][usize::from(lab_in_handler())]
}

/// In tests a thread is a context.
#[cfg(not(feature = "image"))]
fn here() -> &'static AtomicU32 {
    std::thread_local! {
        static HERE: &'static AtomicU32 = std::boxed::Box::leak(std::boxed::Box::default());
    }
    HERE.with(|here| *here)
}
