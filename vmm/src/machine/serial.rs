//! vCPUs that one thread owns and runs one at a time, each until an exit that matters to the
//! caller. Between two such runs nothing moves, so that registers and RAM can be read and restored
//! at little cost. Decides nothing: the caller says which vCPU runs when.

use std::sync::Arc;

use kvm_bindings::{KVM_MP_STATE_UNINITIALIZED, KVM_SYNC_X86_REGS, kvm_regs, kvm_segment};
use kvm_ioctls::SyncReg;
use shared::ports::{Dispatch, Doorbell};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::errno;

use super::devices::{Devices, Effect};
use super::exit::{Death, Exit};
use super::ram::Ram;
use super::state::{CpuState, MsrList};
use super::vcpu::Vcpu;
use super::vm::{HostError, Interrupts, Vm};
use crate::page_size::PAGE_SIZE;

/// Why a run of one vCPU came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SerialExit {
    /// It has come to an armed point. Both fields are what the guest says.
    Reached {
        /// Address of the point.
        point: u64,
        /// The guest's RSI.
        word: u64,
    },
    /// It has carried out the command in its mailbox.
    Done,
    /// It sends an IPI through the VMM.
    Dispatch(Dispatch),
    /// It rang the doorbell for something else.
    Other(Doorbell),
    /// A signal interrupted it.
    Interrupted,
    /// It has exited [`MOST_IDLE_EXITS`] times for nothing that matters.
    Busy,
    /// It ended the run with this code.
    GuestExit(u32),
    /// It cannot go on.
    Dead(Death),
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) vcpu: Vcpu,
    /// The registers to set at the next entry, if they are not those that KVM has.
    to_set: Option<kvm_regs>,
    /// The vector that it is to take while it walks ([`Serial::walk`]).
    pub(super) expects: Option<u8>,
    /// Whether the instruction for which it exited cannot be completed.
    pub(super) is_stuck: bool,
}

impl Slot {
    /// What `exit` is to the caller of a run, if it matters.
    pub(super) fn meaning(&self, exit: Exit) -> Option<SerialExit> {
        Some(match exit {
            Exit::Pio(Effect::Doorbell(Doorbell::Reached)) => {
                let regs = self.vcpu.registers_at_exit();
                SerialExit::Reached {
                    point: regs.rdi,
                    word: regs.rsi,
                }
            }
            Exit::Pio(Effect::Doorbell(Doorbell::Done)) => SerialExit::Done,
            Exit::Pio(Effect::Doorbell(other)) => SerialExit::Other(other),
            Exit::Pio(Effect::Dispatch(dispatch)) => SerialExit::Dispatch(dispatch),
            Exit::Pio(Effect::GuestExit(code)) => SerialExit::GuestExit(code),
            Exit::Pio(Effect::PowerOff | Effect::Reset) => SerialExit::Dead(Death::TurnedOff),
            Exit::Interrupted => SerialExit::Interrupted,
            Exit::Dead(death) => SerialExit::Dead(death),
            Exit::Pio(Effect::None | Effect::Line | Effect::Entry | Effect::Stop)
            | Exit::Mmio
            | Exit::Again
            | Exit::Debug(_) => return None,
            // KVM handles `hlt` itself while it has the interrupt controllers.
            Exit::Hlt => return None,
        })
    }
}

/// Most exits of one run for nothing that matters.
pub const MOST_IDLE_EXITS: u32 = 1000;

/// Most exits while one instruction is completed. A repeated one (`rep outs`) exits as often as the
/// guest has written into RCX.
const MOST_COMPLETIONS: u32 = 1000;

/// The vCPUs of a machine, run by one thread.
///
/// The fields are dropped in this order: vCPUs and VM before the memory that KVM has mapped.
#[derive(Debug)]
pub struct Serial {
    pub(super) slots: Vec<Slot>,
    vm: Vm,
    interrupts: Interrupts,
    pub(super) devices: Arc<Devices>,
    msrs: MsrList,
    /// How often a vCPU was let into the guest by [`Serial::run`].
    entries: u64,
    pub(super) ram: Ram,
}

/// Opcode of `out dx, eax`, by which a vCPU exits at a port of the lab.
const OUT: u8 = 0xef;

/// Makes the stack segment of `vcpu` unusable, which long mode allows. An interrupt on a stack of
/// its own does that on some processors and not on others, and later interrupts push the selector.
/// So states would differ between processors.
fn drop_stack_segment(vcpu: &Vcpu) -> Result<(), errno::Error> {
    let mut sregs = vcpu.fd().get_sregs()?;
    sregs.ss = kvm_segment {
        unusable: 1,
        ..kvm_segment::default()
    };
    vcpu.fd().set_sregs(&sregs)
}

/// Whether `vcpu` was ever started.
fn has_run(vcpu: &Vcpu) -> Result<bool, errno::Error> {
    let state = vcpu.fd().get_mp_state()?.mp_state;
    Ok(state != KVM_MP_STATE_UNINITIALIZED)
}

