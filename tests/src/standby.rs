//! A VM that does nothing, for as long as the tests run.
//!
//! The first VM and the last make the kernel patch its own code: preemption notifiers go on and off
//! with VMs, checks of the local APIC with vCPUs whose APIC is disabled. Runs that follow each other
//! do that hundreds of times, and QEMU's emulation of several processors now and then keeps the
//! breakpoint that stood there meanwhile: the nested host's kernel then takes that breakpoint for
//! ever (`asm_exc_int3`, called from code that no longer contains one). One VM with one vCPU that
//! stays makes each patch happen once.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;

// Requests of `linux/kvm.h` that take a number or nothing.
const KVM_CREATE_VM: libc::Ioctl = 0xae01;
const KVM_CREATE_VCPU: libc::Ioctl = 0xae41;
const KVM_CREATE_IRQCHIP: libc::Ioctl = 0xae60;

static KEPT: OnceLock<io::Result<[OwnedFd; 2]>> = OnceLock::new();

/// Sees to it that there is such a VM, where there can be one.
pub fn keep() {
    KEPT.get_or_init(create);
}

fn create() -> io::Result<[OwnedFd; 2]> {
    let kvm = File::options().read(true).write(true).open("/dev/kvm")?;
    let vm = descriptor(request(&kvm, KVM_CREATE_VM)?);
    // The vCPU has a local APIC only if there is an interrupt controller, and never enables it.
    request(&vm, KVM_CREATE_IRQCHIP)?;
    let vcpu = descriptor(request(&vm, KVM_CREATE_VCPU)?);
    Ok([vm, vcpu])
}

fn request(on: &impl AsRawFd, request: libc::Ioctl) -> io::Result<libc::c_int> {
    // SAFETY: none of the requests takes a pointer, so that no memory of ours is touched.
    match unsafe { libc::ioctl(on.as_raw_fd(), request, 0) } {
        error if error < 0 => Err(io::Error::last_os_error()),
        answer => Ok(answer),
    }
}

fn descriptor(fd: libc::c_int) -> OwnedFd {
    // SAFETY: KVM has just made this descriptor, open and nobody else's.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
