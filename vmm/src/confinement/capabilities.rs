//! Gives up Linux capabilities, which a process of root has. See capabilities(7). The bounding set
//! is left alone: it matters only to a process that becomes another program, and none may.

use std::fs;
use std::path::{Path, PathBuf};

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};
use rustix::fs::{Access, AtFlags, CWD, accessat};

/// What a process of root needs to write into other users' folders.
const OTHERS_FILES: [Capability; 2] = [Capability::CAP_DAC_OVERRIDE, Capability::CAP_FOWNER];

/// What the opening and writing thread keeps.
#[derive(Debug, Default)]
pub(super) struct Kept<'a> {
    /// Whether the kernel's tracepoints are to be counted.
    pub counting: bool,
    /// Files that are read, and those that are written, with their folders. If another user owns one of them, so that
    /// only a capability opens it, that capability is kept.
    pub read: Vec<&'a Path>,
    pub written: Vec<&'a Path>,
}

/// Gives up all capabilities but those of `kept`, in the calling thread and in those that it
/// starts.
///
/// # Errors
/// What the host said.
pub(super) fn give_up(kept: &Kept<'_>) -> Result<(), CapsError> {
    let permitted = caps::read(None, CapSet::Permitted)?;
    if permitted.is_empty() {
        return Ok(());
    }
    // Only a capability may show that there is something.
    let there = |paths: &[&Path]| -> Vec<PathBuf> {
        let there = paths.iter().filter(|path| path.exists());
        there.map(|path| path.to_path_buf()).collect()
    };
    let (read, written) = (there(&kept.read), there(&kept.written));
    let mut wanted = CapsHashSet::new();
    if kept.counting {
        let needed = [Some(Capability::CAP_PERFMON), needs_more_to_count()];
        let needed = needed.into_iter().flatten();
        wanted.extend(needed.filter(|it| permitted.contains(it)));
    }
    caps::set(None, CapSet::Effective, &wanted)?;
    let is_allowed = |path: &Path, access| accessat(CWD, path, access, AtFlags::EACCESS).is_ok();
    let all_read = read.iter().all(|path| is_allowed(path, Access::READ_OK));
    let all_written = (written.iter()).all(|path| is_allowed(path, Access::WRITE_OK));
    if !all_read || !all_written {
        wanted.extend(OTHERS_FILES.into_iter().filter(|it| permitted.contains(it)));
    }
    keep(&wanted)
}

/// What a thread needs to count tracepoints besides `CAP_PERFMON`. Debian's kernels let
/// `kernel.perf_event_paranoid` be 3, and then ask for all of an administrator's rights ("security,perf:
/// Allow further restriction of perf_event_open", since Linux 4.6 there).
fn needs_more_to_count() -> Option<Capability> {
    let paranoid = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").ok()?;
    let level: i32 = paranoid.trim().parse().ok()?;
    (level > 2).then_some(Capability::CAP_SYS_ADMIN)
}

/// Gives up all of them, in the calling thread.
///
/// # Errors
/// What the host said.
pub(super) fn give_up_all() -> Result<(), CapsError> {
    // A thread that has none, as of a user that is not root, has nothing to give up.
    match caps::read(None, CapSet::Permitted)?.is_empty() {
        true => Ok(()),
        false => keep(&CapsHashSet::new()),
    }
}

fn keep(wanted: &CapsHashSet) -> Result<(), CapsError> {
    caps::set(None, CapSet::Effective, wanted)?;
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new())?;
    caps::set(None, CapSet::Permitted, wanted)
}
