//! vCPUs that one thread owns and runs one at a time, each until it comes out for something that
//! means something. Between two such runs nothing moves, so that registers and RAM can be read, and
//! put back to what they once were, at little cost. Decides nothing: who runs when is the caller's
//! to say.

use std::sync::Arc;

use kvm_bindings::{KVM_SYNC_X86_REGS, kvm_regs, kvm_segment};
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

/// What a vCPU came out for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SerialExit {
    /// It has come to an armed point, whose address it gives, with a word about it.
    Reached {
        /// Address of the point.
        point: u64,
        /// What stands in RSI.
        word: u64,
    },
    /// It has done what its mailbox said.
    Done,
    /// It hands over an IPI.
    Dispatch(Dispatch),
    /// It said something else by the doorbell, which is of no matter here.
    Other(Doorbell),
    /// A signal came.
    Interrupted,
    /// It has come out [`MOST_IDLE_EXITS`] times, for nothing that means anything.
    Busy,
    /// It ended the run with this code.
    GuestExit(u32),
    /// It cannot go on.
    Dead(Death),
}

#[derive(Debug)]
struct Slot {
    vcpu: Vcpu,
    /// What its registers are to be at the next entry, if not what KVM has.
    to_set: Option<kvm_regs>,
    /// Whether the instruction for which it came out has no end.
    is_stuck: bool,
}

/// How often a vCPU may come out for nothing in one run.
pub const MOST_IDLE_EXITS: u32 = 1000;

/// How often a vCPU may come out while nothing but the instruction is completed for which it came
/// out before. A repeated one (`rep outs`) comes out again and again, as often as the guest has
/// written into RCX.
const MOST_COMPLETIONS: u32 = 1000;

/// The vCPUs of a machine in one hand.
///
/// The fields are dropped in this order: vCPUs and VM before the memory that KVM has mapped.
#[derive(Debug)]
pub struct Serial {
    slots: Vec<Slot>,
    vm: Vm,
    interrupts: Interrupts,
    devices: Arc<Devices>,
    msrs: MsrList,
    ram: Ram,
}

/// `out dx, eax`: the last instruction before a vCPU comes out at a port of the lab's.
const OUT: u8 = 0xef;

/// Takes its stack segment from `vcpu`, which in long mode it can do without. Interrupts on stacks
/// of their own take it on some processors and not on others; those that come later push what was
/// left.
fn drop_stack_segment(vcpu: &Vcpu) -> Result<(), errno::Error> {
    let mut sregs = vcpu.fd().get_sregs()?;
    sregs.ss = kvm_segment {
        unusable: 1,
        ..kvm_segment::default()
    };
    vcpu.fd().set_sregs(&sregs)
}

