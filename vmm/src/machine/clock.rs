//! The host's time stamp counter, and how far each vCPU's is away from it, so that what the VMM and
//! what the guest have seen can stand on one time line.

use kvm_bindings::{KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, KVMIO, kvm_device_attr};
use kvm_ioctls::VcpuFd;
use vmm_sys_util::errno;
use vmm_sys_util::ioctl::ioctl_with_ref;

/// The ioctl that `kvm-ioctls` has for devices and not for vCPUs.
mod request {
    use super::{KVMIO, kvm_device_attr};
    vmm_sys_util::ioctl_iow_nr!(KVM_GET_DEVICE_ATTR, KVMIO, 0xe2, kvm_device_attr);
}

/// The host's TSC, in cycles.
pub fn now() -> u64 {
    // SAFETY: every processor that KVM for x86-64 runs on has the instruction, and it has no
    // operands.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// What KVM adds to the host's TSC to make that of a vCPU (Linux 5.16,
/// `Documentation/virt/kvm/devices/vcpu.rst`, `KVM_VCPU_TSC_OFFSET`). It holds while the guest
/// leaves `IA32_TSC` and `IA32_TSC_ADJUST` alone, and if KVM does not scale.
///
/// # Errors
/// What KVM said; older ones do not know it.
pub fn offset(vcpu: &VcpuFd) -> Result<u64, errno::Error> {
    let mut offset = 0_u64;
    let attribute = kvm_device_attr {
        group: KVM_VCPU_TSC_CTRL,
        attr: KVM_VCPU_TSC_OFFSET.into(),
        addr: (&raw mut offset) as u64,
        flags: 0,
    };
    // SAFETY: the descriptor is a vCPU's; KVM reads the attribute, which outlives the call, and
    // writes the 64 bits of `offset`, to which nobody else has a reference.
    let result = unsafe { ioctl_with_ref(vcpu, request::KVM_GET_DEVICE_ATTR(), &attribute) };
    if result < 0 {
        return Err(errno::Error::last());
    }
    Ok(offset)
}
