//! From the first instruction to Rust: the PVH entry of the first CPU, the trampoline of the
//! others, and the page tables and descriptors that both need to reach long mode.
//!
//! The assembler lays everything out, page tables included, so that a host which emulates every
//! instruction has very few to emulate.

use core::arch::global_asm;
use core::mem::offset_of;

use super::cpu::{APIC_IDS, AREAS, Area, BOOT_AREA, Cpu, TASK_STACK_TOP};
use super::paging::{DIRECTORY_ENTRIES, UNCACHED_FROM};
use super::physical::{HUGE_PAGE, PAGE};
use super::selectors::{CODE32, CODE64, DATA};

/// Page into which the trampoline is copied: a start-up IPI can name any below 1 MiB. Firmware is
/// done with it by the time a kernel runs, and PVH monitors keep their boot data elsewhere.
pub const TRAMPOLINE: u64 = 0x8000;

unsafe extern "C" {
    /// Where the first CPU enters Rust, with the address of the PVH start info. The image defines
    /// this and the next function ([`guest!`](crate::guest!)).
    safe fn start_first_cpu(start_info: u32) -> !;
    /// Where every other CPU enters Rust after a start-up IPI.
    safe fn start_other_cpu() -> !;
    /// First byte of the trampoline as linked.
    pub static trampoline_start: u8;
    /// First byte after it.
    pub static trampoline_end: u8;
}

