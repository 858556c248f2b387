//! Interrupts and exceptions: the interrupt table, its entry points, and the report of what should
//! not have happened.
//!
//! The IPIs of the generic-ipi path have short entries of their own. Everything else, of all 256
//! vectors, goes through one that saves every register for the report.
//!
//! Source: Intel SDM Vol. 3A, 6.3 (vectors), 6.14 (64-bit mode).

use alloc::boxed::Box;
use core::arch::{global_asm, naked_asm};
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use guest::platform::Vector;
use shared::exit::ExitCode;
use x86_64::VirtAddr;
use x86_64::registers::control::Cr2;
use x86_64::structures::idt::InterruptDescriptorTable;

use super::descriptors::Stack;
use super::{apic, exit};

/// What the full entry saves, from the top of the stack down.
#[derive(Debug)]
#[repr(C)]
struct Frame {
    r15: u64,
    r14: u64,
    r13: u64,
    r12: u64,
    r11: u64,
    r10: u64,
    r9: u64,
    r8: u64,
    rdi: u64,
    rsi: u64,
    rdx: u64,
    rcx: u64,
    rbx: u64,
    rax: u64,
    rbp: u64,
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

/// Bytes from one entry point to the next.
const ENTRY_SIZE: u64 = 16;

// Vectors 8, 10-14, 17, 21, 29 and 30 push an error code; for the others a zero takes its place.
global_asm!(
    r#"
    .text
    .balign 16
    .globl trap_entries
trap_entries:
    .set vector, 0
    .rept 256
    .balign 16
    .if vector != 8 && (vector < 10 || vector > 14) && vector != 17 && vector != 21 && vector != 29 && vector != 30
    push 0
    .endif
    push vector
    jmp trap_full
    .set vector, vector + 1
    .endr

trap_full:
    push rbp
    push rax
    push rbx
    push rcx
    push rdx
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    cld
    mov rdi, rsp
    call trap_rust
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    pop rbx
    pop rax
    pop rbp
    add rsp, 16
    iretq
"#
);

unsafe extern "C" {
    static trap_entries: u8;
}

/// An entry for one IPI: saves what a function may change, and nothing more.
macro_rules! ipi_entry {
    ($name:ident, $vector:expr) => {
        #[unsafe(naked)]
        extern "C" fn $name() {
            // The interrupt stack is aligned to 16 and the CPU has pushed five words; with the frame
            // pointer and nine registers, one more word aligns it again.
            naked_asm!(
                "push rbp", "mov rbp, rsp", "push rax", "push rcx", "push rdx", "push rsi",
                "push rdi", "push r8", "push r9", "push r10", "push r11", "sub rsp, 8",
                "cld",
                "mov edi, {vector}",
                "call {handler}",
                "add rsp, 8", "pop r11", "pop r10", "pop r9", "pop r8", "pop rdi", "pop rsi",
                "pop rdx", "pop rcx", "pop rax", "pop rbp",
                "iretq",
                vector = const $vector as u8,
                handler = sym ipi,
            )
        }
    };
}

ipi_entry!(single_entry, Vector::Single);
ipi_entry!(many_entry, Vector::Many);
ipi_entry!(wake_entry, Vector::Wake);

/// The IPIs of the generic-ipi path. The interrupt is ended before it is served, as in Linux: one that
/// arrives meanwhile waits for the `iretq`.
extern "sysv64" fn ipi(vector: u8) {
    apic::end_of_interrupt();
    let vector = match vector {
        0xfb => Vector::Single,
        0xfc => Vector::Many,
        _ => Vector::Wake,
    };
    if let Some(guest) = crate::guest() {
        guest.handle(vector);
    }
}

/// Everything else.
#[unsafe(no_mangle)]
extern "sysv64" fn trap_rust(frame: &Frame) {
    if frame.vector == u64::from(apic::SPURIOUS_VECTOR) {
        return;
    }
    super::console::seize();
    exit::with(ExitCode::Panic, format_args!("{}", Report(frame)))
}

struct Report<'a>(&'a Frame);

