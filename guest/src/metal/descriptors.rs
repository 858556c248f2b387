//! Segments, the task state and the interrupt table of a CPU.
//!
//! Every vector has an interrupt stack: `core`, where it comes prebuilt for a host target, keeps data
//! below the stack pointer (the red zone), which an interrupt on the same stack would overwrite.
//! Vectors that can interrupt each other have stacks of their own.

use alloc::boxed::Box;
use core::cell::UnsafeCell;

use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, FS, GS, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};
use x86_64::structures::tss::TaskStateSegment;

use super::traps;

/// Which interrupt stack a vector runs on, as an index into the task state.
#[derive(Clone, Copy, Debug)]
pub enum Stack {
    /// Interrupts, which keep each other out.
    Interrupt = 0,
    /// Exceptions, which can happen in an interrupt handler.
    Exception = 1,
    /// The non-maskable interrupt, which can happen in either.
    Nmi = 2,
    /// Double fault and machine check, after which nothing goes on.
    Fatal = 3,
}

/// Bytes of each, by [`Stack`].
const SIZES: [usize; 4] = [16 << 10, 16 << 10, 8 << 10, 8 << 10];

/// One CPU's descriptor tables. They are used by the CPU itself, so they must stay where they are
/// from [`Descriptors::load`] on.
#[derive(Debug)]
pub struct Descriptors {
    /// Read by the hardware alone.
    _tss: Box<TaskStateSegment>,
    /// Written once more when it is loaded: the CPU marks the task segment as busy.
    gdt: UnsafeCell<GlobalDescriptorTable>,
    code: SegmentSelector,
    data: SegmentSelector,
    task: SegmentSelector,
}

// SAFETY: the one field that is not `Sync` is touched in `load` alone, which each CPU calls on its own
// descriptors.
unsafe impl Sync for Descriptors {}

impl Descriptors {
    /// Tables for one CPU, with stacks of its own.
    pub fn new() -> Self {
        let mut tss = Box::new(TaskStateSegment::new());
        // By value: the task state is packed, and its fields have no address of their own.
        tss.interrupt_stack_table = core::array::from_fn(|index| {
            let size = SIZES.get(index).copied().unwrap_or(0);
            // Not cleared: that alone would be thousands of emulated instructions per CPU.
            let stack = Box::leak(Box::<[u128]>::new_uninit_slice(size / 16));
            VirtAddr::from_ptr(stack.as_ptr_range().end)
        });
        let mut gdt = GlobalDescriptorTable::new();
        let code = gdt.append(Descriptor::kernel_code_segment());
        let data = gdt.append(Descriptor::kernel_data_segment());
        // SAFETY: the task state is boxed, and lives and stays as long as the descriptors.
        let task = gdt.append(unsafe { Descriptor::tss_segment_unchecked(&raw const *tss) });
        Self {
            _tss: tss,
            gdt: UnsafeCell::new(gdt),
            code,
            data,
            task,
        }
    }

    /// Has this CPU use them, and the interrupt table that all CPUs share. Clears the GS base.
    pub fn load(&'static self) {
        // SAFETY: only the CPU these descriptors belong to comes here, once, and from then on the
        // table belongs to the hardware.
        let gdt = unsafe { &*self.gdt.get() };
        gdt.load();
        // SAFETY: the selectors name descriptors of the table just loaded: flat code and data.
        unsafe { CS::set_reg(self.code) };
        // SAFETY: as above.
        unsafe { SS::set_reg(self.data) };
        // SAFETY: as above.
        unsafe { DS::set_reg(self.data) };
        // SAFETY: as above.
        unsafe { ES::set_reg(self.data) };
        // SAFETY: a null selector is allowed, and nothing uses FS.
        unsafe { FS::set_reg(SegmentSelector::NULL) };
        // SAFETY: as for FS; the caller sets the GS base next.
        unsafe { GS::set_reg(SegmentSelector::NULL) };
        // SAFETY: names this CPU's own task state, which no CPU has loaded before.
        unsafe { load_tss(self.task) };
        traps::table().load();
    }
}
