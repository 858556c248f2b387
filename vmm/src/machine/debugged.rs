//! What a debugger does to the vCPUs: stops all of them at once, looks at one, has it take a step, and
//! lets them go on. Its holds are its own: it can neither undo those of others, nor they its.

use kvm_bindings::{KVM_MP_STATE_HALTED, KVM_MP_STATE_RUNNABLE};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::errno;

use super::address_space::AddressSpace;
use super::breakpoints::{BreakpointError, HardwarePoint};
use super::lifecycle::{Holder, StallTotals, State};
use super::pause_error::PauseError;
use super::stop_instruction::{StopError, StopInstruction, bits_of_code};
use super::symbols::Symbols;
use super::threads::VcpuThreads;
use super::vcpu::Vcpu;
use crate::page_size::PAGE_SIZE;

/// One vCPU that is out of the guest, as a debugger sees it.
#[derive(Debug)]
pub struct Debugged<'a> {
    /// The vCPU.
    pub vcpu: &'a Vcpu,
    /// The guest's memory.
    pub memory: &'a GuestMemoryMmap,
}

impl Debugged<'_> {
    fn space(&self) -> AddressSpace<'_> {
        AddressSpace::new(self.vcpu.fd(), self.memory)
    }

    /// Up to `length` bytes at `address`, fewer if a page is missing. `each` can change what was read of
    /// each page, of which it is told where that is in guest memory.
    pub fn read(&self, address: u64, length: usize, each: impl FnMut(u64, &mut [u8])) -> Vec<u8> {
        self.space().read_by_page(address, length, each)
    }

    /// Writes `bytes` at `address`, and returns how many there was memory for. `each` is told what was
    /// written to each page, and where that is in guest memory.
    pub fn write(&self, address: u64, bytes: &[u8], each: impl FnMut(u64, &[u8])) -> usize {
        self.space().write_by_page(address, bytes, each)
    }

    /// The address of the instruction that it executes next.
    ///
    /// # Errors
    /// What KVM said.
    pub fn instruction_pointer(&self) -> Result<u64, errno::Error> {
        self.vcpu.fd().get_regs().map(|regs| regs.rip)
    }

    /// Has it execute instructions if it sleeps, as it would at an interrupt.
    ///
    /// # Errors
    /// What KVM said.
    pub fn wake(&self) -> Result<(), errno::Error> {
        match self.vcpu.mp_state()? {
            KVM_MP_STATE_HALTED => self.vcpu.set_mp_state(KVM_MP_STATE_RUNNABLE),
            _ => Ok(()),
        }
    }

    /// Whether it addresses memory by page tables (CR0.PG), as one does that has been started.
    ///
    /// # Errors
    /// What KVM said.
    pub fn has_paging(&self) -> Result<bool, errno::Error> {
        const PG: u64 = 1 << 31;
        self.vcpu.fd().get_sregs().map(|sregs| sregs.cr0 & PG != 0)
    }

    /// Replaces the instruction at `address`, as this vCPU addresses it, by one that stops vCPUs, where
    /// `others` are replaced already. Where it is not mapped yet, the segments of the image of `symbols` say where it is. Code of a 64-bit image
    /// is taken for 64-bit code, unless the vCPU is in its page and decodes it otherwise. The inner result
    /// says whether it could be replaced.
    ///
    /// # Errors
    /// What KVM said when it was asked for registers.
    pub fn put_stop(
        &self,
        address: u64,
        others: &[StopInstruction],
        symbols: &Symbols,
    ) -> Result<Result<StopInstruction, StopError>, errno::Error> {
        let page = |address: u64| address / PAGE_SIZE as u64;
        let is_there = page(self.instruction_pointer()?) == page(address);
        let bits = match symbols.is_of_64_bits() && !is_there {
            true => 64,
            false => bits_of_code(&self.vcpu.fd().get_sregs()?),
        };
        let translate = |address| {
            let mapped = self.translate(address);
            mapped.or_else(|| symbols.physical(address))
        };
        Ok(StopInstruction::put(
            address,
            bits,
            others,
            self.memory,
            translate,
        ))
    }

    /// Where `address` is in guest memory, if it is mapped.
    pub fn translate(&self, address: u64) -> Option<u64> {
        self.space().translate(address)
    }
}

impl VcpuThreads {
    /// Stops every vCPU that has not exited, and returns once all are out of the guest. One that is
    /// stopped already is stopped once.
    ///
    /// # Errors
    /// [`PauseError::Stuck`] names one that does not leave the guest. None is stopped then.
    pub fn stop_for_debugger(&self) -> Result<(), PauseError> {
        self.hold_all(Holder::Debugger).map(|_| ())
    }

    /// Lets vCPU `id` go on, as far as the debugger is concerned.
    ///
    /// # Errors
    /// [`PauseError::NoSuchVcpu`].
    pub fn go_on_from_debugger(&self, id: u32) -> Result<(), PauseError> {
        self.thread(id)?.lifecycle.release_all(Holder::Debugger);
        Ok(())
    }

    /// Runs `body` on vCPU `id`, which must be out of the guest.
    ///
    /// # Errors
    /// As [`VcpuThreads::with_stalled`].
    pub fn debug<T>(
        &self,
        id: u32,
        body: impl FnOnce(&Debugged<'_>) -> T,
    ) -> Result<T, PauseError> {
        let memory = &self.memory;
        self.with_stalled(id, |vcpu| body(&Debugged { vcpu, memory }))
    }

    /// Has the processor stop every vCPU for the debugger at `points`, and at no others. All must be out
    /// of the guest.
    ///
    /// # Errors
    /// [`BreakpointError`] if KVM refuses.
    pub fn set_debugger_points(&self, points: &[HardwarePoint]) -> Result<(), BreakpointError> {
        for thread in &self.list {
            if matches!(thread.lifecycle.state().0, State::Exited(_)) {
                continue;
            }
            self.with_stalled(thread.id, |vcpu| {
                let (debugging, fd) = vcpu.debugging();
                debugging.set_debugger_points(points, fd)
            })??;
        }
        Ok(())
    }

    /// Has vCPU `id`, which must be out of the guest, take one step for the debugger when it goes on, or
    /// no longer.
    ///
    /// # Errors
    /// [`BreakpointError`] if there is no such vCPU, or KVM refuses.
    pub fn set_debugger_step(&self, id: u32, on: bool) -> Result<(), BreakpointError> {
        self.with_stalled(id, |vcpu| {
            let (debugging, fd) = vcpu.debugging();
            debugging.set_debugger_step(on, fd)
        })??;
        Ok(())
    }

    /// How often and for how long a debugger has stopped each vCPU so far, in order.
    pub fn debugged_totals(&self) -> Vec<StallTotals> {
        let totals = |thread: &super::threads::VcpuThread| thread.lifecycle.debugged_totals();
        self.list.iter().map(totals).collect()
    }
}
