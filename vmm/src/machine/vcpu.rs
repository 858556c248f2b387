//! One vCPU: its setup, one entry into the guest at a time, and what its exits mean. Knows neither
//! threads nor states, so that many vCPUs can be run from one thread.

use std::cell::Cell;
use std::sync::Arc;

use kvm_bindings::{KVM_MP_STATE_HALTED, KVM_VCPUEVENT_VALID_SHADOW, kvm_mp_state, kvm_run};
use kvm_ioctls::{VcpuExit, VcpuFd};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::errno;

use super::address_space::AddressSpace;
use super::boot;
use super::breakpoints::GuestDebug;
use super::cpuid::{self, Features};
use super::devices::{Devices, Effect};
use super::exit::{Death, Exit};
use super::exit_counts::ExitCounters;
use super::interrupt_frame::InterruptFrame;
use super::journal::{Journal, Room};
use super::kick::ImmediateExit;
use super::vm::{HostError, Vm};

/// One vCPU.
#[derive(Debug)]
pub struct Vcpu {
    id: u32,
    fd: VcpuFd,
    debugging: GuestDebug,
    immediate_exit: Arc<ImmediateExit>,
    exit_counters: Arc<ExitCounters>,
    journal: Arc<Journal>,
    /// `KVM_MP_STATE_*` since the last exit, if it was asked for.
    mp_state: Cell<Option<u32>>,
}

impl Vcpu {
    /// Creates vCPU `id` of `vm` with its CPUID table. Its journal finds its room in `room`.
    pub(super) fn new(
        vm: &Vm,
        id: u32,
        supported: &kvm_bindings::CpuId,
        mut features: Features,
        room: &Arc<Room>,
    ) -> Result<Self, HostError> {
        let refused = |action| move |source| HostError::Vcpu { action, id, source };
        let fd = vm.create_vcpu(id)?;
        let immediate_exit =
            ImmediateExit::new(&fd, vm.run_size()).map_err(refused("map the run structure"))?;
        features.tsc_khz = fd.get_tsc_khz().ok().filter(|khz| *khz > 0);
        let table = cpuid::for_vcpu(supported, features, id)
            .map_err(|_| HostError::Missing("room for this machine's CPUID entries"))?;
        fd.set_cpuid2(&table)
            .map_err(refused("set the CPUID table"))?;
        Ok(Self {
            id,
            fd,
            debugging: GuestDebug::default(),
            immediate_exit: Arc::new(immediate_exit),
            exit_counters: Arc::default(),
            journal: Arc::new(Journal::new(room)),
            mp_state: Cell::new(None),
        })
    }

    /// Makes this the boot vCPU, which starts at the PVH entry `entry`.
    pub(super) fn boot_at(&self, entry: u64) -> Result<(), HostError> {
        let id = self.id;
        let refused = |action| move |source| HostError::Vcpu { action, id, source };
        let mut sregs = self
            .fd
            .get_sregs()
            .map_err(refused("read the segment registers"))?;
        boot::protected_mode(&mut sregs);
        self.fd
            .set_sregs(&sregs)
            .map_err(refused("set the segment registers"))?;
        self.fd
            .set_regs(&boot::registers(entry))
            .map_err(refused("set the registers"))
    }

    /// Its number, which is also its APIC id.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Its file descriptor, for everything but `KVM_RUN`.
    pub fn fd(&self) -> &VcpuFd {
        &self.fd
    }

    /// What it is doing, `KVM_MP_STATE_*`. KVM is asked at most once after each exit: the ioctl
    /// also processes an INIT or start-up IPI that has arrived meanwhile, which would change a vCPU
    /// that is to stay as it is.
    ///
    /// # Errors
    /// What KVM said.
    pub fn mp_state(&self) -> Result<u32, errno::Error> {
        if let Some(known) = self.mp_state.get() {
            return Ok(known);
        }
        let now = self.fd.get_mp_state()?.mp_state;
        self.mp_state.set(Some(now));
        Ok(now)
    }

    /// Has it do this from now on, `KVM_MP_STATE_*`.
    ///
    /// # Errors
    /// What KVM said.
    pub(super) fn set_mp_state(&self, mp_state: u32) -> Result<(), errno::Error> {
        self.fd.set_mp_state(kvm_mp_state { mp_state })?;
        self.mp_state.set(Some(mp_state));
        Ok(())
    }

    /// Its file descriptor, for code that uses its `kvm_run`.
    pub(super) fn fd_mut(&mut self) -> &mut VcpuFd {
        &mut self.fd
    }

    /// Its breakpoint and steps, and the file descriptor to set them with.
    pub(super) fn debugging(&mut self) -> (&mut GuestDebug, &VcpuFd) {
        (&mut self.debugging, &self.fd)
    }

    /// The means to end [`Vcpu::run`] from another thread.
    pub fn immediate_exit(&self) -> &Arc<ImmediateExit> {
        &self.immediate_exit
    }

    /// The counts of its exits.
    pub fn exit_counters(&self) -> &Arc<ExitCounters> {
        &self.exit_counters
    }

