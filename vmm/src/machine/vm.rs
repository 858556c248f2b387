//! The virtual machine as KVM sees it: what the host must offer, the VM itself, its interrupt
//! controllers and its memory. vCPUs are created here and live in [`super::vcpu`].

use std::sync::Arc;

use kvm_bindings::{
    CpuId, KVM_API_VERSION, KVM_CAP_DISABLE_QUIRKS2, KVM_CAP_MAX_VCPU_ID, KVM_CAP_X2APIC_API,
    KVM_MAX_CPUID_ENTRIES, KVM_PIT_SPEAKER_DUMMY, KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK,
    KVM_X2APIC_API_USE_32BIT_IDS, KVM_X86_QUIRK_FIX_HYPERCALL_INSN, kvm_enable_cap, kvm_msi,
    kvm_pit_config, kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};
use shared::ports::Dispatch;
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};
use vmm_sys_util::errno;
use vmm_sys_util::eventfd::EventFd;

/// Address of three pages that KVM needs for itself on VMX hosts. They lie in the gap, where there
/// is no RAM.
const TSS_ADDRESS: usize = 0xfffb_d000;

/// Why this host cannot run the machine.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// `/dev/kvm` is not there.
    #[error(
        "this host has no /dev/kvm; load a KVM module (modprobe kvm_intel, kvm_amd), \
         or enable nested virtualisation if this is itself a virtual machine"
    )]
    NoKvm,
    /// This user may not open `/dev/kvm`.
    #[error("no permission to open /dev/kvm; add yourself to the group that owns it (often kvm)")]
    NoPermission,
    /// `/dev/kvm` cannot be opened.
    #[error("cannot open /dev/kvm")]
    Open(#[source] errno::Error),
    /// KVM has another API version.
    #[error("this host's KVM has API version {0}, {KVM_API_VERSION} is needed")]
    ApiVersion(i32),
    /// `/dev/kvm` is something else.
    #[error("this host's /dev/kvm is not KVM")]
    NotKvm,
    /// KVM lacks a capability.
    #[error("this host's KVM lacks {0}; a newer kernel has it")]
    Missing(&'static str),
    /// KVM allows fewer vCPUs than asked for.
    #[error(
        "this host's KVM allows {allowed} vCPUs with ids below {ids}, not {asked}; ask for \
         --vcpus {allowed} or fewer"
    )]
    TooManyVcpus {
        /// Number asked for.
        asked: u32,
        /// Number KVM allows.
        allowed: usize,
        /// First id KVM does not allow.
        ids: usize,
    },
    /// A step of the setup failed.
    #[error("KVM refused to {action}")]
    Setup {
        /// What was tried.
        action: &'static str,
        /// What KVM said.
        #[source]
        source: errno::Error,
    },
    /// A step of a vCPU's setup failed.
    #[error("KVM refused to {action} of vCPU {id}")]
    Vcpu {
        /// What was tried.
        action: &'static str,
        /// The vCPU.
        id: u32,
        /// What KVM said.
        #[source]
        source: errno::Error,
    },
}

/// Names what was tried when KVM refuses it.
pub(super) fn setup(action: &'static str) -> impl FnOnce(errno::Error) -> HostError {
    move |source| HostError::Setup { action, source }
}

/// A VM with its memory and interrupt controllers, and not yet a vCPU.
#[derive(Debug)]
pub struct Vm {
    fd: Arc<VmFd>,
    kvm: Kvm,
}

/// Sends interrupts to the CPUs of a VM, from any thread.
#[derive(Debug, Clone)]
pub struct Interrupts(Arc<VmFd>);

