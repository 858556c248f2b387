//! Schedules: who runs, for how long, and takes which interrupt. What a search finds is one, and a replay
//! follows it. Plain data, with its form in files.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What is to happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Choice {
    /// Who goes on.
    pub cpu: usize,
    /// The pending interrupt that it takes, if it takes one.
    pub takes: Option<u8>,
}

/// One CPU's turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Turn {
    /// The CPU.
    pub cpu: u32,
    /// The pending interrupt that it takes at first, if it takes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takes: Option<u8>,
    /// How many stops it comes to, the last of which ends the turn.
    pub stops: u32,
    /// Where that is.
    pub until: String,
    /// The state of the machine there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// Version of the form in files.
pub const FORM: &str = "ipi-lab-schedule/1";

/// A schedule of a case, complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// [`FORM`].
    pub form: String,
    /// The case.
    pub case: String,
    /// Words for the guest, beyond the case's own.
    pub append: String,
    /// Where CPUs stop.
    pub granularity: Granularity,
    /// A number that tells the guest's image from others.
    pub image: String,
    /// The state of the machine at the beginning.
    pub begins: String,
    /// The turns.
    pub turns: Vec<Turn>,
    /// What comes of it: names of oracles, or others; nothing, if nothing breaks.
    pub breaks: Vec<String>,
}

/// Where CPUs stop so that others can go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Granularity {
    /// At named probes.
    Probe,
    /// Before every access to memory that CPUs share.
    Access,
    /// Before every instruction.
    Instruction,
}

impl fmt::Display for Granularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Probe => "probe",
            Self::Access => "access",
            Self::Instruction => "instruction",
        })
    }
}

impl Schedule {
    /// How often the CPU changes while the one before could have gone on, as far as turns show it: changes
    /// of the CPU.
    pub fn switches(&self) -> usize {
        switches(&self.turns)
    }
}

/// How often the CPU changes.
pub fn switches(turns: &[Turn]) -> usize {
    turns
        .windows(2)
        .filter(|pair| pair[0].cpu != pair[1].cpu)
        .count()
}
