//! Limits the process to the files that its work needs, by Landlock, as far as the kernel has it.
//! See Linux, `Documentation/userspace-api/landlock.rst`.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{fs, io};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd,
    PathFdError, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope,
};

use crate::machine::limits;
use crate::whole_file::{directory_of, place_of};

/// The newest version of Landlock that is asked for. A kernel with an older one does what it can.
const NEWEST: ABI = ABI::V6;

/// What the work of a process reads and writes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    /// Files that are read, and folders in which any file may be.
    pub read: Vec<PathBuf>,
    /// Files that are written. They are made in their folder, under another name at first.
    pub written: Vec<PathBuf>,
    /// Folders in which files without a name are made.
    pub scratch: Vec<PathBuf>,
}

impl Files {
    /// `read` and `written`, without scratch.
    pub fn new<'a>(
        read: impl IntoIterator<Item = &'a PathBuf>,
        written: impl IntoIterator<Item = &'a PathBuf>,
    ) -> Self {
        Self {
            read: read.into_iter().cloned().collect(),
            written: written.into_iter().cloned().collect(),
            scratch: Vec::new(),
        }
    }

    /// The folders in which files are made, of those to which links lead.
    pub(super) fn folders(&self) -> impl Iterator<Item = PathBuf> {
        let places = self.written.iter().filter_map(|path| place_of(path));
        let of_written = places.map(|place| directory_of(&place).to_owned());
        of_written.chain(self.scratch.iter().cloned())
    }
}

/// Why the files of the process could not be limited.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// Landlock.
    #[error(transparent)]
    Landlock(#[from] RulesetError),
    /// One that is to be allowed cannot be opened for lack of files or memory. Nobody could open it
    /// afterwards.
    #[error(transparent)]
    Open(PathFdError),
}

/// How far the kernel limits the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limited {
    /// In all that is asked for.
    Fully,
    /// In what this kernel knows of it.
    Partly,
    /// Not at all: this kernel has no Landlock, or it is off.
    Not,
}

/// What this process reads whatever it does: what it says of itself and of the host, KVM's
/// tracepoints, and programs for the places in a backtrace.
const ALWAYS_READ: [&str; 6] = ["/proc", "/sys", "/usr", "/lib", "/lib64", "/etc"];

/// Devices that it uses.
const DEVICES: [&str; 6] = [
    "/dev/kvm",
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/tty",
    "/dev/urandom",
];

/// Limits the calling thread, and those that it starts, to `files` and to what every process of this
/// program needs. There is no TCP, and nobody outside is sent a signal.
///
/// # Errors
/// If a kernel that has Landlock refuses it, or the host has no files or no memory left.
pub(super) fn limit_to(files: &Files) -> Result<Limited, FilesError> {
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    let mut rules = Rules(ruleset);
    let reads = AccessFs::ReadFile | AccessFs::ReadDir;
    let own = std::env::current_exe().ok();
    let always = ALWAYS_READ.iter().map(PathBuf::from).chain(own);
    for path in always.chain(files.read.iter().cloned()) {
        rules.allow(&path, reads)?;
    }
    // What is there is named in messages.
    rules.allow(Path::new("."), AccessFs::ReadDir.into())?;
    let uses = reads | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev;
    for device in DEVICES {
        rules.allow(Path::new(device), uses)?;
    }
    let makes = reads
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeSock
        | AccessFs::RemoveFile
        | AccessFs::Refer;
    for folder in files.folders().chain([std::env::temp_dir()]) {
        rules.allow(&folder, makes)?;
    }
    // Such as a terminal or a pipe.
    for path in &files.written {
        if fs::metadata(path).is_ok_and(|found| !found.is_dir()) {
            rules.allow(path, uses)?;
        }
    }
    let status = rules.0.restrict_self()?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => Limited::Fully,
        RulesetStatus::PartiallyEnforced => Limited::Partly,
        RulesetStatus::NotEnforced => Limited::Not,
    })
}

/// Whether a rule was refused for a pipe or a socket without a name, as `/dev/stdout` can be: it is in
/// no file system that Landlock limits, and needs no leave (EBADFD, landlock_add_rule(2)).
fn is_of_no_file_system(error: &RulesetError) -> bool {
    let mut causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.any(|cause| {
        let error: Option<&io::Error> = cause.downcast_ref();
        error.and_then(io::Error::raw_os_error) == Some(libc::EBADFD)
    })
}

struct Rules(RulesetCreated);

impl Rules {
    /// Allows `access` to what is at `path` and below. What is not there needs no leave.
    fn allow(&mut self, path: &Path, access: BitFlags<AccessFs>) -> Result<(), FilesError> {
        let Ok(found) = fs::metadata(path) else {
            return Ok(());
        };
        let opened = match PathFd::new(path) {
            Ok(opened) => opened,
            Err(error) if limits::are_reached(&error) => return Err(FilesError::Open(error)),
            Err(_) => return Ok(()),
        };
        let access = match found.is_dir() {
            true => access,
            // A file is no folder, and takes no leave to be one.
            false => access & AccessFs::from_file(NEWEST),
        };
        match (&mut self.0).add_rule(PathBeneath::new(opened, access)) {
            Err(error) if is_of_no_file_system(&error) => Ok(()),
            added => Ok(added.map(|_| ())?),
        }
    }
}
