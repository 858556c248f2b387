//! The limits of the process: that on open files and that on memory, to which a machine with many
//! vCPUs can come, and that on the stack of its first thread. A machine only checks them. They belong
//! to the whole process, so the program has to raise those on files and the stack ([`raise`],
//! [`raise_stack`]), and to make do with little memory ([`limit_heaps`]).

use std::error::Error;
use std::io;

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// Files per vCPU: the vCPU itself and its statistics.
const PER_VCPU: u64 = 2;
/// Other files: standard streams, KVM, the VM, timers, eventfds, and what the program has open.
const BESIDES: u64 = 64;

/// Memory that is left for the heap and the threads that a program has beside those it checks for:
/// an event loop, a script, clients.
const SPARE: usize = 24 << 20;

/// Most that a thread needs beside its stack: a stack for signals, which the standard library maps
/// when the thread starts, with a page that guards each (`AT_MINSIGSTKSZ` is up to 11 KiB on x86-64,
/// with the tiles of AMX).
const BESIDE_STACK: usize = 64 << 10;

/// Stack that the first thread is given if it may have it, as hosts do by default.
const STACK: u64 = 8 << 20;

/// Stack without which the first thread may not come to its end.
const LEAST_STACK: u64 = 1 << 20;

/// Too few files, or too little memory, for the machine.
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    /// The hard limit is too low.
    #[error(
        "{vcpus} vCPUs need {needed} open files and the host allows {allowed}; raise the hard \
         limit (ulimit -Hn)"
    )]
    OpenFiles {
        /// Number of vCPUs.
        vcpus: u32,
        /// Files needed.
        needed: u64,
        /// The hard limit.
        allowed: u64,
    },
    /// The soft limit is too low, and could be raised.
    #[error(
        "{vcpus} vCPUs need {needed} open files and this process may have {allowed}; raise its \
         limit before (ulimit -n {needed}, or vmm::machine::limits::raise() in a program)"
    )]
    NotRaised {
        /// Number of vCPUs.
        vcpus: u32,
        /// Files needed.
        needed: u64,
        /// The soft limit.
        allowed: u64,
    },
    /// No memory for threads.
    #[error(
        "this host does not give {threads} threads {mib} MiB of memory; raise this process's limit \
         (ulimit -v), free memory, or ask for fewer vCPUs or jobs"
    )]
    Memory {
        /// How many threads.
        threads: u32,
        /// What they need, in MiB.
        mib: usize,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The hard limit on the stack is too low.
    #[error(
        "this process may have {allowed} KiB of stack and needs {needed}; raise the hard limit \
         (ulimit -Hs)"
    )]
    Stack {
        /// The hard limit, in KiB.
        allowed: u64,
        /// What is needed, in KiB.
        needed: u64,
    },
    /// The limit cannot be read or set.
    #[error("cannot {0} the limit on open files, memory or stack")]
    Refused(&'static str, #[source] io::Error),
}

/// Checks that the limit is enough for `vcpus` vCPUs, each with `more` files beside those that
/// every vCPU has.
///
/// # Errors
/// [`LimitError`] says which limit is too low.
pub fn check(vcpus: u32, more: u64) -> Result<(), LimitError> {
    needs(vcpus, more, current()?)
}

fn needs(vcpus: u32, more: u64, limit: libc::rlimit) -> Result<(), LimitError> {
    let needed = u64::from(vcpus) * (PER_VCPU + more) + BESIDES;
    if limit.rlim_max < needed {
        let allowed = limit.rlim_max;
        return Err(LimitError::OpenFiles {
            vcpus,
            needed,
            allowed,
        });
    }
    if limit.rlim_cur < needed {
        let allowed = limit.rlim_cur;
        return Err(LimitError::NotRaised {
            vcpus,
            needed,
            allowed,
        });
    }
    Ok(())
}

/// Checks that there is memory for `threads` more threads with stacks of `stack` bytes. A thread that
/// has a stack and no memory beside it could say so only by ending the process.
///
/// # Errors
/// [`LimitError::Memory`].
pub fn check_memory(threads: u32, stack: usize) -> Result<(), LimitError> {
    let needed = threads as usize * (stack + BESIDE_STACK) + SPARE;
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // As for stacks, which are many small mappings: one large one is not refused for its size alone.
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: the kernel chooses where the mapping is, and nothing refers to it.
    let mapped = unsafe { mmap_anonymous(std::ptr::null_mut(), needed, protection, flags) };
    let mapped = mapped.map_err(|error| LimitError::Memory {
        threads,
        mib: needed.div_ceil(1 << 20),
        source: error.into(),
    })?;
    // SAFETY: this is the mapping from above as a whole, to which nothing refers.
    let unmapped = unsafe { munmap(mapped, needed) };
    unmapped.map_err(|error| LimitError::Refused("check", error.into()))
}

/// Whether this process has room for what it allocates in a moment, beside what it asks for here: the
/// allocator has no other answer than to end the process.
pub fn have_spare() -> bool {
    check_memory(0, 0).is_ok()
}

/// Sets how many heaps the C library makes. Where this process has a limit on its memory
/// (`ulimit -v`) that is one: each of the others would reserve 64 MiB of it for one thread, and leave
/// none for the rest. Elsewhere it is as many as there would be, but known now: the library reads a
/// file otherwise to find out, at some allocation in a thread that may open none.
pub fn limit_heaps() {
    // Only glibc has several.
    #[cfg(target_env = "gnu")]
    {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let most = match memory() {
            // malloc.c, `arena_get2`.
            None => i32::try_from(8 * processors).unwrap_or(i32::MAX),
            Some(_) => 1,
        };
        // SAFETY: takes numbers, and fails for those that are no number of heaps.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, most) };
    }
}

