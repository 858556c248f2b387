//! What every CPU has for itself, found by the GS base: its number, its descriptors, its stacks.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::arch::asm;
use core::mem::offset_of;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use guest::lab::CpuCounters;
use x86_64::VirtAddr;
use x86_64::registers::model_specific::GsBase;

use super::acpi::Cpus;
use super::descriptors::Descriptors;
use guest::lab::Lab;

/// Bytes of the stack a CPU runs the workload on.
pub const TASK_STACK: usize = 32 << 10;

/// One CPU's area.
#[derive(Debug)]
#[repr(C)]
pub struct PerCpu {
    /// The address of this area, so that one load finds it.
    this: *const Self,
    /// The CPU's number.
    pub index: usize,
    /// Its APIC id.
    pub apic_id: u32,
    /// Its counters in the lab.
    pub counters: &'static CpuCounters,
    /// Whether the monitor listens at the doorbell.
    pub has_doorbell: bool,
    descriptors: Descriptors,
}

/// Every CPU's area, by index.
static ALL: AtomicPtr<Vec<PerCpu>> = AtomicPtr::new(ptr::null_mut());

/// Makes the areas of all CPUs.
pub fn init(cpus: &Cpus, lab: Lab, has_doorbell: bool) {
    let lab: &'static Lab = Box::leak(Box::new(lab));
    let mut areas = Vec::with_capacity(cpus.len());
    for (index, apic_id) in cpus.apic_ids().iter().enumerate() {
        areas.push(PerCpu {
            this: ptr::null(),
            index,
            apic_id: *apic_id,
            counters: lab.counters(index),
            has_doorbell,
            descriptors: Descriptors::new(),
        });
    }
    for area in &mut areas {
        area.this = ptr::from_ref(area);
    }
    ALL.store(Box::leak(Box::new(areas)), Ordering::Release);
}

/// The areas of all CPUs.
pub fn all() -> &'static [PerCpu] {
    // SAFETY: null or leaked by `init`, and not changed since but through each CPU's own
    // descriptors, which nobody reaches from here.
    unsafe { ALL.load(Ordering::Acquire).as_ref() }.map_or(&[], Vec::as_slice)
}

impl PerCpu {
    /// Makes area `index` that of the CPU this runs on, and loads its descriptors.
    pub fn install(index: usize) {
        let area = &all()[index];
        area.descriptors.load();
        GsBase::write(VirtAddr::from_ptr(area.this));
    }

    /// The area of the CPU this runs on. Only after [`PerCpu::install`].
    pub fn this() -> &'static Self {
        let area: *const Self;
        // SAFETY: reads the first field of the area that the GS base names.
        unsafe {
            asm!(
                "mov {}, gs:[{this}]",
                out(reg) area,
                this = const offset_of!(Self, this),
                options(nostack, preserves_flags, readonly, pure)
            );
        }
        // SAFETY: `init` wrote the area's own address there, and areas live for ever.
        unsafe { &*area }
    }
}

/// The number of this CPU, or 0 while there are no areas yet and only the first CPU runs.
pub fn index() -> usize {
    if GsBase::read().is_null() {
        0
    } else {
        PerCpu::this().index
    }
}
