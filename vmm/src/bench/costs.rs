//! What a bench came to, as its JSON document has it and as an earlier one is read from a file.
//! Measures nothing, and does not know how the figures are shown.

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cell::Cell;
use super::classic::ClassicRow;
use super::handling::IpiHandling;
use crate::Config;
use crate::control_characters::spell_out_path;
use crate::provenance::{Input, Provenance};
use crate::stats::latency::Spread;
use crate::stats::sources::{Kvm, Source, Trials};
use crate::text::{self, Useless};

/// Version of the JSON document. It changes when a program that reads it could take harm: see
/// docs/formats.md.
pub const SCHEMA: &str = "ipi-lab-bench/1";

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Rounds of each run, behind a warm-up of an eighth as many.
    pub rounds: u32,
    /// Runs of each cell.
    pub repetitions: u32,
}

/// Everything that was measured.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Costs {
    /// [`SCHEMA`].
    pub schema: String,
    /// Where it comes from. The words that a guest took are those of each line.
    pub provenance: Provenance,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// Rounds of each run.
    pub rounds: u32,
    /// Runs of each cell.
    pub repetitions: u32,
    /// Whether calls, handlers and IPIs were traced meanwhile.
    pub traced: bool,
    /// Who counted, and whether it can be believed.
    #[serde(default)]
    pub sources: Vec<Source>,
    /// In the order in which they were measured.
    pub cells: Vec<Measured>,
    /// The rows of the classic benchmark (`--classic`), which are measured instead of cells.
    #[serde(default)]
    pub classic: Vec<ClassicRow>,
}

/// What one cell came to.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Measured {
    /// What was measured.
    pub cell: Cell,
    /// The figures, or why there are none.
    pub result: Result<Cost, String>,
}

/// What a round costs.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Cost {
    /// CPUs that each round went to.
    pub targets: u32,
    /// Until the sender had sent; not for calls.
    pub sent: Option<Spread>,
    /// Until every target had received, and the sender had seen it.
    pub all: Option<Spread>,
    /// The medians of [`Cost::all`] of the runs one by one, ascending, in cycles.
    pub medians: Vec<u64>,
    /// The same of [`Cost::sent`]; empty for calls, and where an earlier `vmm` has measured.
    #[serde(default)]
    pub sent_medians: Vec<u64>,
    /// Send operations of a round, by transport.
    pub operations: BTreeMap<String, f64>,
    /// The options of the guest, as it says.
    #[serde(default)]
    pub words: Option<BTreeMap<String, String>>,
    /// What is counted at the sender, per round, by who counts it and its name; by who can be
    /// believed.
    pub sender: BTreeMap<String, f64>,
    /// What is counted at all others together, per target and round.
    pub receivers: BTreeMap<String, f64>,
    /// How the host handles what is sent; `null` if nothing is.
    #[serde(default)]
    pub verdict: Option<IpiHandling>,
}

impl Costs {
    /// Costs without any cell yet, of a bench of `guest` with this configuration and effort.
    pub fn new(config: &Config, guest: Input, effort: Effort) -> Self {
        let sources = config.sources.as_ref().map(Trials::result);
        let kvm = sources.map_or(Kvm::Unknown, |it| it.kvm);
        Self {
            schema: SCHEMA.to_owned(),
            provenance: Provenance {
                pin: config.pin.as_ref().map(ToString::to_string),
                ..Provenance::new(kvm, guest, config.vcpus, &config.append)
            },
            vcpus: config.vcpus,
            rounds: effort.rounds,
            repetitions: effort.repetitions,
            traced: config.trace.timeline,
            sources: sources.map_or_else(Vec::new, |sources| sources.list.clone()),
            cells: Vec::new(),
            classic: Vec::new(),
        }
    }

    /// Reads the result of an earlier bench.
    ///
    /// # Errors
    /// [`Useless`] says what is wrong with the file.
    pub fn read(path: &Path) -> Result<Self, Useless> {
        let text = text::read_named(path)?;
        let costs: Self = text::json(&text).map_err(|error| {
            format!(
                "{} is no result of vmm bench: {error}",
                spell_out_path(path)
            )
        })?;
        if costs.schema != SCHEMA {
            return Err(format!(
                "{} has the schema {}, not {SCHEMA}; measure it anew",
                spell_out_path(path),
                costs.schema
            )
            .into());
        }
        Ok(costs)
    }

    /// What `cell` cost, if it was measured.
    pub fn of(&self, cell: &Cell) -> Option<&Cost> {
        let measured = self.cells.iter().find(|measured| measured.cell == *cell)?;
        measured.result.as_ref().ok()
    }
}
