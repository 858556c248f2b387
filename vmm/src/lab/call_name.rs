//! The name of a call in reports and messages. Formats only.

use std::fmt;

use shared::ledger::CallId;

/// A call by its name: source CPU, lane, sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallName(pub CallId);

impl fmt::Display for CallName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(id) = self;
        write!(
            f,
            "call {}:{}:{}",
            id.source(),
            id.lane() as u32,
            id.sequence()
        )
    }
}