impl Interrupts {
    /// Sends an IPI as an edge-triggered message (SDM Vol. 3A, 11.11), whose data has vector and
    /// delivery mode where the ICR has them. The bits of the target's id that do not fit into the
    /// address go into its upper half (KVM's api.rst, `KVM_CAP_X2APIC_API`). Returns whether it was
    /// accepted: no CPU may have this id, or its APIC may be disabled.
    ///
    /// # Errors
    /// What KVM said, if it knows no such message or no such CPU.
    pub fn send(&self, ipi: Dispatch) -> Result<bool, errno::Error> {
        const ADDRESS: u32 = 0xfee0_0000;
        const DELIVERY_SHIFT: u32 = 8;
        let apic_id = ipi.target;
        let message = kvm_msi {
            address_lo: ADDRESS | (apic_id & 0xff) << 12,
            address_hi: apic_id & !0xff,
            data: (ipi.delivery as u32) << DELIVERY_SHIFT | u32::from(ipi.vector),
            ..kvm_msi::default()
        };
        self.0.signal_msi(message).map(|targets| targets > 0)
    }
}

impl Vm {
    /// Opens KVM, checks that it can run `vcpus` vCPUs, and creates the VM around `memory`.
    ///
    /// # Errors
    /// [`HostError`] says what the host lacks.
    pub fn new(vcpus: u32, memory: &GuestMemoryMmap) -> Result<Self, HostError> {
        let kvm = open()?;
        check(&kvm, vcpus)?;
        // KVM gives up when a signal comes meanwhile, and has to be asked again, as QEMU does
        // (accel/kvm/kvm-all.c). Whoever caught the signal heeds it later.
        let fd = loop {
            match kvm.create_vm() {
                Err(error) if error.errno() == libc::EINTR => {}
                made => break made.map_err(setup("create a VM"))?,
            }
        };
        let vm = Self {
            fd: Arc::new(fd),
            kvm,
        };
        // Before the interrupt controllers: since Linux 6.18 KVM frees what their registration has
        // replaced in a grace period that nobody waits for. A change of the memory's map would wait
        // for that one first, two ticks of the host's timer and more, and takes a tenth of a
        // millisecond by itself. Only the end of the VM waits for it now, if it is not over by
        // then.
        vm.map(memory, 0).map_err(setup("map guest memory"))?;
        vm.configure(vcpus)?;
        Ok(vm)
    }

    fn configure(&self, vcpus: u32) -> Result<(), HostError> {
        // Without this, a KVM that emulates ring 0 patches `vmcall` and retries it for ever. With
        // it, `vmcall` is an invalid opcode like any other instruction that the CPU lacks.
        let quirks = self.fd.check_extension_raw(KVM_CAP_DISABLE_QUIRKS2.into());
        if quirks > 0 && quirks.cast_unsigned() & KVM_X86_QUIRK_FIX_HYPERCALL_INSN != 0 {
            self.enable(KVM_CAP_DISABLE_QUIRKS2, KVM_X86_QUIRK_FIX_HYPERCALL_INSN)
                .map_err(setup("leave hypercall instructions alone"))?;
        }
        if self.fd.check_extension_raw(KVM_CAP_MAX_VCPU_ID.into()) > 0 {
            // An optimisation that older kernels do not offer: if it is refused, nothing is lost.
            let _ = self.enable(KVM_CAP_MAX_VCPU_ID, vcpus);
        }
        self.fd
            .set_tss_address(TSS_ADDRESS)
            .map_err(setup("place its task state segment"))?;
        self.fd
            .create_irq_chip()
            .map_err(setup("create the interrupt controllers"))?;
        self.enable(
            KVM_CAP_X2APIC_API,
            KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK,
        )
        .map_err(setup("use 32-bit APIC ids"))
    }

    /// Adds the timer chip of a PC (8254).
    ///
    /// # Errors
    /// What KVM said.
    pub(super) fn add_timer_chip(&self) -> Result<(), HostError> {
        let config = kvm_pit_config {
            // Port 0x61, by which a kernel reads one of its counters, is KVM's too.
            flags: KVM_PIT_SPEAKER_DUMMY,
            ..kvm_pit_config::default()
        };
        (self.fd.create_pit2(config)).map_err(setup("create the timer chip"))
    }

    /// Raises interrupt `line` of the IOAPIC, an edge, whenever `fd` is written to.
    ///
    /// # Errors
    /// What KVM said.
    pub(super) fn connect(&self, fd: &EventFd, line: u32) -> Result<(), HostError> {
        (self.fd.register_irqfd(fd, line)).map_err(setup("connect the console's interrupt"))
    }

