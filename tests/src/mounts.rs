//! Mounts that only one process sees: a host with or without some file system, for one run. [`own`]
//! and [`mount`] are for a child that was just forked and is about to become the command: they
//! allocate nothing.

use std::ffi::CStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;

fn ok(status: libc::c_int) -> io::Result<()> {
    match status {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Gives this process mounts of its own, so that changes no longer affect other processes. Needs
/// root, or `as_user`, which makes a user namespace, if the host allows that.
///
/// # Errors
/// What the host said.
pub fn own(as_user: bool) -> io::Result<()> {
    let user = if as_user { libc::CLONE_NEWUSER } else { 0 };
    // SAFETY: has no preconditions; this process has one thread, being a child just forked.
    ok(unsafe { libc::unshare(libc::CLONE_NEWNS | user) })?;
    let none = c"none".as_ptr();
    let private = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: every pointer is a string constant or null where null is allowed.
    ok(unsafe { libc::mount(none, c"/".as_ptr(), none, private, ptr::null()) })
}

/// Mounts a file system of this kind at `place`, over what is there.
///
/// # Errors
/// What the host said.
pub fn mount(kind: &CStr, place: &CStr) -> io::Result<()> {
    mount_with(kind, place, c"")
}

/// The same with options of the file system.
///
/// # Errors
/// What the host said.
pub fn mount_with(kind: &CStr, place: &CStr, options: &CStr) -> io::Result<()> {
    let (none, options) = (c"none".as_ptr(), options.as_ptr().cast());
    // SAFETY: every pointer is a string.
    ok(unsafe { libc::mount(none, place.as_ptr(), kind.as_ptr(), 0, options) })
}

/// Has `command` find nothing in `/dev`. Needs root, or user namespaces.
///
/// # Errors
/// Why this host does not allow it. It is tried on another command first.
pub fn hide_dev(command: &mut Command) -> io::Result<()> {
    // SAFETY: has no preconditions and cannot fail.
    let as_user = unsafe { libc::geteuid() } != 0;
    let hide = move || {
        own(as_user)?;
        mount(c"tmpfs", c"/dev")
    };
    let mut other = Command::new("true");
    // SAFETY: the closure makes system calls only and allocates nothing.
    unsafe { other.pre_exec(hide) };
    other.status()?;
    // SAFETY: as above.
    unsafe { command.pre_exec(hide) };
    Ok(())
}