// PVH: "x86/HVM direct boot ABI", xen/include/public/arch-x86/hvm/start_info.h. The entry point is
// named by an ELF note and runs in flat 32-bit protected mode without paging, ebx pointing to the
// start info.
global_asm!(
    r#"
    .section .note.pvh, "a", @note
    .balign 4
    .long 4                         // length of the owner's name
    .long 8                         // length of the descriptor
    .long 18                        // XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_start

    // SDM Vol. 3A 10.8.5, "Initializing IA-32e Mode". `entry` is where 64-bit code goes on.
    .macro enter_long_mode entry
    mov $page_map, %eax
    mov %eax, %cr3
    mov ${cr4_pae}, %eax
    mov %eax, %cr4
    mov ${msr_efer}, %ecx
    rdmsr
    or ${efer_lme}, %eax
    wrmsr
    mov ${cr0}, %eax
    mov %eax, %cr0
    ljmp ${code64}, $\entry
    .endm

    .section .text.boot, "ax", @progbits
    .code32
    .globl pvh_start
    .type pvh_start, @function
pvh_start:
    cli
    cld
    mov %ebx, %edi                  // the start info, first argument of the Rust entry
    lgdt boot_gdt_pointer
    enter_long_mode first_cpu
    .size pvh_start, . - pvh_start

    // Other CPUs come here from the trampoline, with real-mode limits in the data segments: nothing
    // may touch memory before 64-bit code reloads them.
    .type other_cpu_start, @function
other_cpu_start:
    enter_long_mode other_cpu
    .size other_cpu_start, . - other_cpu_start

    .code64
    .type first_cpu, @function
first_cpu:
    mov ${boot_area}, %esi
    mov ${start_first_cpu}, %ebx
    jmp adopt_area
    .size first_cpu, . - first_cpu

    // All that a CPU knows of itself is its APIC id, by which it finds its area. CPUID leaf 0xb has
    // all 32 bits of the id, where there is such a leaf, and leaf 1 the low 8 (SDM Vol. 3A
    // 11.12.8).
    .type other_cpu, @function
other_cpu:
    xor %eax, %eax
    cpuid
    cmp $0xb, %eax
    jb 1f
    mov $0xb, %eax
    xor %ecx, %ecx
    cpuid
    mov %edx, %eax
    test %ebx, %ebx
    jnz 2f
1:  mov $1, %eax
    cpuid
    mov %ebx, %eax
    shr $24, %eax
2:  cmp ${areas_len}, %eax
    jae 3f
    mov {areas}(,%rax,8), %rsi
    test %rsi, %rsi
    jz 3f
    mov ${start_other_cpu}, %ebx
    jmp adopt_area
3:  hlt                             // not in the MADT: it does not take part
    jmp 3b
    .size other_cpu, . - other_cpu

    // rsi: this CPU's area, rbx: the Rust function to enter, edi: its argument.
    .type adopt_area, @function
adopt_area:
    mov ${data}, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov %esi, %eax
    xor %edx, %edx
    mov ${msr_gs_base}, %ecx
    wrmsr
    lea {task_stack_top}(%rsi), %rsp
    xor %ebp, %ebp                  // the outermost frame
    call *%rbx
    ud2
    .size adopt_area, . - adopt_area

    .section .rodata.boot, "a", @progbits
    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff        // CODE64: present, ring 0, accessed
    .quad 0x00cf93000000ffff        // DATA
    .quad 0x00cf9b000000ffff        // CODE32
boot_gdt_end:
boot_gdt_pointer:
    .word boot_gdt_end - boot_gdt - 1
    .long boot_gdt

    // Runs at TRAMPOLINE in real mode, with cs = TRAMPOLINE >> 4 and ip = 0.
    .code16
    .globl trampoline_start
trampoline_start:
    cli
    xor %ax, %ax
    mov %ax, %ds
    lgdtl {trampoline} + trampoline_gdt_pointer - trampoline_start
    mov %cr0, %eax
    or $1, %eax
    mov %eax, %cr0
    ljmpl ${code32}, $other_cpu_start
    .balign 4
trampoline_gdt_pointer:
    .word boot_gdt_end - boot_gdt - 1
    .long boot_gdt
    .globl trampoline_end
trampoline_end:
    .code64

    // 4 GiB, identity-mapped: writable supervisor pages, accessed and dirty from the start so that
    // no walk has to write them. The first 2 MiB are in small pages, so that page 0 can be taken
    // out; the last GiB, which holds the local APICs, is not cached.
    .section .data.boot, "aw", @progbits
    .balign {page}
page_map:
    .quad page_directory_pointers + 0x23
    .fill 511, 8, 0
page_directory_pointers:
    .quad page_directory + 0x23
    .quad page_directory + {page} + 0x23
    .quad page_directory + 2 * {page} + 0x23
    .quad page_directory + 3 * {page} + 0x23
    .fill 508, 8, 0
    .globl page_directory
page_directory:
    .quad page_table + 0x23
    .set index, 1
    .rept {uncached_from} - 1
    .quad index * {huge_page} + 0xe3
    .set index, index + 1
    .endr
    .rept {directory_entries} - {uncached_from}
    .quad index * {huge_page} + 0xfb
    .set index, index + 1
    .endr
page_table:
    .set index, 0
    .rept 512
    .quad index * {page} + 0x63
    .set index, index + 1
    .endr
    .text
    "#,
    // CR0: PE, ET, NE, WP, PG, and caches on.
    cr0 = const 0x8001_0031_u32,
    cr4_pae = const 1 << 5,
    msr_efer = const 0xc000_0080_u32,
    efer_lme = const 1 << 8,
    msr_gs_base = const 0xc000_0101_u32,
    code64 = const CODE64,
    data = const DATA,
    code32 = const CODE32,
    page = const PAGE,
    huge_page = const HUGE_PAGE,
    directory_entries = const DIRECTORY_ENTRIES,
    uncached_from = const UNCACHED_FROM,
    trampoline = const TRAMPOLINE,
    areas = sym AREAS,
    areas_len = const APIC_IDS,
    boot_area = sym BOOT_AREA,
    task_stack_top = const TASK_STACK_TOP,
    start_first_cpu = sym start_first_cpu,
    start_other_cpu = sym start_other_cpu,
    options(att_syntax)
);

const _: () = assert!(offset_of!(Area, cpu) == 0, "GS base points to the Cpu");
const _: () = assert!(
    offset_of!(Cpu, this) == 0,
    "gs:[0] is the Cpu's own address"
);