impl Serial {
    /// Takes over `vcpus`, which nobody runs any more, and completes what they came out for.
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
                is_stuck: false,
            };
            settle(&mut slot, &devices);
            slot
        };
        let slots: Vec<_> = vcpus.into_iter().map(slot).collect();
        for slot in &slots {
            drop_stack_segment(&slot.vcpu).map_err(super::vm::setup("set its segments"))?;
        }
        let first = slots.first().ok_or(HostError::Missing("a vCPU"))?;
        let msrs = MsrList::of(&vm, first.vcpu.fd()).map_err(super::vm::setup("list its MSRs"))?;
        Ram::watch(&vm, memory)?;
        // SAFETY: vCPUs enter the guest in methods of this value that borrow it uniquely, while
        // nothing is borrowed from the RAM inside it. The other hands on this memory are the lab's,
        // whose owner, the explorer, is one thread that holds no page while it writes to the lab.
        let ram = unsafe { Ram::of(memory) }.ok_or(HostError::Missing("RAM at address 0"))?;
        Ok(Self {
            slots,
            interrupts: vm.interrupts(),
            vm,
            devices,
            msrs,
            ram,
        })
    }

    /// Number of vCPUs.
    pub fn cpus(&self) -> usize {
        self.slots.len()
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

    /// Forgets which pages the guest has written: the next time it writes one, that is new.
    ///
    /// # Errors
    /// What KVM said.
    pub fn forget_written(&mut self) -> Result<(), errno::Error> {
        self.ram.forget_written(&self.vm)
    }

    /// Pages the guest has written and had not when this was last asked.
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
            .send(self.slots[cpu].vcpu.id(), vector)
            .map(|_| ())
    }

    /// Runs vCPU `cpu` until it comes out for something.
    pub fn run(&mut self, cpu: usize) -> SerialExit {
        let slot = &mut self.slots[cpu];
        if slot.is_stuck {
            return SerialExit::Dead(Death::Endless);
        }
        if let Some(regs) = slot.to_set.take() {
            slot.vcpu.set_registers_at_entry(&regs);
        }
        for _ in 0..MOST_IDLE_EXITS {
            match slot.vcpu.run(&self.devices) {
                Exit::Pio(Effect::Doorbell(Doorbell::Reached)) => {
                    let regs = slot.vcpu.registers_at_exit();
                    return SerialExit::Reached {
                        point: regs.rdi,
                        word: regs.rsi,
                    };
                }
                Exit::Pio(Effect::Doorbell(Doorbell::Done)) => return SerialExit::Done,
                Exit::Pio(Effect::Doorbell(other)) => return SerialExit::Other(other),
                Exit::Pio(Effect::Dispatch(dispatch)) => return SerialExit::Dispatch(dispatch),
                Exit::Pio(Effect::GuestExit(code)) => return SerialExit::GuestExit(code),
                Exit::Pio(Effect::None) | Exit::Mmio | Exit::Again | Exit::Debug(_) => {}
                // KVM waits out a `hlt` itself, so that none comes out here.
                Exit::Hlt => {}
                Exit::Interrupted => return SerialExit::Interrupted,
                Exit::Dead(death) => return SerialExit::Dead(death),
            }
        }
        SerialExit::Busy
    }

    /// The registers with which vCPU `cpu` goes on. RIP lies behind the instruction for which it
    /// came out, which KVM may complete only when it goes on.
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

    /// Has vCPU `cpu` go on with `regs` instead, which it once had when it came out.
    pub fn set_regs(&mut self, cpu: usize, regs: &kvm_regs) {
        self.slots[cpu].to_set = Some(*regs);
    }

    /// Has vCPU `cpu` execute the instruction for which it came out once more when it goes on:
    /// whatever it does before that, such as taking an interrupt, it then comes out there again.
    pub fn repeat(&mut self, cpu: usize) {
        let mut regs = self.regs(cpu);
        // Completed first, or KVM might skip what is to be repeated.
        settle(&mut self.slots[cpu], &self.devices);
        regs.rip -= 1;
        self.slots[cpu].to_set = Some(regs);
    }

    /// Vectors that are pending at the local APIC of vCPU `cpu`.
    ///
    /// # Errors
    /// What KVM said.
    pub fn is_interrupted(&self, cpu: usize) -> Result<bool, errno::Error> {
        let lapic = self.slots[cpu].vcpu.fd().get_lapic()?;
        Ok(!super::inspect::requested(&lapic).is_empty())
    }

    /// All that each vCPU is.
    ///
    /// # Errors
    /// What KVM said.
    pub fn capture(&mut self) -> Result<Vec<CpuState>, errno::Error> {
        self.settle();
        let capture = |slot: &Slot| CpuState::capture(slot.vcpu.fd(), &self.msrs);
        self.slots.iter().map(capture).collect()
    }

    /// Makes each vCPU what it was.
    ///
    /// # Errors
    /// What KVM said.
    pub fn restore(&mut self, states: &[CpuState]) -> Result<(), errno::Error> {
        self.settle();
        for (slot, state) in self.slots.iter_mut().zip(states) {
            state.restore(slot.vcpu.fd())?;
            slot.to_set = Some(state.regs);
        }
        Ok(())
    }

    /// Completes what each vCPU came out for, and sets the registers that are still to be set,
    /// without a step into the guest.
    fn settle(&mut self) {
        for slot in &mut self.slots {
            settle(slot, &self.devices);
        }
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

/// What [`Serial`] asks of a vCPU's `kvm_run`.
const SHARED: SyncReg = SyncReg::Register;

impl Vcpu {
    /// Has KVM leave the general registers where they can be read at each exit.
    fn keep_registers_in_sight(&mut self) {
        self.fd_mut().set_sync_valid_reg(SHARED);
    }

    fn registers_at_exit(&self) -> kvm_regs {
        self.fd().sync_regs().regs
    }

    fn set_registers_at_entry(&mut self, regs: &kvm_regs) {
        let fd = self.fd_mut();
        fd.sync_regs_mut().regs = *regs;
        fd.set_sync_dirty_reg(SHARED);
    }
}
