//! Which kind of thread may make which system calls: a table to be read, with a reason for each
//! group of calls. Installs nothing, and calls nothing.
//!
//! The calls are those of Linux on x86-64, and the requests of `ioctl` those of `linux/kvm.h`,
//! `asm-generic/ioctls.h` and `linux/perf_event.h`. A call that is in no group of a thread's kind
//! ends the process; see [`super`].

use kvm_bindings::{
    KVMIO, kvm_cpuid2, kvm_debugregs, kvm_device_attr, kvm_dirty_log, kvm_enable_cap, kvm_fpu,
    kvm_guest_debug, kvm_irqfd, kvm_lapic_state, kvm_mp_state, kvm_msi, kvm_msr_list, kvm_msrs,
    kvm_pit_config, kvm_regs, kvm_sregs, kvm_translation, kvm_userspace_memory_region,
    kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use libc::{
    CLONE_THREAD, PR_GET_NAME, PR_SET_NAME, PR_SET_NO_NEW_PRIVS, PROT_EXEC, SIGABRT, SIGBUS,
    SIGSEGV, c_long,
};

use super::kind::ThreadKind;

/// With which arguments a call may be made.
#[derive(Debug, Clone, Copy)]
pub(super) enum Only {
    /// Any.
    Any,
    /// Argument `.0` is one of these 32-bit values.
    OneOf(u8, &'static [u32]),
    /// Argument `.0` has these values in the bits `.1`.
    Bits(u8, u64, u64),
    /// Argument `.0` is the id of this process.
    ThisProcess(u8),
}

/// Calls that are allowed together, for one reason.
#[derive(Debug)]
pub(super) struct Group {
    pub calls: &'static [(c_long, Only)],
    /// Requests that `ioctl` may make.
    pub ioctls: &'static [u32],
}

use Only::{Any, Bits, OneOf, ThisProcess};
use libc as l;

/// What a thread of each kind may do. What it starts inherits its limits.
pub(super) fn groups(kind: ThreadKind) -> &'static [&'static Group] {
    match kind {
        ThreadKind::Main => &[
            &RUN_THREAD,
            &MEMORY,
            &OPEN_FILES,
            &WAIT,
            &RUN_VCPU,
            &VCPU_STATE,
            &CHANGE_VCPU,
            &INTERRUPT,
            &BUILD,
            &REWIND,
            &NAMED_FILES,
            &MAKE_FILES,
            &START_THREADS,
            &UNIX_SOCKETS,
            &CONNECTIONS,
            &TERMINAL,
            &COUNT,
            &SIGNALS,
            &HOST,
        ],
        // Each has a machine of its own, and a table of states that may be in files.
        ThreadKind::Search => &[
            &RUN_THREAD,
            &MEMORY,
            &OPEN_FILES,
            &WAIT,
            &RUN_VCPU,
            &VCPU_STATE,
            &INTERRUPT,
            &REWIND,
            &NAMED_FILES,
            &MAKE_FILES,
            &START_THREADS,
            &TERMINAL,
            &HOST,
        ],
        // It has what the guest sends it, and so the fewest means.
        ThreadKind::Vcpu => &[
            &RUN_THREAD,
            &MEMORY,
            &OPEN_FILES,
            &WAIT,
            &RUN_VCPU,
            &VCPU_STATE,
            &INTERRUPT,
        ],
        ThreadKind::EventLoop => &[
            &RUN_THREAD,
            &MEMORY,
            &OPEN_FILES,
            &WAIT,
            &VCPU_STATE,
            &INTERRUPT,
            &TERMINAL,
        ],
        ThreadKind::Script => &[
            &RUN_THREAD,
            &MEMORY,
            &OPEN_FILES,
            &WAIT,
            &VCPU_STATE,
            &INTERRUPT,
        ],
        // It starts those that answer, and those start those that send: a thread has no more than
        // the one that started it.
        ThreadKind::Socket => &[
            &RUN_THREAD,
            &MEMORY,
            &OPEN_FILES,
            &WAIT,
            &VCPU_STATE,
            &INTERRUPT,
            &START_THREADS,
            &CONNECTIONS,
        ],
        // It changes what it looks at.
        ThreadKind::Debugger => &[
            &RUN_THREAD,
            &MEMORY,
            &OPEN_FILES,
            &WAIT,
            &VCPU_STATE,
            &CHANGE_VCPU,
            &INTERRUPT,
            &CONNECTIONS,
            &TERMINAL,
        ],
        ThreadKind::Writer => &[&RUN_THREAD, &MEMORY, &SEND],
        ThreadKind::Signals => &[&RUN_THREAD, &MEMORY, &OPEN_FILES, &WAIT],
        // The line of progress is drawn by one more thread.
        ThreadKind::Ticker => &[&RUN_THREAD, &MEMORY, &START_THREADS, &TERMINAL],
    }
}

/// What every thread does: wait for another and wake it, sleep, handle a signal, say something on
/// standard error, panic, and end. Signals go to threads of this process only. What a signal does
/// can be changed only for those by which the standard library and `abort` end a process.
const RUN_THREAD: Group = Group {
    calls: &[
        (l::SYS_futex, Any),
        (l::SYS_sched_yield, Any),
        (l::SYS_nanosleep, Any),
        (l::SYS_clock_nanosleep, Any),
        (l::SYS_clock_gettime, Any),
        (l::SYS_clock_getres, Any),
        (l::SYS_gettimeofday, Any),
        (l::SYS_time, Any),
        (l::SYS_getcpu, Any),
        (l::SYS_gettid, Any),
        (l::SYS_getpid, Any),
        (l::SYS_set_robust_list, Any),
        (l::SYS_rseq, Any),
        (l::SYS_sigaltstack, Any),
        (l::SYS_rt_sigprocmask, Any),
        (l::SYS_rt_sigreturn, Any),
        (
            l::SYS_rt_sigaction,
            OneOf(0, &[SIGABRT as u32, SIGSEGV as u32, SIGBUS as u32]),
        ),
        (l::SYS_restart_syscall, Any),
        (l::SYS_tgkill, ThisProcess(0)),
        (l::SYS_exit, Any),
        (l::SYS_exit_group, Any),
        // The bounds of its own stack, which the C library asks for at the start.
        (l::SYS_sched_getaffinity, Any),
        (l::SYS_getrandom, Any),
        (l::SYS_membarrier, Any),
        (
            l::SYS_prctl,
            OneOf(0, &[PR_SET_NAME as u32, PR_GET_NAME as u32, PR_SET_VMA]),
        ),
        (l::SYS_write, Any),
        (l::SYS_writev, Any),
    ],
    ioctls: &[],
};

/// Names for anonymous memory, which a C library may give to what it allocates (`linux/prctl.h`).
const PR_SET_VMA: u32 = 0x5356_4d41;

/// What an allocator, a mapping and a stack need. No memory becomes executable.
const MEMORY: Group = Group {
    calls: &[
        (l::SYS_brk, Any),
        (l::SYS_mmap, Bits(2, PROT_EXEC as u64, 0)),
        (l::SYS_mprotect, Bits(2, PROT_EXEC as u64, 0)),
        (l::SYS_munmap, Any),
        (l::SYS_mremap, Any),
        (l::SYS_madvise, Any),
        // The last owner of a mapping or a machine closes what belongs to it.
        (l::SYS_close, Any),
        // The standard library asks whether it is open before it closes it, if it is not optimised.
        (l::SYS_fcntl, OneOf(1, &[l::F_GETFD as u32])),
    ],
    ioctls: &[],
};

/// Reading and writing what is open already: eventfds, timers, KVM's statistics, counters.
const OPEN_FILES: Group = Group {
    calls: &[
        (l::SYS_read, Any),
        (l::SYS_readv, Any),
        (l::SYS_pread64, Any),
        (l::SYS_lseek, Any),
        (l::SYS_fstat, Any),
        (l::SYS_timerfd_settime, Any),
        (l::SYS_timerfd_gettime, Any),
    ],
    ioctls: &[],
};

/// Waiting for one of several files.
const WAIT: Group = Group {
    calls: &[
        (l::SYS_poll, Any),
        (l::SYS_ppoll, Any),
        (l::SYS_epoll_wait, Any),
        (l::SYS_epoll_pwait, Any),
        (l::SYS_epoll_ctl, Any),
    ],
    ioctls: &[],
};

/// The guest runs.
const RUN_VCPU: Group = Group {
    calls: &[],
    ioctls: &[io(0x80)], // KVM_RUN
};

/// Looking at a vCPU, holding it, and stepping it. What has no `KVM_SET` here is only set while a
/// machine is built or rewound.
const VCPU_STATE: Group = Group {
    calls: &[],
    ioctls: &[
        from_kernel::<kvm_regs>(0x81),        // KVM_GET_REGS
        to_kernel::<kvm_regs>(0x82),          // KVM_SET_REGS
        from_kernel::<kvm_sregs>(0x83),       // KVM_GET_SREGS
        both::<kvm_translation>(0x85),        // KVM_TRANSLATE
        both::<kvm_msrs>(0x88),               // KVM_GET_MSRS
        from_kernel::<kvm_lapic_state>(0x8e), // KVM_GET_LAPIC
        from_kernel::<kvm_mp_state>(0x98),    // KVM_GET_MP_STATE
        to_kernel::<kvm_mp_state>(0x99),      // KVM_SET_MP_STATE
        to_kernel::<kvm_guest_debug>(0x9b),   // KVM_SET_GUEST_DEBUG
        from_kernel::<kvm_vcpu_events>(0x9f), // KVM_GET_VCPU_EVENTS
        to_kernel::<kvm_vcpu_events>(0xa0),   // KVM_SET_VCPU_EVENTS
        from_kernel::<kvm_debugregs>(0xa1),   // KVM_GET_DEBUGREGS
        io(0xa3),                             // KVM_GET_TSC_KHZ
        to_kernel::<kvm_device_attr>(0xe2),   // KVM_GET_DEVICE_ATTR
    ],
};

/// Changing the registers of a vCPU that is stopped.
const CHANGE_VCPU: Group = Group {
    calls: &[],
    ioctls: &[
        to_kernel::<kvm_sregs>(0x84),   // KVM_SET_SREGS
        to_kernel::<kvm_msrs>(0x89),    // KVM_SET_MSRS
        from_kernel::<kvm_fpu>(0x8c),   // KVM_GET_FPU
        to_kernel::<kvm_fpu>(0x8d),     // KVM_SET_FPU
        from_kernel::<kvm_xsave>(0xa4), // KVM_GET_XSAVE
    ],
};

/// Delivering an IPI that was on the wire.
const INTERRUPT: Group = Group {
    calls: &[],
    ioctls: &[to_kernel::<kvm_msi>(0xa5)], // KVM_SIGNAL_MSI
};

/// Building a machine.
const BUILD: Group = Group {
    calls: &[(l::SYS_eventfd2, Any), (l::SYS_timerfd_create, Any)],
    ioctls: &[
        io(0x00),                                       // KVM_GET_API_VERSION
        io(0x01),                                       // KVM_CREATE_VM
        both::<kvm_msr_list>(0x02),                     // KVM_GET_MSR_INDEX_LIST
        io(0x03),                                       // KVM_CHECK_EXTENSION
        io(0x04),                                       // KVM_GET_VCPU_MMAP_SIZE
        both::<kvm_cpuid2>(0x05),                       // KVM_GET_SUPPORTED_CPUID
        io(0x41),                                       // KVM_CREATE_VCPU
        to_kernel::<kvm_userspace_memory_region>(0x46), // KVM_SET_USER_MEMORY_REGION
        io(0x47),                                       // KVM_SET_TSS_ADDR
        io(0x60),                                       // KVM_CREATE_IRQCHIP
        to_kernel::<kvm_irqfd>(0x76),                   // KVM_IRQFD
        to_kernel::<kvm_pit_config>(0x77),              // KVM_CREATE_PIT2
        to_kernel::<kvm_cpuid2>(0x90),                  // KVM_SET_CPUID2
        to_kernel::<kvm_enable_cap>(0xa3),              // KVM_ENABLE_CAP
        io(0xce),                                       // KVM_GET_STATS_FD
        to_kernel::<kvm_sregs>(0x84),                   // KVM_SET_SREGS
    ],
};

/// Rewinding a machine to a state of before.
const REWIND: Group = Group {
    calls: &[],
    ioctls: &[
        to_kernel::<kvm_dirty_log>(0x42),               // KVM_GET_DIRTY_LOG
        to_kernel::<kvm_userspace_memory_region>(0x46), // KVM_SET_USER_MEMORY_REGION
        to_kernel::<kvm_sregs>(0x84),                   // KVM_SET_SREGS
        to_kernel::<kvm_msrs>(0x89),                    // KVM_SET_MSRS
        from_kernel::<kvm_fpu>(0x8c),                   // KVM_GET_FPU
        to_kernel::<kvm_fpu>(0x8d),                     // KVM_SET_FPU
        to_kernel::<kvm_lapic_state>(0x8f),             // KVM_SET_LAPIC
        to_kernel::<kvm_debugregs>(0xa2),               // KVM_SET_DEBUGREGS
        from_kernel::<kvm_xcrs>(0xa6),                  // KVM_GET_XCRS
        to_kernel::<kvm_xcrs>(0xa7),                    // KVM_SET_XCRS
    ],
};

/// Opening files by name, and looking at what is there. Where the kernel has Landlock it says which
/// ([`super::files`]).
const NAMED_FILES: Group = Group {
    calls: &[
        (l::SYS_open, Any),
        (l::SYS_openat, Any),
        (l::SYS_stat, Any),
        (l::SYS_lstat, Any),
        (l::SYS_newfstatat, Any),
        (l::SYS_statx, Any),
        (l::SYS_statfs, Any),
        (l::SYS_fstatfs, Any),
        (l::SYS_access, Any),
        (l::SYS_faccessat, Any),
        (l::SYS_faccessat2, Any),
        (l::SYS_readlink, Any),
        (l::SYS_readlinkat, Any),
        (l::SYS_getcwd, Any),
        (l::SYS_getdents64, Any),
        (l::SYS_fcntl, Any),
        (l::SYS_dup, Any),
        (l::SYS_dup2, Any),
        (l::SYS_dup3, Any),
        (l::SYS_fadvise64, Any),
    ],
    ioctls: &[],
};

/// Writing results: first beside their place, and then into it. States of a search in files without
/// a name.
const MAKE_FILES: Group = Group {
    calls: &[
        (l::SYS_pwrite64, Any),
        (l::SYS_pwritev, Any),
        (l::SYS_ftruncate, Any),
        (l::SYS_fallocate, Any),
        (l::SYS_fsync, Any),
        (l::SYS_fdatasync, Any),
        (l::SYS_msync, Any),
        (l::SYS_fchmod, Any),
        (l::SYS_chmod, Any),
        (l::SYS_umask, Any),
        (l::SYS_link, Any),
        (l::SYS_linkat, Any),
        (l::SYS_rename, Any),
        (l::SYS_renameat, Any),
        (l::SYS_renameat2, Any),
        (l::SYS_unlink, Any),
        (l::SYS_unlinkat, Any),
        (l::SYS_flock, Any),
        // How the standard library copies one file into another.
        (l::SYS_copy_file_range, Any),
        (l::SYS_sendfile, Any),
        (l::SYS_splice, Any),
        (l::SYS_memfd_create, Any),
    ],
    ioctls: &[],
};

/// Starting a thread, which then limits itself further. No process: `clone` is for threads only, and
/// `clone3`, whose arguments no filter can see, is answered as by a kernel that does not have it.
const START_THREADS: Group = Group {
    calls: &[
        (
            l::SYS_clone,
            Bits(0, CLONE_THREAD as u64, CLONE_THREAD as u64),
        ),
        (l::SYS_clone3, Any),
        (l::SYS_seccomp, Any),
        (l::SYS_prctl, OneOf(0, &[PR_SET_NO_NEW_PRIVS as u32])),
        (l::SYS_capget, Any),
        (l::SYS_capset, Any),
    ],
    ioctls: &[],
};

/// Making the control socket, or connecting to one. No other kind of socket.
const UNIX_SOCKETS: Group = Group {
    calls: &[
        (l::SYS_socket, OneOf(0, &[l::AF_UNIX as u32])),
        (l::SYS_socketpair, OneOf(0, &[l::AF_UNIX as u32])),
        (l::SYS_bind, Any),
        (l::SYS_listen, Any),
        (l::SYS_connect, Any),
        (l::SYS_getsockname, Any),
    ],
    ioctls: &[],
};

/// Serving clients at a socket that is there, or being one.
const CONNECTIONS: Group = Group {
    calls: &[
        (l::SYS_accept, Any),
        (l::SYS_accept4, Any),
        (l::SYS_shutdown, Any),
        (l::SYS_getpeername, Any),
        (l::SYS_getsockopt, Any),
        (l::SYS_setsockopt, Any),
        (l::SYS_sendto, Any),
        (l::SYS_sendmsg, Any),
        (l::SYS_recvfrom, Any),
        (l::SYS_recvmsg, Any),
        (l::SYS_epoll_create1, Any),
        (l::SYS_fcntl, Any),
        (l::SYS_dup, Any),
    ],
    ioctls: &[FIONBIO],
};

/// Sending to one client.
const SEND: Group = Group {
    calls: &[
        (l::SYS_sendto, Any),
        (l::SYS_sendmsg, Any),
        (l::SYS_shutdown, Any),
        (l::SYS_poll, Any),
        (l::SYS_ppoll, Any),
    ],
    ioctls: &[],
};

/// Drawing on a terminal.
const TERMINAL: Group = Group {
    calls: &[],
    ioctls: &[TCGETS, TCGETS2, TIOCGWINSZ],
};

/// Counting the kernel's tracepoints.
const COUNT: Group = Group {
    calls: &[(l::SYS_perf_event_open, Any)],
    ioctls: &[0x4008_2406], // PERF_EVENT_IOC_SET_FILTER
};

/// Taking signals.
const SIGNALS: Group = Group {
    calls: &[
        (l::SYS_rt_sigaction, Any),
        (l::SYS_signalfd4, Any),
        (l::SYS_rt_sigtimedwait, Any),
        (l::SYS_rt_sigpending, Any),
    ],
    ioctls: &[],
};

/// What the host is and allows. Limits are read, not set.
const HOST: Group = Group {
    calls: &[
        (l::SYS_uname, Any),
        (l::SYS_sysinfo, Any),
        (l::SYS_getrusage, Any),
        (l::SYS_getrlimit, Any),
        (l::SYS_prlimit64, Bits(2, u64::MAX, 0)),
        (l::SYS_getuid, Any),
        (l::SYS_geteuid, Any),
        (l::SYS_getgid, Any),
        (l::SYS_getegid, Any),
        (l::SYS_sched_setaffinity, Any),
    ],
    ioctls: &[],
};

const TCGETS: u32 = 0x5401;
const TCGETS2: u32 = 0x802c_542a;
const TIOCGWINSZ: u32 = 0x5413;
const FIONBIO: u32 = 0x5421;

/// KVM's request `number` without an argument in memory (`_IO`, `asm-generic/ioctl.h`).
const fn io(number: u32) -> u32 {
    (KVMIO << 8) | number
}

/// One that writes to the kernel (`_IOW`).
const fn to_kernel<T>(number: u32) -> u32 {
    (1 << 30) | ((size_of::<T>() as u32) << 16) | io(number)
}

/// One that reads from the kernel (`_IOR`).
const fn from_kernel<T>(number: u32) -> u32 {
    (2 << 30) | ((size_of::<T>() as u32) << 16) | io(number)
}

/// One that does both (`_IOWR`).
const fn both<T>(number: u32) -> u32 {
    to_kernel::<T>(number) | from_kernel::<T>(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `strace` shows them on a kernel of 2025.
    #[test]
    fn requests_have_the_numbers_of_the_kernel() {
        assert_eq!(io(0x80), 0xae80);
        assert_eq!(to_kernel::<kvm_regs>(0x82), 0x4090_ae82);
        assert_eq!(from_kernel::<kvm_sregs>(0x83), 0x8138_ae83);
        assert_eq!(both::<kvm_translation>(0x85), 0xc018_ae85);
        assert_eq!(to_kernel::<kvm_enable_cap>(0xa3), 0x4068_aea3);
        assert_eq!(to_kernel::<kvm_lapic_state>(0x8f), 0x4400_ae8f);
        assert_eq!(both::<kvm_msrs>(0x88), 0xc008_ae88);
    }

    fn calls(kind: ThreadKind) -> Vec<c_long> {
        let calls = groups(kind).iter().flat_map(|group| group.calls);
        calls.map(|(call, _)| *call).collect()
    }

    /// Filters add up: a thread that could do more than the main thread could not do it.
    #[test]
    fn no_kind_may_do_what_the_main_thread_may_not() {
        let main = calls(ThreadKind::Main);
        let requests = |kind| groups(kind).iter().flat_map(|group| group.ioctls);
        for kind in ThreadKind::ALL {
            for call in calls(kind) {
                assert!(main.contains(&call), "{kind}: call {call}");
            }
            for request in requests(kind) {
                let known = requests(ThreadKind::Main).any(|it| it == request);
                assert!(known, "{kind}: request {request:#x}");
            }
        }
    }

    #[test]
    fn nobody_may_become_another_program() {
        for kind in ThreadKind::ALL {
            for call in [
                l::SYS_execve,
                l::SYS_execveat,
                l::SYS_fork,
                l::SYS_vfork,
                l::SYS_ptrace,
            ] {
                assert!(!calls(kind).contains(&call), "{kind}: call {call}");
            }
        }
        for call in [
            l::SYS_openat,
            l::SYS_open,
            l::SYS_socket,
            l::SYS_clone,
            l::SYS_connect,
        ] {
            assert!(!calls(ThreadKind::Vcpu).contains(&call), "call {call}");
        }
    }
}
