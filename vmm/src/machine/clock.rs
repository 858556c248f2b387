//! The host's time stamp counter and each vCPU's offset to it, so that events of the VMM and of the
//! guest can be put on one time line.

use kvm_bindings::{KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, KVMIO, kvm_device_attr};
use kvm_ioctls::VcpuFd;
use vmm_sys_util::errno;
use vmm_sys_util::ioctl::ioctl_with_ref;

/// `KVM_GET_DEVICE_ATTR`, which `kvm-ioctls` has for devices but not for vCPUs.
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

/// What KVM adds to the host's TSC to get that of a vCPU, in cycles (Linux 5.16,
/// `Documentation/virt/kvm/devices/vcpu.rst`, `KVM_VCPU_TSC_OFFSET`). It is valid while the guest
/// does not write `IA32_TSC` or `IA32_TSC_ADJUST`, and only if KVM does not scale the TSC.
///
/// # Errors
/// What KVM said; kernels before 5.16 do not know the attribute.
pub fn offset(vcpu: &VcpuFd) -> Result<u64, errno::Error> {
    let mut offset = 0_u64;
    let attribute = kvm_device_attr {
        group: KVM_VCPU_TSC_CTRL,
        attr: KVM_VCPU_TSC_OFFSET.into(),
        addr: (&raw mut offset) as u64,
        flags: 0,
    };
    // SAFETY: the descriptor is a vCPU's; KVM reads the attribute, which outlives the call, and
    // writes the 64 bits of `offset`, to which there is no other reference.
    let result = unsafe { ioctl_with_ref(vcpu, request::KVM_GET_DEVICE_ATTR(), &attribute) };
    if result < 0 {
        return Err(errno::Error::last());
    }
    Ok(offset)
}
