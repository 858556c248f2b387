//! A machine of one vCPU that is about to execute a few instructions in real mode, to find out what
//! this host does with them.

use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::vm::{HostError, Vm, setup};

/// Where the instructions are, with a base of 0.
pub(super) const START: u64 = 0x1000;

/// The machine. Its fields are dropped in this order: what KVM has mapped last.
#[derive(Debug)]
pub(super) struct Trial {
    pub fd: VcpuFd,
    _vm: Vm,
    _memory: GuestMemoryMmap,
}

impl Trial {
    /// A machine that is about to execute `code`.
    ///
    /// # Errors
    /// What the host does not give.
    pub fn of(code: &[u8]) -> Result<Self, HostError> {
        let no_memory = || HostError::Missing("two pages of memory");
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x2000)]);
        let memory = memory.map_err(|_| no_memory())?;
        (memory.write_slice(code, GuestAddress(START))).map_err(|_| no_memory())?;
        let vm = Vm::new(1, &memory)?;
        let fd = vm.create_vcpu(0)?;
        // It is in real mode, where there is nothing but the segment to set.
        let mut sregs = (fd.get_sregs()).map_err(setup("read the segment registers"))?;
        sregs.cs.base = 0;
        sregs.cs.selector = 0;
        (fd.set_sregs(&sregs)).map_err(setup("set the segment registers"))?;
        let mut regs = fd.get_regs().map_err(setup("read the registers"))?;
        regs.rip = START;
        fd.set_regs(&regs).map_err(setup("set the registers"))?;
        Ok(Self {
            fd,
            _vm: vm,
            _memory: memory,
        })
    }
}
