//! How long the other end of a pipe or a socket is waited for: one that is not there, and one that
//! is and says nothing. Every wait for such a peer has one of these limits.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// How long somebody may take to open the other end of a pipe, or to accept a connection.
pub const PEER: Duration = Duration::from_secs(10);

/// How long a peer may neither write what is waited for, nor read what there is for it.
pub const SILENCE: Duration = Duration::from_secs(60);

/// How often it is looked whether there is a peer, where the host does not tell.
pub const LOOK: Duration = Duration::from_millis(10);

/// How long to wait after the host could not accept a client: it has run out of some resource, and the next
/// attempt would fail too.
pub(crate) const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Whether `what` happens at `file` within `limit`, of which a day counts at most. That its peer has
/// gone does so too.
///
/// # Errors
/// Those of the host.
pub(crate) fn happens(file: impl AsFd, what: PollFlags, limit: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + limit.min(Duration::from_secs(86_400));
    let mut asked = [PollFd::new(&file, what)];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut asked, Some(&left)) {
            Ok(count) => return Ok(count > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
