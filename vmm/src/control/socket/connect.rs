//! The way to a control socket from the other side. Knows nothing of what is said there.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

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
