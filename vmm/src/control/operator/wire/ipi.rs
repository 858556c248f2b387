//! One IPI on the wire: what it is, who sent it to whom, and how messages name it.

use std::fmt;

use shared::ledger::CallId;
use shared::ports::{Delivery, Dispatch};

use crate::lab::call_name::CallName;

/// An IPI as it was handed to the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::control) struct WireIpi {
    /// Where it goes, and what it is.
    pub dispatch: Dispatch,
    /// The call that it tells of, if it tells of one.
    pub call: Option<CallId>,
}

/// An IPI on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InFlight {
    /// The sender.
    pub from: u32,
    /// Where it goes, and what it is.
    pub dispatch: Dispatch,
    /// The name that the guest's manifest has for its vector.
    pub name: Option<String>,
    /// The call that it tells of, if it tells of one.
    pub call: Option<CallId>,
}

impl fmt::Display for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Dispatch {
            target,
            vector,
            delivery,
        } = self.dispatch;
        match (delivery, &self.name) {
            (Delivery::Fixed, None) => write!(f, "{vector:#x}")?,
            (Delivery::Fixed, Some(name)) => write!(f, "{vector:#x} ({name})")?,
            (Delivery::Init, _) => f.write_str("INIT")?,
            (Delivery::StartUp, _) => f.write_str("start-up IPI")?,
        }
        write!(f, " from CPU {} to CPU {target}", self.from)?;
        match self.call {
            Some(call) => write!(f, ", of {}", CallName(call)),
            None => Ok(()),
        }
    }
}
