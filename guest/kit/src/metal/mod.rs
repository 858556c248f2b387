//! Bare metal: everything between the first instruction and the portable guest that is x86.
//!
//! It is a unikernel and no more: one address space, identity-mapped; no user mode, no device
//! interrupts, no freeing of memory, no preemption. What is left is what cross-CPU calls need:
//! CPUs, their local APICs, a few interrupt vectors, and a console on which to say what went wrong.

#[cfg(feature = "explore")]
pub mod access;
pub mod acpi;
pub mod apic;
pub mod boot;
pub mod clock;
pub mod console;
pub mod cpu;
pub mod end;
pub mod heap;
pub mod hypercall;
pub mod image;
pub mod mem;
pub mod paging;
pub mod physical;
pub mod platform;
pub mod selectors;
pub mod smp;
pub mod start;
pub mod start_info;
pub mod traps;
mod wire;
