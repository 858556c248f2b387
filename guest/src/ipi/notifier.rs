//! The notifier chain: what has to know that a CPU comes or goes (Linux 2.6.30, `kernel/notifier.c`
//! and `kernel/cpu.c`). Knows nothing of calls.

use kit::platform::{CpuId, Platform};
use kit::sync::rcu::Rcu;

use super::memory::NoMemory;
use crate::machine::Machine;

/// What a notifier is told about a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HotplugEvent {
    /// It is to come online: prepare for it, or veto it (`CPU_UP_PREPARE`). On the CPU that brings
    /// it up.
    UpPrepare,
    /// It was to come online and will not (`CPU_UP_CANCELED`). On the CPU that was to bring it up.
    UpCanceled,
    /// It has come online (`CPU_ONLINE`). On the CPU that brought it up.
    Online,
    /// It goes offline (`CPU_DYING`). On that CPU, interrupts off.
    Dying,
    /// It is offline (`CPU_DEAD`). On the CPU that took it down.
    Dead,
}

/// Something that has work to do when a CPU comes or goes.
pub trait Notifier<P: Platform> {
    /// Does what is to be done at `event` of `cpu`.
    ///
    /// # Errors
    /// At [`HotplugEvent::UpPrepare`], [`NoMemory`] vetoes the CPU. Nothing else can fail.
    fn notify(&self, machine: &Machine<P>, event: HotplugEvent, cpu: CpuId)
    -> Result<(), NoMemory>;
}

/// Tells every notifier of `chain`, in order. A veto stops that, and cancels what those before have
/// prepared.
pub(super) fn tell<P: Platform>(
    chain: &[&dyn Notifier<P>],
    machine: &Machine<P>,
    event: HotplugEvent,
    cpu: CpuId,
) -> Result<(), NoMemory> {
    for (told, notifier) in chain.iter().enumerate() {
        if let Err(veto) = notifier.notify(machine, event, cpu) {
            debug_assert_eq!(event, HotplugEvent::UpPrepare, "nothing else can be vetoed");
            tell(&chain[..told], machine, HotplugEvent::UpCanceled, cpu)?;
            return Err(veto);
        }
    }
    Ok(())
}

impl<P: Platform> Notifier<P> for Rcu {
    fn notify(
        &self,
        machine: &Machine<P>,
        event: HotplugEvent,
        cpu: CpuId,
    ) -> Result<(), NoMemory> {
        if event == HotplugEvent::Dying {
            self.leave(&machine.platform, cpu, || machine.online());
        }
        Ok(())
    }
}
