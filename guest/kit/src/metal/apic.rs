//! The local APIC, in either of its modes: as a page of registers (xAPIC) or as MSRs (x2APIC). SDM
//! Vol. 3A, chapter 11; the numbers in the comments are sections of it.

use core::arch::asm;
use core::arch::x86_64::__cpuid;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, Ordering, compiler_fence};

use crate::options::ApicMode;
use x86_64::instructions::interrupts::without_interrupts;
use x86_64::registers::model_specific::Msr;

use super::cpu::Cpu;

/// Largest APIC id to which an xAPIC can send; 255 means all CPUs (11.6.1).
pub const XAPIC_LAST_ID: u32 = 254;

const IA32_APIC_BASE: Msr = Msr::new(0x1b);
const BASE_ADDRESS: u64 = 0xfee0_0000;
const BASE_FIRST_CPU: u64 = 1 << 8;
const BASE_X2APIC: u64 = 1 << 10;
const BASE_ENABLED: u64 = 1 << 11;

/// Offsets in the xAPIC's page. The x2APIC's MSR is `0x800 + offset / 16` (11.12.1.2).
#[derive(Clone, Copy)]
#[repr(u32)]
enum Register {
    Id = 0x20,
    Version = 0x30,
    TaskPriority = 0x80,
    Eoi = 0xb0,
    SpuriousVector = 0xf0,
    /// The first of eight, with a bit per vector.
    InterruptRequest = 0x200,
    Command = 0x300,
    /// The destination of a command; in x2APIC mode it is the upper half of `Command`.
    CommandHigh = 0x310,
}

/// The local vector table: the offset of each entry, and the smallest number in the version
/// register (bits 16 to 23) with which a local APIC has that entry (11.5.1).
const LOCAL_VECTORS: [(u32, u32); 7] = [
    (0x320, 0), // timer
    (0x350, 1), // LINT0
    (0x360, 2), // LINT1
    (0x370, 3), // error
    (0x340, 4), // performance counters
    (0x330, 5), // thermal sensor
    (0x2f0, 6), // corrected machine checks
];
const MASKED: u32 = 1 << 16;

/// Enables the APIC in software; its spurious vector is 0xff (11.9).
const SPURIOUS_ENABLED: u32 = 0x100 | SPURIOUS_VECTOR as u32;
/// The vector of an interrupt that went away while it was being delivered.
pub const SPURIOUS_VECTOR: u8 = 0xff;

/// The interrupt command register: a previous command is still being sent (xAPIC only).
const COMMAND_PENDING: u32 = 1 << 12;

/// What an inter-processor interrupt is, in the low half of the command register (11.6.1).
#[derive(Clone, Copy, Debug)]
pub enum Command {
    /// An interrupt with this vector.
    Fixed(u8),
    /// INIT.
    Init,
    /// Start-up: the CPU starts in real mode at this page.
    StartUp(u8),
}

impl Command {
    /// As in the low half of the command register.
    pub fn bits(self) -> u32 {
        const ASSERT: u32 = 1 << 14;
        match self {
            Self::Fixed(vector) => u32::from(vector),
            Self::Init => 5 << 8 | ASSERT,
            Self::StartUp(page) => 6 << 8 | ASSERT | u32::from(page),
        }
    }
}

/// Where an inter-processor interrupt goes (11.6.1).
#[derive(Clone, Copy, Debug)]
pub enum Destination {
    /// The CPU with this APIC id.
    Physical(u32),
    /// The CPUs with a logical id of the x2APIC: a cluster, and members of it (11.12.10.2).
    Logical(u32),
    /// All but the sender.
    AllButSelf,
}

impl Destination {
    /// The destination mode and shorthand as in the low half of the command register, and the
    /// destination field.
    fn bits(self) -> (u32, u32) {
        const LOGICAL: u32 = 1 << 11;
        const ALL_BUT_SELF: u32 = 3 << 18;
        match self {
            Self::Physical(id) => (0, id),
            Self::Logical(id) => (LOGICAL, id),
            Self::AllButSelf => (ALL_BUT_SELF, 0),
        }
    }
}

/// The better of the modes that this CPU has.
pub fn best_mode() -> ApicMode {
    match __cpuid(1).ecx >> 21 & 1 {
        0 => ApicMode::Xapic,
        _ => ApicMode::X2apic,
    }
}

static X2APIC: AtomicBool = AtomicBool::new(false);
/// Whether there is a hypervisor, by the bit that all of them set (CPUID leaf 1, ecx bit 31).
static IS_VIRTUAL: AtomicBool = AtomicBool::new(false);

/// Chooses the mode in which [`enable`] brings up every APIC from now on.
pub fn set_mode(mode: ApicMode) {
    X2APIC.store(mode == ApicMode::X2apic, Ordering::Relaxed);
    IS_VIRTUAL.store(__cpuid(1).ecx >> 31 != 0, Ordering::Relaxed);
}

/// Whether the chosen mode is that of an x2APIC.
#[cfg(feature = "explore")]
pub fn is_x2apic() -> bool {
    X2APIC.load(Ordering::Relaxed)
}