    /// The record of its stays and stalls, while a trace is on.
    pub fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// Enters the guest until an exit, and counts it. `devices` answers port and memory accesses
    /// that KVM does not handle before this returns; KVM takes the answer at the next entry.
    pub fn run(&mut self, devices: &Devices) -> Exit {
        let entered = self.journal.enter();
        let exit = self.enter(devices);
        if let Some(reason) = self.exit_counters.count(&exit) {
            self.journal.leave(entered, reason);
        }
        exit
    }

    /// As [`Vcpu::run`], so that the guest sees nothing of the steps that are set, in its `memory`
    /// either.
    pub fn run_unseen(&mut self, devices: &Devices, memory: &GuestMemoryMmap) -> Exit {
        if let Some(halted) = self.step_over_hlt(memory) {
            return halted;
        }
        let frame = (self.debugging.has_steps())
            .then(|| InterruptFrame::of_injected(&self.fd, memory))
            .flatten();
        let exit = self.run(devices);
        if let Some(frame) = frame {
            frame.remove_trap_flag(&self.fd, memory);
        }
        exit
    }

    /// Executes the next instruction in the VMM if it is a `hlt` that is to be stepped over. A KVM
    /// that emulates ring 0 remembers the halt, and halts the vCPU after the last step, wherever it
    /// is then. Returns the exit of the step.
    fn step_over_hlt(&mut self, memory: &GuestMemoryMmap) -> Option<Exit> {
        const HLT: u8 = 0xf4;
        if !self.debugging.is_before_a_step() {
            return None;
        }
        let (mut regs, sregs) = (self.fd.get_regs().ok()?, self.fd.get_sregs().ok()?);
        let space = AddressSpace::new(&self.fd, memory);
        if space.code(&regs, &sregs, 1) != [HLT] {
            return None;
        }
        regs.rip += 1;
        let halted = kvm_mp_state {
            mp_state: KVM_MP_STATE_HALTED,
        };
        let halt = || {
            // `sti` and `mov ss` block interrupts for one instruction. That was the `hlt`, so the
            // block ends here.
            let mut events = self.fd.get_vcpu_events()?;
            events.flags = KVM_VCPUEVENT_VALID_SHADOW;
            events.interrupt.shadow = 0;
            self.fd.set_vcpu_events(&events)?;
            self.fd.set_regs(&regs)?;
            self.fd.set_mp_state(halted)
        };
        match halt() {
            Ok(()) => Some(Exit::Debug(
                self.debugging.stopped_at(regs.rip, 0, &self.fd),
            )),
            Err(error) => Some(Exit::Dead(Death::Run(error))),
        }
    }

    fn enter(&mut self, devices: &Devices) -> Exit {
        self.mp_state.set(None);
        self.debugging.set_between(false);
        let death = match self.fd.run() {
            Ok(VcpuExit::IoOut(port, data)) => return Exit::Pio(devices.write_port(port, data)),
            Ok(VcpuExit::IoIn(port, data)) => {
                devices.read_port(port, data);
                return Exit::Pio(Effect::None);
            }
            Ok(VcpuExit::MmioWrite(_, _)) => {
                devices.write_nowhere();
                return Exit::Mmio;
            }
            Ok(VcpuExit::MmioRead(_, data)) => {
                devices.read_nowhere(data);
                return Exit::Mmio;
            }
            Ok(VcpuExit::Intr) => return self.interrupted(),
            Ok(VcpuExit::Hlt) => return Exit::Hlt,
            Ok(VcpuExit::Debug(debug)) => {
                let (pc, dr6) = (debug.pc, debug.dr6);
                return Exit::Debug(self.debugging.stopped_at(pc, dr6, &self.fd));
            }
            Ok(VcpuExit::Shutdown) => Death::TripleFault,
            Ok(VcpuExit::FailEntry(reason, _)) => Death::FailEntry(reason),
            Ok(VcpuExit::InternalError) => internal_error(self.fd.get_kvm_run()),
            Ok(other) => Death::Unexpected(format!("{other:?}")),
            Err(error) => match error.errno() {
                libc::EINTR => return self.interrupted(),
                libc::EAGAIN => return Exit::Again,
                _ => Death::Run(error),
            },
        };
        Exit::Dead(death)
    }

    fn interrupted(&mut self) -> Exit {
        // KVM completes the pending instruction before it checks for signals.
        self.debugging.set_between(true);
        Exit::Interrupted
    }
}

/// The details of `KVM_EXIT_INTERNAL_ERROR`, which `VcpuExit` leaves out.
fn internal_error(run: &kvm_run) -> Death {
    // SAFETY: the exit reason says that KVM filled this member of the union, and it is made of
    // integers only, for which every bit pattern is valid.
    let internal = unsafe { run.__bindgen_anon_1.internal };
    let count = (internal.ndata as usize).min(internal.data.len());
    Death::InternalError {
        suberror: internal.suberror,
        data: internal.data[..count].to_vec(),
    }
}
