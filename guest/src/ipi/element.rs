//! The element: one CPU's call to many on the global queue (`cfd_data`). And the elements of all
//! CPUs with their list, which the designs share that have one element per CPU.

use alloc::boxed::Box;
use core::ops::Index;

use kit::platform::{CpuId, Platform};
use kit::sync::atomic::{AtomicU32, Ordering};
use kit::sync::mask::{AtomicCpuMask, CpuMask};
use kit::sync::spin::SpinLock;

use super::csd::{Call, CallSingleData};
use super::list::ElementList;
use super::memory::{Cell, Contents, NoMemory};
use super::notifier::HotplugEvent;
use crate::machine::Machine;
use crate::oracle::Oracle;

/// One call to many. Which fields share a cache line is part of the design, so their order is
/// fixed.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Element {
    /// Function, argument, and the lock that keeps the owner from reusing the element.
    pub csd: CallSingleData,
    /// Guards the targets and `refs`, in the designs that guard them.
    pub lock: SpinLock,
    /// How many targets have not finished.
    pub refs: AtomicU32,
    /// Targets that have not begun. It is on the heap, as the kernel's `cpumask_var_t` is where
    /// masks are large, and comes and goes with its CPU.
    mask: Cell<AtomicCpuMask>,
}

impl Contents for Element {
    /// The lock stays as it is: poisoned, it would be held for ever, and a CPU that took it would
    /// hang instead of reporting a finding.
    fn fill(&self, byte: u8) {
        self.csd.fill(byte);
        self.refs
            .store(u32::from_ne_bytes([byte; 4]), Ordering::Relaxed);
        self.mask.fill(byte);
    }
}

impl Contents for AtomicCpuMask {
    fn fill(&self, byte: u8) {
        self.fill(byte);
    }
}

impl Element {
    /// An element not in use, on a machine of `cpus` CPUs.
    pub fn new(cpus: usize) -> Self {
        Self {
            csd: CallSingleData::new(),
            lock: SpinLock::new(),
            refs: AtomicU32::new(0),
            mask: Cell::holding(AtomicCpuMask::none(cpus)),
        }
    }

    /// Targets that have not begun.
    pub fn mask<P: Platform>(&self, machine: &Machine<P>) -> &AtomicCpuMask {
        self.mask.get(machine, || self.csd.call().info)
    }

    /// Reports a state that must not be when nothing is in flight. The element belongs to `owner`.
    pub fn audit<P: Platform>(&self, machine: &Machine<P>, owner: CpuId) {
        let Call { info, .. } = self.csd.call();
        if self.csd.is_locked() {
            machine.report(Oracle::LeftLocked, info, owner as u64);
        }
        let has_targets = self.mask.is_live() && !self.mask(machine).is_empty();
        if self.refs.load(Ordering::Relaxed) != 0 || has_targets {
            machine.report(Oracle::BadRefs, info, owner as u64);
        }
    }
}

/// One element for each CPU, and the list. So a CPU has at most one call to many outstanding.
#[derive(Debug)]
pub struct Elements {
    by_owner: Box<[Element]>,
    /// The list of those in use, along which handlers walk.
    pub list: ElementList,
}

impl Index<CpuId> for Elements {
    type Output = Element;

    fn index(&self, owner: CpuId) -> &Element {
        &self.by_owner[owner]
    }
}

impl Elements {
    /// The elements of `cpus` CPUs, none in use, all with memory for their targets.
    pub fn new(cpus: usize) -> Self {
        Self {
            by_owner: (0..cpus).map(|_| Element::new(cpus)).collect(),
            list: ElementList::new(cpus, cpus),
        }
    }

    /// Whether a call to `targets` has none left, because all CPUs of the caller's mask have left
    /// it between the first look and the last (Linux 723aae25d5cd). No target would ever take its
    /// element off the list, so it must not be queued.
    pub fn is_void<P: Platform>(machine: &Machine<P>, targets: &CpuMask) -> bool {
        machine.rules.mask_check && targets.is_empty()
    }

    /// The notifier of the patch (`hotplug_cfd`): memory for a CPU's targets is allocated before
    /// the CPU comes online, and freed when it is offline.
    ///
    /// As posted it had two bugs in twenty lines: its `return` stood inside the `switch`, and the
    /// cases that free were guarded by a misspelled symbol and never compiled (until 69dd647f969c).
    ///
    /// # Errors
    /// [`NoMemory`] vetoes the CPU.
    pub fn notify<P: Platform>(
        &self,
        machine: &Machine<P>,
        event: HotplugEvent,
        cpu: CpuId,
    ) -> Result<(), NoMemory> {
        let mask = &self.by_owner[cpu].mask;
        match event {
            HotplugEvent::UpPrepare => mask.allocate(machine),
            HotplugEvent::UpCanceled | HotplugEvent::Dead if machine.rules.hotplug.frees() => {
                mask.free(machine);
                Ok(())
            }
            HotplugEvent::UpCanceled
            | HotplugEvent::Dead
            | HotplugEvent::Online
            | HotplugEvent::Dying => Ok(()),
        }
    }

    /// Reports a state that must not be when nothing is in flight.
    pub fn audit<P: Platform>(&self, machine: &Machine<P>) {
        self.list.audit(machine);
        for (cpu, element) in self.by_owner.iter().enumerate() {
            element.audit(machine, cpu);
            let should_live = machine.is_online(cpu) || !machine.rules.hotplug.frees();
            if element.mask.is_live() != should_live {
                machine.report(Oracle::Leak, 0, cpu as u64);
            }
        }
    }
}
