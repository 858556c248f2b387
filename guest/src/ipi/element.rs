//! The element: one CPU's call to many, as it stands on the global queue (`cfd_data`); and the
//! elements of all CPUs with the list they stand on, as the designs share it that have one per CPU.

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

/// One call to many. What shares a cache line is part of the design, so the fields stay in this
/// order.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Element {
    /// Function, argument, and the lock that keeps the owner from reusing the element.
    pub csd: CallSingleData,
    /// Guards the targets and `refs`, in the designs that guard them.
    pub lock: SpinLock,
    /// Targets that have not finished.
    pub refs: AtomicU32,
    /// Targets that have not begun. It is on the heap, as the kernel's `cpumask_var_t` is where
    /// masks are large, and comes and goes with its CPU.
    mask: Cell<AtomicCpuMask>,
}

impl Contents for Element {
    /// The lock stays as it is: poisoned, it would be held for ever, and who came across it would
    /// hang instead of leaving a finding.
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

    /// Reports what must not be when nothing is in flight; the element is `owner`'s.
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

/// One element for each CPU, and the list. A CPU so has one call to many outstanding at most.
#[derive(Debug)]
pub struct Elements {
    by_owner: Box<[Element]>,
    /// Those in use, as handlers walk them.
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

    /// Whether a call to `targets` has none left, since those of the caller's mask have all gone
    /// between the first look and the last (Linux 723aae25d5cd). Nobody would ever take its element
    /// off the list, so it must not get there.
    pub fn is_void<P: Platform>(machine: &Machine<P>, targets: &CpuMask) -> bool {
        machine.rules.mask_check && targets.is_empty()
    }

    /// The notifier of the patch (`hotplug_cfd`): memory for a CPU's targets comes before the CPU,
    /// and is freed when it has gone.
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

    /// Reports what must not be when nothing is in flight.
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
