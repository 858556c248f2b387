//! The wire (`transport=wire`): hands an IPI to the monitor, which delivers it. Decides nothing.

use core::arch::naked_asm;

use shared::ports::WIRE;

/// Hands an IPI to the monitor, with the call that it tells of, or 0. It is a function of its own,
/// so that meanwhile only those registers matter that functions preserve ([`shared::stop`]). Only
/// to be called where a monitor with a lab listens; the write itself changes no memory.
#[unsafe(naked)]
pub extern "C" fn hand_over(_dispatch: u32, _call: u64) {
    naked_asm!(
        "mov edx, {port}",
        "mov eax, edi",
        "out dx, eax",
        "ret",
        port = const WIRE as u32,
    )
}
