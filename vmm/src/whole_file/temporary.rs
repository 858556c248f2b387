//! The file under a temporary name that takes the place of another once it is whole. Its name says
//! which process writes it, and it is locked for as long as that process lives: what a killed run
//! has left behind has the name without the lock, and the next run that writes into the folder
//! removes it. Knows nothing of what is written.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::geteuid;
use tempfile::NamedTempFile;
use tracing::info;

use crate::control_characters::spell_out_path;

/// Such a file is called `.vmm-PID-RANDOM.tmp`.
const BEGINS: &str = ".vmm-";
const ENDS: &str = ".tmp";

/// How often a new one is made if another run takes it for a leftover before it is locked. That is
/// a moment, so that once is more than enough.
const ATTEMPTS: usize = 8;

/// Makes one in `folder`, with `mode` less the umask, and removes what dead runs have left there.
///
/// # Errors
/// If the host cannot make it.
pub(super) fn create(folder: &Path, mode: u32) -> io::Result<NamedTempFile> {
    remove_leftovers(folder);
    for _ in 0..ATTEMPTS {
        let made = tempfile::Builder::new()
            .prefix(&format!("{BEGINS}{}-", process::id()))
            .suffix(ENDS)
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(folder)?;
        match flock(made.as_file(), FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {}
            // Removed before it was locked.
            Ok(()) if made.as_file().metadata()?.nlink() == 0 => {}
            // A file system without locks has none for whoever looks for leftovers either.
            _ => return Ok(made),
        }
    }
    Err(io::Error::other(
        "temporary files disappear from its folder",
    ))
}

/// Removes the temporary files in `folder` that were this user's and that no process writes.
fn remove_leftovers(folder: &Path) {
    // A folder that cannot be read keeps what is in it.
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|it| it.file_name().to_str().is_some_and(is_temporary)) {
        let path = entry.path();
        if is_left_over(&path).unwrap_or(false) && fs::remove_file(&path).is_ok() {
            info!(
                "removed {}, which a killed run had left",
                spell_out_path(&path)
            );
        }
    }
}

/// Whether a file of that name is one of these.
fn is_temporary(name: &str) -> bool {
    let rest = name
        .strip_prefix(BEGINS)
        .and_then(|it| it.strip_suffix(ENDS));
    let parts = rest.and_then(|it| it.split_once('-'));
    parts.is_some_and(|(pid, random)| {
        let is_number = !pid.is_empty() && pid.bytes().all(|it| it.is_ascii_digit());
        is_number && !random.is_empty() && random.bytes().all(|it| it.is_ascii_alphanumeric())
    })
}

/// Whether nobody has locked the file at `path`. In a folder of many users it can be anything.
#[expect(clippy::disallowed_methods, reason = "this is its place")]
fn is_left_over(path: &Path) -> io::Result<bool> {
    let found = fs::symlink_metadata(path)?;
    if !found.is_file() || found.uid() != geteuid().as_raw() {
        return Ok(false);
    }
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    let opened = file.metadata()?;
    if (opened.dev(), opened.ino()) != (found.dev(), found.ino()) {
        return Ok(false);
    }
    Ok(flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_writes_is_left_over() {
        let folder = tempfile::tempdir().unwrap();
        let there = || {
            let mut names: Vec<_> = fs::read_dir(folder.path())
                .unwrap()
                .map(|it| it.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        let written = create(folder.path(), 0o600).unwrap();
        for name in [
            ".vmm-1-abcdef.tmp",
            ".vmm-x-abcdef.tmp",
            ".vmm-abcdef.tmp",
            "vmm-1-abcdef.tmp",
        ] {
            fs::write(folder.path().join(name), "half").unwrap();
        }
        let target = folder.path().join("target");
        fs::write(&target, "kept").unwrap();
        std::os::unix::fs::symlink(&target, folder.path().join(".vmm-2-abcdef.tmp")).unwrap();
        fs::create_dir(folder.path().join(".vmm-3-abcdef.tmp")).unwrap();
        let before = there();
        let another = create(folder.path(), 0o600).unwrap();
        let mut expected = before;
        expected.retain(|it| it != ".vmm-1-abcdef.tmp");
        let name = another.path().file_name().unwrap().to_str().unwrap();
        expected.push(name.to_owned());
        expected.sort();
        assert_eq!(there(), expected);
        assert!(written.path().exists());
        assert!(is_temporary(name), "{name}");
    }
}
