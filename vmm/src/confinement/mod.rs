//! Limits what this process can do, and each of its threads, so that whoever takes over a thread by
//! what the guest sends it finds little to do there. [`table`] says which kind of thread may make
//! which system calls, [`filter`] installs that, [`violation`] reports who made another,
//! [`capabilities`] and [`files`] take from the process what it does not need. [`heaps`] does early what
//! they would forbid later.
//!
//! A process is confined only if it asks for it ([`confine`]), as the `vmm` command does. In one that
//! has not, threads of the library [become](enter) nothing. Docs: `docs/security.md`.

mod capabilities;
pub mod files;
mod filter;
mod heaps;
pub mod kind;
mod table;
mod violation;

use std::io::{self, Write};
use std::panic;
use std::path::PathBuf;
use std::process;
use std::sync::OnceLock;

use tracing::{info, warn};

use capabilities::Kept;
use files::Limited;
pub use files::{Files, FilesError};
use filter::FilterError;

use crate::control_characters::spell_out;
pub use kind::ThreadKind;
pub use violation::STATUS;

/// What a process is limited to.
#[derive(Debug, Clone, Default)]
pub struct Confinement {
    /// The files that it needs.
    pub files: Files,
    /// Whether it counts the kernel's tracepoints, which root may.
    pub counting: bool,
    /// Leave out the filters of system calls.
    pub without_seccomp: bool,
    /// Leave out the limit on files.
    pub without_landlock: bool,
}

/// Why a process could not be confined.
#[derive(Debug, thiserror::Error)]
pub enum ConfinementError {
    /// The handler of violations.
    #[error("cannot handle SIGSYS, by which a forbidden system call is told")]
    Handler(#[source] io::Error),
    /// Capabilities.
    #[error("cannot give up capabilities: {0}")]
    Capabilities(String),
    /// Privileges of programs.
    #[error("cannot give up the privileges of other programs (no_new_privs)")]
    NoNewPrivileges(#[source] io::Error),
    /// Files.
    #[error("cannot limit the files of this process by Landlock; --no-landlock runs without")]
    Files(#[source] FilesError),
    /// The allocator.
    #[error("cannot start a thread before any other")]
    Heaps(#[source] io::Error),
    /// System calls.
    #[error(transparent)]
    Filter(#[from] FilterError),
}

impl ConfinementError {
    /// The exit status of the command: this host cannot do it.
    pub const STATUS: u8 = 3;
}

/// Set once threads install filters.
static FILTERED: OnceLock<()> = OnceLock::new();

/// Set once threads give up capabilities.
static CONFINED: OnceLock<()> = OnceLock::new();

/// Confines this process, which must have no other threads, for the rest of its life: it and what
/// it starts can never have more privileges than now, it has no capabilities that it does not need,
/// it opens only the files that it needs, where the kernel has Landlock, and each thread makes only
/// the system calls of its kind. Another call ends the process with [`STATUS`], and says which it
/// was.
///
/// # Errors
/// [`ConfinementError`] if the host does not let it. The process may then be confined in part.
pub fn confine(confinement: &Confinement) -> Result<(), ConfinementError> {
    no_new_privileges().map_err(ConfinementError::NoNewPrivileges)?;
    let folders: Vec<PathBuf> = confinement.files.folders().collect();
    let files = &confinement.files.written;
    capabilities::give_up(&Kept {
        counting: confinement.counting,
        read: confinement
            .files
            .read
            .iter()
            .map(PathBuf::as_path)
            .collect(),
        written: (folders.iter().chain(files))
            .map(PathBuf::as_path)
            .collect(),
    })
    .map_err(|error| ConfinementError::Capabilities(error.to_string()))?;
    if !confinement.without_landlock {
        match files::limit_to(&confinement.files).map_err(ConfinementError::Files)? {
            Limited::Fully => info!("files are limited to what is named"),
            Limited::Partly => info!("files are limited in part: this kernel's Landlock is older"),
            Limited::Not => warn!("files are not limited: this kernel has no Landlock"),
        }
    }
    let _ = CONFINED.set(());
    if confinement.without_seccomp {
        warn!("system calls are not limited");
        return Ok(());
    }
    tell_panics();
    heaps::shrink_one().map_err(ConfinementError::Heaps)?;
    violation::report().map_err(ConfinementError::Handler)?;
    filter::hide_clone3()?;
    filter::install(ThreadKind::Main)?;
    let _ = FILTERED.set(());
    info!("system calls are limited");
    Ok(())
}

/// Makes the calling thread one of that kind, for the rest of its life: if the process is confined
/// it gives up what is left of its capabilities, and may make no other system calls than those of its
/// kind. If the host refuses that, the process ends with status 3: a thread that was to be limited
/// and is not must not go on.
pub fn enter(kind: ThreadKind) {
    kind::become_one(kind);
    let refused = |why: String| {
        tell(&format!("vmm: cannot confine a {kind} thread: {why}\n"));
        process::exit(ConfinementError::STATUS.into());
    };
    // Those that a search writes its files with are those of the main thread.
    if CONFINED.get().is_some()
        && kind != ThreadKind::Search
        && let Err(error) = capabilities::give_up_all()
    {
        refused(error.to_string());
    }
    if limits_calls()
        && let Err(error) = filter::install(kind)
    {
        refused(crate::chain(&error));
    }
}

/// Whether threads of this process may make only the system calls of their kind.
pub fn limits_calls() -> bool {
    FILTERED.get().is_some()
}

fn no_new_privileges() -> io::Result<()> {
    // SAFETY: takes numbers, and touches no memory of this process.
    match unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A panic in a thread that may open no files is told without a backtrace, which is made from files.
fn tell_panics() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |panicked| match kind::current() {
        ThreadKind::Main => usual(panicked),
        kind => {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or("<unnamed>");
            tell(&format!(
                "\nthread '{name}' {panicked}\n\
                 note: a {kind} thread has no backtrace; run with --no-seccomp and \
                 RUST_BACKTRACE=1 for one\n"
            ));
        }
    }));
}

/// Prints `text` on standard error. That may be closed: what is not told must not panic again.
#[expect(
    clippy::disallowed_methods,
    reason = "it can be a thread of the library, which knows no command"
)]
fn tell(text: &str) {
    let _ = io::stderr().write_all(spell_out(text).as_bytes());
}
