//! The interrupt descriptor table. The vectors of the kit's and the guest's IPIs have short entries
//! of their own. Every other vector ends the run with a report, since nothing in this machine may
//! raise it. The one exception is a hypercall that the host does not know.

use core::arch::{global_asm, naked_asm};
use core::fmt;
use core::mem::offset_of;

use x86_64::VirtAddr;
use x86_64::instructions::tables::lidt;
use x86_64::registers::control::Cr2;
use x86_64::structures::DescriptorTablePointer;
use x86_64::structures::idt::{Entry as Gate, HandlerFunc};

use super::apic::{self, SPURIOUS_VECTOR};
use super::cpu::InterruptStack;
use super::end;
use super::hypercall;
use super::image::{Entry, Image, guest};
use crate::platform::Vector;
use crate::specimen::Specimen;

const VECTORS: usize = 256;
/// Bytes from the entry of one vector to that of the next.
const STUB: usize = 16;

/// The exceptions by vector (SDM Vol. 3A 7.15).
const EXCEPTIONS: [&str; 32] = [
    "#DE divide error",
    "#DB debug",
    "NMI",
    "#BP breakpoint",
    "#OF overflow",
    "#BR bound range exceeded",
    "#UD invalid opcode",
    "#NM device not available",
    "#DF double fault",
    "coprocessor segment overrun",
    "#TS invalid TSS",
    "#NP segment not present",
    "#SS stack-segment fault",
    "#GP general protection",
    "#PF page fault",
    "reserved exception",
    "#MF x87 error",
    "#AC alignment check",
    "#MC machine check",
    "#XM SIMD error",
    "#VE virtualization exception",
    "#CP control protection",
    "reserved exception",
    "reserved exception",
    "reserved exception",
    "reserved exception",
    "reserved exception",
    "reserved exception",
    "#HV hypervisor injection",
    "#VC VMM communication",
    "#SX security exception",
    "reserved exception",
];
const NMI: usize = 2;
const DOUBLE_FAULT: usize = 8;
const INVALID_OPCODE: u64 = 6;
const PAGE_FAULT: u64 = 14;

static mut TABLE: [Gate<HandlerFunc>; VECTORS] = [Gate::missing(); VECTORS];

/// Fills the table that all CPUs share.
///
/// # Safety
/// Once, by the first CPU, before any CPU loads the table.
pub unsafe fn init<I: Image>() {
    unsafe extern "C" {
        static trap_stubs: u8;
    }
    let table = &raw mut TABLE;
    // SAFETY: by the caller's promise this is the only reference.
    let table = unsafe { &mut *table };
    let stubs = &raw const trap_stubs as u64;
    for (vector, entry) in table.iter_mut().enumerate() {
        let stack = match vector {
            NMI => InterruptStack::Nmi,
            DOUBLE_FAULT => InterruptStack::DoubleFault,
            _ if vector < EXCEPTIONS.len() => InterruptStack::Exception,
            _ => InterruptStack::Irq,
        };
        set(entry, stubs + (vector * STUB) as u64, stack);
    }
    const { assert!(are_new(I::ENTRIES)) };
    let of_the_kit: [(Vector, Entry); 2] = [
        (Vector::WAKE, entry::<I, { Vector::WAKE.number() }>),
        (Vector::LAST, entry::<I, { Vector::LAST.number() }>),
    ];
    for (vector, entry) in of_the_kit.iter().chain(I::ENTRIES) {
        let gate = &mut table[usize::from(vector.number())];
        set(gate, *entry as *const () as u64, InterruptStack::Irq);
    }
    set(
        &mut table[SPURIOUS_VECTOR as usize],
        spurious as *const () as u64,
        InterruptStack::Irq,
    );
}

fn set(entry: &mut Gate<HandlerFunc>, handler: u64, stack: InterruptStack) {
    // SAFETY: every handler given here is an entry in assembler, written for its vector.
    let options = unsafe { entry.set_handler_addr(VirtAddr::new(handler)) };
    // SAFETY: every CPU's TSS has these stacks, and no two vectors that nest share one.
    unsafe { options.set_stack_index(stack as u16) };
}

/// Loads the table on this CPU.
pub fn load() {
    let pointer = DescriptorTablePointer {
        limit: (size_of::<[Gate<HandlerFunc>; VECTORS]>() - 1) as u16,
        base: VirtAddr::new(&raw const TABLE as u64),
    };
    // SAFETY: `init` has filled the table, which is never written again.
    unsafe { lidt(&pointer) };
}

/// Whether none of the vectors is one of the kit's, and none has a lower priority than
/// [`Vector::LAST`].
const fn are_new(entries: &[(Vector, Entry)]) -> bool {
    let mut at = 0;
    while at < entries.len() {
        let number = entries[at].0.number();
        if number <= Vector::LAST.number() || number == Vector::WAKE.number() {
            return false;
        }
        at += 1;
    }
    true
}

