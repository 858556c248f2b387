//! Takes the vCPUs of a [`Serial`] through their code instruction by instruction, and shows one as a
//! debugger sees it. Nothing but that differs from a run: interrupts are taken at the same places, and
//! the guest sees nothing of it. Decides nothing.

use kvm_bindings::kvm_regs;
use vmm_sys_util::errno;

use super::debugged::Debugged;
use super::exit::Exit;
use super::interrupt_frame::InterruptFrame;
use super::serial::{MOST_IDLE_EXITS, Serial, SerialExit};

/// What one entry into the guest has come to.
#[derive(Debug, Clone, PartialEq)]
pub enum Walked {
    /// The vCPU has executed an instruction, and has these registers.
    Instruction(kvm_regs),
    /// It has come out as from [`Serial::run`]. It has completed the instruction for which it did, and
    /// walks no longer.
    Exit(SerialExit),
}

impl Serial {
    /// On its way vCPU `cpu` takes this vector, or none.
    pub fn expect(&mut self, cpu: usize, vector: Option<u8>) {
        self.slots[cpu].expects = vector;
    }

    /// Has vCPU `cpu` come out after every instruction from now on, until it exits for something else.
    ///
    /// # Errors
    /// What KVM said.
    pub fn begin_walk(&mut self, cpu: usize) -> Result<(), errno::Error> {
        // KVM sets the trap flag for the instruction at which the vCPU is by then.
        self.settle_one(cpu);
        let (debugging, fd) = self.slots[cpu].vcpu.debugging();
        debugging.set_walking(true, fd)
    }

    /// Has vCPU `cpu` no longer come out after every instruction.
    ///
    /// # Errors
    /// What KVM said.
    pub fn end_walk(&mut self, cpu: usize) -> Result<(), errno::Error> {
        // What is completed later would still end with the trap that it began with.
        self.settle_one(cpu);
        let (debugging, fd) = self.slots[cpu].vcpu.debugging();
        debugging.set_walking(false, fd)
    }

    /// Has vCPU `cpu`, which walks, execute an instruction.
    ///
    /// # Errors
    /// What KVM said.
    pub fn walk(&mut self, cpu: usize) -> Result<Walked, errno::Error> {
        for _ in 0..MOST_IDLE_EXITS {
            let memory = self.ram.memory();
            let slot = &mut self.slots[cpu];
            // The interrupt saves the trap flag, of which its handler is to know nothing.
            let frame = (slot.expects)
                .and_then(|vector| InterruptFrame::of(vector, slot.vcpu.fd(), memory));
            let exit = slot.vcpu.run_unseen(&self.devices, memory);
            if frame.is_some_and(|frame| frame.remove_trap_flag(slot.vcpu.fd(), memory)) {
                slot.expects = None;
            }
            let exit = match exit {
                Exit::Debug(_) => return Ok(Walked::Instruction(slot.vcpu.fd().get_regs()?)),
                exit => slot.meaning(exit),
            };
            if let Some(exit) = exit {
                self.end_walk(cpu)?;
                return Ok(Walked::Exit(exit));
            }
        }
        self.end_walk(cpu)?;
        Ok(Walked::Exit(SerialExit::Busy))
    }

    /// vCPU `cpu` as a debugger sees it. KVM has all of its registers then.
    pub fn debugged(&mut self, cpu: usize) -> Debugged<'_> {
        self.settle_one(cpu);
        Debugged {
            vcpu: &self.slots[cpu].vcpu,
            memory: self.ram.memory(),
        }
    }
}
