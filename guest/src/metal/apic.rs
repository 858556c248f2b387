//! The local APIC, by memory-mapped registers (xAPIC) or by MSRs (x2APIC).
//!
//! Source: Intel SDM Vol. 3A, chapter 11: 11.4.4 (enabling), 11.4.7 (state after power-up), 11.6.1
//! (ICR), 11.8.5 (EOI), 11.12 (x2APIC; 11.12.5 its transitions). AMD APM Vol. 2, chapter 16 agrees.

use core::arch::x86_64::__cpuid;
use core::fmt;
use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering};

use shared::lab::Transport;
use x86_64::instructions::interrupts::without_interrupts;
use x86_64::registers::model_specific::{ApicBase, Msr};

use super::acpi::Cpus;

/// Register offsets of the xAPIC page; in x2APIC mode register `r` is MSR `0x800 + r / 16`.
const TPR: u32 = 0x80;
const EOI: u32 = 0xb0;
const SVR: u32 = 0xf0;
const ICR: u32 = 0x300;
const ICR_HIGH: u32 = 0x310;
const LVT_TIMER: u32 = 0x320;
const LVT_LINT0: u32 = 0x350;
const LVT_LINT1: u32 = 0x360;
const LVT_ERROR: u32 = 0x370;

/// The vector of spurious interrupts, which need no EOI.
pub const SPURIOUS_VECTOR: u8 = 0xff;

const SVR_ENABLE: u32 = 1 << 8;
const LVT_MASKED: u32 = 1 << 16;
const ICR_PENDING: u32 = 1 << 12;
const ICR_ASSERT: u32 = 1 << 14;
const ICR_INIT: u32 = 5 << 8;
const ICR_STARTUP: u32 = 6 << 8;

const BASE_MSR: u32 = 0x1b;
const BASE_X2APIC: u64 = 1 << 10;
const BASE_ENABLE: u64 = 1 << 11;

/// Where the xAPIC page is after power-up; this guest does not move it.
const PAGE: usize = 0xfee0_0000;

/// The largest id an xAPIC ICR can address; 255 is the broadcast.
const XAPIC_MAX_ID: u32 = 254;

/// How every CPU of this machine uses its APIC. Chosen once, before the first is enabled.
static X2APIC: AtomicBool = AtomicBool::new(false);

/// Why a transport cannot be used.
#[derive(Clone, Copy, Debug)]
pub enum ApicError {
    /// The CPUs have no x2APIC.
    NoX2apic,
    /// A CPU has an id that an xAPIC cannot address.
    IdTooLarge(u32),
}

impl fmt::Display for ApicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoX2apic => f.write_str("transport=x2apic: the CPUs have no x2APIC"),
            Self::IdTooLarge(id) => write!(
                f,
                "transport=xapic: APIC id {id} is beyond {XAPIC_MAX_ID}, which only x2apic reaches"
            ),
        }
    }
}

/// Settles which transport the machine uses: the one `wanted`, or x2APIC where there is one.
pub fn choose(wanted: Option<Transport>, cpus: &Cpus) -> Result<Transport, ApicError> {
    let has_x2apic = __cpuid(1).ecx & (1 << 21) != 0;
    let transport = wanted.unwrap_or(if has_x2apic {
        Transport::X2apic
    } else {
        Transport::Xapic
    });
    match transport {
        Transport::X2apic if !has_x2apic => return Err(ApicError::NoX2apic),
        Transport::X2apic => {}
        Transport::Xapic => {
            let beyond = |id: &&u32| **id > XAPIC_MAX_ID;
            if let Some(id) = cpus.apic_ids().iter().find(beyond) {
                return Err(ApicError::IdTooLarge(*id));
            }
        }
    }
    X2APIC.store(transport == Transport::X2apic, Ordering::Relaxed);
    Ok(transport)
}

/// The transport that was chosen.
pub fn transport() -> Transport {
    if is_x2apic() {
        Transport::X2apic
    } else {
        Transport::Xapic
    }
}

