//! Makes seccomp filters of the table, and installs them on the calling thread. Decides nothing
//! about what is allowed. See Linux, `Documentation/userspace-api/seccomp_filter.rst`.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use super::kind::ThreadKind;
use super::table::{Only, groups};

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// It cannot be made.
    #[error("cannot make the seccomp filter of a {0} thread")]
    Make(ThreadKind, #[source] BackendError),
    /// The kernel does not take it.
    #[error("this host does not take the seccomp filter of a {0} thread")]
    Install(ThreadKind, #[source] seccompiler::Error),
}

/// The rules of one system call. Without any it is allowed whatever its arguments are.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Installs the filter of `kind`, which stays until the thread ends, and which threads that it
/// starts inherit. A filter that is there already stays too: what it does not allow is not allowed.
///
/// # Errors
/// [`FilterError`].
pub(super) fn install(kind: ThreadKind) -> Result<(), FilterError> {
    static PROGRAMS: [OnceLock<BpfProgram>; ThreadKind::ALL.len()] =
        [const { OnceLock::new() }; ThreadKind::ALL.len()];
    let program = &PROGRAMS[kind as usize];
    let program = match program.get() {
        Some(program) => program,
        None => {
            let made = allow(kind).map_err(|error| FilterError::Make(kind, error))?;
            program.get_or_init(|| made)
        }
    };
    seccompiler::apply_filter(program).map_err(|error| FilterError::Install(kind, error))
}

/// Has `clone3` fail as on a kernel that does not have it: its arguments are in memory, where no
/// filter sees them. The C library then uses `clone`.
///
/// # Errors
/// [`FilterError`].
pub(super) fn hide_clone3() -> Result<(), FilterError> {
    let kind = ThreadKind::Main;
    let make = || -> Result<BpfProgram, BackendError> {
        SeccompFilter::new(
            BTreeMap::from([(libc::SYS_clone3, Vec::new())]),
            SeccompAction::Allow,
            SeccompAction::Errno(libc::ENOSYS as u32),
            TargetArch::x86_64,
        )?
        .try_into()
    };
    let program = make().map_err(|error| FilterError::Make(kind, error))?;
    seccompiler::apply_filter(&program).map_err(|error| FilterError::Install(kind, error))
}

/// The filter of `kind`: what the table has is allowed, and all else a violation.
fn allow(kind: ThreadKind) -> Result<BpfProgram, BackendError> {
    let mut rules = Rules::new();
    for group in groups(kind) {
        for (call, only) in group.calls {
            add(&mut rules, *call, *only)?;
        }
        for request in group.ioctls {
            // The kernel takes 32 bits of it.
            let is_it = condition(
                1,
                SeccompCmpArgLen::Dword,
                SeccompCmpOp::Eq,
                (*request).into(),
            )?;
            add_rule(&mut rules, libc::SYS_ioctl, is_it)?;
        }
    }
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Trap,
        SeccompAction::Allow,
        TargetArch::x86_64,
    )?;
    filter.try_into()
}

fn add(rules: &mut Rules, call: c_long, only: Only) -> Result<(), BackendError> {
    match only {
        Only::Any => {
            rules.insert(call, Vec::new());
        }
        Only::OneOf(argument, values) => {
            for value in values {
                let is_it = condition(
                    argument,
                    SeccompCmpArgLen::Dword,
                    SeccompCmpOp::Eq,
                    (*value).into(),
                )?;
                add_rule(rules, call, is_it)?;
            }
        }
        Only::Bits(argument, mask, value) => {
            let has = SeccompCmpOp::MaskedEq(mask);
            let has = condition(argument, SeccompCmpArgLen::Qword, has, value)?;
            add_rule(rules, call, has)?;
        }
        Only::ThisProcess(argument) => {
            let own = std::process::id();
            let is_own = condition(
                argument,
                SeccompCmpArgLen::Dword,
                SeccompCmpOp::Eq,
                own.into(),
            )?;
            add_rule(rules, call, is_own)?;
        }
    }
    Ok(())
}

/// Allows `call` under one more condition, unless it is allowed under any.
fn add_rule(rules: &mut Rules, call: c_long, when: SeccompCondition) -> Result<(), BackendError> {
    let rule = SeccompRule::new(vec![when])?;
    match rules.get_mut(&call) {
        Some(any) if any.is_empty() => {}
        Some(some) => some.push(rule),
        None => {
            rules.insert(call, vec![rule]);
        }
    }
    Ok(())
}

fn condition(
    argument: u8,
    length: SeccompCmpArgLen,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, length, operator, value)
}
