//! Whether this host's processor executes the guest's kernel, or KVM emulates it instruction by
//! instruction, as far as its emulator knows them. Found out by a trial.

use kvm_ioctls::VcpuExit;

use super::trial::Trial;
use super::vm::{HostError, setup};

/// Whether the processor executes ring 0. The emulator of KVM does not know `popcnt`, which every
/// processor with nested paging has.
///
/// # Errors
/// [`HostError`] if the trial could not be made.
pub fn executes_ring_0() -> Result<bool, HostError> {
    /// `popcnt ax, ax`, then `out 0, al`, which exits to the VMM.
    const CODE: [u8; 6] = [0xf3, 0x0f, 0xb8, 0xc0, 0xe6, 0x00];
    match Trial::of(&CODE)?.fd.run() {
        Ok(exit) => Ok(matches!(exit, VcpuExit::IoOut(..))),
        Err(error) => Err(setup("run two instructions")(error)),
    }
}