/// The APIC id of this CPU, as CPUID gives it, before the APIC is set up.
pub fn this_id() -> u32 {
    if __cpuid(0).eax >= 0xb {
        let leaf = core::arch::x86_64::__cpuid_count(0xb, 0);
        if leaf.ebx != 0 {
            return leaf.edx;
        }
    }
    __cpuid(1).ebx >> 24
}

/// Enables this CPU's APIC in the mode that was chosen, with every local source masked.
pub fn enable() {
    let mut base = Msr::new(BASE_MSR);
    // SAFETY: reading the APIC base is harmless on any CPU that has an APIC, and all x86-64 have.
    let now = unsafe { base.read() };
    let x2apic = is_x2apic();
    if !x2apic && now & BASE_X2APIC != 0 {
        // Out of x2APIC mode there is only the way through "disabled" (SDM 11.12.5).
        // SAFETY: the APIC is not in use yet.
        unsafe { base.write(now & !(BASE_X2APIC | BASE_ENABLE)) };
    }
    let mode = if x2apic { BASE_X2APIC } else { 0 };
    // SAFETY: a transition the SDM allows, to a mode CPUID has.
    unsafe { base.write(now & !BASE_X2APIC | BASE_ENABLE | mode) };
    debug_assert_eq!(ApicBase::read().0.start_address().as_u64(), PAGE as u64);
    for source in [LVT_TIMER, LVT_LINT0, LVT_LINT1, LVT_ERROR] {
        write(source, LVT_MASKED);
    }
    write(TPR, 0);
    write(SVR, SVR_ENABLE | u32::from(SPURIOUS_VECTOR));
}

/// Ends the service of the interrupt in progress.
pub fn end_of_interrupt() {
    write(EOI, 0);
}

/// Sends `vector` to the CPU with `apic_id`.
pub fn send(apic_id: u32, vector: u8) {
    command(apic_id, u32::from(vector) | ICR_ASSERT);
}

/// Sends INIT to the CPU with `apic_id`.
pub fn send_init(apic_id: u32) {
    command(apic_id, ICR_INIT | ICR_ASSERT);
}

/// Sends a start-up IPI: the CPU with `apic_id` begins in real mode at `page << 12`.
pub fn send_startup(apic_id: u32, page: u8) {
    command(apic_id, ICR_STARTUP | ICR_ASSERT | u32::from(page));
}

fn command(apic_id: u32, low: u32) {
    if is_x2apic() {
        // The MSR write is not ordered behind earlier stores; the handler must see what they wrote
        // (SDM 11.12.3; Linux ce4e240c279a).
        // SAFETY: fences have no effect but order.
        unsafe { core::arch::asm!("mfence", "lfence", options(nostack, preserves_flags)) };
        let value = u64::from(apic_id) << 32 | u64::from(low);
        // SAFETY: starts an interrupt on a CPU of this machine.
        unsafe { Msr::new(msr(ICR)).write(value) };
    } else {
        // A handler that sends between the two writes would leave its own destination in the upper
        // half, and this command would go there.
        without_interrupts(|| {
            while read_page(ICR) & ICR_PENDING != 0 {
                core::hint::spin_loop();
            }
            write_page(ICR_HIGH, apic_id << 24);
            write_page(ICR, low);
        });
    }
}

fn is_x2apic() -> bool {
    X2APIC.load(Ordering::Relaxed)
}

fn msr(register: u32) -> u32 {
    0x800 + register / 16
}

fn write(register: u32, value: u32) {
    if is_x2apic() {
        // SAFETY: this module writes registers that every x2APIC has, with values it defines.
        unsafe { Msr::new(msr(register)).write(u64::from(value)) };
    } else {
        write_page(register, value);
    }
}

fn write_page(register: u32, value: u32) {
    let register = ptr::with_exposed_provenance_mut::<u32>(PAGE + register as usize);
    // SAFETY: the page is mapped, uncached, and holds 32-bit registers at multiples of 16.
    unsafe { register.write_volatile(value) };
}

fn read_page(register: u32) -> u32 {
    let register = ptr::with_exposed_provenance::<u32>(PAGE + register as usize);
    // SAFETY: as in `write_page`; none of the registers read here changes by it.
    unsafe { register.read_volatile() }
}
