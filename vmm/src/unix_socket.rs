//! A UNIX socket at which this process listens, and its file: which only this user can connect to, and
//! which is removed with the socket. Knows nothing of what is said there.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::control_characters::spell_out_path;

/// Most clients that wait to be accepted.
const BACKLOG: i32 = 128;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The path exists and is no socket.
    #[error(
        "{} exists and is no socket; choose another path for {option}",
        spell_out_path(path)
    )]
    NotASocket {
        /// The path.
        path: PathBuf,
        /// The option that names it.
        option: &'static str,
    },
    /// Another process listens at the path.
    #[error(
        "somebody listens at {} already; choose another path for {option}",
        spell_out_path(path)
    )]
    InUse {
        /// The path.
        path: PathBuf,
        /// The option that names it.
        option: &'static str,
    },
    /// The socket cannot be made.
    #[error("cannot make the socket {} ({option})", spell_out_path(path))]
    Bind {
        /// The path.
        path: PathBuf,
        /// The option that names it.
        option: &'static str,
        /// What the host said.
        #[source]
        source: io::Error,
    },
}

/// The file of a socket. Dropping it removes the file.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode of the file when it was made.
    made: Option<(u64, u64)>,
}

impl SocketFile {
    /// Listens at `path`, which `option` names. A socket file at which nobody listens any more is
    /// replaced. The listener does not block.
    ///
    /// # Errors
    /// [`SocketError`] says what is in the way.
    pub fn listen(path: &Path, option: &'static str) -> Result<(UnixListener, Self), SocketError> {
        let bind = |source| SocketError::Bind {
            path: path.to_owned(),
            option,
            source,
        };
        make_room(path, option)?.map_err(bind)?;
        let listener = bind_private(path).map_err(bind)?;
        let file = Self {
            path: path.to_owned(),
            made: file_id(path),
        };
        // A client can disconnect before it is accepted; `accept` must not wait then.
        listener.set_nonblocking(true).map_err(bind)?;
        Ok((listener, file))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may have been removed already, and another process may listen at a new one.
        if self.made.is_some() && file_id(&self.path) == self.made {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Device and inode of the file at `path`.
fn file_id(path: &Path) -> Option<(u64, u64)> {
    let found = fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

/// Removes a socket file at which nobody listens any more. The inner result is what the host said of that.
fn make_room(path: &Path, option: &'static str) -> Result<io::Result<()>, SocketError> {
    let path = path.to_owned();
    let Ok(found) = fs::symlink_metadata(&path) else {
        return Ok(Ok(()));
    };
    if !found.file_type().is_socket() {
        return Err(SocketError::NotASocket { path, option });
    }
    match connect(&path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(fs::remove_file(&path)),
        _ => Err(SocketError::InUse { path, option }),
    }
}

/// Binds a socket that only this user can access from the first moment on: Linux gives the file the
/// mode that the socket has before the bind. A `chmod` afterwards would be too late, and the umask
/// belongs to the whole process.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    net::bind(&socket, &address)?;
    net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

/// Connects to the socket at `path`, and does not wait where as many clients as can wait already:
/// a listener that accepts nobody would be waited for for ever.
///
/// # Errors
/// Those of the host; [`io::ErrorKind::WouldBlock`] if there are as many.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    net::connect(&socket, &address)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_socket_is_this_users_alone_and_goes_with_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let (listener, file) = SocketFile::listen(&path, "--control").unwrap();
        let mode = fs::symlink_metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        let again = SocketFile::listen(&path, "--control");
        assert!(matches!(again, Err(SocketError::InUse { .. })));
        drop((listener, file));
        assert!(!path.exists());
    }

    #[test]
    fn a_path_that_no_client_could_name_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x".repeat(120));
        let refused = SocketFile::listen(&path, "--control");
        assert!(matches!(refused, Err(SocketError::Bind { .. })));
    }
}
