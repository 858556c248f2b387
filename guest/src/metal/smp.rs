//! Starting the other CPUs: INIT, start-up IPI, and the way from real mode to the Rust code.
//!
//! Source: Intel SDM Vol. 3A 9.4.4 (MP initialization protocol for BSP and APs). All are started at
//! once: each finds its stack by its own APIC id.

use alloc::boxed::Box;
use core::arch::global_asm;
use core::arch::x86_64::__cpuid;
use core::ptr;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::acpi::{Cpus, MAX_APIC_ID};
use super::percpu::TASK_STACK;
use super::{apic, console::println};

/// Page of the trampoline: below 1 MiB, as a start-up IPI can only name such; free by convention.
const TRAMPOLINE_PAGE: u8 = 8;

/// Seconds within which every CPU must be up.
const PATIENCE_SECONDS: u64 = 10;

/// Cycles per second where the CPU does not say: more than any has, so that nobody is given up early.
const GUESSED_TSC_HZ: u64 = 6_000_000_000;

// Real mode at 0x8000, where CS is 0x800 and everything is addressed by its distance from there; then
// protected mode, long mode, and into the image. The page tables and segments are the first CPU's.
global_asm!(
    r#"
    .section .rodata.trampoline, "a"
    .globl trampoline_start
    .globl trampoline_end
    .code16
trampoline_start:
    cli
    cld
    movw %cs, %ax
    movw %ax, %ds
    lgdtl trampoline_gdt_pointer - trampoline_start
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $0x18, ${base} + (2f - trampoline_start)
    .code32
2:  movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %ss
    movl %cr4, %eax
    orl $0x20, %eax             # PAE
    movl %eax, %cr4
    movl $boot_pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx      # IA32_EFER
    rdmsr
    orl $0x100, %eax            # LME
    wrmsr
    movl %cr0, %eax
    andl $0x9fffffff, %eax      # caches on: CD and NW are set after INIT
    orl $0x80010001, %eax       # PG, WP, PE
    movl %eax, %cr0
    ljmp $0x08, $ap_entry
    .balign 8
trampoline_gdt:
    .quad 0
    .quad 0x00af9b000000ffff    # 0x08: 64-bit code
    .quad 0x00cf93000000ffff    # 0x10: data
    .quad 0x00cf9b000000ffff    # 0x18: 32-bit code
trampoline_gdt_pointer:
    .word trampoline_gdt_pointer - trampoline_gdt - 1
    .long {base} + (trampoline_gdt - trampoline_start)
trampoline_end:

    .text
    .code64
ap_entry:
    xorl %eax, %eax             # the APIC id, as `apic::this_id`
    cpuid
    cmpl $0xb, %eax
    jb 3f
    movl $0xb, %eax
    xorl %ecx, %ecx
    cpuid
    testl %ebx, %ebx
    jnz 4f
3:  movl $1, %eax
    cpuid
    movl %ebx, %edx
    shrl $24, %edx
4:  cmpl ${max_id}, %edx
    ja 5f
    movq {stacks}(,%rdx,8), %rsp
    testq %rsp, %rsp
    jz 5f
    xorl %ebp, %ebp
    movl %edx, %edi
    movq (%rsp), %rsi
    call ap_rust
5:  cli                         # a CPU nobody asked for
    hlt
    jmp 5b
"#,
    base = const (TRAMPOLINE_PAGE as u32) << 12,
    max_id = const MAX_APIC_ID,
    stacks = sym STACKS,
    options(att_syntax)
);

unsafe extern "C" {
    static trampoline_start: u8;
    static trampoline_end: u8;
}

/// Stack pointer of every CPU to be started, by APIC id; 0 for ids that are no CPU's. It points to the
/// CPU's index.
static STACKS: [AtomicU64; MAX_APIC_ID as usize + 1] =
    [const { AtomicU64::new(0) }; MAX_APIC_ID as usize + 1];

/// CPUs that are up, the first included.
static UP: AtomicUsize = AtomicUsize::new(1);

/// Starts all CPUs but the first, and returns how many are up, the first included. Those that do not
/// come up in time are named on the console.
pub fn start_all(cpus: &Cpus) -> usize {
    let others = &cpus.apic_ids()[1..];
    for (apic_id, index) in others.iter().zip(1..) {
        let stack = Box::leak(Box::<[u128]>::new_uninit_slice(TASK_STACK / 16));
        let last = stack.last_mut().expect("a stack has room for an index");
        STACKS[*apic_id as usize].store(ptr::from_mut(last.write(index)) as u64, Ordering::Release);
    }
    install_trampoline();
    for apic_id in others {
        apic::send_init(*apic_id);
    }
    // The SDM asks for 10 ms here, for CPUs of the 1990s; no hypervisor needs any (Linux waits for
    // none on CPUs since 2006). The second start-up IPI is for those that wanted more time.
    for _ in 0..2 {
        for apic_id in others.iter().filter(|id| !is_up(**id)) {
            apic::send_startup(*apic_id, TRAMPOLINE_PAGE);
        }
        if wait_for(cpus.len(), tsc_hz() / 100) {
            return cpus.len();
        }
    }
    wait_for(cpus.len(), PATIENCE_SECONDS * tsc_hz());
    for apic_id in others.iter().filter(|id| !is_up(**id)) {
        println!("the CPU with APIC id {apic_id} did not come up");
    }
    UP.load(Ordering::Acquire)
}

/// Counts this CPU as up.
pub fn report_up() {
    UP.fetch_add(1, Ordering::Release);
}

/// A CPU takes its stack away when it has begun to use it.
fn is_up(apic_id: u32) -> bool {
    STACKS[apic_id as usize].load(Ordering::Acquire) == 0
}

/// Waits until `count` CPUs are up, for `cycles` at most.
fn wait_for(count: usize, cycles: u64) -> bool {
    let begin = super::tsc();
    while UP.load(Ordering::Acquire) < count {
        if super::tsc().wrapping_sub(begin) > cycles {
            return false;
        }
        core::hint::spin_loop();
    }
    true
}

fn install_trampoline() {
    let start = &raw const trampoline_start;
    let length = (&raw const trampoline_end) as usize - start as usize;
    let page = ptr::with_exposed_provenance_mut::<u8>(usize::from(TRAMPOLINE_PAGE) << 12);
    // SAFETY: the page is RAM on every PC, below the image and the heap; the trampoline is shorter
    // than a page.
    unsafe { ptr::copy_nonoverlapping(start, page, length) };
}

/// Cycles per second of the TSC: CPUID leaf 0x15 (SDM), or 0x4000_0010, where hypervisors put it.
fn tsc_hz() -> u64 {
    let has_hypervisor = __cpuid(1).ecx >> 31 != 0;
    if has_hypervisor && __cpuid(0x4000_0000).eax >= 0x4000_0010 {
        let khz = u64::from(__cpuid(0x4000_0010).eax);
        if khz != 0 {
            return khz * 1000;
        }
    }
    if __cpuid(0).eax >= 0x15 {
        let leaf = __cpuid(0x15);
        let (denominator, numerator, crystal) = (leaf.eax, leaf.ebx, leaf.ecx);
        if denominator != 0 && numerator != 0 && crystal != 0 {
            return u64::from(crystal) * u64::from(numerator) / u64::from(denominator);
        }
    }
    GUESSED_TSC_HZ
}

/// The first Rust function of a started CPU, on its own stack, interrupts off.
#[unsafe(no_mangle)]
extern "sysv64" fn ap_rust(apic_id: u32, index: usize) -> ! {
    STACKS[apic_id as usize].store(0, Ordering::Release);
    crate::other_cpu(index)
}