    fn enable(&self, cap: u32, argument: u32) -> Result<(), errno::Error> {
        self.fd.enable_cap(&kvm_enable_cap {
            cap,
            args: [argument.into(), 0, 0, 0],
            ..kvm_enable_cap::default()
        })
    }

    /// Maps `memory`, or changes the flags with which it is mapped.
    pub(super) fn map(&self, memory: &GuestMemoryMmap, flags: u32) -> Result<(), errno::Error> {
        for (slot, region) in (0..).zip(memory.iter()) {
            let slot = kvm_userspace_memory_region {
                slot,
                guest_phys_addr: region.start_addr().raw_value(),
                memory_size: region.len(),
                userspace_addr: region.as_ptr() as u64,
                flags,
            };
            // SAFETY: the region is mapped memory of exactly this size. The mapping belongs to the
            // `GuestMemoryMmap`, which `Machine` drops after the VM, and the VMM itself reads and
            // writes it only through vm-memory's volatile accesses, or through the references of
            // `super::ram`, which exist only while no vCPU is in the guest.
            unsafe { self.fd.set_user_memory_region(slot) }?;
        }
        Ok(())
    }

    /// Creates vCPU `id`.
    ///
    /// # Errors
    /// What KVM said.
    pub fn create_vcpu(&self, id: u32) -> Result<VcpuFd, HostError> {
        self.fd
            .create_vcpu(id.into())
            .map_err(|source| HostError::Vcpu {
                action: "create the state",
                id,
                source,
            })
    }

    /// Bytes of a vCPU's `kvm_run` mapping.
    pub(super) fn run_size(&self) -> usize {
        self.fd.run_size()
    }

    /// CPUID entries that KVM can offer.
    ///
    /// # Errors
    /// What KVM said.
    pub fn supported_cpuid(&self) -> Result<CpuId, HostError> {
        self.kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(setup("list the CPUID entries it supports"))
    }

    /// Whether the timer of the local APIC has its deadline mode.
    pub(super) fn has_tsc_deadline(&self) -> bool {
        self.fd.check_extension(Cap::TscDeadlineTimer)
    }

    /// What sends interrupts to its CPUs.
    pub fn interrupts(&self) -> Interrupts {
        Interrupts(Arc::clone(&self.fd))
    }

    /// KVM itself.
    pub(super) fn kvm(&self) -> &Kvm {
        &self.kvm
    }

    /// The VM's file descriptor.
    pub fn fd(&self) -> &VmFd {
        &self.fd
    }
}

fn open() -> Result<Kvm, HostError> {
    Kvm::new().map_err(|error| match error.errno() {
        libc::ENOENT | libc::ENODEV | libc::ENXIO => HostError::NoKvm,
        libc::EACCES | libc::EPERM => HostError::NoPermission,
        _ => HostError::Open(error),
    })
}

fn check(kvm: &Kvm, vcpus: u32) -> Result<(), HostError> {
    let version = kvm.get_api_version();
    if version < 0 {
        return Err(HostError::NotKvm);
    }
    if version.cast_unsigned() != KVM_API_VERSION {
        return Err(HostError::ApiVersion(version));
    }
    let needed = [
        (Cap::UserMemory, "KVM_CAP_USER_MEMORY (memory slots)"),
        (
            Cap::Irqchip,
            "KVM_CAP_IRQCHIP (in-kernel interrupt controllers)",
        ),
        (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
        (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
        (Cap::MpState, "KVM_CAP_MP_STATE"),
        (
            Cap::ImmediateExit,
            "KVM_CAP_IMMEDIATE_EXIT (stopping a vCPU without a race)",
        ),
        (Cap::X2ApicApi, "KVM_CAP_X2APIC_API (32-bit APIC ids)"),
    ];
    if let Some((_, name)) = needed.iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
        return Err(HostError::Missing(name));
    }
    let (allowed, ids) = (kvm.get_max_vcpus(), kvm.get_max_vcpu_id());
    if vcpus as usize > allowed.min(ids) {
        return Err(HostError::TooManyVcpus {
            asked: vcpus,
            allowed: allowed.min(ids),
            ids,
        });
    }
    Ok(())
}
