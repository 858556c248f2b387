//! The limit on open files, of which a machine with many vCPUs needs many. A machine only checks
//! it. It belongs to the whole process, so the program has to raise it ([`raise`]).

use std::io;

/// Files per vCPU: the vCPU itself and its statistics.
const PER_VCPU: u64 = 2;
/// Other files: standard streams, KVM, the VM, timers, eventfds, and what the program has open.
const BESIDES: u64 = 64;

/// Too few files for the machine.
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
    /// The limit cannot be read or set.
    #[error("cannot {0} the limit on open files")]
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

/// Raises the soft limit of this process, and of those that it starts from now on, to the hard
/// limit.
///
/// # Errors
/// [`LimitError::Refused`].
pub fn raise() -> Result<(), LimitError> {
    let limit = current()?;
    let raised = libc::rlimit {
        rlim_cur: limit.rlim_max,
        ..limit
    };
    // SAFETY: `raised` is a valid `rlimit`, and raising the soft limit affects nothing else.
    match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } {
        0 => Ok(()),
        _ => Err(LimitError::Refused("raise", io::Error::last_os_error())),
    }
}

fn current() -> Result<libc::rlimit, LimitError> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a valid place for one `rlimit`.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } {
        0 => Ok(limit),
        _ => Err(LimitError::Refused("read", io::Error::last_os_error())),
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
