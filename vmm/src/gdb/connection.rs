//! The connection to one gdb: takes what has come without waiting for more, and sends with a limit, so that
//! a client that does not read counts as gone. Knows nothing of what is said.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use gdbstub::conn::Connection;

/// How long a client may take to read what it is sent.
const PATIENCE: Duration = Duration::from_secs(5);

/// The connection to one client.
#[derive(Debug)]
pub struct Client {
    stream: Stream,
    /// What is to be sent.
    out: Vec<u8>,
}

#[derive(Debug)]
enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Client {
    /// A client that has connected to a UNIX socket.
    ///
    /// # Errors
    /// Those of the host.
    pub(super) fn unix(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self::of(Stream::Unix(stream)))
    }

    /// A client that has connected to a TCP port.
    ///
    /// # Errors
    /// Those of the host.
    pub(super) fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        // Packets are small, and each is waited for.
        stream.set_nodelay(true)?;
        Ok(Self::of(Stream::Tcp(stream)))
    }

    fn of(stream: Stream) -> Self {
        Self {
            stream,
            out: Vec::new(),
        }
    }

    /// Takes some of what has come, once the connection is readable. Nothing means that the client is
    /// gone.
    ///
    /// # Errors
    /// Those of the host.
    pub fn take(&mut self) -> io::Result<Vec<u8>> {
        let mut some = [0; 4096];
        loop {
            let read = match &mut self.stream {
                Stream::Unix(stream) => stream.read(&mut some),
                Stream::Tcp(stream) => stream.read(&mut some),
            };
            match read {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => return Ok(some[..read?].to_vec()),
            }
        }
    }
}

impl AsRawFd for Client {
    fn as_raw_fd(&self) -> RawFd {
        match &self.stream {
            Stream::Unix(stream) => stream.as_raw_fd(),
            Stream::Tcp(stream) => stream.as_raw_fd(),
        }
    }
}

impl Connection for Client {
    type Error = io::Error;

    fn write(&mut self, byte: u8) -> io::Result<()> {
        self.out.push(byte);
        Ok(())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let out = std::mem::take(&mut self.out);
        let deadline = Instant::now() + PATIENCE;
        let mut left = &out[..];
        while !left.is_empty() {
            let written = match &mut self.stream {
                Stream::Unix(stream) => Write::write(stream, left),
                Stream::Tcp(stream) => Write::write(stream, left),
            };
            match written {
                Ok(written) => left = &left[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            // One that reads a little now and then does not get longer for all of it.
            if !left.is_empty() && Instant::now() > deadline {
                return Err(ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }
}