/// Brings this CPU's APIC into the chosen mode and enables it. Its local vectors stay masked.
pub fn enable() {
    let mut base = IA32_APIC_BASE;
    // SAFETY: every CPU with an APIC has this MSR.
    let found = unsafe { base.read() };
    let xapic = BASE_ADDRESS | found & BASE_FIRST_CPU | BASE_ENABLED;
    let mut set = |value| {
        if value != found {
            // SAFETY: the page the registers are put on holds nothing else and is mapped uncached.
            unsafe { base.write(value) };
        }
    };
    // The modes are ordered: disabled, xAPIC, x2APIC. Upwards the APIC goes one step at a time,
    // downwards only to disabled (11.12.5).
    let is_x2apic = found & BASE_X2APIC != 0;
    match (X2APIC.load(Ordering::Relaxed), is_x2apic) {
        (true, true) => {}
        (true, false) => {
            set(xapic);
            set(xapic | BASE_X2APIC);
        }
        (false, true) => {
            set(xapic & !BASE_ENABLED);
            set(xapic);
        }
        (false, false) => set(xapic),
    }

    let last = read(Register::Version) >> 16 & 0xff;
    for (offset, from) in LOCAL_VECTORS {
        if from <= last {
            write_at(offset, MASKED);
        }
    }
    write(Register::TaskPriority, 0);
    write(Register::SpuriousVector, SPURIOUS_ENABLED);
    if PV_EOI.load(Ordering::Relaxed) {
        share_eoi();
    }
}

/// The id of this CPU's APIC.
pub fn id() -> u32 {
    let id = read(Register::Id);
    if X2APIC.load(Ordering::Relaxed) {
        id
    } else {
        id >> 24
    }
}

/// Whether `vector` has been accepted and not yet taken (11.8.4).
pub fn is_requested(vector: u8) -> bool {
    let register = Register::InterruptRequest as u32 + u32::from(vector) / 32 * 0x10;
    read_at(register) >> (vector % 32) & 1 != 0
}

static PV_EOI: AtomicBool = AtomicBool::new(false);

/// From now on [`enable`] has a CPU end its interrupts in memory shared with KVM. KVM must offer
/// that.
pub fn set_pv_eoi() {
    PV_EOI.store(true, Ordering::Relaxed);
}

/// Tells KVM where this CPU ends interrupts (Linux, `Documentation/virt/kvm/x86/msr.rst`,
/// MSR_KVM_PV_EOI_EN).
fn share_eoi() {
    const MSR_KVM_PV_EOI_EN: u32 = 0x4b56_4d04;
    const ENABLED: u64 = 1;
    // Memory is identity-mapped.
    let address = Cpu::current().pv_eoi.as_ptr().addr() as u64;
    // SAFETY: KVM has the MSR, by the condition of [`set_pv_eoi`]. It writes nothing but the word
    // there, an atomic that lives for ever.
    unsafe { Msr::new(MSR_KVM_PV_EOI_EN).write(address | ENABLED) };
}

/// Ends the interrupt in service, so that the next one can be taken.
pub fn end_of_interrupt() {
    if PV_EOI.load(Ordering::Relaxed) {
        let is_seen: u8;
        // Not locked, but one instruction: KVM reads the word only while this CPU is out of the
        // guest. SAFETY: the word is this CPU's own.
        unsafe {
            asm!(
                "btr dword ptr [{}], 0",
                "setc {}",
                in(reg) Cpu::current().pv_eoi.as_ptr(),
                out(reg_byte) is_seen,
                options(nostack),
            );
        }
        if is_seen != 0 {
            return;
        }
    }
    write(Register::Eoi, 0);
}

/// Sends `command` to `destination`. Earlier stores of this CPU are visible to the handler, except
/// on an x2APIC without `fence`. Only an x2APIC has logical destinations.
pub fn send(command: Command, destination: Destination, fence: bool) {
    let (how, to) = destination.bits();
    let low = command.bits() | how;
    if X2APIC.load(Ordering::Relaxed) {
        // The write by itself is not ordered after earlier stores (11.12.3).
        if fence {
            // SAFETY: fences. They are compiler barriers too, as they are not declared `nomem`.
            unsafe { asm!("mfence", "lfence", options(nostack, preserves_flags)) };
        } else {
            compiler_fence(Ordering::Release);
        }
        let value = u64::from(to) << 32 | u64::from(low);
        // SAFETY: in x2APIC mode the MSR exists; reserved bits are zero.
        unsafe { msr(Register::Command as u32).write(value) };
    } else {
        // A handler that sends between the two writes would change where this command goes. The
        // write to uncached memory is ordered after earlier stores (Vol. 3A 9.2.2).
        without_interrupts(|| {
            // A hypervisor's APIC has sent when the write is over, and the read would be an exit.
            while !IS_VIRTUAL.load(Ordering::Relaxed)
                && read(Register::Command) & COMMAND_PENDING != 0
            {
                spin_loop();
            }
            // A shorthand needs no destination, which saves one access.
            if !matches!(destination, Destination::AllButSelf) {
                write(Register::CommandHigh, to << 24);
            }
            write(Register::Command, low);
        });
    }
}

fn read(register: Register) -> u32 {
    read_at(register as u32)
}

fn read_at(offset: u32) -> u32 {
    if X2APIC.load(Ordering::Relaxed) {
        // SAFETY: in x2APIC mode every register in use exists as an MSR.
        (unsafe { msr(offset).read() }) as u32
    } else {
        let address = BASE_ADDRESS + u64::from(offset);
        // SAFETY: `enable` put the registers there, and the page is mapped uncached.
        unsafe { (address as *const u32).read_volatile() }
    }
}

fn write(register: Register, value: u32) {
    write_at(register as u32, value);
}

fn write_at(offset: u32, value: u32) {
    if X2APIC.load(Ordering::Relaxed) {
        // SAFETY: as in `read`.
        unsafe { msr(offset).write(value.into()) };
    } else {
        let address = BASE_ADDRESS + u64::from(offset);
        // The compiler must not move earlier stores, which a handler may read, below this store.
        // SAFETY: as in `read`. The block may touch memory, so the compiler moves none across it.
        unsafe {
            asm!(
                "mov [{}], {:e}",
                in(reg) address,
                in(reg) value,
                options(nostack, preserves_flags),
            );
        }
    }
}

fn msr(offset: u32) -> Msr {
    Msr::new(0x800 + offset / 16)
}