impl Serial {
    /// Takes over `vcpus`, which nothing else runs any more, and completes the instructions for
    /// which they exited.
    ///
    /// # Errors
    /// If KVM lacks what this needs.
    pub fn new(
        vcpus: Vec<Vcpu>,
        vm: Vm,
        devices: Arc<Devices>,
        memory: &GuestMemoryMmap,
    ) -> Result<Self, HostError> {
        if vm.fd().check_extension_int(kvm_ioctls::Cap::SyncRegs) & KVM_SYNC_X86_REGS as i32 == 0 {
            return Err(HostError::Missing("KVM_CAP_SYNC_REGS"));
        }
        let slot = |mut vcpu: Vcpu| {
            vcpu.keep_registers_in_sight();
            let mut slot = Slot {
                vcpu,
                to_set: None,
                expects: None,
                is_stuck: false,
            };
            settle(&mut slot, &devices);
            slot
        };
        let slots: Vec<_> = vcpus.into_iter().map(slot).collect();
        for slot in &slots {
            if has_run(&slot.vcpu).map_err(super::vm::setup("show whether it runs"))? {
                drop_stack_segment(&slot.vcpu).map_err(super::vm::setup("set its segments"))?;
            }
        }
        let first = slots.first().ok_or(HostError::Missing("a vCPU"))?;
        let msrs = MsrList::of(&vm, first.vcpu.fd()).map_err(super::vm::setup("list its MSRs"))?;
        Ram::watch(&vm, memory)?;
        // SAFETY: vCPUs enter the guest in methods of this value that borrow it uniquely, while
        // nothing is borrowed from the RAM inside it. The only other access to this memory is the
        // lab's. The explorer that owns it is one thread, and borrows no page while it writes to
        // the lab.
        let ram = unsafe { Ram::of(memory) }.ok_or(HostError::Missing("RAM at address 0"))?;
        Ok(Self {
            slots,
            interrupts: vm.interrupts(),
            vm,
            devices,
            msrs,
            entries: 0,
            ram,
        })
    }

    /// Number of vCPUs.
    pub fn cpus(&self) -> usize {
        self.slots.len()
    }

    /// How often a vCPU was let into the guest, over all calls of [`Serial::run`].
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Guest RAM.
    pub fn ram(&self) -> &Ram {
        &self.ram
    }

    /// Guest RAM, to write.
    pub fn ram_mut(&mut self) -> &mut Ram {
        &mut self.ram
    }

    /// The devices, whose console the guest writes to.
    pub fn devices(&self) -> &Arc<Devices> {
        &self.devices
    }

    /// As [`Ram::forget_written`].
    ///
    /// # Errors
    /// What KVM said.
    pub fn forget_written(&mut self) -> Result<(), errno::Error> {
        self.ram.forget_written(&self.vm)
    }

    /// As [`Ram::newly_written`].
    ///
    /// # Errors
    /// What KVM said.
    pub fn newly_written(&mut self) -> Result<Vec<usize>, errno::Error> {
        self.ram.newly_written(&self.vm)
    }

    /// Sends `vector` to vCPU `cpu`, which takes it when it next runs with interrupts on.
    ///
    /// # Errors
    /// What KVM said.
    pub fn interrupt(&self, cpu: usize, vector: u8) -> Result<(), errno::Error> {
        self.interrupts
            .send(Dispatch::fixed(self.slots[cpu].vcpu.id(), vector))
            .map(|_| ())
    }

    /// Delivers an IPI that was handed over, whatever it is. One to a CPU that does not exist is
    /// lost, as on any machine.
    ///
    /// # Errors
    /// What KVM said.
    pub fn deliver(&self, ipi: Dispatch) -> Result<(), errno::Error> {
        self.interrupts.send(ipi).map(|_| ())
    }

    /// Runs vCPU `cpu` until an exit that matters.
    pub fn run(&mut self, cpu: usize) -> SerialExit {
        let slot = &mut self.slots[cpu];
        if slot.is_stuck {
            return SerialExit::Dead(Death::Endless);
        }
        if let Some(regs) = slot.to_set.take() {
            slot.vcpu.set_registers_at_entry(&regs);
        }
        for _ in 0..MOST_IDLE_EXITS {
            self.entries += 1;
            let exit = slot.vcpu.run(&self.devices);
            if let Some(exit) = slot.meaning(exit) {
                return exit;
            }
        }
        SerialExit::Busy
    }

    /// The registers with which vCPU `cpu` goes on. RIP is that of the next instruction, also where
    /// KVM completes the `out` only at the next entry.
    pub fn regs(&self, cpu: usize) -> kvm_regs {
        let slot = &self.slots[cpu];
        if let Some(regs) = slot.to_set {
            return regs;
        }
        let mut regs = slot.vcpu.registers_at_exit();
        let byte = usize::try_from(regs.rip).ok().and_then(|rip| {
            let page = rip / PAGE_SIZE;
            (page < self.ram.pages()).then(|| self.ram.page(page)[rip % PAGE_SIZE])
        });
        if byte == Some(OUT) {
            regs.rip += 1;
        }
        regs
    }

    /// Has vCPU `cpu` go on with `regs`, which it had at an earlier exit.
    pub fn set_regs(&mut self, cpu: usize, regs: &kvm_regs) {
        self.slots[cpu].to_set = Some(*regs);
    }

