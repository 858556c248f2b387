//! Listens for gdb. Made before the process is confined: afterwards it could not make a TCP socket. Serves
//! nobody.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixListener;

use super::{Address, Client};
use crate::unix_socket::{SocketError, SocketFile};

/// Why nobody can connect.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The UNIX socket.
    #[error(transparent)]
    Unix(#[from] SocketError),
    /// The TCP port.
    #[error("cannot listen at {0} for gdb; choose another port for --gdb, or 0 for any")]
    Tcp(Address, #[source] io::Error),
}

/// Listens at one address. Dropping it removes the file of a UNIX socket.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    address: Address,
}

#[derive(Debug)]
enum Socket {
    Unix(
        UnixListener,
        #[expect(dead_code, reason = "removed when dropped")] SocketFile,
    ),
    Tcp(TcpListener),
}

impl Listener {
    /// Listens at `address`.
    ///
    /// # Errors
    /// [`ListenError`] says what is in the way.
    pub fn at(address: &Address) -> Result<Self, ListenError> {
        let (socket, address) = match address {
            Address::Unix(path) => {
                let (listener, file) = SocketFile::listen(path, "--gdb")?;
                (Socket::Unix(listener, file), address.clone())
            }
            Address::Tcp(at) => {
                let failed = |error| ListenError::Tcp(address.clone(), error);
                let listener = TcpListener::bind(at).map_err(failed)?;
                listener.set_nonblocking(true).map_err(failed)?;
                let at = listener.local_addr().map_err(failed)?;
                (Socket::Tcp(listener), Address::Tcp(at))
            }
        };
        Ok(Self { socket, address })
    }

    /// Where it listens, with the port that was chosen.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Accepts a client, if one has come.
    ///
    /// # Errors
    /// Those of the host; [`io::ErrorKind::WouldBlock`] if none has come.
    pub fn accept(&self) -> io::Result<Client> {
        match &self.socket {
            Socket::Unix(listener, _) => Client::unix(listener.accept()?.0),
            Socket::Tcp(listener) => Client::tcp(listener.accept()?.0),
        }
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        match &self.socket {
            Socket::Unix(listener, _) => listener.as_raw_fd(),
            Socket::Tcp(listener) => listener.as_raw_fd(),
        }
    }
}