impl core::fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let frame = self.0;
        let name = name_of(frame.vector);
        let cr2 = Cr2::read_raw();
        write!(
            f,
            "{name} (vector {:#x}, error {:#x}, cr2 {cr2:#x})\n\
             rip {:016x}  rsp {:016x}  rflags {:08x}  cs {:x}  ss {:x}\n\
             rax {:016x}  rbx {:016x}  rcx {:016x}  rdx {:016x}\n\
             rsi {:016x}  rdi {:016x}  rbp {:016x}  r8  {:016x}\n\
             r9  {:016x}  r10 {:016x}  r11 {:016x}  r12 {:016x}\n\
             r13 {:016x}  r14 {:016x}  r15 {:016x}",
            frame.vector,
            frame.error,
            frame.rip,
            frame.rsp,
            frame.rflags,
            frame.cs,
            frame.ss,
            frame.rax,
            frame.rbx,
            frame.rcx,
            frame.rdx,
            frame.rsi,
            frame.rdi,
            frame.rbp,
            frame.r8,
            frame.r9,
            frame.r10,
            frame.r11,
            frame.r12,
            frame.r13,
            frame.r14,
            frame.r15,
        )
    }
}

/// Names of the exceptions, SDM Vol. 3A table 6-1.
fn name_of(vector: u64) -> &'static str {
    match vector {
        0 => "divide error",
        1 => "debug exception",
        2 => "non-maskable interrupt",
        3 => "breakpoint",
        4 => "overflow",
        5 => "bound range exceeded",
        6 => "invalid opcode",
        7 => "device not available",
        8 => "double fault",
        10 => "invalid TSS",
        11 => "segment not present",
        12 => "stack-segment fault",
        13 => "general protection fault",
        14 => "page fault",
        16 => "x87 floating-point error",
        17 => "alignment check",
        18 => "machine check",
        19 => "SIMD floating-point error",
        21 => "control protection exception",
        0..32 => "exception",
        _ => "unexpected interrupt",
    }
}

static TABLE: AtomicPtr<InterruptDescriptorTable> = AtomicPtr::new(ptr::null_mut());

/// The interrupt table, shared by all CPUs; made when the first of them asks.
pub fn table() -> &'static InterruptDescriptorTable {
    let table = TABLE.load(Ordering::Acquire);
    // SAFETY: null, or leaked below and not changed since.
    if let Some(table) = unsafe { table.as_ref() } {
        return table;
    }
    let table = Box::leak(Box::new(build()));
    TABLE.store(table, Ordering::Release);
    table
}

fn build() -> InterruptDescriptorTable {
    let mut table = InterruptDescriptorTable::new();
    let entries = (&raw const trap_entries) as u64;
    let entry = |vector: u64| VirtAddr::new(entries + vector * ENTRY_SIZE);
    macro_rules! exceptions {
        ($($field:ident $vector:literal $stack:ident,)*) => {$(
            // SAFETY: the entry saves everything, and the stack index names a stack of every task
            // state.
            unsafe { table.$field.set_handler_addr(entry($vector)).set_stack_index(Stack::$stack as u16) };
        )*};
    }
    exceptions! {
        divide_error 0 Exception,
        debug 1 Exception,
        non_maskable_interrupt 2 Nmi,
        breakpoint 3 Exception,
        overflow 4 Exception,
        bound_range_exceeded 5 Exception,
        invalid_opcode 6 Exception,
        device_not_available 7 Exception,
        double_fault 8 Fatal,
        invalid_tss 10 Exception,
        segment_not_present 11 Exception,
        stack_segment_fault 12 Exception,
        general_protection_fault 13 Exception,
        page_fault 14 Exception,
        x87_floating_point 16 Exception,
        alignment_check 17 Exception,
        machine_check 18 Fatal,
        simd_floating_point 19 Exception,
        virtualization 20 Exception,
        cp_protection_exception 21 Exception,
        hv_injection_exception 28 Exception,
        vmm_communication_exception 29 Exception,
        security_exception 30 Exception,
    }
    for vector in 32..=255u8 {
        let address = match vector {
            0xfb => VirtAddr::from_ptr(single_entry as *const ()),
            0xfc => VirtAddr::from_ptr(many_entry as *const ()),
            0xfd => VirtAddr::from_ptr(wake_entry as *const ()),
            _ => entry(u64::from(vector)),
        };
        // SAFETY: as above; the entries of the IPIs save what functions may change.
        unsafe {
            table[vector]
                .set_handler_addr(address)
                .set_stack_index(Stack::Interrupt as u16)
        };
    }
    table
}
