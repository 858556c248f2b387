//! The sources of counts, and whether each can be believed on this host. A source is tried on a
//! known number of the events that it should count ([`canary`]). One that does not see them is
//! blind, and nothing is concluded from its counts.

mod canary;
mod host;
mod prove;
mod trials;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tracepoints::Tracepoints;
pub use host::Kvm;
pub use trials::Trials;

/// How KVM's statistics are read.
const STATS_FD: &str = "KVM_GET_STATS_FD";
/// How tracepoints are counted.
const PERF: &str = "perf_event_open, a counter per vCPU thread";

/// The name of KVM's own count of exits among the sources.
pub const STATS: &str = "exits";

/// Whether a source can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It has seen what it was shown.
    Ok,
    /// It is there, and does not see what happens.
    Blind,
    /// This user may not have it.
    Denied,
    /// This host has none.
    Absent,
}

impl Status {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Blind => "blind",
            Self::Denied => "denied",
            Self::Absent => "absent",
        }
    }
}

/// Why a source is not available.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    /// [`Status::Denied`] or [`Status::Absent`].
    pub status: Status,
    /// Why.
    pub reason: String,
    /// What can be done about it, if anything can.
    pub remedy: Option<String>,
}

/// What a source was shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Shown {
    /// What.
    pub what: String,
    /// How many there were.
    pub expected: u64,
    /// How many it counted.
    pub seen: u64,
}

/// Somebody who counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Source {
    /// What its figures are called, at the beginning.
    pub name: String,
    /// How it is asked.
    pub via: String,
    /// What it was shown; `null` if it could not be tried, or is the VMM itself.
    pub canary: Option<Shown>,
    /// Whether it can be believed.
    pub status: Status,
    /// Why not.
    pub reason: Option<String>,
    /// What can be done about it, if anything can.
    pub remedy: Option<String>,
}

/// All sources of a host.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Each source, with the result of its trial.
    pub list: Vec<Source>,
    /// The kind of this host's KVM.
    pub kvm: Kvm,
    /// What can be counted per vCPU thread, and believed.
    pub tracepoints: Tracepoints,
}

impl Source {
    /// Whether it is a tracepoint of KVM's.
    pub fn is_tracepoint(&self) -> bool {
        self.via == PERF
    }
}

impl Sources {
    /// The same without tracepoints.
    pub fn without_tracepoints(&self) -> Self {
        Self {
            tracepoints: Tracepoints::default(),
            ..self.clone()
        }
    }
}

/// The source called `name`; `None` if there is none, or it was not tried.
pub fn named<'a>(sources: &'a [Source], name: &str) -> Option<&'a Source> {
    sources.iter().find(|source| source.name == name)
}

/// Whether the source called `name` can be believed; `None` if it was not tried.
pub fn status(sources: &[Source], name: &str) -> Option<Status> {
    named(sources, name).map(|source| source.status)
}

/// The names of KVM's statistics that failed their trial, and why they are not reported.
pub fn left_out(sources: &[Source]) -> impl Iterator<Item = (&str, &str)> {
    let in_vain = |source: &&Source| source.via == STATS_FD && source.status != Status::Ok;
    sources.iter().filter(in_vain).map(|source| {
        let why = source.reason.as_deref().unwrap_or("it cannot be believed");
        (source.name.as_str(), why)
    })
}

/// Whether the counts of the source called `name` may be reported.
pub fn is_proven(sources: &[Source], name: &str) -> bool {
    status(sources, name) == Some(Status::Ok)
}
