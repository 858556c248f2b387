//! From the PVH entry point to Rust: 32-bit protected mode without paging, to long mode with the
//! first 4 GiB mapped one to one; and what the monitor says of the machine.
//!
//! Sources: Xen `docs/misc/pvh.pandoc` and `xen/include/public/arch-x86/hvm/start_info.h`; paging,
//! Intel SDM Vol. 3A 4.5 and 10.8.5 (initialising long mode).

use core::arch::global_asm;
use core::ffi::CStr;
use core::ptr::NonNull;
use core::slice;

use x86_64::VirtAddr;

/// Bytes of the first CPU's boot stack.
const BOOT_STACK: usize = 32 << 10;

/// Memory from here to 4 GiB is where devices are, the LAPIC among them: mapped uncached.
const MMIO_START: u64 = 3 << 30;

/// 2 MiB pages in a gigabyte, and entries in a table.
const ENTRIES: u64 = 512;

// Everything below 4 GiB is mapped with 2 MiB pages, which every long-mode CPU has, but for the first
// 2 MiB: their pages are small, so that page 0 can be taken away later.
global_asm!(
    r#"
    .section .note.Xen, "a", @note
    .align 4
    .long 4, 8, 18              # name size, descriptor size, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_entry

    .section .bss.boot, "aw", @nobits
    .align 4096
    .globl boot_pml4
boot_pml4: .skip 4096
boot_pdpt: .skip 4096
boot_pd:   .skip 4 * 4096
    .globl boot_pt
boot_pt:   .skip 4096
    .globl boot_stack_top
boot_stack: .skip {stack}
boot_stack_top:

    .section .rodata.boot, "a"
    .align 8
    .globl boot_gdt_pointer
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff    # 0x08: 64-bit code
    .quad 0x00cf93000000ffff    # 0x10: data
    .quad 0x00cf9b000000ffff    # 0x18: 32-bit code
boot_gdt_pointer:
    .word boot_gdt_pointer - boot_gdt - 1
    .long boot_gdt, 0

    .text
    .code32
    .globl pvh_entry
pvh_entry:
    cld
    movl $boot_stack_top, %esp
    movl %ebx, %esi             # the start info

    movl $boot_pdpt + 3, boot_pml4
    movl $boot_pd + 3, %eax
    movl $boot_pdpt, %edi
1:  movl %eax, (%edi)           # four page directories, a gigabyte each
    addl $4096, %eax
    addl $8, %edi
    cmpl $boot_pdpt + 32, %edi
    jne 1b

    movl $0x83, %eax            # present, writable, 2 MiB
    movl $boot_pd, %edi
2:  movl %eax, (%edi)
    addl $0x200000, %eax
    addl $8, %edi
    cmpl $boot_pd + 8 * {mmio_index}, %edi
    jne 3f
    orl $0x18, %eax             # from here on uncached: PCD, PWT
3:  cmpl $boot_pd + 8 * 2048, %edi
    jne 2b

    movl $boot_pt + 3, boot_pd
    movl $3, %eax               # present, writable, 4 KiB
    movl $boot_pt, %edi
4:  movl %eax, (%edi)
    addl $4096, %eax
    addl $8, %edi
    cmpl $boot_pt + 4096, %edi
    jne 4b

    lgdt boot_gdt_pointer
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
    orl $0x80010001, %eax       # PG, WP, PE
    movl %eax, %cr0
    ljmp $0x08, $5f

    .code64
5:  movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    xorl %ebp, %ebp             # the end of every backtrace
    movl %esi, %edi
    call boot_rust
    ud2
"#,
    stack = const BOOT_STACK,
    mmio_index = const MMIO_START / (1 << 30) * ENTRIES,
    options(att_syntax)
);

/// `XEN_HVM_START_MAGIC_VALUE`.
const MAGIC: u32 = 0x336e_c578;

/// `XEN_HVM_MEMMAP_TYPE_RAM`; anything else is not for the guest's use.
const RAM: u32 = 1;

/// `struct hvm_start_info`, version 1.
#[derive(Debug)]
#[repr(C)]
pub struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    modules: u32,
    module_list: u64,
    command_line: u64,
    /// Address of the ACPI RSDP, or 0.
    pub rsdp: u64,
    memory_map: u64,
    memory_map_entries: u32,
    reserved: u32,
}

/// `struct hvm_memmap_table_entry`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct MemoryRange {
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub size: u64,
    kind: u32,
    reserved: u32,
}

/// The end of what is mapped.
pub const MAPPED_END: u64 = 4 << 30;

impl StartInfo {
    /// The command line, empty if there is none or it is no text.
    pub fn command_line(&self) -> &'static str {
        if self.command_line == 0 || self.command_line >= MAPPED_END {
            return "";
        }
        // SAFETY: the monitor put a zero-terminated string there, by the PVH protocol, and nothing
        // is ever written over it: it lies outside of the heap.
        let line = unsafe { CStr::from_ptr(self.command_line as *const _) };
        line.to_str().unwrap_or("")
    }

    /// The memory map, empty if the monitor gave none (version 0).
    pub fn memory_map(&self) -> &'static [MemoryRange] {
        if self.version < 1 || self.memory_map == 0 || self.memory_map >= MAPPED_END {
            return &[];
        }
        // SAFETY: from version 1 on the fields name a table of that many entries, which the monitor
        // filled and nobody changes.
        unsafe {
            slice::from_raw_parts(
                self.memory_map as *const MemoryRange,
                self.memory_map_entries as usize,
            )
        }
    }

    /// The ranges of RAM.
    pub fn ram(&self) -> impl Iterator<Item = MemoryRange> {
        self.memory_map()
            .iter()
            .copied()
            .filter(|range| range.kind == RAM)
    }

    /// A pointer to `address` and the number of bytes from there to the end of the mapped, reserved
    /// range it lies in; `None` if it is not page-aligned, or not in one.
    pub fn reserved_at(&self, address: u64) -> Option<(NonNull<u8>, u64)> {
        let holds = |range: &&MemoryRange| {
            range.kind != RAM
                && address
                    .checked_sub(range.start)
                    .is_some_and(|offset| offset < range.size)
        };
        let range = self.memory_map().iter().find(holds)?;
        let end = range.start.checked_add(range.size)?.min(MAPPED_END);
        let pointer = NonNull::new(address as *mut u8)?;
        (address.is_multiple_of(shared::lab::ALIGN) && address < end)
            .then(|| (pointer, end - address))
    }
}

unsafe extern "C" {
    static mut boot_pt: [u64; ENTRIES as usize];
}

/// Takes page 0 away, so that a null pointer is a page fault from here on. What the monitor says of
/// the machine may lie there (QEMU puts the memory map there), so nobody may look at it afterwards.
pub fn unmap_page_zero() {
    // SAFETY: the first CPU alone runs, and the page tables are its own.
    unsafe { (&raw mut boot_pt[0]).write_volatile(0) };
    x86_64::instructions::tlb::flush(VirtAddr::zero());
}

/// The first Rust function, on the boot stack, interrupts off.
#[unsafe(no_mangle)]
extern "sysv64" fn boot_rust(start: *const StartInfo) -> ! {
    // SAFETY: the entry code hands over EBX, which by the PVH protocol is the address of the start
    // info, in memory that nobody else uses.
    let start = unsafe { &*start };
    assert!(
        start.magic == MAGIC,
        "not booted by PVH: the start info begins with {:#x}",
        start.magic
    );
    crate::boot_cpu(start)
}
