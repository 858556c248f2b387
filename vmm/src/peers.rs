//! How long the other end of a pipe or a socket is waited for: one that is not there, and one that
//! is and says nothing. Every wait for such a peer has one of these limits.

use std::time::Duration;

/// How long somebody may take to open the other end of a pipe, or to accept a connection.
pub const PEER: Duration = Duration::from_secs(10);

/// How long a peer may neither write what is waited for, nor read what there is for it.
pub const SILENCE: Duration = Duration::from_secs(60);

/// How often it is looked whether there is a peer, where the host does not tell.
pub const LOOK: Duration = Duration::from_millis(10);
