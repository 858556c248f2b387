//! A VM that does nothing, for as long as the tests run.
//!
//! KVM turns virtualization on in every processor with the first VM, by IPI, and off with the last.
//! Runs that follow each other do that hundreds of times, and on QEMU's emulation of several AMD
//! processors one of them is now and then lost over it: the kernel of the nested host then waits for
//! ever for that processor, in `on_each_cpu`. One VM that stays makes it happen once.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;

/// `KVM_CREATE_VM`, `_IO(KVMIO, 0x01)` of `linux/kvm.h`.
const KVM_CREATE_VM: libc::Ioctl = 0xae01;

static VM: OnceLock<Option<OwnedFd>> = OnceLock::new();

/// Sees to it that there is a VM, where there can be one.
pub fn keep() {
    VM.get_or_init(|| {
        let kvm = File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .ok()?;
        // SAFETY: the request takes a number, not a pointer, and makes a new file descriptor.
        let vm = unsafe { libc::ioctl(kvm.as_raw_fd(), KVM_CREATE_VM, 0) };
        // SAFETY: if it is not negative it is a descriptor nobody else has.
        (vm >= 0).then(|| unsafe { OwnedFd::from_raw_fd(vm) })
    });
}
