//! What can happen in a machine, who is told, and how far that one has been told. Plain data; what
//! tells a subscriber of what happens is in [`announcing`](super::announcing).

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use shared::lab::Finding;

use super::commands::{CommandResult, PostedCommand};
use crate::machine::message::HeldBy;

/// What has happened.
#[derive(Debug, Clone)]
pub(in crate::control) enum Event {
    /// A CPU is held. It can have been released since.
    Held {
        /// The CPU.
        cpu: u32,
        /// What it is held by.
        by: HeldBy,
        /// The name of the point, if it is held at one.
        probe: Option<String>,
    },
    /// A CPU has done what it was told, or has refused.
    Done {
        /// What it was told.
        posted: PostedCommand,
        /// The name of the deed.
        deed: String,
        /// What has come of it.
        done: CommandResult,
        /// The list with which it answers, if this deed answers with one.
        answer: Option<Vec<u16>>,
    },
    /// An oracle of the guest has found something.
    Finding {
        /// What the guest wrote.
        finding: Finding,
        /// The name of the oracle.
        oracle: String,
        /// A sentence about it.
        sentence: String,
    },
    /// The guest has died.
    Died {
        /// The CPU on which.
        cpu: u32,
        /// Why.
        why: String,
    },
    /// The machine is over.
    Ended {
        /// How it ended.
        why: String,
    },
}

/// Who is told of events, on the thread on which they happen.
pub(in crate::control) trait Subscriber: fmt::Debug + Send + Sync {
    /// Whether anybody wants to know of findings, for which the guest's memory has to be read.
    fn wants_findings(&self) -> bool;

    /// Something has happened. This must not wait for anything.
    fn hear(&self, event: &Event);
}

/// The subscriber of one machine, and how far it has been told.
#[derive(Debug, Default)]
pub(super) struct Announcer {
    pub subscriber: OnceLock<Arc<dyn Subscriber>>,
    told: Mutex<Told>,
}

/// How far a subscriber has been told.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// How many findings have been looked at.
    pub findings: usize,
    /// By CPU, the number of the last deed that was announced as done.
    pub done: Vec<u64>,
}

impl Announcer {
    /// How far it has been told. Whoever holds this tells alone, so that events keep their order.
    pub fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