/// The entry of an IPI: saves what a function call may change and calls the guest's handler. `rbp`
/// comes first, so that a backtrace finds the interrupted frame.
///
/// No interrupt may be taken between the `sti` and the `hlt` of an idle CPU, or the CPU would go to
/// sleep after it. Processors guarantee that, but QEMU's SVM does not: its VMRUN loses the
/// interrupt shadow that a #VMEXIT at that place has saved. So if an interrupt comes there, the
/// interrupted code goes on after the `hlt`.
#[unsafe(naked)]
pub extern "C" fn entry<I: Image, const VECTOR: u8>() {
    naked_asm!(
        "cmp qword ptr [rsp], offset idle_hlt",
        "jne 2f",
        "inc qword ptr [rsp]",
        "2:",
        "push rbp",
        "mov rbp, rsp",
        "push rax",
        "push rcx",
        "push rdx",
        "push rsi",
        "push rdi",
        "push r8",
        "push r9",
        "push r10",
        "push r11",
        "sub rsp, 8", // 5 + 1 + 9 words so far: a call needs an even number of them
        "call {handler}",
        "add rsp, 8",
        "pop r11",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rdi",
        "pop rsi",
        "pop rdx",
        "pop rcx",
        "pop rax",
        "pop rbp",
        "iretq",
        handler = sym handler::<I, VECTOR>,
    )
}

extern "C" fn handler<I: Image, const VECTOR: u8>() {
    apic::end_of_interrupt();
    guest::<I>().handle(const { Vector::new(VECTOR) });
    #[cfg(feature = "explore")]
    super::access::stop_before_next();
}

/// A spurious interrupt needs no handling, and no end of interrupt either (SDM Vol. 3A 11.9).
#[unsafe(naked)]
extern "C" fn spurious() {
    naked_asm!("iretq")
}

// The vectors whose exceptions push an error code: 8, 10 to 14, 17, 21, 29 and 30. The stubs of the
// others push a zero in its place, so that the frame is the same for all.
global_asm!(
    r#"
    .text
    .balign {stub}
trap_stubs:
    .set vector, 0
    .rept {vectors}
    .balign {stub}
    .if vector >= 32 || ({with_code} >> vector) & 1 == 0
    push 0
    .endif
    push vector
    jmp trap
    .set vector, vector + 1
    .endr

    .type trap, @function
trap:
    push rax
    push rcx
    push rdx
    push rbx
    push rbp
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
    mov rdi, rsp
    lea rbp, [rsp + {rbp}]          // a frame, but for a return address that is not one
    call {trapped}
    pop r15                         // only an unknown hypercall comes back
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rbp
    pop rbx
    pop rdx
    pop rcx
    pop rax
    add rsp, 16                     // the vector and the error code
    iretq
    .size trap, . - trap
    "#,
    stub = const STUB,
    vectors = const VECTORS,
    with_code = const 0x6022_7d00,
    rbp = const offset_of!(Frame, rbp),
    trapped = sym trapped,
);

/// What the stubs and `trap` leave on the stack, lowest address first.
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
    rbp: u64,
    rbx: u64,
    rdx: u64,
    rcx: u64,
    rax: u64,
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

extern "C" fn trapped(frame: &mut Frame) {
    if frame.vector == INVALID_OPCODE
        && let Some(next) = hypercall::after_invalid(frame.rip)
    {
        frame.rip = next;
        frame.rax = hypercall::NO_SUCH_CALL.cast_unsigned();
        return;
    }
    end::die(format_args!("{frame}"))
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match EXCEPTIONS.get(self.vector as usize) {
            Some(name) => write!(f, "{name}, error code {:#x}", self.error)?,
            None => write!(f, "unexpected interrupt {:#x}", self.vector)?,
        }
        if self.vector == PAGE_FAULT {
            write!(f, ", address {:#x}", Cr2::read_raw())?;
        }
        writeln!(f)?;
        let Self {
            rip,
            cs,
            rflags,
            rsp,
            ss,
            ..
        } = self;
        writeln!(
            f,
            "rip {rip:016x}  cs {cs:04x}  rflags {rflags:08x}  rsp {rsp:016x}  ss {ss:04x}"
        )?;
        let Self {
            rax,
            rbx,
            rcx,
            rdx,
            rsi,
            rdi,
            rbp,
            ..
        } = self;
        writeln!(
            f,
            "rax {rax:016x}  rbx {rbx:016x}  rcx {rcx:016x}  rdx {rdx:016x}"
        )?;
        writeln!(f, "rsi {rsi:016x}  rdi {rdi:016x}  rbp {rbp:016x}")?;
        let Self {
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
            ..
        } = self;
        writeln!(
            f,
            "r8  {r8:016x}  r9  {r9:016x}  r10 {r10:016x}  r11 {r11:016x}"
        )?;
        write!(
            f,
            "r12 {r12:016x}  r13 {r13:016x}  r14 {r14:016x}  r15 {r15:016x}"
        )
    }
}