    /// Has vCPU `cpu` execute the `out` for which it exited once more. It may do something else
    /// first, such as taking an interrupt, and then exits at the same place again.
    pub fn repeat(&mut self, cpu: usize) {
        let mut regs = self.regs(cpu);
        // Completed first, or KVM might skip what is to be repeated.
        settle(&mut self.slots[cpu], &self.devices);
        regs.rip -= 1;
        self.slots[cpu].to_set = Some(regs);
    }

    /// Whether vCPU `cpu` was ever started.
    ///
    /// # Errors
    /// What KVM said.
    pub fn has_run(&self, cpu: usize) -> Result<bool, errno::Error> {
        has_run(&self.slots[cpu].vcpu)
    }

    /// Whether a vector is pending at the local APIC of vCPU `cpu`.
    ///
    /// # Errors
    /// What KVM said.
    pub fn is_interrupted(&self, cpu: usize) -> Result<bool, errno::Error> {
        let lapic = self.slots[cpu].vcpu.fd().get_lapic()?;
        Ok(!super::inspect::requested(&lapic).is_empty())
    }

    /// Whether vCPU `cpu` reaches its local APIC as an xAPIC (SDM Vol. 3A, "IA32_APIC_BASE MSR").
    ///
    /// # Errors
    /// What KVM said.
    pub fn is_xapic(&self, cpu: usize) -> Result<bool, errno::Error> {
        const X2APIC: u64 = 1 << 10;
        let sregs = self.slots[cpu].vcpu.fd().get_sregs()?;
        Ok(sregs.apic_base & X2APIC == 0)
    }

    /// The state of each vCPU.
    ///
    /// # Errors
    /// What KVM said.
    pub fn capture(&mut self) -> Result<Vec<CpuState>, errno::Error> {
        (0..self.cpus()).map(|cpu| self.capture_one(cpu)).collect()
    }

    /// Restores the state of each vCPU.
    ///
    /// # Errors
    /// What KVM said.
    pub fn restore<'a>(
        &mut self,
        states: impl IntoIterator<Item = &'a CpuState>,
    ) -> Result<(), errno::Error> {
        let mut states = states.into_iter().enumerate();
        states.try_for_each(|(cpu, state)| self.restore_one(cpu, state))
    }

    /// The state of vCPU `cpu`.
    ///
    /// # Errors
    /// What KVM said.
    pub fn capture_one(&mut self, cpu: usize) -> Result<CpuState, errno::Error> {
        self.settle_one(cpu);
        CpuState::capture(self.slots[cpu].vcpu.fd(), &self.msrs)
    }

    /// Restores the state of vCPU `cpu`.
    ///
    /// # Errors
    /// What KVM said.
    pub fn restore_one(&mut self, cpu: usize, state: &CpuState) -> Result<(), errno::Error> {
        self.settle_one(cpu);
        let slot = &mut self.slots[cpu];
        state.restore(slot.vcpu.fd())?;
        slot.to_set = Some(state.regs);
        Ok(())
    }

    /// The id of the local APIC of vCPU `cpu`.
    pub fn apic_id(&self, cpu: usize) -> u32 {
        self.slots[cpu].vcpu.id()
    }

    /// Makes the stack segment of vCPU `cpu`, which runs in long mode, unusable.
    ///
    /// # Errors
    /// What KVM said.
    pub fn drop_stack_segment(&mut self, cpu: usize) -> Result<(), errno::Error> {
        self.settle_one(cpu);
        drop_stack_segment(&self.slots[cpu].vcpu)
    }

    /// Completes the instruction for which vCPU `cpu` exited, and sets the registers that are still
    /// to be set, without executing anything further.
    pub fn settle_one(&mut self, cpu: usize) {
        settle(&mut self.slots[cpu], &self.devices);
    }
}

fn settle(slot: &mut Slot, devices: &Devices) {
    if let Some(regs) = slot.to_set.take() {
        slot.vcpu.set_registers_at_entry(&regs);
    }
    slot.vcpu.immediate_exit().set(true);
    let mut completions = 0..MOST_COMPLETIONS;
    let is_settled = |exit| matches!(exit, Exit::Interrupted | Exit::Dead(_));
    slot.is_stuck |= !completions.any(|_| is_settled(slot.vcpu.run(devices)));
    slot.vcpu.immediate_exit().set(false);
}

/// The part of a vCPU's state that `kvm_run` shares with this process.
const SHARED: SyncReg = SyncReg::Register;

impl Vcpu {
    /// Has KVM copy the general registers into `kvm_run` at each exit.
    fn keep_registers_in_sight(&mut self) {
        self.fd_mut().set_sync_valid_reg(SHARED);
    }

    pub(super) fn registers_at_exit(&self) -> kvm_regs {
        self.fd().sync_regs().regs
    }

    fn set_registers_at_entry(&mut self, regs: &kvm_regs) {
        let fd = self.fd_mut();
        fd.sync_regs_mut().regs = *regs;
        fd.set_sync_dirty_reg(SHARED);
    }
}
