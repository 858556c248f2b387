//! What each CPU has of its own: its number, its descriptor tables, its stacks. GS base points to
//! this area, so that a CPU finds it with one instruction.

use alloc::alloc::{alloc, handle_alloc_error};
use core::alloc::Layout;
use core::arch::asm;
use core::mem::{MaybeUninit, offset_of};
use core::ptr::{null_mut, with_exposed_provenance};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

use crate::platform::CpuId;
use crate::sync::atomic::{AtomicU32 as SharedU32, Ordering as SharedOrdering};
use x86_64::VirtAddr;
use x86_64::instructions::tables::load_tss;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};
use x86_64::structures::tss::TaskStateSegment;

use super::paging;
use super::selectors::{CODE64, DATA, TSS};

/// APIC ids are below this. KVM's own limit on vCPU ids is the same.
pub const APIC_IDS: usize = 4096;

/// Offset of the end of the task stack in an [`Area`], where stack pointers start.
pub const TASK_STACK_TOP: usize = offset_of!(Area, irq_guard);

/// The areas by APIC id, which is all that a starting CPU knows of itself; null where there is no
/// CPU.
pub static AREAS: [AtomicPtr<Area>; APIC_IDS] = [const { AtomicPtr::new(null_mut()) }; APIC_IDS];

/// The area of the first CPU, which needs a stack before there is a heap.
pub static mut BOOT_AREA: MaybeUninit<Area> = MaybeUninit::uninit();

/// The stacks to which interrupts switch, as indices into the TSS's interrupt stack table. Every
/// vector uses one, because code from the prebuilt `core` keeps data below its stack pointer.
#[derive(Clone, Copy, Debug)]
#[repr(u16)]
pub enum InterruptStack {
    /// The IPIs. They do not nest, since their handlers leave interrupts off.
    Irq = 0,
    /// Exceptions. They return at once or never, so a second one may overwrite the first.
    Exception = 1,
    /// NMI, which can hit an exception's report.
    Nmi = 2,
    /// Double fault, whose stack must be good whatever else is broken.
    DoubleFault = 3,
}

type Pages<const N: usize> = MaybeUninit<[[u8; 4096]; N]>;

/// The memory of one CPU. The guard pages are unmapped. The last three stacks have none: they are
/// used only when the run is about to end.
#[derive(Debug)]
#[repr(C)]
pub struct Area {
    /// What GS base points to.
    pub cpu: Cpu,
    task_guard: Pages<1>,
    task_stack: Pages<8>,
    irq_guard: Pages<1>,
    irq_stack: Pages<4>,
    exception_stack: Pages<2>,
    nmi_stack: Pages<2>,
    double_fault_stack: Pages<2>,
}

/// The CPU is not online, and another one waits until it is.
const STARTING: u32 = 0;
/// It can take interrupts.
const ONLINE: u32 = 1;
/// It was not online in time.
const GIVEN_UP: u32 = 2;

/// One CPU.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct Cpu {
    /// Its own address, so that `gs:[0]` gives it.
    pub this: *const Self,
    /// Its number: 0 for the CPU that booted, the others in the order of the MADT.
    pub index: CpuId,
    /// How far its start has come: [`STARTING`], [`ONLINE`] or [`GIVEN_UP`]. Whoever changes the
    /// first of these decides. Other CPUs access it while this one runs.
    started: SharedU32,
    /// Whether it was online before it was started last.
    was_online: bool,
    /// Bit 0: KVM takes the end of the interrupt in service from here (`MSR_KVM_PV_EOI_EN`). KVM
    /// sets the bit between two instructions of this CPU, and clears it when it has seen it; no
    /// other CPU reads it.
    pub pv_eoi: AtomicU32,
    /// Set once the CPU reports a panic or an exception, so that another one within the report ends
    /// it.
    pub dying: AtomicBool,
    gdt: GlobalDescriptorTable,
    tss: TaskStateSegment,
}

// SAFETY: `this` is never written again and points to the `Cpu` itself; the rest is atomics, and
// tables that only the CPU's own hardware reads once they are loaded.
unsafe impl Sync for Cpu {}

