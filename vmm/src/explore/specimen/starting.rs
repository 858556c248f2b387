//! Resets and starts vCPUs, as an INIT and a start-up IPI do, and gives a vCPU the system state that
//! it has in the present state. The real vCPU is reset and started, by KVM. Decides nothing about
//! when that happens.

use shared::ports::{Delivery, Dispatch};

use super::breach::Breach;
use super::errors::{SpecimenError, kvm};
use super::machine::Specimen;
use super::signal::Signal;
use crate::explore::schedule::Granularity;
use crate::machine::inspect;

impl Specimen {
    /// Gives the vCPU of `cpu`, which is about to run, the system state that it has in the present
    /// state.
    ///
    /// # Errors
    /// [`SpecimenError::NotExact`] if KVM does not take it back as it was; any other if KVM fails.
    pub(super) fn prepare(&mut self, cpu: usize) -> Result<(), SpecimenError> {
        let wanted = &self.cpus[cpu].system;
        if self.systems.is_in(cpu, wanted) {
            return Ok(());
        }
        self.systems.forget_now(cpu);
        let state = self.systems.get(cpu, wanted);
        self.serial
            .restore_one(cpu, state)
            .map_err(kvm("take back all of a vCPU"))?;
        let now = self.serial.capture_one(cpu);
        let now = now.map_err(kvm("show all of a vCPU"))?;
        if let Some(what) = now.difference(state) {
            return Err(SpecimenError::NotExact { cpu, what });
        }
        self.systems.set_now(cpu, wanted.clone());
        self.serial.set_regs(cpu, &self.cpus[cpu].regs);
        Ok(())
    }

    /// What arrives at `cpu` next is an INIT, and resets it.
    pub(super) fn arrives_as_init(&self, cpu: usize) -> bool {
        self.cpus[cpu].arriving.first() == Some(Signal::Init)
    }

    /// The INIT that is on its way to `cpu` arrives.
    ///
    /// # Errors
    /// If KVM fails.
    pub(super) fn reset(&mut self, cpu: usize) -> Result<(), SpecimenError> {
        self.prepare(cpu)?;
        self.cpus[cpu].arriving.take();
        self.deliver(cpu, Delivery::Init, 0)?;
        let state = self.serial.capture_one(cpu);
        let state = state.map_err(kvm("show all of a vCPU"))?;
        let regs = state.regs;
        let system = self.systems.find(cpu, state);
        self.cpus[cpu].reset(regs, system);
        self.serial.set_regs(cpu, &regs);
        // Nothing reads again what it has left on its stacks.
        if self.granularity != Granularity::Every {
            for [start, end] in [self.contexts[cpu].task, self.contexts[cpu].handler] {
                self.clear(start, end);
            }
        }
        Ok(())
    }

    /// The start-up IPI that is on its way to `cpu` arrives: from now on the vCPU can run, with a
    /// system state that is known once it has stopped ([`Specimen::has_started`]).
    ///
    /// # Errors
    /// If KVM fails.
    pub(super) fn start(&mut self, cpu: usize) -> Result<(), SpecimenError> {
        let Some(Signal::StartUp(page)) = self.cpus[cpu].arriving.take() else {
            return Ok(());
        };
        self.systems.forget_now(cpu);
        self.deliver(cpu, Delivery::StartUp, page)
    }

    /// `cpu`, which was started, has come to its first stop. Returns what broke.
    ///
    /// # Errors
    /// If KVM fails.
    pub(super) fn has_started(&mut self, cpu: usize) -> Result<Option<Breach>, SpecimenError> {
        self.serial
            .drop_stack_segment(cpu)
            .map_err(kvm("set segments"))?;
        let state = self.serial.capture_one(cpu);
        let state = state.map_err(kvm("show all of a vCPU"))?;
        let takes_interrupts = inspect::is_enabled(&state.lapic);
        self.cpus[cpu].system = self.systems.find(cpu, state);
        Ok((!takes_interrupts).then(|| {
            let text = format!(
                "CPU {cpu} was started, and has come to a stop before it has enabled its local \
                 APIC, without which interrupts are lost"
            );
            Breach::new("died", text)
        }))
    }

    fn deliver(&mut self, cpu: usize, delivery: Delivery, vector: u8) -> Result<(), SpecimenError> {
        self.serial.settle_one(cpu);
        let target = self.serial.apic_id(cpu);
        self.serial
            .deliver(Dispatch {
                target,
                vector,
                delivery,
            })
            .map_err(kvm("deliver an INIT or start-up IPI"))
    }
}