/// The limit on the memory of this process (`ulimit -v`), in bytes of address space; `None` if there
/// is none, or it cannot be read.
pub fn memory() -> Option<u64> {
    let limit = of(libc::RLIMIT_AS).ok()?.rlim_cur;
    (limit != libc::RLIM_INFINITY).then_some(limit)
}

/// Raises the soft limit of this process on open files, and of those that it starts from now on, to
/// the hard limit.
///
/// # Errors
/// [`LimitError::Refused`].
pub fn raise() -> Result<(), LimitError> {
    let limit = current()?;
    raise_to(libc::RLIMIT_NOFILE, limit.rlim_max, limit)
}

/// Raises the soft limit of this process on the stack of its first thread to 8 MiB, if it is lower,
/// or to the hard limit, if that is. Other threads say themselves how much they need.
///
/// # Errors
/// [`LimitError::Stack`] if that is too little, and [`LimitError::Refused`].
pub fn raise_stack() -> Result<(), LimitError> {
    let limit = of(libc::RLIMIT_STACK)?;
    let wanted = stack_of(limit)?;
    match wanted > limit.rlim_cur {
        true => raise_to(libc::RLIMIT_STACK, wanted, limit),
        false => Ok(()),
    }
}

/// The soft limit on the stack that is wanted, of one that is `limit` now.
fn stack_of(limit: libc::rlimit) -> Result<u64, LimitError> {
    let wanted = STACK.min(limit.rlim_max);
    if wanted < LEAST_STACK {
        return Err(LimitError::Stack {
            allowed: wanted >> 10,
            needed: LEAST_STACK >> 10,
        });
    }
    Ok(wanted)
}

/// Whether `error` comes of a host that has no files or no memory left for this process, and not of
/// what it was asked for.
pub fn are_reached(error: &(dyn Error + 'static)) -> bool {
    let lacks = |error: &io::Error| {
        let lacking = [libc::EMFILE, libc::ENFILE, libc::ENOMEM];
        error.raw_os_error().is_some_and(|it| lacking.contains(&it))
    };
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref().is_some_and(lacks) {
            return true;
        }
        cause = match error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            // An error of its own kind within one of the host, which names the file.
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}

fn current() -> Result<libc::rlimit, LimitError> {
    of(libc::RLIMIT_NOFILE)
}

fn of(resource: libc::__rlimit_resource_t) -> Result<libc::rlimit, LimitError> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a valid place for one `rlimit`.
    match unsafe { libc::getrlimit(resource, &raw mut limit) } {
        0 => Ok(limit),
        _ => Err(LimitError::Refused("read", io::Error::last_os_error())),
    }
}

fn raise_to(
    resource: libc::__rlimit_resource_t,
    soft: u64,
    limit: libc::rlimit,
) -> Result<(), LimitError> {
    let raised = libc::rlimit {
        rlim_cur: soft,
        ..limit
    };
    // SAFETY: `raised` is a valid `rlimit`, and raising a soft limit affects nothing else.
    match unsafe { libc::setrlimit(resource, &raw const raised) } {
        0 => Ok(()),
        _ => Err(LimitError::Refused("raise", io::Error::last_os_error())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_that_is_too_low_is_named() {
        let with = |rlim_cur, rlim_max| needs(100, 3, libc::rlimit { rlim_cur, rlim_max });
        let needed = 100 * 5 + BESIDES;
        assert!(with(needed, needed).is_ok());
        assert!(matches!(
            with(needed - 1, needed),
            Err(LimitError::NotRaised { allowed, .. }) if allowed == needed - 1
        ));
        assert!(matches!(
            with(needed - 1, needed - 1),
            Err(LimitError::OpenFiles { allowed, .. }) if allowed == needed - 1
        ));
    }

    #[test]
    fn a_stack_is_raised_as_far_as_it_may_and_must_be() {
        let with = |rlim_max| {
            stack_of(libc::rlimit {
                rlim_cur: 64 << 10,
                rlim_max,
            })
        };
        assert_eq!(with(libc::RLIM_INFINITY).unwrap(), STACK);
        assert_eq!(with(LEAST_STACK).unwrap(), LEAST_STACK);
        assert!(matches!(
            with(LEAST_STACK - 1024),
            Err(LimitError::Stack {
                allowed: 1023,
                needed: 1024
            })
        ));
    }

    #[test]
    fn what_the_host_lacks_is_found_within_other_errors() {
        let of = io::Error::from_raw_os_error;
        for errno in [libc::EMFILE, libc::ENFILE, libc::ENOMEM] {
            assert!(are_reached(&of(errno)));
            assert!(are_reached(&io::Error::other(of(errno))));
            assert!(are_reached(&LimitError::Refused("read", of(errno))));
        }
        assert!(!are_reached(&of(libc::ENOENT)));
        assert!(!are_reached(&LimitError::Refused("read", of(libc::EPERM))));
    }

    #[test]
    fn to_look_at_the_limit_leaves_it_as_it_is() {
        let before = current().unwrap();
        let _ = check(shared::lab::MAX_CPUS, 1 << 40);
        let after = current().unwrap();
        assert_eq!(
            (before.rlim_cur, before.rlim_max),
            (after.rlim_cur, after.rlim_max)
        );
    }
}