impl Area {
    /// Makes `area` the area of CPU `index`, which was online before or not.
    ///
    /// # Safety
    /// `area` must be memory for an area that lives for ever and that nothing refers to. If this
    /// CPU runs on that area, nothing may have used GS base before.
    unsafe fn init(area: *mut Self, index: CpuId, was_online: bool) -> &'static Cpu {
        let end_of =
            |offset: usize, size: usize| VirtAddr::new((area as usize + offset + size) as u64);
        let mut tss = TaskStateSegment::new();
        tss.interrupt_stack_table[InterruptStack::Irq as usize] =
            end_of(offset_of!(Self, irq_stack), size_of::<Pages<4>>());
        tss.interrupt_stack_table[InterruptStack::Exception as usize] =
            end_of(offset_of!(Self, exception_stack), size_of::<Pages<2>>());
        tss.interrupt_stack_table[InterruptStack::Nmi as usize] =
            end_of(offset_of!(Self, nmi_stack), size_of::<Pages<2>>());
        tss.interrupt_stack_table[InterruptStack::DoubleFault as usize] =
            end_of(offset_of!(Self, double_fault_stack), size_of::<Pages<2>>());
        let cpu = Cpu {
            this: area.cast(),
            index,
            started: SharedU32::new(STARTING),
            was_online,
            pv_eoi: AtomicU32::new(0),
            dying: AtomicBool::new(false),
            gdt: GlobalDescriptorTable::new(),
            tss,
        };
        // SAFETY: the caller's area has room for its `Cpu`, at offset 0, and nothing refers to it.
        let cpu = unsafe { &mut *area.cast::<MaybeUninit<Cpu>>() }.write(cpu);
        let code = cpu.gdt.append(Descriptor::kernel_code_segment());
        let data = cpu.gdt.append(Descriptor::kernel_data_segment());
        // SAFETY: the TSS is in the same `Cpu`, which lives for ever and does not move.
        let tss = unsafe { Descriptor::tss_segment_unchecked(&raw const cpu.tss) };
        let tss = cpu.gdt.append(tss);
        debug_assert_eq!((code.0, data.0, tss.0), (CODE64, DATA, TSS));
        cpu
    }

    /// Makes an area for CPU `index` on the heap. The CPU finds it by its APIC id when it starts.
    pub fn allocate(index: CpuId, apic_id: u32) -> &'static Cpu {
        let layout = Layout::new::<Self>();
        // SAFETY: an area has a size.
        let area = unsafe { alloc(layout) }.cast::<Self>();
        if area.is_null() {
            handle_alloc_error(layout);
        }
        // SAFETY: just allocated and never freed; it belongs to another CPU, which does not run
        // yet.
        let cpu = unsafe { Self::init(area, index, false) };
        AREAS[apic_id as usize].store(area, Ordering::Release);
        cpu
    }

    /// Resets the area of CPU `index` to what it was before the CPU first started: the CPU will
    /// load its task register again, which needs a TSS that is not marked busy. The CPU finds that
    /// when it is started: whatever starts it comes after earlier stores.
    ///
    /// # Safety
    /// The CPU has an area, and does not use it until it is started again; no other CPU uses it
    /// meanwhile.
    pub unsafe fn renew(index: CpuId, apic_id: u32) -> &'static Cpu {
        let area = AREAS[apic_id as usize].load(Ordering::Acquire);
        // SAFETY: it was allocated, and `init` has filled it.
        let cpu = unsafe { &(*area).cpu };
        let was_online = cpu.was_online || cpu.is_online();
        // SAFETY: an area that was allocated for that CPU, and that is not in use, by the caller's
        // promise.
        unsafe { Self::init(area, index, was_online) }
    }
}

impl Cpu {
    /// Makes the statically allocated area that of this CPU, the first.
    ///
    /// # Safety
    /// Once, by the first CPU, before anything asks for the current CPU.
    pub unsafe fn init_first() -> &'static Self {
        let area = (&raw mut BOOT_AREA).cast();
        // SAFETY: by the caller's promise this is the first use of the area, except for its task
        // stack, which `init` does not touch.
        unsafe { Area::init(area, 0, false) }
    }

    /// Where the CPU with this APIC id has the stack of its tasks and that of its handlers. The
    /// first CPU has no area on the heap: its stacks are in the one it booted with.
    pub fn stacks(apic_id: u32) -> [[u64; 2]; 2] {
        let area = AREAS[apic_id as usize].load(Ordering::Acquire);
        let area = if area.is_null() {
            (&raw const BOOT_AREA).addr()
        } else {
            area.addr()
        };
        let range = |offset: usize, size: usize| {
            [offset, offset + size].map(|offset| (area + offset) as u64)
        };
        [
            range(offset_of!(Area, task_stack), size_of::<Pages<8>>()),
            range(offset_of!(Area, irq_stack), size_of::<Pages<4>>()),
        ]
    }

    /// This CPU can take interrupts. Returns `false` if nobody waits for it any more: then it may
    /// take no part, since its start-up IPI has come too late.
    pub fn comes_online(&self) -> bool {
        self.decide(ONLINE)
    }

    /// Nobody waits for this CPU any more, unless it is online already.
    pub fn give_up(&self) {
        self.decide(GIVEN_UP);
    }

    /// Whether it came online when it was started last.
    pub fn is_online(&self) -> bool {
        self.started.load(SharedOrdering::Acquire) == ONLINE
    }

    /// Whether it was ever online before it was started last.
    pub fn was_online(&self) -> bool {
        self.was_online
    }

    fn decide(&self, outcome: u32) -> bool {
        let (success, failure) = (SharedOrdering::AcqRel, SharedOrdering::Acquire);
        self.started
            .compare_exchange(STARTING, outcome, success, failure)
            .is_ok()
    }

    /// Loads this CPU's descriptor tables, on the CPU itself.
    pub fn load_tables(&'static self) {
        self.gdt.load();
        // SAFETY: the selector is that of the TSS in the table just loaded. The code and data
        // selectors in use have the same meaning in it as before.
        unsafe { load_tss(SegmentSelector(TSS)) };
    }

    /// Unmaps the pages below the task and IRQ stacks.
    pub fn guard_stacks(&self) {
        let area = self as *const Self as u64;
        for offset in [offset_of!(Area, task_guard), offset_of!(Area, irq_guard)] {
            // SAFETY: a guard holds nothing and is never used.
            unsafe { paging::remove(area + offset as u64) };
        }
    }

    /// The CPU this code runs on.
    pub fn current() -> &'static Self {
        let this: usize;
        // SAFETY: `boot` points GS base to this CPU's area before it enters Rust, and `Area::init`
        // fills it before anything asks. No code ever moves to another CPU, so the value is the
        // same every time.
        unsafe {
            asm!("mov {}, gs:[0]", out(reg) this, options(pure, nomem, nostack, preserves_flags));
        }
        // SAFETY: the address of a `Cpu` that lives for ever.
        unsafe { &*with_exposed_provenance(this) }
    }
}
