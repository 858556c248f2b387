//! The host's limit on open files, raised as far as a machine with many vCPUs needs. Touches nothing
//! but that limit.

use std::io;

/// Files per vCPU: the vCPU itself and its statistics.
const PER_VCPU: u64 = 2;
/// Files besides: standard streams, KVM, the VM, timers, events, and what the caller has open.
const BESIDES: u64 = 64;

/// Too few files for the machine.
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    /// The hard limit is too low.
    #[error(
        "{vcpus} vCPUs need {needed} open files and the host allows {allowed}; raise the hard limit (ulimit -Hn)"
    )]
    OpenFiles {
        /// Number of vCPUs.
        vcpus: u32,
        /// Files needed.
        needed: u64,
        /// The hard limit.
        allowed: u64,
    },
    /// The limit cannot be read or set.
    #[error("cannot raise the limit on open files")]
    Refused(#[source] io::Error),
}

/// Raises the soft limit if `vcpus` vCPUs, each with so many files `more` than it always has, need more than it
/// allows.
///
/// # Errors
/// [`LimitError`] if the hard limit is too low.
pub fn raise(vcpus: u32, more: u64) -> Result<(), LimitError> {
    let needed = u64::from(vcpus) * (PER_VCPU + more) + BESIDES;
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a valid place for one `rlimit`.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(LimitError::Refused(io::Error::last_os_error()));
    }
    if limit.rlim_cur >= needed {
        return Ok(());
    }
    if limit.rlim_max < needed {
        return Err(LimitError::OpenFiles {
            vcpus,
            needed,
            allowed: limit.rlim_max,
        });
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is a valid `rlimit`, and raising the soft limit takes nothing from anybody.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        return Err(LimitError::Refused(io::Error::last_os_error()));
    }
    Ok(())
}
